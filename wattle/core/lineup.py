"""Tasks handed to the spawner ahead of their time: each starts the moment the one before it ends, without anybody being asked.

A line forms behind a task that has room; whoever is first in it takes over that room. So the slots never idle for the time that it takes
to tell the runtime of an end and the spawner of the next start, which for short tasks is longer than the tasks are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from wattle.core.model import TaskId

LINE_MOST = 32
"""Tasks in one line, at most."""


class Lineup:
    """The lines, and how long tasks take here, which says how long lines may be: ``seconds`` of work at most.

    What is in a line cannot be overtaken by a task of a higher priority.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines: dict[TaskId, deque[TaskId]] = {}  # a task with room -> those that follow it, in order
        self._before: dict[TaskId, TaskId] = {}  # a task in a line -> the one with room at its front
        self._mean: float | None = None  # seconds

    def __contains__(self, task: TaskId) -> bool:
        return task in self._before

    def __len__(self) -> int:
        return len(self._before)

    def learn(self, seconds: float) -> None:
        """Let the running mean of how long tasks take follow: each counts a fifth."""
        seconds = max(seconds, 0.0)
        self._mean = seconds if self._mean is None else 0.8 * self._mean + 0.2 * seconds

    @property
    def depth(self) -> int:
        """How long a line may be now."""
        if self._mean is None:
            return 0
        return min(LINE_MOST, int(self._seconds / max(self._mean, 1e-4)))

    def behind(self, front: TaskId) -> int:
        """How many wait behind a task that has room."""
        return len(self._lines.get(front, ()))

    def line(self, front: TaskId) -> Iterable[TaskId]:
        """Those that wait behind a task that has room, in order."""
        return self._lines.get(front, ())

    def last(self, front: TaskId) -> TaskId:
        """The last of a line, or its front where it is empty."""
        line = self._lines.get(front)
        return line[-1] if line else front

    def append(self, front: TaskId, task: TaskId) -> TaskId:
        """Put a task at the end of a line; gives the one it follows."""
        before = self.last(front)
        self._lines.setdefault(front, deque()).append(task)
        self._before[task] = front
        return before

    def succeed(self, front: TaskId) -> TaskId | None:
        """A task with room has ended: the one behind it that has its room now, or None."""
        line = self._lines.pop(front, None)
        if not line:
            return None
        first = line.popleft()
        del self._before[first]
        if line:
            self._lines[first] = line
            for task in line:
                self._before[task] = first
        return first

    def remove(self, task: TaskId) -> None:
        """A task leaves its line before its turn; does nothing for one that is in none."""
        front = self._before.pop(task, None)
        if front is not None:
            self._lines[front].remove(task)

    def take_last(self, fits: Callable[[TaskId], bool]) -> TaskId | None:
        """Take the last that ``fits`` out of the longest line that has one: there is room elsewhere. What follows it goes with it."""
        for line in sorted(self._lines.values(), key=len, reverse=True):
            for index in reversed(range(len(line))):
                if fits(line[index]):
                    return self._part(line, index)
        return None

    def _part(self, line: deque[TaskId], index: int) -> TaskId:
        task, *tail = [line.pop() for _ in range(len(line) - index)][::-1]
        del self._before[task]
        if tail:
            self._lines[task] = deque(tail)
            for follower in tail:
                self._before[follower] = task
        return task
