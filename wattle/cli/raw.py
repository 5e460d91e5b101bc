"""Commands close to the network: get, put, doctor."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wattle.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wattle.bus.base import Reply

Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="An api path such as runs/x?wait=5, or a full key such as wattle/default/state/*/*."
    ),
]
KeyToPut = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="An api path such as workflows/NAME or runs/ID, or a full key (wattle/default/api/v1/...)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (get, put, doctor):
        app.command()(command)


def get(
    key: Key,
    payload: Annotated[
        str | None, typer.Option("--payload", help="Send this with it (@FILE: that file's content).")
    ] = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
) -> None:
    """Ask for a key and print the answer. Several answers are printed one a line, after their keys."""
    from wattle.client.answers import first_answer

    with o.open_client(connect, data, namespace, bundle) as client:
        replies = client.get(key, None if payload is None else payload_of(payload))
    answers = [reply for reply in replies if reply.ok]
    if len(answers) > 1:
        _print_all(answers)
    else:
        _print_bytes(first_answer(replies, key).payload)


def _print_all(replies: Sequence[Reply]) -> None:
    for reply in replies:
        print(f"{reply.key}\t{reply.payload.decode(errors='backslashreplace')}")


def _print_bytes(data: bytes) -> None:
    """JSON is indented for people; anything else goes out as it came."""
    if sys.stdout.isatty():
        try:
            print(jsonlib.dumps(jsonlib.loads(data), indent=2))
            return
        except ValueError:
            pass
    sys.stdout.buffer.write(data + (b"\n" if data.startswith((b"{", b"[")) else b""))
    sys.stdout.flush()


def put(
    key: KeyToPut,
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD", help="What to put; @FILE: that file's content, -: standard input.")
    ],
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
) -> None:
    """Put a payload on a key. A put has no answer: what was refused is told for a second, and then nothing more is heard."""
    with o.open_client(connect, data, namespace, bundle) as client:
        client.put(key, payload_of(payload))


def payload_of(text: str) -> bytes:
    """A payload as given on the command line; raises InvalidRequest for a file that cannot be read."""
    from wattle.errors import InvalidRequest

    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"payload {text}: {error.strerror or error}") from None


def doctor(
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Look for what may be wrong, here and on the network. It says what to change; the exit status is 1 where something is wrong."""
    from wattle.cli.doctor import examine, report
    from wattle.security.clients import client_settings

    settings = client_settings({"connect": connect, "data": data, "namespace": namespace, "bundle": bundle})
    findings = examine(settings)
    report(findings, json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
