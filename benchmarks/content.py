"""The cases with bytes: a large file passed between nodes, a log that grows fast while it is followed; and one with nothing to do."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

from benchmarks import agents, baselines
from benchmarks.agents import Network
from benchmarks.frame import PATIENCE, Bench, Document, Round, side_by_side
from wattle.errors import WattleError

LOG_RATE = 100_000_000
"""Bytes a second that the task of ``logs`` prints."""

_MIB = 1 << 20

_MAKE = """
import os, sys
left, block, number = int(sys.argv[2]), os.urandom(1 << 20), 0
with open(sys.argv[1], "wb", buffering=0) as file:
    while left:
        part = (number.to_bytes(8, "little") + block[8:])[:left]
        left, number = left - file.write(part), number + 1
"""  # every block differs from the others, and every file from those before

_PRINT = """
import os, sys, time
left, rate, line = int(sys.argv[1]), int(sys.argv[2]), b"x" * 99 + b"\\n"
block, began, given = line * 10_000, time.perf_counter(), 0
while given < left:
    view = memoryview(block)[:left - given]
    given += os.write(1, view)
    time.sleep(max(0.0, began + given / rate - time.perf_counter()))
os.write(2, str(time.perf_counter() - began).encode())
"""


def files(bench: Bench) -> Round:
    """A new file of 1 GB from one runtime to another over TCP on loopback: from its consumer being ready to its start there."""
    size, details = bench.sizes.files, dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=bench.place) as folder:
        source, target, ballast = (Path(folder) / name for name in ("source", "target", "ballast"))

        def make(file: Path) -> None:
            baselines.timed([sys.executable, "-I", "-S", "-c", _MAKE, str(file), str(size)])

        # Either side writes to pages that were in use until then: a hypervisor takes back what its guest leaves free for two seconds, and
        # to touch 1 GB of that again costs seconds.

        def wattle() -> float:
            with agents.pair(bench.place) as network:
                make(ballast)
                return _pass_on(network, size, ballast, details)

        def copy() -> float:
            make(ballast)
            make(source)
            ballast.unlink()
            taken = baselines.socket_copy(source, target)
            target.unlink()
            details["sha256 of it alone, s"] = baselines.hashing(source)
            source.unlink()
            return taken

        found = side_by_side(bench, "s", 1.0, {"wattle": wattle, "socket": copy}, details)
    details["wattle, MB/s"] = size / found.numbers["wattle"] / 1e6
    details["socket, MB/s"] = size / found.numbers["socket"] / 1e6
    return found


def _pass_on(network: Network, size: int, ballast: Path, details: dict[str, float]) -> float:
    make: Document = {
        "name": "make",
        "command": sys.executable,
        "args": ["-I", "-S", "-c", _MAKE, "out", str(size)],
        "outputs": {"out": "out"},
        "place": {"node": "runtime1"},
    }
    room: Document = {
        "name": "room",
        "command": "rm",
        "args": [str(ballast)],
        "needs": ["make"],
        "place": {"node": "runtime1"},
    }
    use: Document = {
        "name": "use",
        "command": baselines.TRUE,
        "inputs": {"in": "make/out"},
        "needs": ["room"],
        "place": {"node": "runtime2"},
    }
    before = network.cpu()
    client = network.client
    view = client.wait(client.submit({"name": "files", "workers": [make, room, use]}).id, PATIENCE)
    if view.status != "succeeded":
        raise WattleError(f"run {view.id} is {view.status}: {view.error_message}")
    worker, after = client.worker(view.id, "use"), network.cpu()
    for part in ("runtime1", "runtime2"):
        details[f"cpu of {part}, s"] = after[part] - before[part]
        details[f"most memory of {part}, MiB"] = network.memory(part, most=True) / _MIB
    return _at(worker.attempts[-1].started_at) - _at(worker.ready_at)


def _at(time: str | None) -> float:
    assert time is not None
    return datetime.fromisoformat(time).timestamp()


def logs(bench: Bench) -> Round:
    """One task that prints 100 MB/s, followed by a client from its start to its end, and not followed: how long it prints."""
    size, details = bench.sizes.logs, dict[str, float]()
    client = bench.network().client
    worker = {"name": "w", "command": sys.executable, "args": ["-I", "-S", "-c", _PRINT, str(size), str(LOG_RATE)]}
    document = {"name": "logs", "workers": [worker]}

    def printing(run: str) -> float:
        view = client.wait(run, PATIENCE)
        if view.status != "succeeded":
            raise WattleError(f"run {view.id} is {view.status}: {view.error_message}")
        return float(b"".join(client.logs(run, "w", "stderr")))

    def followed() -> float:
        run, before = client.submit(document).id, bench.network().cpu()
        ended: list[float] = []

        def wait() -> None:
            client.wait(run, PATIENCE)
            ended.append(time.monotonic())

        waiter = threading.Thread(target=wait)
        waiter.start()
        got = lost = 0
        for chunk in client.log_chunks(run, "w", follow=True):
            lost += chunk.offset - got - lost
            got += len(chunk.data)
        caught_up = time.monotonic()
        waiter.join()
        if got + lost != size:
            raise WattleError(f"the follower ended after {got + lost} of {size} bytes")
        details["skipped, MB"] = lost / 1e6
        details["follower behind the end, s"] = max(0.0, caught_up - ended[0])
        after = bench.network().cpu()
        for part in ("coordinator", "runtime", "gateway"):
            details[f"cpu of {part}, s"] = after[part] - before[part]
        return printing(run)

    def alone() -> float:
        return printing(client.submit(document).id)

    return side_by_side(bench, "s", 1.0, {"wattle": followed, "not followed": alone}, details)


def idle(bench: Bench) -> Round:
    """A coordinator, a runtime (with its spawner) and a gateway with nothing to do: their CPU, in percent of one."""
    seconds = max(1.0, bench.sizes.idle / bench.rounds)
    with agents.network(bench.place) as network:
        before, began = network.cpu(), time.monotonic()
        time.sleep(seconds)
        after, took = network.cpu(), time.monotonic() - began
        shares = {part: (after[part] - before[part]) / took * 100 for part in network.pids}
        details = {f"cpu of {part}, %": share for part, share in shares.items()}
        memory = {part: network.memory(part) / _MIB for part in network.pids}
        details |= {f"memory of {part}, MiB": used for part, used in memory.items()}
        details["memory of all, MiB"] = sum(memory.values())
    return Round("% of a CPU", {"wattle": sum(shares.values())}, details)
