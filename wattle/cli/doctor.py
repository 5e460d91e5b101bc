"""What ``wattle doctor`` looks at, one function per matter; each tells what it found and, where it is wrong, what to change."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from wattle.cli.findings import Finding
from wattle.cli.output import print_json_line, styled
from wattle.cli.pairs import Views, findings
from wattle.client.blocking import Client
from wattle.errors import Denied, WattleError
from wattle.settings import ClientSettings
from wattle.settings.values import SOCKET_NAME, socket_problem


def examine(settings: ClientSettings) -> list[Finding]:
    """Everything, in order; nothing here raises."""
    return [
        Finding("versions", True, f"Python {platform.python_version()}, eclipse-zenoh {version('eclipse-zenoh')}"),
        *_folder(settings.data),
        *([] if settings.connect else _socket(settings.data)),
        *_multicast(),
        *_credentials(settings),
        *_network(settings),
    ]


def _folder(data: Path) -> Iterator[Finding]:
    what = "data folder"
    if not data.exists():
        yield Finding(what, True, f"{data} is not there yet; the first agent makes it")
        return
    if not data.is_dir() or not os.access(data, os.W_OK | os.X_OK):
        yield Finding(what, False, f"{data} cannot be written to", "change its owner, or choose another with --data")
        return
    status = data.stat()
    if status.st_mode & 0o077:
        seen = f"{data} is open to other users (mode {status.st_mode & 0o777:o}), who could run commands as you"
        yield Finding(what, False, seen, f"chmod 700 {data}")
    else:
        yield Finding(what, True, str(data))


def _socket(data: Path) -> Iterator[Finding]:
    what, path = "socket", data / SOCKET_NAME
    problem = socket_problem(data)
    if problem is not None:
        yield Finding(what, False, f"{data} {problem}", "choose a shorter --data, or give --listen")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            yield Finding(what, False, f"nobody listens on {path} ({error.strerror or error})", "wattle up")
        else:
            yield Finding(what, True, f"{path} is served")


def _network(settings: ClientSettings) -> Iterator[Finding]:
    try:
        with Client(
            settings.endpoints, namespace=settings.namespace, bundle=settings.bundle, timeout=3.0, patience=0.0
        ) as client:
            yield from _peers(client, settings)
            yield from _confinement(client)
            yield from _each_other(client)
    except Denied as error:
        fix = "name a token that is good here: WATTLE_TOKEN_FILE, or wattle --token-file FILE doctor"
        yield Finding("token", False, error.message, fix)
    except WattleError as error:
        fix = "start a network with wattle up, or name an endpoint with --connect"
        yield Finding("network", False, error.message, fix)


def _peers(client: Client, settings: ClientSettings) -> Iterator[Finding]:
    health = client.health()
    seen = Counter(peer.role for peer in health.peers)
    for role in ("gateway", "coordinator", "runtime"):
        ok = seen[role] > 0
        fix = (
            None if ok else f"start one with wattle {role}, in namespace {settings.namespace}, connected to the others"
        )
        yield Finding(f"{role}s", ok, f"{seen[role]} in sight", fix)
    names = Counter((peer.role, peer.name) for peer in health.peers)
    for (role, name), count in names.items():
        if count > 1:
            yield Finding("names", False, f"{count} {role}s are called {name}", "give each its own --name")


def _confinement(client: Client) -> Iterator[Finding]:
    """What each node can hold its tasks to; nothing of it has to be."""
    for node in client.nodes():
        able = ", ".join(node.confines) or "nothing that it has looked for"
        yield Finding("limits and sandboxes", True, f"{node.name} has {able}")


def _each_other(client: Client) -> Iterator[Finding]:
    """What every peer sees of every other one."""
    try:
        (answer,) = (json.loads(reply.payload) for reply in client.get("peers") if reply.ok)
        views = Views(answer)
    except (ValueError, LookupError, TypeError):
        seen = "the gateway does not tell what peers see of each other"
        yield Finding("pairs", False, seen, "bring it to this version")
        return
    yield from findings(views)


def _multicast() -> Iterator[Finding]:
    """Whether this machine can find others by multicast, which nobody needs who names endpoints."""
    problem = multicast_problem()
    seen = "works on this machine" if problem is None else f"does not work on this machine: {problem}"
    yield Finding("multicast", True, f"{seen}; only --multicast needs it")


def _credentials(settings: ClientSettings) -> Iterator[Finding]:
    """The bundle that is used here, and the one that is installed in the data folder."""
    from wattle.security.membership import INSTALLED, join, problems

    for path in dict.fromkeys((settings.bundle, settings.data / INSTALLED)):
        if path is None or not path.exists():
            continue
        try:
            membership = join(path, settings.data)
        except WattleError as error:
            yield Finding("certificate", False, error.message)
            continue
        wrong = problems(membership)
        for problem in wrong:
            yield Finding("certificate", False, problem)
        if not wrong:
            yield Finding(
                "certificate", True, f"{membership.bundle.common_name} until {membership.bundle.expires_at[:16]}"
            )


def multicast_problem() -> str | None:
    """Why a datagram to Zenoh's group does not come back to who sent it; None when it does."""
    group = socket.inet_aton("224.0.0.224") + socket.inet_aton("0.0.0.0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(1.0)
            probe.bind(("", 0))
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            probe.sendto(b"", ("224.0.0.224", probe.getsockname()[1]))
            probe.recvfrom(1)
    except OSError as error:
        return str(error)
    return None


def report(findings: list[Finding], as_json: bool) -> None:
    """Print them."""
    if as_json:
        print_json_line([asdict(finding) for finding in findings])
        return
    for finding in findings:
        mark = styled("ok  ", fg="green") if finding.ok else styled("FAIL", fg="red")
        print(f"{mark} {finding.what}: {finding.seen}")
        if finding.fix:
            print(f"     fix: {finding.fix}")
