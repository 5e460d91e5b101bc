"""Options that many commands share, as annotated types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wattle.cli.complete import complete_node, complete_run, complete_worker, complete_workflow
from wattle.errors import InvalidRequest
from wattle.names import process_name

if TYPE_CHECKING:
    from wattle.client.blocking import Client

Connect = Annotated[
    list[str] | None,
    typer.Option(
        "--connect",
        metavar="ENDPOINT",
        help="A peer to connect to, such as tcp/host:7447; may be repeated. Default: WATTLE_CONNECT, else the socket in --data.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The data folder. Default: WATTLE_DATA, else ~/.local/share/wattle."),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="The namespace. Default: WATTLE_NAMESPACE, else default."),
]
Bundle = Annotated[
    Path | None,
    typer.Option(
        "--bundle", metavar="FILE", help="A client's bundle of a secured cluster. Default: WATTLE_BUNDLE, else none."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="Give up after this time (exit status 3).")
]

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=complete_run)]
Worker = Annotated[
    str | None, typer.Argument(metavar="[WORKER]", help="A worker of it.", autocompletion=complete_worker)
]
Workflow = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.", autocompletion=complete_workflow)]
Node = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.", autocompletion=complete_node)]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A workflow document, YAML or JSON; - is standard input.")]

Param = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter's value; may be repeated.")
]
ParamsFile = Annotated[
    Path | None, typer.Option("--params-file", metavar="FILE", help="Parameters as a JSON or YAML mapping.")
]


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(option: str, text: str) -> float:
    """A time as people write it after an option, in seconds; raises InvalidRequest for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip())
    if match is None:
        raise InvalidRequest(f"{option} {text!r} is no time; write 7d, 12h, 30m, 90s or 2w")
    return float(match[1]) * _UNITS[match[2]]


def open_client(connect: list[str] | None, data: Path | None, namespace: str | None, bundle: Path | None) -> Client:
    """The client that these options describe, not yet entered."""
    from wattle.client.blocking import Client

    return Client(connect, data=data, namespace=namespace, bundle=bundle)


@contextmanager
def open_reader(
    connect: list[str] | None, data: Path | None, namespace: str | None, bundle: Path | None
) -> Iterator[Client]:
    """A client for commands that only look. Where nothing runs, what a data folder holds is served for as long as they look."""
    from wattle.cli.embedded import fork
    from wattle.client.blocking import Client
    from wattle.network import find_network_to_read
    from wattle.security.clients import client_settings

    settings = client_settings({"connect": connect, "data": data, "namespace": namespace, "bundle": bundle})
    with (
        find_network_to_read(settings, fork) as network,
        Client(
            network.ready(), namespace=settings.namespace, timeout=settings.timeout, bundle=settings.bundle
        ) as client,
    ):
        if network.embedded and not network.joined:
            _tell_of_other_names(settings.data, client)
        yield client


def _tell_of_other_names(data: Path, client: Client) -> None:
    """Say which runs of a data folder are not served: those of another name, as a bundle gives one or the folder's former place."""
    from wattle.store.owners import runs_by_owner

    owners = runs_by_owner(data / "coordinator.db")
    here = {peer.name for peer in client.health().peers} if owners else set()
    for owner, runs in owners.items():
        name = process_name(owner, "coordinator")
        how = f"with WATTLE_NAME={name}" if name != owner else f"once a coordinator with --name {owner} runs on it"
        if owner not in here:
            typer.echo(
                f"not shown: {runs} of the runs in {data}, made under the name {owner}; they are {how}", err=True
            )
