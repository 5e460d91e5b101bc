"""What the cores want done. The shell saves first, in one transaction per batch, and does the rest only after the commit."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from wattle.core.model import (
    Assignment,
    CopyPage,
    Fact,
    RunHead,
    RunRecord,
    Snapshot,
    TaskId,
    TaskRecord,
    WorkerRecord,
    WorkerStatus,
    Workflow,
)
from wattle.core.states import Phase
from wattle.values import value

# --- to be saved by a coordinator -----------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class CreateRun:
    """Store a new run with all its workers.

    ``moved`` are the records of those that were given out, or ended, in this very batch. Of all others those in ``ready`` may start, since
    the run was created, and the rest waits: a run of 100,000 workers is told without a record of each.
    """

    run: RunRecord
    workflow: Workflow
    ready: Set[str]
    moved: tuple[WorkerRecord, ...]
    submission: Any

    def records(self) -> Iterator[WorkerRecord]:
        """The record of every worker, in the order of the workflow."""
        moved = {worker.name: worker for worker in self.moved}
        for name in self.workflow.workers:
            if name in moved:
                yield moved[name]
            elif name in self.ready:
                yield WorkerRecord(self.run.id, name, WorkerStatus.READY, ready_at=self.run.created_at)
            else:
                yield WorkerRecord(self.run.id, name, WorkerStatus.CREATED)


@value(frozen=True, slots=True)
class SaveRun:
    """Store a run's row."""

    run: RunRecord


@value(frozen=True, slots=True)
class SaveWorker:
    """Store what changed of a worker."""

    worker: WorkerRecord


@value(frozen=True, slots=True)
class SaveTask:
    """Store an attempt."""

    task: TaskRecord


@value(frozen=True, slots=True)
class SaveCursor:
    """Remember up to which entry a node's feed has been learned; ``store`` is the identity of the node's data folder."""

    node: str
    store: str
    number: int


@value(frozen=True, slots=True)
class SaveSettled:
    """Remember up to which commit everything has been on as many stores as a quorum takes."""

    number: int


@value(frozen=True, slots=True)
class ReadAgain:
    """Forget how far the feeds of all nodes but these have been learned: they are to be read from their first entry when next met."""

    but: frozenset[str]


@value(frozen=True, slots=True)
class SaveHolder:
    """Remember that a node has a copy of some content that a run passes around."""

    run: str
    digest: str
    node: str


@value(frozen=True, slots=True)
class SaveLateFact:
    """Note in the history how an attempt ended whose run is over: it becomes ``superseded`` unless its end is known."""

    node: str
    fact: Fact


@value(frozen=True, slots=True)
class AdoptRun:
    """Store a run that was another owner's, whole; ``snapshot.run`` says where it stands now."""

    snapshot: Snapshot


@value(frozen=True, slots=True)
class SaveDefinition:
    """Store a workflow's definition, as opaque as it came."""

    definition: Any


@value(frozen=True, slots=True)
class ReleaseRun:
    """Have a run no more: ``head`` says who has it now. What is stored of it stays as a copy of that owner's until a real one comes.

    ``handing``: it is cancelled, and that owner is not known to know: it stays here as well until that is so.
    """

    head: RunHead
    handing: bool = False


@value(frozen=True, slots=True)
class ForgetRun:
    """Remove a final run for good, unless another owner has it meanwhile; ``head`` says when, and is all that is remembered of it."""

    head: RunHead


@value(frozen=True, slots=True)
class SaveCopies:
    """Keep what another owner's page says, and how far it goes (either core)."""

    page: CopyPage


# --- to be done by a coordinator after the commit -------------------------------------------------------------------


@value(frozen=True, slots=True)
class Assign:
    """Give a task to a node."""

    node: str
    assignment: Assignment


@value(frozen=True, slots=True)
class Cancel:
    """Have a node end a task."""

    node: str
    task: TaskId
    epoch: int


@value(frozen=True, slots=True)
class Withdraw:
    """Send a node none of the Assign and Cancel effects before this one that have not been sent yet: it was given up.

    They may wait there for the answer to an earlier command. Should the node come back, on an empty data folder perhaps, it would take
    them for orders about attempts that nobody asks it for any more.
    """

    node: str


@value(frozen=True, slots=True)
class AnnounceRun:
    """Publish a run's new status."""

    run: RunRecord


@value(frozen=True, slots=True)
class AnnounceReleased:
    """A run is this coordinator's no more: who waits for it here has to ask its new owner."""

    run: str
    owner: str


@value(frozen=True, slots=True)
class AnnounceWorker:
    """Publish a worker's new status, and the node of its newest attempt."""

    worker: WorkerRecord
    node: str | None
    unreachable: bool = False


@value(frozen=True, slots=True)
class Ship:
    """Send a follower what was committed after ``after``. Ends in Kept or NotKept."""

    peer: str
    after: int


@value(frozen=True, slots=True)
class Ask:
    """Ask a follower how far its copies go, and which better states it knows of runs changed after ``since`` (None: of none).

    Ends in Kept or NotKept.
    """

    peer: str
    since: int | None


@value(frozen=True, slots=True)
class AnswerKeep:
    """Answer a page: the copies of its owner go up to ``number`` here (either core)."""

    token: int
    number: int


@value(frozen=True, slots=True)
class AskCopies:
    """Ask a peer, or oneself, which copies it has; ends in CopiesTold or CopiesUntold.

    With ``runs``: every state it has of these; they were found because of this ``owner``, about which another coordinator then asks, too
    (OwnerInquired). Else with an ``owner``: all copies of that owner's. Else: one copy for each owner it has copies of.
    """

    peer: str
    token: int
    owner: str = ""
    store: str = ""
    runs: tuple[str, ...] = ()


@value(frozen=True, slots=True)
class Gather:
    """Get a copy of a run from a peer that has it, to adopt it in ``epoch``; ends in Gathered or NotGathered."""

    peer: str
    head: RunHead
    epoch: int


@value(frozen=True, slots=True)
class Forget:
    """Have a peer drop a copy that has become worthless, unless it has another in its place by then: another owner has gone on from it."""

    peer: str
    head: RunHead


@value(frozen=True, slots=True)
class Claim:
    """Tell a node who owns runs now, and ask what it knows of them; ends in RunsClaimed or Undelivered."""

    node: str
    runs: tuple[tuple[str, int], ...]


@value(frozen=True, slots=True)
class SetTimer:
    """Call again with a Tick at this time (either core); a later SetTimer replaces an earlier one."""

    at: float | None


CoordinatorEffect = (
    CreateRun
    | SaveRun
    | SaveWorker
    | SaveTask
    | SaveCursor
    | SaveSettled
    | ReadAgain
    | SaveHolder
    | SaveLateFact
    | AdoptRun
    | SaveDefinition
    | ReleaseRun
    | ForgetRun
    | SaveCopies
    | Assign
    | Cancel
    | Withdraw
    | AnnounceRun
    | AnnounceReleased
    | AnnounceWorker
    | Ship
    | Ask
    | AnswerKeep
    | AskCopies
    | Gather
    | Forget
    | Claim
    | SetTimer
)

COORDINATOR_SAVES = (
    CreateRun,
    SaveRun,
    SaveWorker,
    SaveTask,
    SaveCursor,
    SaveSettled,
    ReadAgain,
    SaveHolder,
    SaveLateFact,
    AdoptRun,
    SaveDefinition,
    ReleaseRun,
    ForgetRun,
    SaveCopies,
)
"""Those that a coordinator's store writes."""


# --- to be saved by a runtime ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class HeldTask:
    """One row of the runtime's ``tasks``: the assignment, by whom, and how far it has come. Only RuntimeCore.change changes one.

    ``ending`` is set once the task is to be stopped (see core/runtime.py: Ending); ``accepted`` orders the queue.
    """

    assignment: Assignment
    owner: str
    phase: Phase
    accepted: int
    pid: int | None = None
    started_at: float | None = None
    ending: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_seconds: float = 0.0
    memory_peak: int = 0


@value(frozen=True, slots=True)
class SaveHeldTask:
    """Store a task's row."""

    task: HeldTask


@value(frozen=True, slots=True)
class SaveFence:
    """Remember the highest (epoch, owner) seen for a run."""

    run: str
    epoch: int
    owner: str


@value(frozen=True, slots=True)
class Append:
    """Append a fact to the feed. All facts of one batch make one numbered entry."""

    fact: Fact


# --- to be done by a runtime after the commit -------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Answer:
    """Answer one task of a command. ``code`` is OK, or why not: FENCED (epoch and owner are the current ones), OVER (it has ended here),
    PASSED (a later attempt of its worker has), DRAINING or UNFIT (it has ended here now, as handed back).
    """

    token: int
    task: TaskId
    code: str = "OK"
    reason: str = ""
    epoch: int = 0
    owner: str = ""


@value(frozen=True, slots=True)
class AnswerClaim:
    """Answer a claim: ``refused`` are the runs that others have, as (run, epoch, owner)."""

    token: int
    refused: tuple[tuple[str, int, str], ...]


@value(frozen=True, slots=True)
class Prepare:
    """Put a task's inputs in place; ends in Prepared or PrepareFailed."""

    assignment: Assignment


@value(frozen=True, slots=True)
class Abandon:
    """Stop preparing or collecting for a task: it has ended."""

    task: TaskId


@value(frozen=True, slots=True)
class Spawn:
    """Start a task's process; ends in ProcessStarted, SpawnFailed or Skipped.

    With ``needs`` of None it starts now. Otherwise once all of these have exited with status 0 and were not told to end, and a task of the
    same kind of room has ended (room.py); asked for again with None, one that waits starts now.
    """

    assignment: Assignment
    needs: tuple[TaskId, ...] | None = None


@value(frozen=True, slots=True)
class Kill:
    """Send a signal to a task's whole process group."""

    task: TaskId
    signal: int


@value(frozen=True, slots=True)
class Revoke:
    """Do not start a task that waits at the spawner; ends in Skipped, unless it has started."""

    task: TaskId


@value(frozen=True, slots=True)
class Acknowledge:
    """Tell the spawner that a task's exit is stored."""

    task: TaskId


@value(frozen=True, slots=True)
class Collect:
    """Hash a task's outputs; ends in Collected or CollectFailed."""

    assignment: Assignment


@value(frozen=True, slots=True)
class NodeUpdate:
    """Publish what this node says of itself."""


@value(frozen=True, slots=True)
class Left:
    """Nothing is left to do here: the runtime may go."""


RuntimeEffect = (
    SaveHeldTask
    | SaveFence
    | Append
    | SaveCopies
    | Answer
    | AnswerKeep
    | AnswerClaim
    | Prepare
    | Abandon
    | Spawn
    | Kill
    | Revoke
    | Acknowledge
    | Collect
    | NodeUpdate
    | Left
    | SetTimer
)
