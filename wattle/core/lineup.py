"""Tasks handed to the spawner ahead of their time: each starts the moment room of its kind is left, without anybody being asked.

So the slots never idle for the time that it takes to tell the runtime of an end and the spawner of the next start, which for short tasks
is longer than the tasks are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from wattle.core.model import TaskId

LINE_MOST = 128
"""Tasks that wait for room of one kind, for each task that has such room, at most."""


class Lineup:
    """Those that wait at the spawner, by kind of room; and how long tasks take here, which says how many may: ``seconds`` of work at most.

    They cannot be overtaken by a task of a higher priority.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: dict[TaskId, str] = {}  # those that wait, in the order they came -> the kind of room
        self._counts: Counter[str] = Counter()
        self._mean: float | None = None  # seconds

    def __contains__(self, task: TaskId) -> bool:
        return task in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def learn(self, seconds: float) -> None:
        """Let the running mean of how long tasks take follow: each counts a fifth."""
        seconds = max(seconds, 0.0)
        self._mean = seconds if self._mean is None else 0.8 * self._mean + 0.2 * seconds

    @property
    def depth(self) -> int:
        """How many may wait now for each that has room."""
        if self._mean is None:
            return 0
        return min(LINE_MOST, int(self._seconds / max(self._mean, 1e-4)))

    def places(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many more may wait for room, by kind: ``kinds`` are those of the room that will be left, one each."""
        depth = self.depth
        return {kind: depth * count - self._counts[kind] for kind, count in Counter(kinds).items()}

    def add(self, task: TaskId, kind: str) -> None:
        """Have a task wait for room of a kind."""
        self._tasks[task] = kind
        self._counts[kind] += 1

    def remove(self, task: TaskId) -> bool:
        """A task does not wait any more; whether it did."""
        kind = self._tasks.pop(task, None)
        if kind is None:
            return False
        self._counts[kind] -= 1
        if not self._counts[kind]:
            del self._counts[kind]
        return True

    def last(self, fits: Callable[[TaskId], bool]) -> TaskId | None:
        """The last that came and ``fits``: there is room elsewhere, and the first have the least to wait for."""
        return next((task for task in reversed(self._tasks) if fits(task)), None)
