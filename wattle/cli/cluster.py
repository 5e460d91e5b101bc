"""Commands about a secured cluster: cluster init, issue, renew, revoke, list, push, tokens, and join."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wattle.cli import options
from wattle.cli.hosting import Flags, run_roles
from wattle.errors import InvalidRequest, SettingsError, StoreError

if TYPE_CHECKING:
    from wattle.security.authority import Issued, Wanted

NODE = ["coordinator", "gateway", "runtime"]

Folder = Annotated[
    Path,
    typer.Option(
        "--cluster",
        metavar="DIR",
        envvar="WATTLE_CLUSTER",
        help="The cluster's folder. Default: WATTLE_CLUSTER, else cluster.",
    ),
]
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME[=HOST]...",
        help="Members' names; with a host's name or address, others can connect to it there (n1=10.0.0.1, n1=10.0.0.1,n1.lan:7448).",
    ),
]
Known = Annotated[list[str], typer.Argument(metavar="NAME...", help="Members' names.")]
Role = Annotated[
    list[str] | None,
    typer.Option(
        "--role", help="coordinator, runtime, gateway, router or client; may be repeated for one process of several."
    ),
]
Host = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="A name or address at which others connect to it; may be repeated."),
]
Port = Annotated[int, typer.Option("--port", metavar="PORT", help="The port it listens on.", min=1, max=65535)]
Namespaces = Annotated[
    list[str] | None, typer.Option("--namespace", metavar="NAME", help="Its namespace. A router may serve several.")
]
Valid = Annotated[
    str | None,
    typer.Option("--valid", metavar="TIME", help="How long certificates last: 365d (the default), 12h, 90m, 30s."),
]


class Change(StrEnum):
    """What may be done about a cluster's tokens."""

    ON = "on"
    OFF = "off"
    NEW_KEY = "new-key"
    FORGET = "forget-old-keys"


def register(app: typer.Typer, join: Any) -> None:
    """Add these commands; ``join`` is made of ``join`` and the options of agents."""
    cluster = typer.Typer(help="Make a secured cluster and its members' bundles.", no_args_is_help=True)
    for command in (init, issue, renew, revoke, members, push, tokens):
        cluster.command("list" if command is members else command.__name__)(command)
    app.add_typer(cluster, name="cluster")
    app.command("join")(join)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to make. Who can read it can join as anything.")
    ],
    nodes: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="NAME=HOST", help="Issue a bundle of a whole node at once; may be repeated."),
    ] = None,
    port: Port = 7447,
    namespace: Namespaces = None,
    valid: Valid = None,
    ask: Annotated[
        bool,
        typer.Option("--tokens", help="Gateways ask whoever comes for a token: wattle token issue."),
    ] = False,
) -> None:
    """Make a cluster. That is a certificate authority in a folder of its own, and with --node its first members."""
    from wattle.security.authority import Authority

    wanted = [_wanted(node, NODE, (), port, namespace, valid) for node in nodes or ()]
    Authority.create(folder, tokens=ask)
    print(f"made {folder}: keep it on one machine, and a copy of it somewhere safe")
    with Authority.open(folder) as authority:
        for path in authority.issue(wanted) if wanted else ():
            print(path)


def issue(
    names: Names,
    role: Role = None,
    host: Host = None,
    port: Port = 7447,
    namespace: Namespaces = None,
    valid: Valid = None,
    folder: Folder = Path("cluster"),
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to put the one bundle.")] = None,
) -> None:
    """Make new members: a bundle for each, to be copied to its machine. Without --role each is a whole node."""
    from wattle.security.authority import Authority

    if len(names) > 1 and (host or out):
        raise InvalidRequest("--host and --out are for one name; write NAME=HOST to make several")
    wanted = [_wanted(name, role or NODE, host or (), port, namespace, valid) for name in names]
    with Authority.open(folder) as authority:
        paths = authority.issue(wanted)
        _print_paths(paths, out)


def renew(
    names: Known,
    folder: Folder = Path("cluster"),
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to put the one bundle.")] = None,
) -> None:
    """Make members' keys and certificates anew. A running member takes up the new bundle when it is put in the old one's place."""
    from wattle.security.authority import Authority

    if len(names) > 1 and out:
        raise InvalidRequest("--out is for one name")
    with Authority.open(folder) as authority:
        _print_paths(authority.renew(names), out)


def revoke(names: Known, folder: Folder = Path("cluster")) -> None:
    """Strike members off the roster. wattle cluster push tells those that run."""
    from wattle.security.authority import Authority

    with Authority.open(folder) as authority:
        authority.revoke(names)
    print(f"revoked {', '.join(names)}; tell the members that run: wattle cluster push --cluster {folder}")


def members(
    folder: Folder = Path("cluster"), json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List who was issued what."""
    from wattle.cli.output import output_for
    from wattle.security.authority import Authority

    with Authority.open(folder) as authority:
        output_for(json).listing(authority.members, _columns(), "no members")


def push(
    connect: Annotated[
        list[str] | None,
        typer.Option(
            "--connect",
            metavar="ENDPOINT",
            help="A member to tell; may be repeated. Default: all that can be connected to.",
        ),
    ] = None,
    folder: Folder = Path("cluster"),
) -> None:
    """Tell the members that run of the newest roster. To be done after revoke, or when new members are to be let in before they come."""
    from wattle.cli.pushing import push_rosters
    from wattle.security.authority import Authority

    with Authority.open(folder) as authority:
        told = push_rosters(authority, connect)
    for endpoint, problem in told.items():
        print(f"{endpoint}: {problem or 'told'}")
    if not told:
        raise SettingsError("no member can be connected to: name an endpoint with --connect")
    if any(told.values()):
        raise typer.Exit(3)


def tokens(
    change: Annotated[
        Change,
        typer.Argument(
            metavar="on|off|new-key|forget-old-keys",
            help="Have gateways ask for tokens or not; sign with a new key; refuse what older keys signed.",
        ),
    ],
    folder: Folder = Path("cluster"),
) -> None:
    """Say whether gateways ask for tokens, and change their key. wattle cluster push tells those that run."""
    from wattle.security.authority import Authority

    with Authority.open(folder) as authority:
        match change:
            case Change.ON | Change.OFF:
                authority.ask_for_tokens(change is Change.ON)
            case Change.NEW_KEY:
                authority.new_token_key()
            case Change.FORGET:
                authority.forget_old_token_keys()
        asked = "ask for tokens" if authority.tokens else "ask for no tokens"
    print(f"gateways {asked}; tell those that run: wattle cluster push --cluster {folder}")


def join(flags: Flags) -> int:
    """Install a bundle in the data folder and run what it is for. Without FILE it is the one that is installed there."""
    from wattle.security.bundle import read_bundle
    from wattle.security.membership import INSTALLED
    from wattle.security.private import replace_private
    from wattle.settings import ClientSettings, load_settings

    file: Path | None = flags.pop("file")
    data = load_settings(ClientSettings, config=flags["config"], flags={"data": flags["data"]}).data
    installed = data / INSTALLED
    bundle = read_bundle(file or installed)
    if bundle.is_client:
        raise SettingsError(f"{file} is for a client, which runs nothing: name it with --bundle, or WATTLE_BUNDLE")
    if file is not None:
        from wattle.network import make_folder

        make_folder(data)
        replace_private(installed, file.read_text())
    try:
        run_roles(bundle.roles, flags | {"bundle": installed}, lambda endpoints: print("ready", *endpoints, flush=True))
    except StoreError as error:
        if error.code != "STORE_IN_USE" or file is None:
            raise
        print(f"installed in {data}, where an agent runs: it takes up the new bundle in a moment")
    return 0


# --- what is asked for, and what is shown ------------------------------------------------------------------------------------


def _wanted(
    text: str,
    roles: list[str],
    hosts: Any,
    port: int,
    namespaces: list[str] | None,
    valid: str | None,
) -> Wanted:
    from wattle.security.authority import Wanted

    name, _, given = text.partition("=")
    places = [*hosts, *(place for place in given.split(",") if place)]
    ports = {int(match[2]) for place in places if (match := _PORT.fullmatch(place))}
    if len(ports) > 1:
        raise InvalidRequest(f"{text!r} names several ports; a member listens on one")
    bare = tuple(match[1] if (match := _PORT.fullmatch(place)) else place for place in places)
    extra = {} if valid is None else {"seconds": options.seconds("--valid", valid)}
    return Wanted(name, tuple(roles), bare, ports.pop() if ports else port, tuple(namespaces or ("default",)), **extra)


_PORT = re.compile(r"([^:]+|\[.*\]):(\d{1,5})")


def _print_paths(paths: list[Path], out: Path | None) -> None:
    from wattle.security.private import replace_private

    if out is not None:
        replace_private(out, paths[0].read_text())
    for path in paths if out is None else [out]:
        print(path)


def _columns() -> list[Any]:
    from wattle.cli.output import Column
    from wattle.protocol.records import timestamp

    def state(member: Issued) -> str:
        return "revoked" if member.revoked else f"until {(timestamp(member.expires_at) or '')[:16]}"

    return [
        Column("name", lambda member: member.name),
        Column("roles", lambda member: "+".join(member.roles)),
        Column("namespace", lambda member: ",".join(member.namespaces)),
        Column("endpoints", lambda member: " ".join(member.endpoints)),
        Column("certificate", state),
    ]
