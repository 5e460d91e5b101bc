"""The coordinator's mind: owns runs, decides what starts where, and learns from facts how it went. Pure: no I/O, no clock, no chance.

``handle(events, now)`` is the whole interface. What must survive comes out as Save effects, which the shell commits before it performs any
of the others. All work is O(1) per event and per placed worker, but for what is rare: a node lost, a run cancelled, files lost.

The parts: this file is the life of runs and workers, core/attempts.py that of their attempts, core/files.py knows where outputs are,
core/membership.py follows nodes coming and going, core/placing.py gives them work, core/ownership.py knows whose runs are whose.
core/run.py keeps a run's counters, core/placement.py ranks nodes, core/states.py has the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.ahead import Ahead
from wattle.core.attempts import CANCELLED, Attempts
from wattle.core.copies import Copies
from wattle.core.effects import CoordinatorEffect
from wattle.core.files import Files
from wattle.core.membership import Membership
from wattle.core.model import RunHead, RunStatus, Snapshot, TaskId, TaskRecord, TaskStatus, WorkerStatus
from wattle.core.ownership import Ownership
from wattle.core.placement import Node
from wattle.core.placing import Placing
from wattle.core.recall import Recall
from wattle.core.replication import Replication
from wattle.core.run import Run, Worker
from wattle.core.states import WORKER_TABLE, TaskEvent, WorkerEvent, next_state
from wattle.core.succession import Succession

NOT_SHIPPED = (do.SaveCopies, do.SaveCursor, do.ReadAgain, do.SaveSettled)
"""What followers need not know: two coordinators that keep each other's copies would else tell each other of that for ever."""


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """``lost_after``: seconds out of sight until a node's tasks go to others. ``prefetch_window``: seconds of short tasks sent ahead."""

    lost_after: float = 30.0
    prefetch_window: float = 0.25
    adopt_after: float = 1.0  # seconds out of sight until another owner's runs are taken over
    replicas: int = (
        2  # other stores that have what is acknowledged, where there are that many; also the runtimes that keep copies
    )
    quorum: int = 0  # peers in sight, this one included, without which nothing is assigned or adopted; 0: none
    companions: frozenset[str] = frozenset()  # runtimes on this coordinator's own data folder: a copy there is none
    max_losses: int = 10  # attempts of one worker whose nodes vanished, before it is taken for the cause
    max_reproduced: int = 3  # times a succeeded worker runs again because its files are gone
    lost_shown: int = 1000  # nodes given up that are remembered to be shown as lost


class CoordinatorCore:
    """See the module's docstring. ``share`` returns random numbers from [0, 1) for the jitter of retries.

    ``store`` is the identity of its data folder, ``number`` the count of commits there that followers are told of: every batch that saves
    more than copies and cursors is one more. What a batch commits may be acknowledged once the property ``settled`` has reached the number
    it got; as an argument it is what the store remembers of that.

    ``runs`` are the unfinished ones. ``saves`` and ``acts`` collect the effects of the batch being handled. A shell that knows that
    nobody listens may set ``announcing`` to False: AnnounceWorker effects, a good part of the work, are then left out.
    """

    def __init__(
        self,
        name: str,
        options: CoordinatorOptions,
        share: Callable[[], float],
        *,
        store: str = "",
        number: int = 0,
        settled: int = 0,
    ) -> None:
        self.name, self.store = name, store
        self.number = number
        self.options = options
        self.share = share
        self.announcing = True
        self.runs: dict[str, Run] = {}
        self.now = 0.0  # the time of the batch being handled
        self.cause = ""  # the event being handled, for logs
        self.members = Membership(self)
        self.attempts = Attempts(self)
        self.files = Files(self)
        self.ahead = Ahead(self)
        self.placing = Placing(self)
        self.ownership = Ownership(self)
        self.recall = Recall(self)
        self.copies = Copies()
        self.replication = Replication(self, settled)
        self.succession = Succession(self)
        self.saves: list[CoordinatorEffect] = []
        self.acts: list[CoordinatorEffect] = []
        self._order = 0
        self._done: dict[str, Run] = {}  # done, and waiting to be ended until what it began with is settled
        self._had_quorum = False
        self._new: dict[str, tuple[Run, object]] = {}
        self._adopted: set[str] = set()  # in this batch
        self._runs: dict[str, Run] = {}  # touched in this batch, to be saved once
        self._workers: dict[Worker, Run] = {}
        self._tasks: dict[TaskId, TaskRecord] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            on.Submit: self._submit,
            on.Restore: self.recall.restore,
            on.RetryRun: self.recall.retry,
            on.CancelRun: self._cancel_run,
            on.Define: self._define,
            on.NodeSeen: self.members.seen,
            on.NodeChanged: self.members.changed,
            on.NodeUnreachable: self.members.unreachable,
            on.FactsLearned: self.members.facts,
            on.Delivered: self.members.delivered,
            on.CancelAnswered: self.members.cancel_answered,
            on.Refused: self.members.refused,
            on.Undelivered: self.members.undelivered,
            on.RunsClaimed: self.recall.claimed_at,
            on.TokenSeen: self.succession.appeared,
            on.CoordinatorSeen: self.succession.seen,
            on.CoordinatorGone: self.succession.gone,
            on.OwnerInquired: self.succession.inquired,
            on.Prune: self.ownership.prune,
            on.Keep: self.ownership.keep,
            on.Kept: self.ownership.kept,
            on.NotKept: self.replication.not_kept,
            on.CopiesTold: self.succession.told,
            on.CopiesUntold: self.succession.untold,
            on.Gathered: self.succession.gathered,
            on.NotGathered: self.succession.not_gathered,
            on.Tick: lambda _: None,  # the clocks are looked at after every batch anyway
        }

    @property
    def nodes(self) -> dict[str, Node]:
        """Every runtime seen since the start, by name."""
        return self.members.pool.nodes

    @property
    def settled(self) -> int:
        """The newest commit that may be acknowledged: it is on as many other stores as was asked for, and there are."""
        return self.replication.settled

    def begun(self, run: str) -> int:
        """The commit with which an unfinished run came to this owner, was retried or taken up again; 0 for others.

        What is told of such a run has to be settled too: it may have been another owner's since somebody asked for a change of it, and then
        what this owner stored of that change before is not what others keep of the run now.
        """
        return self.runs[run].begun if run in self.runs else 0

    @property
    def takes_new_run(self) -> bool:
        """Whether a run has been submitted in the batch at hand."""
        return bool(self._new)

    # --- in and out ---------------------------------------------------------------------------------------------------

    def handle(self, events: Iterable[on.CoordinatorEvent], now: float) -> list[CoordinatorEffect]:
        """Everything that follows from ``events``: first what to save, then what to do.

        Raises IllegalTransition when an event cannot have happened: a fault of Wattle's own.
        """
        self.now = now
        for event in events:
            self.cause = on.cause(event)
            self._handlers[type(event)](event)
        self.cause = "time"
        self.members.check_clocks()
        self.succession.check_clocks()
        self.placing.release_delayed()
        self.replication.choose()
        self._settle_anew()
        self._end_done()
        self.placing.place()
        saves = self._collect_saves()
        if any(not isinstance(effect, NOT_SHIPPED) for effect in saves):
            self.number += 1
        self.replication.ship()
        out = [*saves, *self.acts, do.SetTimer(self._next_moment())]
        self.acts = []
        return out

    def _collect_saves(self) -> list[CoordinatorEffect]:
        out: list[CoordinatorEffect] = []
        if self._new or self._runs or self._workers or self._tasks or self.saves:
            self.replication.remember()
        for run, submission in self._new.values():
            out.append(do.CreateRun(run.record(), run.workflow, *run.new_workers(), submission))
            self._runs.pop(run.id, None)
        out += [do.SaveRun(run.record()) for run in self._runs.values()]
        out += [do.SaveWorker(w.record(run.id)) for w, run in self._workers.items() if run.id not in self._new]
        out += [do.SaveTask(task) for task in self._tasks.values()]
        # Adoptions come before what changed of the adopted runs since, and releases after.
        first = [effect for effect in self.saves if isinstance(effect, do.AdoptRun)]
        out = first + out + [effect for effect in self.saves if not isinstance(effect, do.AdoptRun)]
        self._new, self._runs, self._workers, self._tasks = {}, {}, {}, {}
        self.saves, self._adopted = [], set()
        return out

    def _next_moment(self) -> float | None:
        moments = [
            *self.placing.moments(),
            *self.members.moments(),
            *self.replication.moments(),
            *self.succession.moments(),
        ]
        return min(moments, default=None)

    def save_adopted(self, snapshot: Snapshot) -> None:
        """Have a run that was another owner's stored with this batch, in the place of one of its name that was submitted in it."""
        self._new.pop(snapshot.run.id, None)
        self._adopted.add(snapshot.run.id)
        self.saves.append(do.AdoptRun(snapshot))

    def touch(self, run: Run) -> None:
        """Have a run's row stored with this batch."""
        self._runs[run.id] = run

    def save_worker(self, run: Run, worker: Worker) -> None:
        """Have a worker's row stored with this batch."""
        self._workers[worker] = run

    def save_task(self, record: TaskRecord) -> None:
        """Have an attempt's record stored with this batch."""
        self._tasks[record.id] = record

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _submit(self, event: on.Submit) -> None:
        if event.run in self.runs or event.run in self._adopted:
            return  # told twice, or it has just come from another owner: of one that has ended nothing is in memory
        run = Run(event.run, event.workflow, self.name, 1, self.now, self.next_order())
        run.begun = self.number + 1
        self.runs[run.id] = run
        self._new[run.id] = run, event.submission
        self.acts.append(do.AnnounceRun(run.record()))
        if event.to_its_end and not self.options.quorum:  # with one it could not end before its beginning is settled
            self.replication.send_soon()
        else:
            self.replication.hasten()
        self.open_created(run)
        self.end_if_done(run)

    def _cancel_run(self, event: on.CancelRun) -> None:
        self.cancel(event.run)

    def cancel(self, run_id: str) -> None:
        """End a run as soon as what runs has been stopped."""
        run = self.runs.get(run_id)
        if run is None or run.cancel_requested:
            return
        run.cancel_requested = True
        self.touch(run)
        self.replication.hasten()
        self._wind_down(run, WorkerEvent.CANCELLED, CANCELLED)
        self.end_if_done(run)

    def _define(self, event: on.Define) -> None:
        self.saves.append(do.SaveDefinition(event.definition))
        self.replication.hasten()

    def _wind_down(self, run: Run, event: WorkerEvent, reason: str) -> None:
        """End every worker that has no open attempt, and have the open attempts ended that should not go on."""
        for worker in run.workers.values():
            if worker.status.final:
                continue
            if not worker.open:
                self.move(run, worker, event, reason)
            self.end_unwanted(run, worker)

    def end_unwanted(self, run: Run, worker: Worker) -> None:
        """Have those open attempts of a worker ended that should not go on."""
        for record in worker.open.values():
            if _unwanted(run, worker, record):
                self.members.cancel(record.node, record.id, run.epoch)

    def settle(self, run: Run) -> None:
        """Let everything happen to a run just taken up that follows from its state: a crash or a lost message may have come before it."""
        if run.cancel_requested:
            self._wind_down(run, WorkerEvent.CANCELLED, CANCELLED)
        elif run.stopped_by is not None:
            self._wind_down(run, WorkerEvent.SKIPPED, run.not_started)
        for worker in run.workers.values():
            if worker.status is WorkerStatus.CREATED:
                failed = run.failed_need(worker)
                if failed is not None and not worker.open:
                    self.skip(run, worker, failed)
        self.open_created(run)
        self.end_if_done(run)

    def start_run(self, run: Run, at: float) -> None:
        """Note that the first of its tasks runs."""
        if run.status is RunStatus.CREATED:
            run.status, run.started_at = RunStatus.RUNNING, at
            self.touch(run)
            self.acts.append(do.AnnounceRun(run.record()))

    def end_if_done(self, run: Run) -> None:
        """Give the run its final state once all its workers have theirs; it then leaves the memory."""
        if run.left or run.id not in self.runs:
            return
        if self.unsettled(run):
            self._done[run.id] = run
            return
        self._close_attempts(run)
        run.status, run.error = run.outcome()
        run.completed_at = self.now
        self.touch(run)
        self.replication.hasten()
        self.acts.append(do.AnnounceRun(run.record()))
        del self.runs[run.id]
        if run.taken_up:
            self.members.claim_no_more(run)

    def ended_now(self, run_id: str) -> RunHead | None:
        """The end of a run that has ended in the batch at hand: it is neither in memory any more nor in the store yet."""
        run = self._runs.get(run_id)
        return None if run is None or run_id in self.runs else run.head(self.store)

    def unsettled(self, run: Run) -> bool:
        """Whether a quorum is asked for, and is not known to have the state that a run began with here: it does not end before."""
        if not self.options.quorum:
            return False
        return not (self._had_quorum and self.succession.quorum) or self.settled < run.begun

    def look_for_quorum(self) -> None:
        """A peer is out of sight: whether a quorum is in sight still."""
        self._had_quorum = self._had_quorum and self.succession.quorum

    def _settle_anew(self) -> None:
        """Have what was taken over or retried settled anew once a quorum is back in sight: another may have told of an end meanwhile."""
        if self.options.quorum and self.succession.quorum and not self._had_quorum:
            self._had_quorum = True
            for run in self.runs.values():
                if run.epoch > 1:
                    run.begun = self.number + 1
                    self.touch(run)
                    self.replication.hasten()

    def _end_done(self) -> None:
        """Look again at the runs that were done before what they began with was settled."""
        done, self._done = self._done, {}
        for run in done.values():
            if self.runs.get(run.id) is run:
                self.end_if_done(run)

    def _close_attempts(self, run: Run) -> None:
        """Note of attempts still open that others were faster: whether their ends will ever be told, nobody knows."""
        for worker in run.workers.values():
            for record in list(worker.open.values()):
                self.attempts.advance(worker, record, TaskEvent.SUPERSEDED)
                self.nodes[record.node].release(record.id)

    def forget(self, run: Run, head: RunHead) -> None:
        """Have a run in memory no more: ``head`` is the state that counts now."""
        self._runs.pop(run.id, None)
        for worker in run.workers.values():
            self._workers.pop(worker, None)
            for record in worker.open.values():
                node = self.nodes[record.node]
                node.release(record.id)
                if head.final:
                    self.members.cancel(record.node, record.id, run.epoch)
                else:
                    node.cancels.pop(record.id, None)
                self._tasks.pop(record.id, None)
        del self.runs[run.id]

    def next_order(self) -> int:
        """The place in the order of arrival for one more run."""
        self._order += 1
        return self._order

    # --- workers ------------------------------------------------------------------------------------------------------

    def move(self, run: Run, worker: Worker, event: WorkerEvent, error: str | None = None) -> bool:
        """Advance a worker by the table and let everything follow that hangs on it; False when the event is late."""
        status = next_state(WORKER_TABLE, worker.status, event, lambda: worker.story(run.id))
        if status is None:
            return False
        run.change(worker, status)
        worker.error = error
        self._workers[worker] = run
        self._runs[run.id] = run
        self._stamp(worker, status)
        if self.announcing:
            self.announce(run, worker)
        if status is WorkerStatus.READY:
            worker.cause = self.cause
            for record in worker.open.values():
                self.nodes[record.node].turn(record.id)
            self.placing.enqueue(run, worker)
        elif status is WorkerStatus.SUCCEEDED:
            for name in worker.dependents:
                dependent = run.workers[name]
                if dependent.status is WorkerStatus.CREATED:
                    dependent.waiting -= 1
                    if not dependent.waiting:
                        self._open(run, dependent)
        elif status is WorkerStatus.FAILED:
            self._after_failure(run, worker)
        if status.final:
            for record in worker.open.values():  # the first recorded finish wins
                self.members.cancel(record.node, record.id, run.epoch)
            if run.by_stage:
                for waiting in run.open_stages():
                    self._open(run, waiting)
        return True

    def _stamp(self, worker: Worker, status: WorkerStatus) -> None:
        if status.final:
            worker.completed_at = self.now
            worker.not_before = None
            return
        worker.completed_at = None
        if status is WorkerStatus.READY:
            worker.ready_at = self.now

    def announce(self, run: Run, worker: Worker, unreachable: bool = False) -> None:
        """Publish where a worker stands."""
        if not self.announcing:
            return
        self.acts.append(do.AnnounceWorker(worker.record(run.id), worker.node, unreachable))

    def open_created(self, run: Run) -> None:
        """Make every worker ready that nothing keeps."""
        for worker in run.workers.values():
            if not worker.waiting:
                self._open(run, worker)

    def _open(self, run: Run, worker: Worker) -> None:
        """Make a worker ready when nothing keeps it."""
        if worker.status is not WorkerStatus.CREATED or worker.waiting or worker.stage > run.stage or run.winding_down:
            return
        self.move(run, worker, WorkerEvent.MET)
        if worker.open and any(record.status is TaskStatus.RUNNING for record in worker.open.values()):
            self.move(run, worker, WorkerEvent.STARTED)  # an attempt given up before its files were lost has come back

    def reopen(self, run: Run, worker: Worker, event: WorkerEvent, error: str | None) -> None:
        """Send a worker back to ``created``: it waits for what it needs, unless that has failed meanwhile."""
        worker.waiting = run.unmet(worker)
        self.move(run, worker, event, error)
        failed = run.failed_need(worker)
        if failed is not None:
            self.skip(run, worker, failed)
        self._open(run, worker)

    def _after_failure(self, run: Run, failed: Worker) -> None:
        """What can no longer run is skipped and says why; with ``on_failure: stop`` that is everything that has not started."""
        self._skip_dependents(run, failed, failed.spec.name)
        if failed.spec.on_failure == "stop" and run.stopped_by is None:
            run.stopped_by = failed.spec.name
            self._wind_down(run, WorkerEvent.SKIPPED, run.not_started)

    def skip(self, run: Run, worker: Worker, failed: str) -> None:
        """Skip a worker, and with it all that waits for it, because ``failed`` has failed."""
        self.move(run, worker, WorkerEvent.SKIPPED, f"needs {failed!r}, which failed")
        self._skip_dependents(run, worker, failed)

    def _skip_dependents(self, run: Run, worker: Worker, failed: str) -> None:
        doomed = list(worker.dependents)
        while doomed:
            dependent = run.workers[doomed.pop()]
            if dependent.status is WorkerStatus.CREATED:
                self.move(run, dependent, WorkerEvent.SKIPPED, f"needs {failed!r}, which failed")
                doomed.extend(dependent.dependents)


def _unwanted(run: Run, worker: Worker, record: TaskRecord) -> bool:
    """Whether an open attempt is to be ended; one that runs when another worker's failure stops the run may finish."""
    if run.cancel_requested or worker.status.final:
        return True
    return run.stopped_by is not None and record.status is not TaskStatus.RUNNING
