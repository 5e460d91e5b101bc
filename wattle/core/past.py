"""What a runtime remembers of the past, to know late and repeated commands by: which tasks have ended, and who owned which run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from wattle.core.model import TaskId

K = TypeVar("K")
V = TypeVar("V")

REMEMBERED_MOST = 100_000
"""Workers of ended tasks, and runs with their owners, that are remembered; the ones heard of least recently are forgotten first."""


class Past:
    """``fences`` are the highest (epoch, owner) seen per run."""

    def __init__(self) -> None:
        self.fences: dict[str, tuple[int, str]] = {}
        self._ended: dict[tuple[str, str], int] = {}  # (run, worker) -> the newest attempt that ended here

    def admit(self, run: str, epoch: int, owner: str) -> bool | None:
        """Whether (epoch, owner) may command a run: None when it is fenced off, True when it is new and to be saved, else False."""
        current = self.fences.get(run)
        if current is not None and (epoch, owner) < current:
            return None
        self.set_fence(run, epoch, owner)
        return current != (epoch, owner)

    def set_fence(self, run: str, epoch: int, owner: str) -> None:
        """Remember who owns a run."""
        _remember(self.fences, run, (epoch, owner))

    def forget(self, runs: Iterable[str]) -> None:
        """Forget everything of runs."""
        gone = set(runs)
        for run in gone:
            self.fences.pop(run, None)
        for key in [key for key in self._ended if key[0] in gone] if gone else ():
            del self._ended[key]

    def newest_ended(self, task: TaskId) -> int:
        """The newest attempt of a task's worker that has ended here; 0 when none has."""
        return self._ended.get((task.run, task.worker), 0)

    def note_ended(self, task: TaskId) -> None:
        """Remember that a task has ended."""
        _remember(self._ended, (task.run, task.worker), max(task.attempt, self.newest_ended(task)))


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    memory.pop(key, None)
    memory[key] = value  # last in order: the newest
    if len(memory) > REMEMBERED_MOST:
        del memory[next(iter(memory))]
