"""Workers given to a node ahead of time: while what they wait for has not ended yet, but is at that same node.

The node starts them once that has succeeded, without a round trip in between; should it not succeed they are handed back, at no cost to
anybody. A worker is told ahead where nothing is left to decide: no file is to be passed from what it waits for, and either there is one
node only, or it is a link of a chain, which is nowhere quicker than where the link before it is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from wattle.core.model import WorkerStatus
from wattle.core.placement import Node, NodeStatus
from wattle.core.run import Run, Worker

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

AHEAD_MOST = 256
"""Workers told ahead to one node, at most."""


class Ahead:
    """The workers that may be told ahead to some node, of one coordinator core."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core
        self._given: deque[tuple[Run, Worker, Node]] = deque()  # whose dependents are to be looked at
        self._later: dict[str, deque[tuple[str, str]]] = {}  # node -> (run, worker) for which there was no room

    def given(self, run: Run, worker: Worker, node: Node) -> None:
        """A worker that others depend on is at a node now: they may follow it there."""
        if len(worker.dependents) == 1 or len(self.core.nodes) == 1:
            self._given.append((run, worker, node))

    def place(self) -> None:
        """Give nodes what may follow what they have, as far as there is room."""
        for name in list(self._later):
            node = self.core.nodes.get(name)
            if node is None:
                del self._later[name]  # it was given up and forgotten
            elif self._room(node):
                self._place_at(node, self._later.pop(name))
        self._follow_up()

    def _place_at(self, node: Node, line: deque[tuple[str, str]]) -> None:
        while line and self._room(node):
            run_id, worker = line.popleft()
            run = self.core.runs.get(run_id)
            if run is not None:
                self._consider(run, run.workers[worker], node)
            self._follow_up()
        if line:
            self._later.setdefault(node.info.name, deque()).extend(line)

    def _follow_up(self) -> None:
        while self._given:
            run, worker, node = self._given.popleft()
            if self.core.runs.get(run.id) is run:
                for name in worker.dependents:
                    self._consider(run, run.workers[name], node)

    def _consider(self, run: Run, worker: Worker, node: Node) -> None:
        if not self._may_follow(run, worker, node):
            return
        if self._room(node):
            self.core.placing.assign(run, worker, node, ahead=True)
            worker.ahead = worker.attempts
        else:
            self._later.setdefault(node.info.name, deque()).append((run.id, worker.spec.name))

    def _room(self, node: Node) -> bool:
        if node.status is not NodeStatus.READY or node.hold_until is not None:
            return False
        return len(node.ahead) < min(AHEAD_MOST, node.prefetch(self.core.options.prefetch_window))

    def _may_follow(self, run: Run, worker: Worker, node: Node) -> bool:
        if worker.status is not WorkerStatus.CREATED or worker.open or run.awaiting or run.winding_down:
            return False
        if not worker.waiting or worker.stage > run.stage or worker.not_before is not None:
            return False
        if node.mean_seconds is None or worker.requirement.misfit(node.info) is not None:
            return False
        if len(self.core.nodes) > 1 and len(worker.spec.needs) > 1:
            return False  # no link of a chain
        producers = {producer for producer, _ in worker.spec.inputs.values()}
        for need in run.unmet_needs(worker):
            here = len(need.open) == 1 and all(record.node == node.info.name for record in need.open.values())
            if not here or need.spec.name in producers:
                return False
            if len(self.core.nodes) > 1 and len(need.dependents) > 1:
                return False
        return True
