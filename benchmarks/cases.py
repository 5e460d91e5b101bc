"""The cases with small tasks: what Wattle and its contenders do in one round. All cases stand in ``CASES``."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import agents, baselines, core, peers, scale
from benchmarks.agents import Network
from benchmarks.content import files, idle, logs
from benchmarks.frame import (
    PATIENCE,
    Bench,
    Case,
    Document,
    Graph,
    Round,
    chain_of,
    document_of,
    fan_of,
    layers_of,
    side_by_side,
)
from wattle.client.blocking import Client
from wattle.errors import WattleError

Contenders = dict[str, Callable[[], float]]


def fan(bench: Bench) -> Round:
    """N x true at once, from submission to the final result at the client."""
    width = os.cpu_count() or 1
    count = bench.sizes.fan
    loops: Contenders = {
        "xargs": lambda: baselines.xargs(count),
        "spawn": lambda: baselines.spawn_loop(count, width),
        "spawn with files": lambda: baselines.spawn_loop(count, width, bench.place),
    }
    return _graph(bench, "fan", fan_of(count), loops)


def layered(bench: Bench) -> Round:
    """20 layers of true, each task needing three of the layer before (xargs runs as many without order)."""
    graph = layers_of(bench.sizes.layered)
    return _graph(bench, "layered", graph, {"xargs": lambda: baselines.xargs(len(graph))})


def chain(bench: Bench) -> Round:
    """N x true, each after the one before, from submission to the final result at the client."""
    count = bench.sizes.chain
    loops: Contenders = {
        "spawn": lambda: baselines.spawn_loop(count, 1),
        "spawn with files": lambda: baselines.spawn_loop(count, 1, bench.place),
    }
    return _graph(bench, "chain", chain_of(count), loops)


def _graph(bench: Bench, name: str, graph: Graph, loops: Contenders) -> Round:
    """One graph, for all who can run it and for loops that start as many processes."""
    document, details = document_of(name, graph, baselines.TRUE), dict[str, float]()

    def wattle() -> float:
        seconds, cpu = _measured(bench.network(), document)
        details.update(cpu)
        return seconds

    contenders: Contenders = {"wattle": wattle, **loops, "make": lambda: baselines.make(graph, bench.place)}
    contenders |= {peer: partial(_peer, peer, graph, bench) for peer in peers.PACKAGES}
    return side_by_side(bench, "ms a task", 1e3 / len(graph), contenders, details)


def _peer(peer: str, graph: Graph, bench: Bench) -> float:
    return peers.seconds(peer, graph, bench.place)[0]


def latency(bench: Bench) -> Round:
    """One true on an idle network, again and again: from submission to the final result at the client, the median of N."""
    count, details = bench.sizes.latency, dict[str, float]()
    document = {"name": "one", "workers": [{"name": "w", "command": baselines.TRUE}]}

    def times(run: Callable[[Client], Any]) -> list[float]:
        client, taken = bench.network().client, []
        for _ in range(count):
            started = time.perf_counter()
            _succeeded(run(client))
            taken.append(time.perf_counter() - started)
        return taken

    def wattle() -> float:
        taken = times(lambda client: client.submit_and_wait(document, timeout=PATIENCE))
        apart = times(lambda client: client.wait(client.submit(document).id, PATIENCE))
        details["99th, ms"] = _percentile(taken, 0.99) * 1e3
        details["as two requests, ms"] = statistics.median(apart) * 1e3
        return statistics.median(taken)

    def peer(name: str) -> float:
        return statistics.median(peers.seconds(name, fan_of(1), bench.place, times=count))

    contenders: Contenders = {"wattle": wattle, "spawn": lambda: baselines.spawn_loop(count, 1) / count}
    contenders |= {name: partial(peer, name) for name in peers.PACKAGES}
    return side_by_side(bench, "ms", 1e3, contenders, details)


def cold(bench: Bench) -> Round:
    """One true where nothing runs yet, from the shell to the exit: ``wattle run``, a program that starts a peer and stops it."""
    contenders: Contenders = {
        "wattle": lambda: _cold_wattle(bench.place),
        "python": baselines.interpreter,
        "xargs": baselines.shell,
    }
    contenders |= {name: partial(peers.cold, name, bench.place) for name in peers.PACKAGES}
    return side_by_side(bench, "ms", 1e3, contenders, {})


def _cold_wattle(place: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place) as folder:
        file = Path(folder) / "one.json"
        file.write_text(json.dumps({"name": "one", "workers": [{"name": "w", "command": baselines.TRUE}]}))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WATTLE_")}
        environment["WATTLE_DATA"] = f"{folder}/data"
        command = ["/bin/sh", "-c", '"$0" -m wattle run --quiet "$1"', sys.executable, str(file)]
        return baselines.timed(command, environment)


def core_alone(bench: Bench) -> Round:
    """The coordinator's core without store, bus and processes: CPU per task, in batches as they form under load."""
    count = bench.sizes.core
    return Round("us a task", {"wattle": core.measure(count, nodes=1000, slots=16, batch=200).seconds / count * 1e6})


def budget(bench: Bench) -> Round:
    """Fan once more, with meters in the coordinator and the runtime: the main threads' CPU per task, by part."""
    count = bench.sizes.fan
    with agents.network(bench.place, metered=True) as network:
        before = network.budget()
        seconds, _ = _measured(network, document_of("fan", fan_of(count), baselines.TRUE))
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


def accept(bench: Bench) -> Round:
    """A document of N workers, from its submission until it is validated, stored, kept by another coordinator and acknowledged."""
    seconds, details = scale.accepted(bench.place, bench.sizes.accept)
    return Round("s", {"wattle": seconds}, details)


def growth(bench: Bench) -> Round:
    """The coordinator's core alone: CPU per task in a run of N tasks, beside one of a fiftieth of them."""
    return Round("us a task", scale.grown(bench.sizes.growth))


def coordinator(bench: Bench) -> Round:
    """A whole coordinator, with a thousand nodes that execute nothing: its CPU per task of a run of N."""
    count = bench.sizes.coordinator
    spent, details = scale.coordinated(bench.place, count, bench.sizes.nodes)
    return Round("us a task", {"wattle": spent / count * 1e6}, details)


def runs(bench: Bench) -> Round:
    """N runs of 10 workers submitted at once by 50 clients, beside one run of as many workers."""
    count = bench.sizes.runs
    network = bench.network()
    tasks = count * scale.WORKERS
    before = network.cpu()
    seconds = scale.many_runs(network.door, count)
    details = {f"cpu of {part}, us": (after - before[part]) / tasks * 1e6 for part, after in network.cpu().items()}
    apart, answers = scale.answered(network.door, count)
    details |= {"as two requests, us a task": apart / tasks * 1e6} | answers
    alone, _ = _measured(network, scale.flat(tasks))
    return Round(
        "us a task", {name: taken / tasks * 1e6 for name, taken in (("wattle", seconds), ("fan", alone))}, details
    )


CASES: dict[str, Case] = {
    "fan": fan,
    "layered": layered,
    "chain": chain,
    "latency": latency,
    "cold": cold,
    "files": files,
    "logs": logs,
    "idle": idle,
    "core": core_alone,
    "budget": budget,
    "accept": accept,
    "growth": growth,
    "coordinator": coordinator,
    "runs": runs,
}


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


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that no more than ``1 - share`` of them exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
