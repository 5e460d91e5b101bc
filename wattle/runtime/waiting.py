"""Tasks at the spawner that wait for another one's end. Standard library only: the spawner imports it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class _Waits(Generic[K, R]):
    """``on_success``: it starts only if ``before`` ends well."""

    __slots__ = ("before", "on_success", "request")

    def __init__(
        self, request: R, before: K, on_success: bool
    ) -> None:  # dataclasses take longer to import than the spawner
        self.request = request
        self.before = before
        self.on_success = on_success


class Waiting(Generic[K, R]):
    """Requests by task, each with the task whose end it waits for. Of several that wait for one, each waits for the one before."""

    def __init__(self) -> None:
        self._waits: dict[K, _Waits[K, R]] = {}
        self._after: dict[K, deque[K]] = {}  # task -> those that wait for its end, in order

    def __contains__(self, task: K) -> bool:
        return task in self._waits

    def tasks(self) -> list[K]:
        """All that wait."""
        return list(self._waits)

    def lines(self) -> list[list[K]]:
        """All that wait, by what they wait for in the end: a task that waits for none, and those behind it in the order of their turns."""
        lines = []
        for front in self._after:
            if front in self._waits:
                continue
            line, left = [], deque([front])
            while left:
                line.append(left.popleft())
                left.extendleft(reversed(self._after.get(line[-1], ())))
            if len(line) > 1:  # one whose followers were all detached is still in the mapping
                lines.append(line)
        return lines

    def add(self, task: K, request: R, before: K, *, on_success: bool = False) -> None:
        """Have a task wait for the end of ``before``; one that waits already goes on waiting as it did."""
        if task not in self._waits:
            self._waits[task] = _Waits(request, before, on_success)
            self._after.setdefault(before, deque()).append(task)

    def ended(self, before: K, *, well: bool) -> tuple[R | None, list[K]]:
        """A task has ended: the request of the one that starts now, if any, and those that never will.

        The others wait for the end of that one, however it ends: those that needed this success have it.
        """
        line = self._after.pop(before, deque())
        skipped: list[K] = []
        if not well:
            line, skipped = self._without_unmet(line)
        if not line:
            return None, skipped
        first = line.popleft()
        for task in line:
            self._waits[task].on_success = False
        self._move(line, first)
        return self._waits.pop(first).request, skipped

    def detach(self, task: K) -> None:
        """A task starts before its turn; what waits for its end goes on waiting. Does nothing for one that does not wait."""
        waits = self._waits.pop(task, None)
        if waits is not None:
            self._after[waits.before].remove(task)

    def drop(self, task: K) -> list[K]:
        """A task that waits is not to start: it, and those that will not without it. The others wait for what it waited for."""
        if task not in self._waits:
            return []
        before = self._waits[task].before
        self.detach(task)
        others, skipped = self._without_unmet(self._after.pop(task, deque()))
        self._move(others, before)
        return [task, *skipped]

    def _without_unmet(self, line: deque[K]) -> tuple[deque[K], list[K]]:
        """Those that waited for a task which has not succeeded: the ones to start all the same, and the ones skipped for it."""
        kept: deque[K] = deque()
        skipped: list[K] = []
        while line:
            task = line.popleft()
            if self._waits[task].on_success:
                del self._waits[task]
                skipped.append(task)
                line.extendleft(reversed(self._after.pop(task, ())))
            else:
                kept.append(task)
        return kept, skipped

    def clear(self) -> None:
        """Forget all."""
        self._waits.clear()
        self._after.clear()

    def _move(self, line: deque[K], to: K) -> None:
        if line:
            for task in line:
                self._waits[task].before = to
            self._after.setdefault(to, deque()).extend(line)
