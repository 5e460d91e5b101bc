"""Where the outputs of succeeded workers are, as a coordinator knows it, and what to do when no node has them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core.model import Fact, WorkerStatus
from wattle.core.placement import Node
from wattle.core.run import Run, Worker
from wattle.core.states import WorkerEvent

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

MISSES_MOST = 3
"""Attempts in a row that may find an input nowhere although a node in sight is known to have it: a link between two nodes may be down."""

MISS_WAIT = 5.0
"""Seconds until a worker whose inputs could not be fetched is tried again, at most."""


class Files:
    """The files of one coordinator core's runs."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core

    def holds(self, run: Run, digest: str, node: Node) -> None:
        """Note that a node has some content."""
        name = node.info.name
        holders = run.holders.setdefault(digest, set())
        if name not in holders:
            holders.add(name)
            self.core.saves.append(do.SaveHolder(run.id, digest, name))

    def missing(self, run: Run, worker: Worker, fact: Fact) -> None:
        """A node could get inputs nowhere: try again while somebody may have them, else produce them again first."""
        worker.misses += 1
        producers = sorted({worker.spec.inputs[key] for key in fact.missing if key in worker.spec.inputs})
        gone = {name: run.workers[name] for name, output in producers if not self._may_come(run, worker, name, output)}
        if not gone:
            worker.not_before = self.core.now + min(self.core.options.lost_after, MISS_WAIT)
            self.core.move(run, worker, WorkerEvent.AGAIN, fact.error)
            return
        lacking = [producer for producer in gone.values() if producer.status is WorkerStatus.SUCCEEDED]
        for producer in lacking:
            failed = run.failed_need(producer)  # it succeeded once itself, was to run again since, and failed then
            if failed is not None:
                self.core.skip(run, worker, failed)
                return
            if producer.reproduced >= self.core.options.max_reproduced:
                again = f"{producer.spec.name!r} was run again {producer.reproduced} times and its files were lost each time"
                self.core.move(run, worker, WorkerEvent.FAILED, f"{fact.error}; {again}")
                return
        for producer in lacking:
            self._reproduce(run, producer)
        worker.misses = 0
        self.core.reopen(run, worker, WorkerEvent.INPUT_LOST, fact.error)

    def _may_come(self, run: Run, worker: Worker, producer: str, output: str) -> bool:
        """Whether a node that has an output may yet deliver it: back in sight, or over a link that works again."""
        file = run.workers[producer].results.get(output)
        holders = run.holders.get(file.digest, ()) if file is not None else ()
        members = self.core.members
        if any(members.may_return(node) for node in holders):
            return True
        return worker.misses <= MISSES_MOST and any(members.in_sight(node) for node in holders)

    def _reproduce(self, run: Run, producer: Worker) -> None:
        for output in producer.results.values():
            run.holders.pop(output.digest, None)
        producer.reproduced += 1
        run.stage = min(run.stage, producer.stage)
        why = "its files were lost with the nodes that had them"
        self.core.reopen(run, producer, WorkerEvent.FILES_LOST, why)
        for name in producer.dependents:
            dependent = run.workers[name]
            if dependent.status is WorkerStatus.CREATED:
                dependent.waiting += 1
            elif dependent.status is WorkerStatus.READY and not dependent.open:
                waits = f"waits for {producer.spec.name!r} to run again"
                self.core.reopen(run, dependent, WorkerEvent.INPUT_LOST, waits)
