"""Tasks at the spawner that wait for room, and for others' success. Standard library only: the spawner imports it."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")


class _Waits(Generic[K, R]):
    """``unmet`` are those that have to succeed before it starts."""

    __slots__ = ("request", "room", "unmet")

    def __init__(
        self, request: R, room: str, unmet: set[K]
    ) -> None:  # dataclasses take longer to import than the spawner
        self.request = request
        self.room = room
        self.unmet = unmet


class Waiting(Generic[K, R]):
    """Requests by task, each with the kind of room it waits for and the tasks whose success it needs.

    Of those that need nothing any more, the first takes over the room of a task of its kind that has ended: a line for each kind.
    """

    def __init__(self) -> None:
        self._waits: dict[K, _Waits[K, R]] = {}
        self._lines: dict[str, deque[K]] = {}  # kind of room -> those that need nothing more, and some that have left
        self._needed: dict[K, list[K]] = {}  # task -> those that need its success, and some that have left

    def __contains__(self, task: K) -> bool:
        return task in self._waits

    def __len__(self) -> int:
        return len(self._waits)

    def tasks(self) -> list[K]:
        """All that wait."""
        return list(self._waits)

    def add(self, task: K, request: R, room: str, unmet: Iterable[K] = ()) -> None:
        """Have a task wait for room of a kind, and for the success of others; one that waits already goes on waiting as it did."""
        if task in self._waits:
            return
        waits = self._waits[task] = _Waits(request, room, set(unmet))
        for need in waits.unmet:
            self._needed.setdefault(need, []).append(task)
        if not waits.unmet:
            self._lines.setdefault(room, deque()).append(task)

    def take(self, room: str) -> R | None:
        """There is room of a kind: the request of the first that needs nothing more, which waits no longer; None without any."""
        line = self._lines.get(room)
        while line:
            task = line.popleft()
            waits = self._waits.get(task)
            if waits is not None and not waits.unmet:
                return self._waits.pop(task).request
        self._lines.pop(room, None)
        return None

    def ended(self, task: K, *, well: bool) -> list[K]:
        """A task has ended, or will never start: those that will not either, for they need its success, or each other's."""
        skipped: list[K] = []
        for other in self._needed.pop(task, ()):
            waits = self._waits.get(other)
            if waits is None or task not in waits.unmet:
                continue
            if not well:
                skipped += self.drop(other)
                continue
            waits.unmet.discard(task)
            if not waits.unmet:
                self._lines.setdefault(waits.room, deque()).append(other)
        return skipped

    def detach(self, task: K) -> None:
        """A task starts before its turn. Does nothing for one that does not wait."""
        self._waits.pop(task, None)

    def drop(self, task: K) -> list[K]:
        """A task that waits is not to start: it, and those that will not without it, each after what it needs."""
        dropped: list[K] = []
        left = [task]
        while left:
            if self._waits.pop(left[0], None) is not None:
                dropped.append(left[0])
                left += self._needed.pop(left[0], ())
            del left[0]
        return dropped

    def clear(self) -> None:
        """Forget all."""
        self._waits.clear()
        self._lines.clear()
        self._needed.clear()
