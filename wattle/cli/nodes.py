"""Commands about nodes: nodes, drain, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from wattle.cli import options as o
from wattle.cli.output import Column, output_for

if TYPE_CHECKING:
    from wattle.protocol.records import NodeView


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (nodes, drain, resume):
        app.command()(command)


def nodes(
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """List nodes: what they are, have and do."""
    with o.open_client(connect, data, namespace, bundle) as client:
        output_for(json).listing(client.nodes(), NODE_COLUMNS, "no nodes")


def drain(
    node: o.Node,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Give a node no new tasks; what runs there goes on."""
    with o.open_client(connect, data, namespace, bundle) as client:
        _print(client.drain(node), json)


def resume(
    node: o.Node,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Give a drained node tasks again."""
    with o.open_client(connect, data, namespace, bundle) as client:
        _print(client.resume(node), json)


def _print(node: NodeView, json: bool) -> None:
    if json:
        output_for(True).record(node, [])
    else:
        print(f"node {node.name} is {node.status}: {node.running} running, {node.queued} queued")


def _memory(node: NodeView) -> str | None:
    size = node.resources.get("memory")
    return None if size is None else f"{size / (1 << 30):.1f} GiB"


NODE_COLUMNS: list[Column[NodeView]] = [
    Column("node", lambda node: node.name),
    Column("status", lambda node: node.status),
    Column("slots", lambda node: node.slots),
    Column("running", lambda node: node.running),
    Column("queued", lambda node: node.queued),
    Column("cpus", lambda node: node.resources.get("cpus")),
    Column("memory", _memory),
    Column("labels", lambda node: node.labels),
    Column("confines", lambda node: " ".join(node.confines) or None),
    Column("version", lambda node: node.version),
]
