"""What a runtime knows of the past, to tell late and repeated commands by: which tasks have ended here, and who owned which run.

The store knows it of every run that is kept. In memory are the runs with open tasks and, up to a bound, those heard of last. Before events
are handled the shell asks what they are about that is not here (``lacks``), and tells it (``recall``): one look into the store for each run
that is new here. Nothing is let go of but in ``lacks``, when all that was handled before has been committed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wattle.core import events as on
from wattle.core.model import TaskId

REMEMBERED_MOST = 4_000
"""Runs without open tasks that are kept in memory, and workers of theirs, about 0.1 kB each."""

Fence = tuple[int, str]
"""An epoch and an owner."""


@dataclass(slots=True)
class _Run:
    """``whole``: what is not here has not ended here; else the store may know of more."""

    fence: Fence | None = None
    ended: dict[str, int] = field(default_factory=dict)  # worker -> its newest attempt that has ended here
    unsure: set[str] = field(default_factory=set)  # of these, the ones not known to have succeeded
    open: int = 0  # tasks
    whole: bool = True


class Past:
    """See the module's docstring. ``most`` bounds the runs without open tasks that are in memory, and workers of theirs."""

    def __init__(self, most: int = REMEMBERED_MOST) -> None:
        self.most = most
        self._runs: dict[str, _Run] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()  # runs without open tasks, the ones heard of last at the end
        self._idle_size = 0  # these, and their workers

    # --- what the store knows -------------------------------------------------------------------------------------------

    def lacks(self, events: Iterable[on.RuntimeEvent]) -> dict[str, set[str]]:
        """The runs and workers that events are about and that only the store may know. Also lets go of what is too much."""
        while self._idle_size > self.most:
            self._forget(next(iter(self._idle)))
        lacking: dict[str, set[str]] = {}
        for run, worker in _named(events):
            record = self._runs.get(run)
            if record is None or not (record.whole or not worker or worker in record.ended):
                lacking.setdefault(run, set()).update({worker} if worker else ())
        return lacking

    def recall(self, run: str, fence: Fence | None, ended: Mapping[str, int]) -> None:
        """Take in what the store knows of a run, and of some of its workers; no fence: nothing was ever heard of it."""
        record = self._runs.get(run) or _Run(fence, whole=fence is None)
        self._take_out(run, record)
        for worker, attempt in ended.items():
            record.ended[worker] = attempt
            record.unsure.add(worker)
        self._put_back(run, record)

    def forget(self, runs: Iterable[str]) -> None:
        """Forget everything of runs without open tasks."""
        for run in runs:
            if run in self._idle:
                self._forget(run)

    def _forget(self, run: str) -> None:
        self._take_out(run, self._runs.pop(run))

    # --- owners ---------------------------------------------------------------------------------------------------------

    def admit(self, run: str, epoch: int, owner: str) -> bool | None:
        """Whether (epoch, owner) may command a run: None when it is fenced off, True when it is new and to be saved, else False."""
        record = self._heard(run)
        current = record.fence
        if current is not None and (epoch, owner) < current:
            return None
        record.fence = (epoch, owner)
        return current != record.fence

    def fence(self, run: str) -> Fence | None:
        """The highest (epoch, owner) seen for a run."""
        record = self._runs.get(run)
        return None if record is None else record.fence

    # --- tasks ----------------------------------------------------------------------------------------------------------

    def over(self, task: TaskId) -> tuple[str, str] | None:
        """The answer for a task that is not here and will never be started, OVER or PASSED, and why; None for one that may be.

        One before the newest of its worker that has ended may have ended, too, or never have come: whoever has it open must not wait for
        its end for ever.
        """
        record = self._runs.get(task.run)
        newest = 0 if record is None else record.ended.get(task.worker, 0)
        if task.attempt > newest:
            return None
        if task.attempt == newest:
            return "OVER", "it has ended here already"
        return "PASSED", f"attempt {newest} of this worker has ended here already"

    def succeeded(self, task: TaskId) -> bool:
        """Whether a task is known to have succeeded here, in this life of the runtime."""
        record = self._runs.get(task.run)
        return record is not None and record.ended.get(task.worker) == task.attempt and task.worker not in record.unsure

    def note_open(self, task: TaskId) -> None:
        """A task is here."""
        record = self._runs.setdefault(task.run, _Run())
        self._take_out(task.run, record)
        record.open += 1

    def note_closed(self, task: TaskId, *, well: bool) -> None:
        """A task that was here has ended."""
        record = self._runs[task.run]
        record.open -= 1
        self._note_ended(record, task, well=well)
        self._put_back(task.run, record)

    def note_ended(self, task: TaskId) -> None:
        """A task that was never here is over."""
        record = self._heard(task.run)
        self._take_out(task.run, record)
        self._note_ended(record, task, well=False)
        self._put_back(task.run, record)

    @staticmethod
    def _note_ended(record: _Run, task: TaskId, *, well: bool) -> None:
        if task.attempt < record.ended.get(task.worker, 0):
            return
        record.ended[task.worker] = task.attempt
        if well:
            record.unsure.discard(task.worker)
        else:
            record.unsure.add(task.worker)

    # --- which to let go of ---------------------------------------------------------------------------------------------

    def _heard(self, run: str) -> _Run:
        """The record of a run that a command is about."""
        record = self._runs.get(run)
        if record is None:
            record = _Run()
            self._put_back(run, record)
        elif not record.open:
            self._idle.move_to_end(run)
        return record

    def _take_out(self, run: str, record: _Run) -> None:
        """Before a record is changed, or has open tasks."""
        if run in self._idle:
            del self._idle[run]
            self._idle_size -= 1 + len(record.ended)

    def _put_back(self, run: str, record: _Run) -> None:
        self._runs[run] = record
        if not record.open:
            self._idle[run] = None
            self._idle_size += 1 + len(record.ended)


def _named(events: Iterable[on.RuntimeEvent]) -> Iterator[tuple[str, str]]:
    """The runs that commands are about, each with a worker, or with none."""
    for event in events:
        match event:
            case on.Assigned():
                yield from ((task.run, task.worker) for task in event.tasks)
            case on.CancelAsked():
                yield from ((task.run, task.worker) for task, _ in event.tasks)
            case on.ClaimAsked():
                yield from ((run, "") for run, _ in event.runs)
