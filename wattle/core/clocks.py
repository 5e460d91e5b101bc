"""When to look at a runtime's tasks again: a heap, so that a batch costs nothing for tasks that have nothing to do."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from wattle.core.model import TaskId
from wattle.core.task import Task, next_moment


class Clocks:
    """The moments of ``tasks``, which are the core's; ``patience`` is how many seconds one may wait for room.

    An entry of a task that went on meanwhile stays until its moment, or until such entries are most.
    """

    def __init__(self, tasks: Mapping[TaskId, Task], patience: float) -> None:
        self._tasks, self._patience = tasks, patience
        self._moments: list[tuple[float, TaskId]] = []

    def __len__(self) -> int:
        return len(self._moments)

    def watch(self, task: Task) -> None:
        """Have a task looked at when there is something to do about it, should nothing happen to it before."""
        moment = next_moment(task, self._patience)
        if moment is not None:
            heapq.heappush(self._moments, (moment, task.id))

    def due(self, now: float) -> list[Task]:
        """The tasks whose moment has come, each once."""
        due: dict[TaskId, Task] = {}
        while self._moments and self._moments[0][0] <= now:
            moment, task_id = heapq.heappop(self._moments)
            if self._stands(moment, task_id):
                due[task_id] = self._tasks[task_id]
        return list(due.values())

    def next(self) -> float | None:
        """The first moment of all."""
        if len(self._moments) > 2 * len(self._tasks) + 100:  # mostly timeouts of tasks that ended before
            self._moments.clear()
            for task in self._tasks.values():
                self.watch(task)
        while self._moments and not self._stands(*self._moments[0]):
            heapq.heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def _stands(self, moment: float, task_id: TaskId) -> bool:
        task = self._tasks.get(task_id)
        return task is not None and next_moment(task, self._patience) == moment
