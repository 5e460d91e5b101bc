"""What ``wattle doctor`` looks at, one function per matter; each tells what it found and, where it is wrong, what to change."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from wattle.bus.base import Reply
from wattle.cli.output import print_json_line, styled
from wattle.client.blocking import Client
from wattle.errors import WattleError
from wattle.protocol.keys import Keys
from wattle.protocol.records import seconds
from wattle.settings import ClientSettings
from wattle.settings.values import SOCKET_NAME, socket_problem

_CLOCK_TOLERANCE = 2.0  # seconds; more confuses whoever reads times of several nodes


@dataclass(frozen=True, slots=True)
class Finding:
    """One matter: whether it is well, what was seen, and what to change where it is not."""

    what: str
    ok: bool
    seen: str
    fix: str | None = None


def examine(settings: ClientSettings) -> list[Finding]:
    """Everything, in order; nothing here raises."""
    return [
        Finding("versions", True, f"Python {platform.python_version()}, eclipse-zenoh {version('eclipse-zenoh')}"),
        *_folder(settings.data),
        *([] if settings.connect else _socket(settings.data)),
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
            states = client.get(Keys(settings.namespace).state())
            yield from _insecure(states)
            yield from _confinement(states)
            yield from _clocks(states)
            yield from _peers(client, settings)
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


def _confinement(replies: list[Reply]) -> Iterator[Finding]:
    """What each node can hold its tasks to; nothing of it has to be."""
    for reply in replies:
        if reply.ok and "/state/runtime/" in reply.key:
            state = json.loads(reply.payload)
            able = ", ".join(state.get("confines", ())) or "nothing that it has looked for"
            yield Finding("limits and sandboxes", True, f"{state['name']} has {able}")


def _clocks(replies: list[Reply]) -> Iterator[Finding]:
    """Peers tell their time with their state; it is compared with ours."""
    now = time.time()
    told = 0
    for reply in replies:
        try:
            state = json.loads(reply.payload) if reply.ok else {}
            offset = (seconds(state["time"]) or now) - now
        except (ValueError, KeyError, TypeError):
            continue
        told += 1
        if abs(offset) > _CLOCK_TOLERANCE:
            seen = f"the clock of {state.get('name', reply.key)} differs by {offset:+.1f} s"
            yield Finding("clocks", False, seen, "have both set by NTP")
    if told:
        yield Finding("clocks", True, f"{told} compared")


def _insecure(replies: list[Reply]) -> Iterator[Finding]:
    """Peers tell with their state that whoever reaches them can command them."""
    states = [json.loads(reply.payload) for reply in replies if reply.ok]
    for state in states:
        if state.get("insecure"):
            seen = f"{state['role']} {state['name']} takes orders from whoever reaches it (--insecure)"
            yield Finding(
                "security", False, seen, "make a cluster with certificates: wattle cluster init, docs/security.md"
            )


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
