"""Ready workers on their way to a node: they wait for their time, then for room, by priority and age, and are given to the best node."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core.model import TaskId, TaskRecord, TaskStatus, WorkerStatus
from wattle.core.numbering import next_attempt
from wattle.core.placement import ANYTHING, Node, ReadyQueue
from wattle.core.run import Run, Worker

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

PLACED_MOST = 10_000
"""Workers given to nodes in one batch, at most: about 0.7 s, after which what was acknowledged is sent, and news of nodes is heard. A
thousand nodes take a hundred thousand short tasks at once, and answered nobody for 7 s."""

PLACED_FIRST = 32
"""Workers that are given out in a batch that takes a new run, at most, times the nodes in sight: they start while the others are given
out."""

FEW_HEADS = 4
"""Kinds of waiting workers for which room is looked for one by one, without asking first whether there is any."""


class Placing:
    """The ready workers of a coordinator core; core/placement.py ranks the nodes."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core
        self._ready = ReadyQueue()
        self._delayed: list[tuple[float, str, str]] = []  # heap of (not_before, run, worker)
        self._unplaced = False  # whether the last batch had more to place

    def moments(self) -> Iterator[float]:
        """When ``release_delayed`` or ``place`` has something to do."""
        if self._unplaced:
            yield self.core.now
        if self._delayed:
            yield self._delayed[0][0]

    def enqueue(self, run: Run, worker: Worker) -> None:
        """Let a ready worker wait for its time, or for a node; not while nodes may yet tell of an attempt that it has."""
        if run.awaiting:
            return
        if worker.not_before is not None and worker.not_before > self.core.now:
            heapq.heappush(self._delayed, (worker.not_before, run.id, worker.spec.name))
        elif not worker.open:
            self._ready.push(worker.requirement, run.entry(worker))

    def release_delayed(self) -> None:
        """Let those workers wait for a node whose time has come."""
        while self._delayed and self._delayed[0][0] <= self.core.now:
            _, run_id, name = heapq.heappop(self._delayed)
            run = self.core.runs.get(run_id)
            if run is not None and run.workers[name].status is WorkerStatus.READY:
                self.enqueue(run, run.workers[name])

    def waiting(self) -> set[tuple[str, str]]:
        """The (run, worker) pairs in a queue: for a node, or for their time. Some may be out of date."""
        ready = {(entry[3], entry[4]) for entry in self._ready.entries()}
        return ready | {(run, worker) for _, run, worker in self._delayed}

    def place(self) -> None:
        """Give ready workers to nodes with room, by priority and age, until there is no room or nothing ready, or it is enough at once."""
        self._unplaced = False
        if not self.core.succession.quorum:
            return
        pool, window = self.core.members.pool, self.core.options.prefetch_window
        left = PLACED_MOST
        if self.core.takes_new_run:
            left = min(PLACED_FIRST * max(len(self.core.members.names_in_sight()), 1), left)
        heads = self._ready.heads()
        if len(heads) > FEW_HEADS and pool.best(ANYTHING, {}, window) is None:
            heads.clear()  # no node has room for anything: no need to ask for each kind
        while heads:
            if not left:
                self._unplaced = True
                break
            entry, requirement = heapq.heappop(heads)
            found = self._waiting_worker(entry[3], entry[4])
            if found is not None:
                run, worker = found
                node = pool.best(requirement, run.near(worker), window)
                if node is None:
                    continue  # no room for its kind: the others of this requirement wait too
                self.assign(run, worker, node)
                left -= 1
            following = self._ready.drop(requirement)
            if following is not None:
                heapq.heappush(heads, (following, requirement))
        self.core.ahead.place()

    def _waiting_worker(self, run_id: str, name: str) -> tuple[Run, Worker] | None:
        run = self.core.runs.get(run_id)
        if run is None or run.awaiting:
            return None
        worker = run.workers[name]
        if worker.status is not WorkerStatus.READY or worker.open:
            return None
        if (
            worker.not_before is not None and worker.not_before > self.core.now
        ):  # also when the clock was set back since it was due
            heapq.heappush(self._delayed, (worker.not_before, run_id, name))
            return None
        return run, worker

    def assign(self, run: Run, worker: Worker, node: Node, *, ahead: bool = False) -> None:
        """Give a worker to a node, perhaps ahead of its time (core/ahead.py)."""
        attempt = worker.attempts = self._next_attempt(run, worker)
        if worker.known is not None:
            worker.known.add(attempt)
        name = node.info.name
        task = TaskId(run.id, worker.spec.name, attempt)
        record = TaskRecord(run.id, worker.spec.name, attempt, name, TaskStatus.ASSIGNED, self.core.now)
        worker.open[attempt] = record
        worker.node = name
        node.take(task, worker.spec.resources, ahead=ahead)
        self.core.save_task(record)
        self.core.save_worker(run, worker)
        self.core.acts.append(do.Assign(name, run.assignment(worker, attempt)))
        if worker.dependents:
            self.core.ahead.given(run, worker, node)

    def _next_attempt(self, run: Run, worker: Worker) -> int:
        """The number of a worker's next attempt, perhaps in a new epoch."""
        attempt, epoch = next_attempt(worker.attempts, run.adopted, run.epoch, self.core.store)
        if epoch > run.epoch:
            run.epoch = epoch
            self.core.touch(run)
        return attempt
