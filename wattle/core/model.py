"""The words of the system as plain values: what a workflow is once compiled, what a run records, what a task says.

Everything here is immutable and free of I/O. Times are seconds since the epoch (UTC) as floats, sizes are bytes,
durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, NamedTuple

from wattle.values import value


class RunStatus(StrEnum):
    """Where a run stands; the last three are final."""

    CREATED = "created"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can change it any more (short of a retry that the user asks for)."""
        return self in _FINAL_RUN


class WorkerStatus(StrEnum):
    """Where a worker of a run stands; the last four are final."""

    CREATED = "created"  # waits for workers it depends on
    READY = "ready"  # may start: waits for a node, for its retry delay, or in a node's queue
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def final(self) -> bool:
        """Whether the worker is done with, one way or another."""
        return self in _FINAL_WORKER


class TaskStatus(StrEnum):
    """Where one attempt stands, as the coordinator records it; all but the first three are final."""

    ASSIGNED = "assigned"  # committed here, not yet answered for by the runtime
    ACCEPTED = "accepted"  # in the runtime's store
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  # its node is gone, or its process was lost sight of: nobody knows how it ended
    RETURNED = "returned"  # handed back by its runtime, which could not or would not carry it out: no retry is used up
    SUPERSEDED = "superseded"  # another attempt's finish was recorded first

    @property
    def final(self) -> bool:
        """Whether this attempt has ended for the coordinator."""
        return self not in _OPEN_TASK


_FINAL_RUN = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})
_FINAL_WORKER = frozenset({WorkerStatus.SUCCEEDED, WorkerStatus.FAILED, WorkerStatus.CANCELLED, WorkerStatus.SKIPPED})
_OPEN_TASK = frozenset({TaskStatus.ASSIGNED, TaskStatus.ACCEPTED, TaskStatus.RUNNING})


class TaskId(NamedTuple):
    """Identity of one attempt; every message about it is idempotent by this triple. Attempts count from 1."""

    run: str
    worker: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.run}/{self.worker}/{self.attempt}"


# --- a compiled workflow ------------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Retries:
    """How often and when a failed worker is tried again.

    The n-th retry waits ``min(delay * backoff ** (n - 1), max_delay)`` seconds, give or take a random share of it of up to
    ``jitter``.
    """

    max: int = 0
    delay: float = 1.0
    backoff: float = 2.0
    max_delay: float = 300.0
    jitter: float = 0.1


@value(frozen=True, slots=True)
class WorkerSpec:
    """One worker, checked and complete. Texts may still hold ``${...}`` references (see core/template.py)."""

    name: str
    argv: tuple[str, ...] = ()  # the command split into words, then args; only args when there is a script
    script: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # variable -> entry of the node's secrets
    working_dir: str | None = None
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)  # key -> (worker, output)
    outputs: dict[str, str] = field(default_factory=dict)  # name -> path as written
    needs: tuple[str, ...] = ()  # every worker it waits for: those of its inputs and of `needs`, each once
    params: dict[str, str] = field(default_factory=dict)  # the parameters its texts refer to, as text
    retries: Retries = Retries()
    timeout: float | None = None
    kill_after: float = 10.0
    resources: dict[str, float] = field(default_factory=dict)  # cpus, memory (bytes), gpus, and the site's own
    limits: dict[str, float] = field(default_factory=dict)  # what it gets at most: see wattle/runtime/confinement.py
    sandbox: str = "none"  # none | standard | strict
    run_as: str | None = None  # the user it runs as
    labels: dict[str, str] = field(default_factory=dict)  # what a node's labels must hold
    node: str | None = None
    priority: int = 0
    on_failure: str = "stop"  # stop | continue
    on_disconnect: str = "continue"  # continue | stop


@value(frozen=True, slots=True)
class Workflow:
    """A compiled workflow: workers in the order of the document, the graph known to be free of cycles."""

    name: str
    workers: dict[str, WorkerSpec]
    mode: str = "dependency"  # dependency | levels | sequential


# --- what runtimes and coordinators tell each other ------------------------------------------------------------------


@value(frozen=True, slots=True)
class Output:
    """One output file of a succeeded task: its path as the document gives it (parameters filled in), content digest and size."""

    path: str
    digest: str
    size: int


@value(frozen=True, slots=True)
class Input:
    """One input of a task: which file of which worker, and the content it must have."""

    worker: str
    output: str
    path: str
    digest: str
    size: int


@value(frozen=True, slots=True)
class Usage:
    """What a task used, from wait4(2): CPU seconds (user and system), peak resident memory of its largest process in bytes."""

    cpu_seconds: float = 0.0
    memory_peak: int = 0


@value(frozen=True, slots=True)
class Assignment:
    """Everything a runtime needs to execute one task; self-contained, so that it can start while cut off.

    ``cause`` is for logs alone: what made the worker ready, such as ``node1#17``, entry 17 of node1's feed.
    """

    run: str
    worker: str
    attempt: int
    epoch: int
    workflow: str
    argv: tuple[str, ...] = ()
    script: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    kill_after: float = 10.0
    resources: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    sandbox: str = "none"
    run_as: str | None = None
    priority: int = 0
    on_disconnect: str = "continue"
    cause: str = ""
    after: tuple[tuple[str, int], ...] = ()  # (worker, attempt) of the run that must have succeeded on this node first

    @property
    def id(self) -> TaskId:
        """The task's identity."""
        return TaskId(self.run, self.worker, self.attempt)


class FactKind(StrEnum):
    """What a runtime's feed can say about a task."""

    STARTED = "started"
    FINISHED = "finished"


@value(frozen=True, slots=True)
class Fact:
    """What a runtime's feed says about one task. All fields after ``pid`` belong to ``finished`` alone.

    ``status`` is succeeded, failed, cancelled, lost or returned. ``exit_code`` and ``signal`` exclude each other; both are None
    when no process ran. ``missing`` names inputs that no node in reach could deliver; ``disk_full`` says that the node had no room for
    the task's files, and so handed it back; ``fetched`` are the digests this node now holds copies of.
    """

    kind: FactKind
    run: str
    worker: str
    attempt: int
    at: float
    pid: int | None = None
    started_at: float | None = None
    status: TaskStatus | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    outputs: dict[str, Output] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    usage: Usage | None = None
    disk_full: bool = False

    @property
    def id(self) -> TaskId:
        """The task's identity."""
        return TaskId(self.run, self.worker, self.attempt)


@value(frozen=True, slots=True)
class NodeInfo:
    """What a runtime says of itself: how many tasks at once, what they may use together, and where it stands.

    ``store`` identifies its data folder (a new folder means a new feed); ``feed`` is the number of the feed's newest entry.
    """

    name: str
    incarnation: str
    store: str
    feed: int = 0
    slots: int = 1
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    confines: tuple[str, ...] = ()  # limits it can set on tasks as a whole, and "sandbox", "run_as" where it has them
    draining: bool = False
    queued: int = 0
    running: int = 0
    version: str = ""
    protocol: int = 1


# --- what a coordinator records -------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class RunRecord:
    """One row of the coordinator's ``runs``; ``counts`` are workers by status.

    ``retried`` counts how often the user had it go on after its end. ``adopted`` is the epoch in which it was taken over from another
    owner last, 0 when it never was: attempts are numbered by that (core/numbering.py).
    """

    id: str
    workflow: str
    status: RunStatus
    owner: str
    epoch: int
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    error_message: str | None = None
    cancel_requested: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    retried: int = 0
    adopted: int = 0


@value(frozen=True, slots=True)
class WorkerRecord:
    """The part of one row of the coordinator's ``workers`` that changes while a run goes on.

    ``attempts`` is the number of the newest attempt; ``failures`` counts those that used up a retry;
    ``not_before`` is when the next one may start.
    """

    run: str
    name: str
    status: WorkerStatus
    error_message: str | None = None
    attempts: int = 0
    failures: int = 0
    losses: int = 0  # attempts whose end nobody saw
    reproduced: int = 0  # how often it ran again after success, because every copy of its files was lost
    not_before: float | None = None
    results: Mapping[str, Output] = field(default_factory=dict)
    ready_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None


@value(frozen=True, slots=True)
class TaskRecord:
    """One row of the coordinator's ``tasks``: one attempt, on one node."""

    run: str
    worker: str
    attempt: int
    node: str
    status: TaskStatus
    assigned_at: float
    started_at: float | None = None
    completed_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_message: str | None = None
    usage: Usage | None = None

    @property
    def id(self) -> TaskId:
        """The task's identity."""
        return TaskId(self.run, self.worker, self.attempt)


@value(frozen=True, slots=True)
class Snapshot:
    """A run as its store remembers it: all that is needed to go on with it. ``holders``: digest -> nodes known to have it.

    ``submission`` is opaque here: what a store keeps of the request.
    """

    run: RunRecord
    workflow: Workflow
    workers: Mapping[str, WorkerRecord]
    tasks: tuple[TaskRecord, ...] = ()
    holders: Mapping[str, frozenset[str]] = field(default_factory=dict)
    submission: Any = None


# --- copies -----------------------------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class RunHead:
    """Which state of a run a store has: whose, in which epoch, and whether it is final.

    ``store`` identifies the owner's data folder (empty: not known), ``number`` is the owner's count of commits when the state was
    this one, 0 where another owner's state stands in for it. ``pruned_at`` is when the owner removed the run for good, 0 when it has not:
    nothing else is left of it then. ``cancelled``: the user has asked for its end.
    """

    run: str
    owner: str
    store: str
    epoch: int
    number: int = 0
    retried: int = 0
    final: bool = False
    completed_at: float = 0.0
    pruned_at: float = 0.0
    cancelled: bool = False

    def heeds(self, other: RunHead) -> bool:
        """Whether nothing that was asked of another state of the run is missing in this one.

        That is a cancel: it is one of every state of the run until it has ended or goes on by a retry, whichever owner took it. What
        stands in for an owner's state (``number`` 0) does not say that the owner has heard.
        """
        heard = self.cancelled and self.number > 0
        return not other.cancelled or heard or self.final or self.retried > other.retried

    @property
    def standing(self) -> tuple[int, bool, bool, int, str, float]:
        """Of two owners' states of a run the one of higher standing counts.

        A final state beats one that is not, whatever the epochs: somebody may have seen it. Of two final ones the later owner's stands,
        which is the one that was told where a quorum is set: the other's is of an owner that was cut off, and came to nobody's knowledge,
        however early it was. A run that was pruned does not come back. A retry that the user asked for beats them all.
        """
        return (
            self.retried,
            self.pruned_at > 0,
            self.final,
            self.epoch,
            self.owner,
            -self.completed_at if self.final else 0.0,
        )

    def overtook(self, end: RunHead) -> bool:
        """Whether this is of a later owner that goes on with a run of which another tells an end, and may end it otherwise.

        With a quorum such an end counts only once that owner has given way to it (docs/replication.md, "Quorum").
        """
        goes_on = self.number > 0 and not self.final and not self.pruned_at
        same = end.final and not end.pruned_at and self.retried == end.retried
        return goes_on and same and (self.epoch, self.owner) > (end.epoch, end.owner)

    @property
    def rank(self) -> tuple[int, bool, bool, int, str, float, int]:
        """The higher of two stored states counts: of one owner's the newer. Commits are numbered by each data folder for itself."""
        return (*self.standing, self.number)


@value(frozen=True, slots=True)
class CopiedRun:
    """What changed of a run in its owner's store up to its commit ``number``: rows as (key, JSON text), opaque to those who keep them.

    ``head`` is missing in all but the last part of what does not fit in one page; ``forgotten`` means that the owner has it no more:
    another has it, or with a ``head`` that says so it was pruned.
    """

    run: str
    number: int
    rows: tuple[tuple[str, str], ...] = ()
    head: RunHead | None = None
    forgotten: bool = False


@value(frozen=True, slots=True)
class CopyPage:
    """What changed in an owner's store after its commit ``after``, up to ``number``; an ``after`` of -1 only asks how far the copy is.

    ``part`` counts from 0 the pages sent one after another because of one ``after``: each is worth nothing without those before it.
    ``begun`` is the owner's newest commit when the first of them was made: a page of an earlier telling is late.
    """

    owner: str
    store: str
    after: int
    number: int
    runs: tuple[CopiedRun, ...] = ()
    part: int = 0
    begun: int = 0
