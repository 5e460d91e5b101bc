"""Commands that make tokens, on the machine that has the cluster's signing key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from wattle.errors import InvalidRequest
from wattle.security.roles import Role

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TTL = re.compile(r"([0-9]{1,9})([smhd])")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    token = typer.Typer(help="Say who may do what: tokens for gateways that ask for them.", no_args_is_help=True)
    token.command("issue")(issue)
    token.command("key")(key)
    app.add_typer(token, name="token")


def issue(
    role: Annotated[Role, typer.Option("--role", help="What the token's owner may do: see docs/security.md.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whose token it is; the audit shows it.")],
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", metavar="NAME", help="Where it counts; may be repeated, * is everywhere. Default: default."
        ),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it lasts: 90s, 15m, 8h, 30d.")] = "8h",
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The signing key.")] = None,
    cluster: Annotated[
        Path | None,
        typer.Option("--cluster", metavar="DIR", help="The cluster's folder, which has the key as token.key."),
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option("--cluster-id", metavar="ID", help="The cluster it is for. Default: the fingerprint of the key."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to a new file that only you may read.")
    ] = None,
) -> None:
    """Issue a token: printed, or written to a file."""
    from wattle.security import tokens
    from wattle.security.private import write_private

    if (key is None) == (cluster is None):
        raise InvalidRequest("say where the signing key is: either --key FILE or --cluster DIR")
    path = key if key is not None else Path(str(cluster)) / tokens.PRIVATE_NAME
    issued = tokens.issue(
        path, subject=name, role=role, namespaces=namespace or ["default"], ttl=_seconds(ttl), cluster=audience
    )
    if out is None:
        print(issued)
    else:
        write_private(out, f"{issued}\n".encode(), "token file")


def key(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to make; the public part gets its name and .pub.")
    ],
) -> None:
    """Make a signing key, for a cluster that was not made by wattle cluster init. Prints its fingerprint."""
    from wattle.security.tokens import make_key

    print(make_key(file, file.with_name(f"{file.name.removesuffix('.key')}.pub")))


def _seconds(text: str) -> float:
    found = _TTL.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"--ttl {text!r} is no time; write 90s, 15m, 8h or 30d")
    return float(found[1]) * _UNITS[found[2]]
