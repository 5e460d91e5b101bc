"""What becomes of every attempt: how facts, refusals and lost nodes move it, and what its end means for its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wattle.core import effects as do
from wattle.core.model import Fact, FactKind, TaskId, TaskRecord, TaskStatus, Usage, WorkerStatus
from wattle.core.numbering import is_of_a_later_epoch
from wattle.core.placement import Node
from wattle.core.retry import retry_delay
from wattle.core.run import Run, Worker
from wattle.core.states import TASK_TABLE, TaskEvent, WorkerEvent, next_state

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

CANCELLED = "the run was cancelled"

_BY_ITSELF = (TaskStatus.SUCCEEDED, TaskStatus.FAILED)


def _changed(
    record: TaskRecord,
    status: TaskStatus,
    started_at: float | None = None,
    completed_at: float | None = None,
    exit_code: int | None = None,
    signal: int | None = None,
    error_message: str | None = None,
    usage: Usage | None = None,
) -> TaskRecord:
    """``dataclasses.replace`` in a third of its time, of which every task takes three; None stands for what was there."""
    return TaskRecord(
        record.run,
        record.worker,
        record.attempt,
        record.node,
        status,
        record.assigned_at,
        record.started_at if started_at is None else started_at,
        record.completed_at if completed_at is None else completed_at,
        exit_code,
        signal,
        error_message,
        usage,
    )


class Attempts:
    """The attempts of one coordinator core's runs."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core

    def find(self, task: TaskId) -> tuple[Run, Worker, TaskRecord] | None:
        """An attempt that is open or lost, with its worker and run; None when it has ended or its run has."""
        run_id, name, attempt = task
        run = self.core.runs.get(run_id)
        worker = run.workers.get(name) if run is not None else None
        if run is None or worker is None:
            return None
        record = worker.open.get(attempt) or worker.lost.get(attempt)
        return None if record is None else (run, worker, record)

    def accepted(self, worker: Worker, record: TaskRecord) -> None:
        """Note that its node has an attempt. It decides nothing and nodes are asked again after a restart: so it is not stored."""
        status = self._next(worker, record, TaskEvent.ACCEPTED)
        if status is not None:
            worker.open[record.attempt] = _changed(record, status)

    def _next(self, worker: Worker, record: TaskRecord, event: TaskEvent) -> TaskStatus | None:
        return next_state(TASK_TABLE, record.status, event, lambda: (f"task {record.id}", *worker.story(record.run)))

    def advance(self, worker: Worker, record: TaskRecord, event: TaskEvent, **changes: Any) -> TaskRecord | None:
        """Advance an attempt by the table; None when the event is late."""
        status = self._next(worker, record, event)
        if status is None:
            return None
        advanced = _changed(record, status, **changes)
        worker.open.pop(record.attempt, None)
        worker.lost.pop(record.attempt, None)
        if status is TaskStatus.LOST:
            worker.lost[record.attempt] = advanced
        elif not status.final:
            worker.open[record.attempt] = advanced
        self.core.save_task(advanced)
        return advanced

    # --- facts ----------------------------------------------------------------------------------------------------------

    def learn(self, node: Node, fact: Fact) -> None:
        """Take in one fact of a node's feed."""
        task = fact.id
        self.core.recall.discover(node, task, fact.started_at or fact.at)
        if fact.kind is FactKind.FINISHED:
            node.release(task)
            node.cancels.pop(task, None)
            node.ending.discard(task)
        found = self.find(task)
        if found is None:
            self._pass_over(fact)
            if fact.kind is FactKind.FINISHED:
                self.core.saves.append(do.SaveLateFact(node.info.name, fact))
        elif found[2].node != node.info.name:
            return  # an earlier owner gave this number to another node: that attempt is not the one recorded here
        elif fact.kind is FactKind.STARTED:
            self._started(*found, fact.at)
        else:
            self._finished(node, *found, fact)

    def _pass_over(self, fact: Fact) -> None:
        """A number that an attempt has had is not given again, also when it is not remembered because the store is an older one.

        The node would take the next attempt of that number for the one it has ended, and nothing would ever be heard of it.
        """
        run = self.core.runs.get(fact.run)
        worker = run.workers.get(fact.worker) if run is not None else None
        if run is None or worker is None or is_of_a_later_epoch(fact.attempt, run.epoch):
            return  # it has ended, or is a later owner's
        if fact.attempt > worker.attempts:
            worker.attempts = fact.attempt
            self.core.save_worker(run, worker)

    def _started(self, run: Run, worker: Worker, record: TaskRecord, at: float) -> TaskRecord:
        advanced = self.advance(worker, record, TaskEvent.STARTED, started_at=at)
        if advanced is None:
            return record
        self.core.start_run(run, at)
        if worker.started_at is None:
            worker.started_at = at
        self.core.move(run, worker, WorkerEvent.STARTED)
        return advanced

    def _finished(self, node: Node, run: Run, worker: Worker, record: TaskRecord, fact: Fact) -> None:
        assert fact.status is not None, fact
        if fact.started_at is not None and record.started_at is None:
            record = self._started(run, worker, record, fact.started_at)
        was_open = record.attempt in worker.open
        late = worker.status.final
        self.advance(
            worker,
            record,
            TaskEvent.SUPERSEDED if late else TaskEvent(fact.status.value),
            started_at=fact.started_at,
            completed_at=fact.at,
            exit_code=fact.exit_code,
            signal=fact.signal,
            error_message=fact.error,
            usage=fact.usage,
        )
        for digest in fact.fetched:
            self.core.files.holds(run, digest, node)
        if fact.status is TaskStatus.RETURNED and not fact.missing:
            if record.attempt != worker.ahead:  # one told ahead comes back when what it was to follow did not succeed
                self.core.members.hold_back(node)
        elif fact.started_at is not None and fact.status in _BY_ITSELF:
            node.learn_duration(max(0.0, fact.at - fact.started_at))
        if late:
            return
        if fact.status is TaskStatus.SUCCEEDED:
            worker.results, worker.misses = fact.outputs, 0
            for output in fact.outputs.values():
                self.core.files.holds(run, output.digest, node)
            self.core.move(run, worker, WorkerEvent.SUCCEEDED)
        elif was_open and not worker.open:  # else another attempt is on its way, or runs
            self._ended_without_result(run, worker, fact)
        self.core.end_if_done(run)

    # --- an end without a result ------------------------------------------------------------------------------------------

    def _ended_without_result(self, run: Run, worker: Worker, fact: Fact) -> None:
        """An attempt is over and the worker has no other: decide whether there will be one."""
        if self._skip_in_vain(run, worker):
            return
        if fact.status is TaskStatus.FAILED:
            self._failed(run, worker, fact.error)
        elif fact.status is TaskStatus.LOST:
            self.lost(run, worker, fact.error or "lost")
        elif fact.missing and not run.winding_down:
            self.core.files.missing(run, worker, fact)
        else:
            self.returned(run, worker, fact.error, disk_full=fact.disk_full)

    def _skip_in_vain(self, run: Run, worker: Worker) -> bool:
        """Skip a worker that waits for one that has failed: with an attempt open it was not, when its run was taken over (Recall)."""
        failed = run.failed_need(worker) if worker.status is WorkerStatus.CREATED and not run.winding_down else None
        if failed is not None:
            self.core.skip(run, worker, failed)
            self.core.end_if_done(run)
        return failed is not None

    def returned(self, run: Run, worker: Worker, reason: str | None, *, disk_full: bool = False) -> None:
        """An attempt was handed back: another follows, at no cost to the worker's retries, unless the run is winding down.

        One for which a node had no room on its disk counts as lost: where no node ever has room, the worker fails in the end.
        """
        if worker.open or self._skip_in_vain(run, worker):
            return
        worker.losses += disk_full
        if run.cancel_requested:
            self.core.move(run, worker, WorkerEvent.CANCELLED, CANCELLED)
        elif run.stopped_by is not None:
            self.core.move(run, worker, WorkerEvent.SKIPPED, run.not_started)
        elif disk_full and worker.losses > self.core.options.max_losses:
            self.core.move(run, worker, WorkerEvent.FAILED, f"{reason} (handed back or lost {worker.losses} times)")
        else:
            self.core.move(run, worker, WorkerEvent.AGAIN, reason)
        self.core.end_if_done(run)

    def _failed(self, run: Run, worker: Worker, error: str | None) -> None:
        if run.cancel_requested:
            self.core.move(run, worker, WorkerEvent.CANCELLED, CANCELLED)
            return
        worker.failures += 1
        delay = retry_delay(worker.spec.retries, worker.failures, self.core.share())
        if delay is None or run.winding_down:
            self.core.move(run, worker, WorkerEvent.FAILED, error)
            return
        worker.not_before = self.core.now + delay
        self.core.move(run, worker, WorkerEvent.AGAIN, f"{error}; tried again in {delay:.1f} s")

    def lost(self, run: Run, worker: Worker, error: str) -> None:
        """An attempt's end will not be known; the worker is tried elsewhere, unless that has happened too often."""
        if worker.status.final or worker.open:
            return
        if worker.waiting:  # told ahead and never started: no loss
            self.returned(run, worker, error)
            return
        worker.losses += 1
        if run.cancel_requested:
            self.core.move(run, worker, WorkerEvent.CANCELLED, CANCELLED)
        elif run.stopped_by is not None or worker.losses > self.core.options.max_losses:
            self.core.move(run, worker, WorkerEvent.FAILED, f"{error} (lost {worker.losses} times)")
        else:
            self.core.move(run, worker, WorkerEvent.AGAIN, error)
        self.core.end_if_done(run)
