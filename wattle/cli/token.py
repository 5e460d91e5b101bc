"""Commands that make tokens, on the machine that has the cluster's signing key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from wattle.cli import options
from wattle.cli.cluster import Folder
from wattle.security.roles import Role


def register(app: typer.Typer) -> None:
    """Add these commands."""
    token = typer.Typer(help="Say who may do what: tokens for gateways that ask for them.", no_args_is_help=True)
    token.command("issue")(issue)
    token.command("key")(key)
    app.add_typer(token, name="token")


def issue(
    role: Annotated[Role, typer.Option("--role", help="What the token's owner may do: see docs/security.md.")],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Whose token it is; the audit shows it. Default: the role."),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", metavar="NAME", help="Where it counts; may be repeated, * is everywhere. Default: default."
        ),
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="How long it lasts: 90s, 15m, 8h, 30d.")] = "8h",
    cluster: Folder = Path("cluster"),
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="A signing key that is no cluster's (wattle token key)."),
    ] = None,
    audience: Annotated[
        str | None,
        typer.Option(
            "--cluster-id",
            metavar="ID",
            help="The cluster it is for. Default: that of --cluster, or the key's fingerprint.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to a new file that only you may read.")
    ] = None,
) -> None:
    """Issue a token: printed, or written to a file."""
    from wattle.security import tokens
    from wattle.security.private import write_private

    path, own = (key, None) if key is not None else _of_cluster(cluster)
    issued = tokens.issue(
        path,
        subject=name or str(role),
        role=role,
        namespaces=namespace or ["default"],
        ttl=options.seconds("--ttl", ttl),
        cluster=audience or own,
    )
    if out is None:
        print(issued)
    else:
        write_private(out, f"{issued}\n".encode(), "token file")


def _of_cluster(folder: Path) -> tuple[Path, str]:
    """A cluster's signing key, and its id. Says so where its gateways ask for no tokens."""
    from wattle.security.authority import Authority
    from wattle.security.tokens import PRIVATE_NAME

    with Authority.open(folder) as authority:
        if not authority.tokens:
            print(
                f"gateways of {folder} ask for no tokens; to have them ask: wattle cluster tokens on", file=sys.stderr
            )
        return folder / PRIVATE_NAME, authority.id


def key(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to make; the public part gets its name and .pub.")
    ],
) -> None:
    """Make a signing key, and print its fingerprint. It is for a cluster that was not made by wattle cluster init."""
    from wattle.security.tokens import make_key

    print(make_key(file, file.with_name(f"{file.name.removesuffix('.key')}.pub")))
