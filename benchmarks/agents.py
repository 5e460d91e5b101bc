"""A network to measure: a coordinator, a runtime and a gateway, each a process of its own, over unix sockets unless told otherwise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattle import Client
from wattle.errors import WattleError

LOOPBACK = "127.0.0.1"

READY = 60.0
"""Seconds until a network counts as broken that does not get ready."""

LINKS = ("sockets", "tcp", "tls")
"""How the processes of ``network`` are linked: by unix sockets; on loopback over TCP; or so with certificates and access rules."""

METERED = ("coordinator", "runtime")

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Network:
    """A network in being, and a client of its gateway. ``pids`` are the agents' and the spawner's, by part."""

    client: Client
    pids: Mapping[str, int]
    door: str  # the gateway's endpoint
    meters: Path | None = None  # the folder that metered agents write to

    def budget(self) -> dict[str, dict[str, Any]]:
        """What the meters of the coordinator and the runtime show now (benchmarks/meter.py)."""
        assert self.meters is not None, "this network was started without meters"
        return {part: _read_meter(self.meters / f"{part}.json", self.pids[part]) for part in METERED}

    def memory(self, part: str, *, most: bool = False) -> int:
        """Resident bytes of a part, or the most there ever were."""
        lines = Path(f"/proc/{self.pids[part]}/status").read_text().splitlines()
        field = "VmHWM:" if most else "VmRSS:"
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) << 10

    def cpu(self) -> dict[str, float]:
        """CPU seconds by part so far; ``tasks`` is what the spawner's ended children took."""
        spent = {part: times(pid) for part, pid in self.pids.items()}
        own = {part: seconds for part, (seconds, _) in spent.items()}
        return own | ({"tasks": spent["spawner"][1]} if "spawner" in spent else {})


@contextmanager
def network(place: Path, *, metered: bool = False, links: str = "sockets") -> Iterator[Network]:
    """Start a network in a folder of its own below ``place``, and end it with the block; raises WattleError when it does not start."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wtlb-", dir=place))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        further, bundle = _linked(folder, links)
        coordinator, endpoint = stack.enter_context(
            agent(folder, "coordinator", metered=metered, further=further["coordinator"])
        )
        first = endpoint if links != "tls" else None  # whom to connect to is in the bundles
        runtime, _ = stack.enter_context(agent(folder, "runtime", first, metered=metered, further=further["runtime"]))
        gateway, door = stack.enter_context(agent(folder, "gateway", first, further=further["gateway"]))
        client = stack.enter_context(
            Client(door, timeout=READY) if bundle is None else Client(bundle=bundle, timeout=READY)
        )
        _warm_up(client)
        pids = {"coordinator": coordinator, "runtime": runtime, "gateway": gateway, "spawner": child(runtime)}
        yield Network(client, pids, door, folder if metered else None)


def _linked(folder: Path, links: str) -> tuple[dict[str, tuple[str, ...]], Path | None]:
    """The options of each agent that link them so, and the bundle of a client where it needs one."""
    roles = ("coordinator", "runtime", "gateway")
    if links == "sockets":
        return dict.fromkeys(roles, ()), None
    if links == "tcp":
        return {role: ("--insecure", "--listen", f"tcp/{LOOPBACK}:{_free_port()}") for role in roles}, None
    from wattle.security.authority import Authority, Wanted

    Authority.create(folder / "cluster")
    with Authority.open(folder / "cluster") as authority:
        members = [Wanted(role, (role,), (LOOPBACK,), _free_port()) for role in roles]
        *bundles, client = authority.issue([*members, Wanted("client", ("client",))])
    return {role: ("--bundle", str(bundle)) for role, bundle in zip(roles, bundles, strict=True)}, client


@contextmanager
def pair(place: Path) -> Iterator[Network]:
    """A network of two runtimes, ``runtime1`` and ``runtime2``, that reach each other over TCP on loopback alone; not warm."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wtlb-", dir=place))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        pids: dict[str, int] = {}
        first = door = None
        for name in ("coordinator", "runtime1", "runtime2", "gateway"):
            further = ("--insecure", "--listen", f"tcp/{LOOPBACK}:{_free_port()}")
            pids[name], door = stack.enter_context(agent(folder, name.rstrip("12"), first, name=name, further=further))
            first = first or door
        assert door is not None
        client = stack.enter_context(Client(door, timeout=READY))
        until = time.monotonic() + READY
        while sum(node.status == "ready" for node in client.nodes()) < 2:
            if time.monotonic() > until:
                raise WattleError("the runtimes are not seen")
        yield Network(client, pids, door)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def agent(
    folder: Path,
    role: str,
    connect: str | None = None,
    *,
    name: str = "",
    metered: bool = False,
    further: Sequence[str] = (),
) -> Iterator[tuple[int, str]]:
    """One agent, named after its role or as said, with ``further`` options: its process number and its endpoint, a socket in its folder or
    as said."""
    name = name or role
    options = ["--data", str(folder / name), "--name", name, "--log-file", str(folder / f"{name}.log")]
    peer = ["--connect", connect] if connect else []
    program = ["benchmarks.meter", str(folder / f"{name}.json")] if metered else ["wattle"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WATTLE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", *program, role, *options, *peer, *further],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()  # "ready ENDPOINT"; the end of the file when it does not start
        if words[:1] != ["ready"]:
            raise WattleError(f"{name} did not start: {(folder / f'{name}.log').read_text()[-2000:]}")
        yield process.pid, words[1]
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _warm_up(client: Client) -> None:
    """Run some tasks: what is measured is a network that has worked before and knows how long tasks take."""
    document = {"name": "warm", "workers": [{"name": f"w{n}", "command": "true"} for n in range(100)]}
    view = client.wait(client.submit(document).id, READY)
    if view.status != "succeeded":
        raise WattleError(f"the network does not work: run {view.id} is {view.status}: {view.error_message}")


def _read_meter(file: Path, pid: int) -> dict[str, Any]:
    """Have an agent write what its meters show, and read that."""
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + READY
    while not file.exists():
        if time.monotonic() > until:
            raise WattleError(f"process {pid} does not write {file}")
        time.sleep(0.01)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def child(pid: int) -> int:
    """The one child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def memory(pid: int) -> float:
    """The most that a process has had in memory at a time, in MB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))


def times(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / _TICKS, ended / _TICKS
