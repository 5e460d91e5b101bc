"""The cases about size: large documents, many tasks, many nodes, many runs at once."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import trio

from benchmarks import core
from benchmarks.agents import READY, agent, memory, times
from benchmarks.baselines import TRUE
from benchmarks.nodes import LEASE
from wattle import Client, TrioClient
from wattle.errors import WattleError

PATIENCE = 1_800.0
"""Seconds until a run counts as stuck."""

SLOTS = 16
CLIENTS = 50
WORKERS = 10
"""Workers of each of many runs."""

Details = dict[str, float]


def flat(count: int) -> dict[str, Any]:
    """A document of so many workers that need nothing."""
    return {"name": "fan", "workers": [{"name": f"w{n}", "command": TRUE} for n in range(count)]}


def accepted(place: Path, count: int) -> tuple[float, Details]:
    """Seconds from the submission of a large document to its acknowledgement, with another coordinator that keeps copies."""
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place) as name:
        folder = Path(name)
        with (
            agent(folder, "coordinator", name="c1") as (first, endpoint),
            agent(folder, "coordinator", endpoint, name="c2") as (second, _),
            agent(folder, "gateway", endpoint) as (_, door),
            Client(door, timeout=READY) as client,
        ):
            pids = {"c1": first, "c2": second}
            client.submit(flat(1))
            before = {peer: times(pid)[0] for peer, pid in pids.items()}
            started = time.perf_counter()
            view = client.submit(flat(count))
            seconds = time.perf_counter() - started
            spent = {peer: times(pid)[0] - before[peer] for peer, pid in pids.items()}
            if view.status != "created":
                raise WattleError(f"run {view.id} is {view.status}")
            (copy,) = pids.keys() - {view.owner}
            details = {
                "cpu of its owner, s": spent[view.owner],
                "cpu of who keeps the copy, s": spent[copy],
                "resident memory of its owner, most, MB": memory(pids[view.owner]),
                "of who keeps the copy, most, MB": memory(pids[copy]),
            }
            return seconds, details


def grown(count: int) -> dict[str, float]:
    """Microseconds of the core's CPU per task in a large run, and in one of a fiftieth of its size."""
    few = max(1, count // 50)
    large = core.measure(count, nodes=1000, slots=SLOTS, batch=200).seconds / count
    small = [core.measure(few, nodes=1000, slots=SLOTS, batch=200).seconds / few for _ in range(5)]
    return {"wattle": large * 1e6, "a fiftieth": sorted(small)[2] * 1e6}


def coordinated(place: Path, count: int, nodes: int) -> tuple[float, Details]:
    """CPU seconds of a coordinator for a run of so many tasks on nodes that execute nothing, from its submission to its end.

    Without copies: the nodes are one process, which would be measured with them.
    """
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place) as name:
        folder = Path(name)
        settings = folder / "alone.toml"
        settings.write_text(f"[coordinator]\nreplicas = 0\nlease = {LEASE}\n")
        with (
            agent(folder, "coordinator", further=("--config", str(settings))) as (pid, endpoint),
            agent(folder, "gateway", endpoint) as (_, door),  # first, for it asks everyone whether they see its name
            _simulated(endpoint, nodes),
            Client(door, timeout=READY) as client,
        ):
            _until_seen(client, nodes)
            _succeeded(client, client.submit(flat(nodes)).id)  # it knows then how long tasks take
            cpu, started = times(pid)[0], time.perf_counter()
            _succeeded(client, client.submit(flat(count)).id)
            seconds, spent = time.perf_counter() - started, times(pid)[0] - cpu
            return spent, {"tasks a second": count / seconds, "resident memory, most, MB": memory(pid)}


def many_runs(connect: str, runs: int) -> float:
    """Seconds from the first submission of many runs of ten workers until all clients know the ends of theirs.

    The clients are connected before. Each hands in its share at once, and asks for a run and its end in one request.
    """
    return trio.run(_many_runs, connect, runs, _together)


def answered(connect: str, runs: int) -> tuple[float, Details]:
    """The same with two requests for a run, which tells besides how soon each is answered."""
    acknowledged, late = list[float](), list[float]()
    seconds = trio.run(_many_runs, connect, runs, partial(_apart, acknowledged, late))
    return seconds, {
        "submission to acknowledgement, most, s": max(acknowledged),
        "end to final answer, most, s": max(late),
    }


async def _many_runs(connect: str, runs: int, one: Callable[[TrioClient], Awaitable[None]]) -> float:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(TrioClient(connect, timeout=READY)) for _ in range(CLIENTS)]
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(runs):
                nursery.start_soon(one, clients[number % CLIENTS])
        return time.perf_counter() - started


async def _together(client: TrioClient) -> None:
    _good(await client.submit_and_wait(flat(WORKERS), timeout=PATIENCE))


async def _apart(acknowledged: list[float], late: list[float], client: TrioClient) -> None:
    """Add the seconds until a submission is acknowledged, and those from its run's end, or the question for it, until that is told."""
    started = time.perf_counter()
    run = (await client.submit(flat(WORKERS))).id
    acknowledged.append(time.perf_counter() - started)
    asked = time.time()
    view = _good(await client.wait(run, PATIENCE))
    late.append(time.time() - max(asked, datetime.fromisoformat(view.completed_at).timestamp()))


def _succeeded(client: Client, run: str) -> None:
    _good(client.wait(run, PATIENCE))


def _good(view: Any) -> Any:
    """A run that has succeeded; raises WattleError for another."""
    if view.status != "succeeded":
        raise WattleError(f"run {view.id} is {view.status}: {view.error_message}")
    return view


def _until_seen(client: Client, nodes: int) -> None:
    until = time.monotonic() + READY
    while len(client.nodes()) < nodes:
        if time.monotonic() > until:
            raise WattleError(f"fewer than {nodes} nodes are in sight after {READY:g} s")
        time.sleep(0.1)


@contextmanager
def _simulated(endpoint: str, nodes: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.nodes", endpoint, str(nodes), str(SLOTS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise WattleError("the simulated nodes did not start")
        yield
    finally:
        process.stdin.close()
        process.wait(30)
