"""How fast the coordinator's core decides by itself: no store, no bus, no processes.

Every assignment is answered at once by facts of a simulated node, in batches as a busy shell would form them.

    python -m benchmarks.core --tasks 100000 --nodes 1000
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from wattle.collector import paused
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.model import Fact, FactKind, NodeInfo, TaskStatus, Usage, WorkerSpec, Workflow


def layered(tasks: int, width: int) -> Workflow:
    """Layers of ``width`` workers, each of which needs two of the layer before."""
    workers: dict[str, WorkerSpec] = {}
    for index in range(tasks):
        layer, place = divmod(index, width)
        above = [(layer - 1) * width + (place + step) % width for step in (0, 1)] if layer else []
        name = f"w{index}"
        needs = tuple(dict.fromkeys(f"w{i}" for i in above))
        workers[name] = WorkerSpec(name, ("true",), needs=needs, resources={"cpus": 1.0})
    return Workflow("bench", workers)


def facts_of(task: do.Assign, number: int, now: float) -> Iterator[on.CoordinatorEvent]:
    """What a node tells of one task: taken, started, finished."""
    a = task.assignment
    yield on.Delivered(task.node, (a.id,))
    started = Fact(FactKind.STARTED, *a.id, at=now, pid=1)
    yield on.FactsLearned(task.node, "s", number, (started,))
    done = Fact(
        FactKind.FINISHED,
        *a.id,
        at=now + 1,
        pid=1,
        started_at=now,
        status=TaskStatus.SUCCEEDED,
        exit_code=0,
        usage=Usage(),
    )
    yield on.FactsLearned(task.node, "s", number + 1, (done,))


class Measured(NamedTuple):
    """CPU seconds that the core took, and how many events it handled in them."""

    seconds: float
    events: int


def measure(tasks: int, nodes: int, slots: int, batch: int) -> Measured:
    """What the core takes for a run of ``tasks`` workers, given its events ``batch`` at a time."""
    core = CoordinatorCore("bench", CoordinatorOptions(), lambda: 0.5)
    infos = [NodeInfo(f"n{i}", "1", "s", slots=slots, resources={"cpus": float(slots)}) for i in range(nodes)]
    core.handle([on.NodeSeen(info) for info in infos], 999.0)
    waiting: deque[on.CoordinatorEvent] = deque()
    waiting.append(on.Submit("r", layered(tasks, max(1, min(tasks // 10, nodes * slots)))))
    now, spent, number, turned = 1000.0, 0.0, 0, 0
    while waiting:
        events = [waiting.popleft() for _ in range(min(batch, len(waiting)))]
        turned += len(events)
        now += 0.001
        with paused():  # as the shell does
            before = time.process_time()
            effects = core.handle(events, now)
            spent += time.process_time() - before
        for effect in effects:
            if isinstance(effect, do.Assign):
                number += 2
                waiting.extend(facts_of(effect, number, now))
    assert not core.runs, "the run has not ended"
    return Measured(spent, turned)


def main() -> None:
    """Measure one size after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2_000, 10_000, 100_000])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 10, 200])
    options = parser.parse_args()
    for batch in options.batch:
        for tasks in options.tasks:
            spent, events = measure(tasks, options.nodes, options.slots, batch)
            print(f"{tasks:>8} tasks in batches of {batch}: {tasks / spent:>8.0f} tasks/s,", end=" ")
            print(f"{spent / tasks * 1e6:.1f} us a task, {events / spent:.0f} events/s")


if __name__ == "__main__":
    main()
