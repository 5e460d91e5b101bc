"""Shell completion of what is on the network. Completion must never complain: what cannot be asked completes to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

import typer

from wattle.errors import WattleError

if TYPE_CHECKING:
    from wattle.client.blocking import Client

_MOST = 50


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest runs."""
    return _names(ctx, incomplete, lambda client: (run.id for run in client.runs()))


def complete_worker(ctx: typer.Context, incomplete: str) -> list[str]:
    """Workers of the run that stands before."""
    run = str(ctx.params.get("run") or "")
    return _names(ctx, incomplete, lambda client: (worker.name for worker in client.workers(run)))


def complete_workflow(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of stored workflows."""
    return _names(ctx, incomplete, lambda client: (workflow.name for workflow in client.workflows()))


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes."""
    return _names(ctx, incomplete, lambda client: (node.name for node in client.nodes()))


def _names(ctx: typer.Context, incomplete: str, ask: Callable[[Client], Iterable[str]]) -> list[str]:
    from wattle.client.blocking import Client

    given = {key: ctx.params.get(key) for key in ("connect", "data", "namespace", "bundle")}
    try:
        with Client(**given, timeout=1.0, patience=0.0) as client:
            return [name for name in islice(ask(client), 1000) if name.startswith(incomplete)][:_MOST]
    except WattleError:
        return []
