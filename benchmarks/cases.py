"""The cases: what Wattle and its baselines do in one round. Every round of a case gives one number per contender."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import agents, baselines, core
from benchmarks.agents import Network
from wattle.errors import WattleError

PATIENCE = 600.0
"""Seconds until a run counts as stuck."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything a round does."""

    fan: int = 2_000
    chain: int = 200
    latency: int = 100
    core: int = 20_000


@dataclass(slots=True)
class Round:
    """One round: a number per contender, Wattle first, all in ``unit``; and what else was seen, in units of its own."""

    unit: str
    numbers: dict[str, float]
    details: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Bench:
    """What a round may use: the folder that all data goes below, and a network, started by the first case that asks for it."""

    sizes: Sizes
    place: Path
    network: Callable[[], Network]


Case = Callable[[Bench], Round]


def fan(bench: Bench) -> Round:
    """N x true at once, from submission to the final result at the client."""
    count = bench.sizes.fan
    seconds, details = _measured(bench.network(), _fan(count))
    width = os.cpu_count() or 1
    others = {
        "xargs": baselines.xargs(count),
        "spawn": baselines.spawn_loop(count, width),
        "spawn with files": baselines.spawn_loop(count, width, bench.place),
    }
    return _per_task("us a task", 1e6, count, {"wattle": seconds, **others}, details)


def chain(bench: Bench) -> Round:
    """N x true, each after the one before, from submission to the final result at the client."""
    count = bench.sizes.chain
    workers: list[Document] = [
        {"name": f"w{n}", "command": baselines.TRUE, "needs": [f"w{n - 1}"]} for n in range(count)
    ]
    del workers[0]["needs"]
    seconds, details = _measured(bench.network(), {"name": "chain", "workers": workers})
    others = {"spawn": baselines.spawn_loop(count, 1), "spawn with files": baselines.spawn_loop(count, 1, bench.place)}
    return _per_task("ms a step", 1e3, count, {"wattle": seconds, **others}, details)


def latency(bench: Bench) -> Round:
    """One true on an idle network, again and again: from submission to the final result at the client, the median of N."""
    client, count = bench.network().client, bench.sizes.latency
    document = {"name": "one", "workers": [{"name": "w", "command": baselines.TRUE}]}
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        _succeeded(client.wait(client.submit(document).id, PATIENCE))
        taken.append((time.perf_counter() - started) * 1e3)
    alone = baselines.spawn_loop(count, 1) / count * 1e3
    return Round("ms", {"wattle": statistics.median(taken), "spawn": alone}, {"99th, ms": _percentile(taken, 0.99)})


def cold(bench: Bench) -> Round:
    """``wattle run`` of one true where nothing runs yet, from the shell to its exit."""
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=bench.place) as folder:
        file = Path(folder) / "one.json"
        file.write_text(json.dumps({"name": "one", "workers": [{"name": "w", "command": baselines.TRUE}]}))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WATTLE_")}
        environment["WATTLE_DATA"] = f"{folder}/data"
        command = ["/bin/sh", "-c", '"$0" -m wattle run --quiet "$1"', sys.executable, str(file)]
        seconds = baselines.timed(command, environment)
    others = {"python": baselines.interpreter(), "xargs": baselines.shell()}
    return Round("ms", {name: taken * 1e3 for name, taken in {"wattle": seconds, **others}.items()})


def core_alone(bench: Bench) -> Round:
    """The coordinator's core without store, bus and processes: CPU per task, in batches as they form under load."""
    count = bench.sizes.core
    return Round("us a task", {"wattle": core.measure(count, nodes=1000, slots=16, batch=200).seconds / count * 1e6})


def budget(bench: Bench) -> Round:
    """Fan once more, with meters in the coordinator and the runtime: the main threads' CPU per task, by part."""
    count = bench.sizes.fan
    with agents.network(bench.place, metered=True) as network:
        before = network.budget()
        seconds, _ = _measured(network, _fan(count))
        after = network.budget()
    details: dict[str, float] = {}
    for agent, now in after.items():
        rest = now["all"] - before[agent]["all"]
        for part, spent in now["parts"].items():
            took = spent - before[agent]["parts"].get(part, 0.0)
            rest -= took
            details[f"{agent}: {part}, us"] = took / count * 1e6
        details[f"{agent}: all else, us"] = rest / count * 1e6
        calls = {part: (n - before[agent]["calls"].get(part, 0)) / count for part, n in now["calls"].items()}
        details[f"{agent}: batches a task"] = calls["core"]
    return Round("us a task", {"wattle": seconds / count * 1e6}, details)


CASES: dict[str, Case] = {
    "fan": fan,
    "chain": chain,
    "latency": latency,
    "cold": cold,
    "core": core_alone,
    "budget": budget,
}


def _fan(count: int) -> Document:
    return {"name": "fan", "workers": [{"name": f"w{n}", "command": baselines.TRUE} for n in range(count)]}


def _measured(network: Network, document: Document) -> tuple[float, dict[str, float]]:
    """Seconds until a document's run has succeeded, and the CPU microseconds that each part took per task."""
    before, started = network.cpu(), time.perf_counter()
    _succeeded(network.client.wait(network.client.submit(document).id, PATIENCE))
    seconds, after = time.perf_counter() - started, network.cpu()
    count = len(document["workers"])
    return seconds, {f"cpu of {part}, us": (after[part] - before[part]) / count * 1e6 for part in after}


def _succeeded(view: Any) -> None:
    if view.status != "succeeded":
        raise WattleError(f"run {view.id} is {view.status}: {view.error_message}")


def _per_task(unit: str, factor: float, count: int, seconds: dict[str, float], details: dict[str, float]) -> Round:
    return Round(unit, {name: taken / count * factor for name, taken in seconds.items()}, details)


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that no more than ``1 - share`` of them exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
