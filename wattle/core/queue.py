"""The tasks that wait for room on a runtime, by priority and then by age."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from wattle.core.model import TaskId
from wattle.core.states import Phase
from wattle.core.task import Task


class Queue:
    """Those of ``tasks``, which are the core's, that may start; entries of tasks that ended while they waited are passed over."""

    def __init__(self, tasks: Mapping[TaskId, Task]) -> None:
        self._tasks = tasks
        self._heap: list[tuple[int, int, TaskId]] = []  # (-priority, accepted, id)

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, task: Task) -> None:
        """Have a task wait."""
        heapq.heappush(self._heap, (-task.held.assignment.priority, task.held.accepted, task.id))

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Have tasks wait on that were taken out, and forget the ended ones when they are most."""
        for task in tasks:
            self.push(task)
        if len(self._heap) > 2 * len(self._tasks) + 100:
            self._heap = [entry for entry in self._heap if entry[2] in self._tasks]
            heapq.heapify(self._heap)

    def first(self) -> Task | None:
        """The first that waits."""
        while self._heap:
            task = self._tasks.get(self._heap[0][2])
            if task is not None and task.held.phase is Phase.QUEUED:
                return task
            heapq.heappop(self._heap)
        return None

    def pop(self) -> Task | None:
        """Take the first out."""
        task = self.first()
        if task is not None:
            heapq.heappop(self._heap)
        return task
