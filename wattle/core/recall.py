"""Going on with runs that this life of the coordinator did not start: after a restart, after a retry, from another owner's copy.

A copy may lag behind what its owner had sent out: there may be attempts that it does not tell of. The nodes know them. So an adopted run
is claimed at every node in sight before any of its workers is placed, and whatever the nodes tell is taken into its history. So is one that
is retried: of what nodes held that were met after its end, nothing is known any more. Its new attempts have numbers that nobody else gives
out (core/numbering.py), so that none shares its number with one that nobody could tell of yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.model import RunStatus, Snapshot, TaskId, TaskRecord, TaskStatus, WorkerStatus
from wattle.core.numbering import is_of_a_later_epoch
from wattle.core.placement import Node
from wattle.core.run import Run, Worker
from wattle.core.states import WorkerEvent

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore


def _agreeing(kept: Snapshot) -> Snapshot:
    """A copy whose run has ended and whose workers have not (the rest of it was never sent) is of a run that goes on."""
    run = kept.run
    if not run.status.final or all(worker.status.final for worker in kept.workers.values()):
        return kept
    status = RunStatus.CREATED if run.started_at is None else RunStatus.RUNNING
    return replace(kept, run=replace(run, status=status, completed_at=None, error_message=None))


def _unended(task: TaskRecord) -> bool:
    """Whether the node of an attempt has yet to tell its end, or had not when this was written."""
    return not task.status.final or (
        task.status in (TaskStatus.LOST, TaskStatus.SUPERSEDED) and task.completed_at is None
    )


class Recall:
    """See the module's docstring."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core

    # --- three ways to come by a run ------------------------------------------------------------------------------------

    def restore(self, event: on.Restore) -> None:
        """Take up an unfinished run of one's own after a restart."""
        kept = event.snapshot
        if kept.run.id in self.core.runs or kept.run.status.final:
            return  # told twice
        run = self._recalled(kept, kept.run.epoch)
        run.begun = self.core.number
        self._go_on(run, kept.tasks)

    def retry(self, event: on.RetryRun) -> None:
        """A final run goes on from its failures; what succeeded keeps its results. The new epoch fences off old commands."""
        kept = event.snapshot.run
        if kept.id in self.core.runs or not kept.status.final or kept.status is RunStatus.SUCCEEDED:
            return  # told twice, or nothing to retry
        run = self._recalled(event.snapshot, kept.epoch + 1)
        run.owner, run.cancel_requested, run.error, run.completed_at = self.core.name, False, None, None
        run.status = RunStatus.CREATED if run.started_at is None else RunStatus.RUNNING
        run.retried += 1
        run.begun = self.core.number + 1
        for worker in run.workers.values():
            if worker.status is not WorkerStatus.SUCCEEDED:
                self.core.move(run, worker, WorkerEvent.REOPENED)
                worker.failures = worker.losses = 0
                worker.not_before = None
        run.recount()
        self.core.touch(run)
        self.core.acts.append(do.AnnounceRun(run.record()))
        self.core.replication.hasten()
        if run.adopted:
            run.awaiting = set(self.core.members.names_in_sight())
        self.core.open_created(run)
        self._claim_awaited(run)

    def adopt(self, event: on.Gathered) -> None:
        """Own a run that was another owner's; one that is final stays as it is, and has an owner again."""
        kept = _agreeing(event.snapshot)
        if self.core.ended_now(kept.run.id) is not None:
            return  # the next inquiry finds out which end counts
        own = self.core.runs.get(kept.run.id)
        mine = event.own if own is None else own.head(self.core.store)
        if mine is not None and event.head.rank <= mine.rank:
            return  # it was taken over meanwhile on what others told, submitted anew, or gone on with
        epoch = max(event.epoch, 1 + event.left, 1 + (mine.epoch if mine else 0))  # no epoch is gone through here twice
        # What stands in for a state that is lost may be of before its retry.
        retried = max(event.head.retried, kept.run.retried)
        asked = event.head.cancelled and event.head.retried == retried  # else it was retried until it was here
        cancelled = kept.run.cancel_requested and kept.run.retried == retried
        cancelled |= asked  # that copy may not tell of it, another does
        cancelled |= self.core.ownership.handing.pop(kept.run.id, -1) == retried
        if own is not None:
            cancelled |= own.cancel_requested and own.retried == retried
            self.core.forget(own, event.head)  # it was submitted anew meanwhile, or gone on with from an older state
        record = replace(
            kept.run, owner=self.core.name, epoch=epoch, adopted=epoch, retried=retried, cancel_requested=cancelled
        )
        if record.status.final:
            record = replace(record, cancel_requested=kept.run.cancel_requested)
            self.core.save_adopted(replace(kept, run=record))
            self.core.members.read_again({task.node for task in kept.tasks if _unended(task)})
            self.core.acts.append(do.AnnounceRun(record))
            self.core.replication.hasten()
            return
        self.core.save_adopted(replace(kept, run=record))
        run = self._recalled(replace(kept, run=record), epoch)
        run.begun = self.core.number + 1
        run.awaiting = set(self.core.members.names_in_sight())
        self.core.touch(run)
        self.core.acts.append(do.AnnounceRun(run.record()))
        self.core.replication.hasten()
        self.core.members.read_again()
        self._mend(run, kept.tasks)
        self._go_on(run, kept.tasks)
        self._claim_awaited(run)

    def _claim_awaited(self, run: Run) -> None:
        for name in sorted(run.awaiting):
            self.core.members.claim(name, run)

    def _recalled(self, snapshot: Snapshot, epoch: int) -> Run:
        kept = snapshot.run
        run = Run(kept.id, snapshot.workflow, kept.owner, epoch, kept.created_at, self.core.next_order())
        run.recall(kept, snapshot.workers)
        run.holders = {digest: set(nodes) for digest, nodes in snapshot.holders.items()}
        run.taken_up = True
        if run.adopted:
            for worker in run.workers.values():
                worker.known = set()
            for task in snapshot.tasks:
                known = run.workers[task.worker].known
                if known is not None:
                    known.add(task.attempt)
        self.core.runs[run.id] = run
        return run

    def _go_on(self, run: Run, tasks: Iterable[TaskRecord]) -> None:
        for task in tasks:
            worker = run.workers[task.worker]
            if task.attempt in worker.open:
                continue  # reopened by mending
            if task.status is TaskStatus.LOST:
                worker.lost[task.attempt] = task
            elif not task.status.final:
                worker.open[task.attempt] = task
                worker.node = task.node
                self.core.members.book(task.node, task.id, worker.spec.resources)
        for worker in run.workers.values():
            if worker.status is WorkerStatus.RUNNING and not worker.open:  # only in a copy that lags behind
                self.core.move(run, worker, WorkerEvent.AGAIN, worker.error)
            elif worker.status is WorkerStatus.READY and not worker.open:
                self.core.placing.enqueue(run, worker)
            self.core.end_unwanted(run, worker)  # the order to end it was not stored
        self.core.settle(run)

    # --- copies that lag behind -----------------------------------------------------------------------------------------

    def _mend(self, run: Run, tasks: Iterable[TaskRecord]) -> None:
        """Make the rows of a copy agree, should they be of different moments: as if less had been learned of the nodes, who tell again."""
        newest: dict[str, TaskRecord] = {}
        for task in tasks:
            if task.worker not in newest or newest[task.worker].attempt < task.attempt:
                newest[task.worker] = task
        for worker in run.workers.values():
            if worker.status.final:
                continue
            last = newest.get(worker.spec.name)
            if last is not None and self._is_ahead(last, worker):
                again = replace(last, status=TaskStatus.RUNNING, completed_at=None)
                worker.open[again.attempt] = again
                worker.node = again.node
                worker.attempts = max(worker.attempts, again.attempt)
                self.core.members.book(again.node, again.id, worker.spec.resources)
                self.core.save_task(again)
            if worker.status is not WorkerStatus.CREATED and run.unmet(worker):
                run.change(worker, WorkerStatus.CREATED)
                self.core.save_worker(run, worker)
        run.recount()

    @staticmethod
    def _is_ahead(task: TaskRecord, worker: Worker) -> bool:
        """Whether an attempt's end is stored and what it meant for its worker is not."""
        if not task.status.final or task.status in (TaskStatus.LOST, TaskStatus.SUPERSEDED):
            return False
        if task.attempt > worker.attempts or worker.status is WorkerStatus.RUNNING:
            return True
        return task.status is TaskStatus.SUCCEEDED and not worker.reproduced

    def discover(self, node: Node, task: TaskId, at: float) -> bool:
        """Take an attempt into a run's history that an earlier owner gave out and no copy told of; False when there is nothing to do."""
        run = self.core.runs.get(task.run)
        worker = run.workers.get(task.worker) if run is not None else None
        if run is None or worker is None or worker.known is None or task.attempt in worker.known:
            return False
        if is_of_a_later_epoch(task.attempt, run.epoch):
            return False  # a later owner gave it: this one will hear of that
        worker.known.add(task.attempt)
        record = TaskRecord(*task, node.info.name, TaskStatus.ASSIGNED, at)
        worker.open[task.attempt] = record
        worker.attempts = max(worker.attempts, task.attempt)
        self.core.members.book(node.info.name, task, worker.spec.resources)
        self.core.save_task(record)
        self.core.save_worker(run, worker)
        return True

    # --- what nodes tell ------------------------------------------------------------------------------------------------

    def claims(self) -> tuple[tuple[str, int], ...]:
        """The runs, with their epochs, that a node is asked about when it is met."""
        return tuple((run.id, run.epoch) for run in self.core.runs.values() if run.taken_up)

    def claimed_at(self, event: on.RunsClaimed) -> None:
        """A node has said what it knows of runs."""
        node = self.core.members.expect(event.node)
        node.resend_delay = 0.0
        for run_id, epoch, owner in event.refused:
            run = self.core.runs.get(run_id)
            if run is None or self.core.ownership.overruled(run, owner, epoch):
                continue
            if node.claims.get(run_id) != run.epoch:  # the claim was of an earlier epoch of one's own
                self.core.members.claim(event.node, run)
        for fact in event.facts:
            self.core.attempts.learn(node, fact)
        # What was said to a claim from before a run was let go of and taken over again is no word on what it was given since.
        answered = {run_id: epoch for run_id, epoch in event.runs.items() if node.claims.get(run_id, epoch) == epoch}
        if event.held is not None:
            self.core.members.settle_held(node, event.held, answered)
            self.core.members.send_cancels(node)
        for run_id in answered:
            node.claims.pop(run_id, None)
            self.heard(run_id, event.node)

    def not_asked(self, run_id: str, node: str) -> None:
        """A node has come in sight that was asked before a run was taken up: an adopted one waits for it as well.

        Another owner of the run may have given it a worker, of which it tells once the run is claimed.
        """
        run = self.core.runs[run_id]
        if run.adopted:
            run.awaiting.add(node)

    def heard(self, run_id: str, node: str) -> None:
        """A node has told what it knows of a run, or will not: once all have, its workers are placed."""
        run = self.core.runs.get(run_id)
        if run is None or node not in run.awaiting:
            return
        run.awaiting.discard(node)
        if not run.awaiting:
            for worker in run.workers.values():
                if worker.status is WorkerStatus.READY and not worker.open:
                    self.core.placing.enqueue(run, worker)
