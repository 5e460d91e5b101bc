"""What a runtime remembers of the past, to know late and repeated commands by: which tasks have ended, and who owned which run."""

from __future__ import annotations

from collections.abc import Iterable

from wattle.core.model import TaskId

REMEMBERED_MOST = 100_000
"""Workers of ended tasks, and runs with their owners, that are remembered; the ones heard of least recently are forgotten first."""


SUCCEEDED_MOST = 10_000
"""Tasks whose success is remembered: for assignments that name them and were on their way meanwhile."""


class Past:
    """``fences`` are the highest (epoch, owner) seen per run."""

    def __init__(self) -> None:
        self.fences: dict[str, tuple[int, str]] = {}
        # run -> worker -> the newest attempt that ended here; per run, which takes half the memory of one mapping by (run, worker)
        self._ended: dict[str, dict[str, int]] = {}
        self._workers = 0  # in all of these
        self._succeeded: dict[TaskId, None] = {}  # in this life of the runtime, the newest last

    def admit(self, run: str, epoch: int, owner: str) -> bool | None:
        """Whether (epoch, owner) may command a run: None when it is fenced off, True when it is new and to be saved, else False."""
        current = self.fences.get(run)
        if current is not None and (epoch, owner) < current:
            return None
        self.set_fence(run, epoch, owner)
        return current != (epoch, owner)

    def set_fence(self, run: str, epoch: int, owner: str) -> None:
        """Remember who owns a run."""
        self.fences.pop(run, None)
        self.fences[run] = (epoch, owner)  # last in order: the newest
        if len(self.fences) > REMEMBERED_MOST:
            del self.fences[next(iter(self.fences))]

    def forget(self, runs: Iterable[str]) -> None:
        """Forget everything of runs."""
        for run in runs:
            self.fences.pop(run, None)
            self._workers -= len(self._ended.pop(run, ()))

    def newest_ended(self, task: TaskId) -> int:
        """The newest attempt of a task's worker that has ended here; 0 when none has."""
        return self._ended.get(task.run, {}).get(task.worker, 0)

    def succeeded(self, task: TaskId) -> bool:
        """Whether a task is known to have succeeded here."""
        return task in self._succeeded

    def note_ended(self, task: TaskId, *, well: bool = False) -> None:
        """Remember that a task has ended."""
        if well:
            self._succeeded[task] = None
            if len(self._succeeded) > SUCCEEDED_MOST:
                del self._succeeded[next(iter(self._succeeded))]
        workers = self._ended.pop(task.run, {})
        self._workers -= len(workers)
        attempt = max(task.attempt, workers.pop(task.worker, 0))
        workers[task.worker] = attempt  # last in order, as its run: the newest
        self._ended[task.run] = workers
        self._workers += len(workers)
        if self._workers > REMEMBERED_MOST:
            oldest = next(iter(self._ended))
            del self._ended[oldest][next(iter(self._ended[oldest]))]
            self._workers -= 1
            if not self._ended[oldest]:
                del self._ended[oldest]
