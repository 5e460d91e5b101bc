"""What can be told to the cores. Everything from outside comes in as one of these, with the time as a separate argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from wattle.core.model import (
    Assignment,
    CopyPage,
    Fact,
    NodeInfo,
    Output,
    RunHead,
    Snapshot,
    TaskId,
    Usage,
    Workflow,
)
from wattle.values import value

# --- to the coordinator core --------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Submit:
    """Start a new run. ``submission`` is opaque here and handed on with CreateRun: what the store keeps of the request.

    ``to_its_end``: whoever submits it waits for its end, and for no acknowledgement before.
    """

    run: str
    workflow: Workflow
    submission: Any = None
    to_its_end: bool = False


@value(frozen=True, slots=True)
class Restore:
    """Take up an unfinished run again, after a restart."""

    snapshot: Snapshot


@value(frozen=True, slots=True)
class RetryRun:
    """Run again what did not succeed in a final run."""

    snapshot: Snapshot


@value(frozen=True, slots=True)
class Define:
    """Store a workflow's definition, which is opaque here, and have it copied like a run."""

    definition: Any


@value(frozen=True, slots=True)
class CancelRun:
    """End a run as soon as what runs has been stopped."""

    run: str


@value(frozen=True, slots=True)
class NodeSeen:
    """A runtime is in sight. ``held`` are this owner's tasks it had open, with their epochs; its feed has been read since then.

    ``claimed`` are the runs that were claimed there on the way, with the epochs of the claims.
    """

    info: NodeInfo
    held: Mapping[TaskId, int] = field(default_factory=dict)
    claimed: Mapping[str, int] = field(default_factory=dict)


@value(frozen=True, slots=True)
class NodeChanged:
    """A runtime in sight says something new of itself."""

    info: NodeInfo


@value(frozen=True, slots=True)
class NodeUnreachable:
    """A runtime's liveliness token is gone. ``incarnation`` guards against a token that a restart replaced."""

    node: str
    incarnation: str


@value(frozen=True, slots=True)
class FactsLearned:
    """One entry of a runtime's feed. Entries count from 1; each is told once, in order (the shell keeps the cursor with the core).

    ``first``: nothing that is left of the feed comes before it. Entries that concern nobody any more are removed.
    """

    node: str
    store: str
    number: int
    facts: tuple[Fact, ...]
    first: bool = False


@value(frozen=True, slots=True)
class Delivered:
    """A runtime has stored these tasks."""

    node: str
    tasks: tuple[TaskId, ...]


@value(frozen=True, slots=True)
class CancelAnswered:
    """A runtime has taken note that these tasks, which it has, are to end."""

    node: str
    tasks: tuple[TaskId, ...]


@value(frozen=True, slots=True)
class Refused:
    """A runtime did not take a task, or an order to end one; the codes are those of effects.Answer.

    With FENCED, ``epoch`` and ``owner`` are the current ones.
    """

    node: str
    task: TaskId
    code: str
    reason: str
    epoch: int = 0
    owner: str = ""


@value(frozen=True, slots=True)
class Undelivered:
    """A command to this node got no answer: what is open is sent again, with the same identities, while the node is in sight."""

    node: str


@value(frozen=True, slots=True)
class RunsClaimed:
    """A runtime knows now who owns these runs, claimed in these epochs. ``facts`` are all it has ever said of them, ``held`` their tasks it
    has open with their epochs (None: NodeSeen follows, and tells of all), ``refused`` those that others own: (run, epoch, owner). The life
    of it that was asked is still in sight.
    """

    node: str
    runs: Mapping[str, int]
    held: Mapping[TaskId, int] | None = None
    facts: tuple[Fact, ...] = ()
    refused: tuple[tuple[str, int, str], ...] = ()


@value(frozen=True, slots=True)
class TokenSeen:
    """A runtime's or coordinator's liveliness token is there. It is being met (NodeSeen, CoordinatorSeen), and can be asked for copies."""

    peer: str
    incarnation: str


@value(frozen=True, slots=True)
class CoordinatorSeen:
    """Another coordinator is in sight; ``store`` identifies its data folder."""

    name: str
    incarnation: str
    store: str


@value(frozen=True, slots=True)
class CoordinatorGone:
    """A coordinator's liveliness token is gone."""

    name: str
    incarnation: str


@value(frozen=True, slots=True)
class OwnerInquired:
    """Another coordinator asks which states of runs are here, as it has found copies of an owner's that it takes for gone."""

    owner: str
    store: str


@value(frozen=True, slots=True)
class Prune:
    """Remove final runs of this owner's for good; ``runs`` are their states as stored, which the core does not remember."""

    runs: tuple[RunHead, ...]


@value(frozen=True, slots=True)
class Keep:
    """A coordinator wants a page of its changes kept (either core). Answered through AnswerKeep with this ``token``.

    ``own`` are the states of those of its runs that are this coordinator's own; of those that have ended or are handed over the core does
    not remember them.
    """

    token: int
    page: CopyPage
    own: tuple[RunHead, ...] = ()


@value(frozen=True, slots=True)
class Kept:
    """A follower's copies of this coordinator's runs go up to its commit ``number``.

    ``heads`` are the states that count more there of runs changed after commit ``since`` up to ``heard``, those that a later owner
    goes on with (RunHead.overtook) and those whose cancel it has not heard of (RunHead.heeds); ``own`` are the states that this
    coordinator's store has of them (see Keep).
    """

    peer: str
    number: int
    heads: tuple[RunHead, ...] = ()
    own: tuple[RunHead, ...] = ()
    since: int = 0
    heard: int = 0


@value(frozen=True, slots=True)
class NotKept:
    """A follower did not answer."""

    peer: str


@value(frozen=True, slots=True)
class CopiesTold:
    """A peer's answer to AskCopies; ``sees`` are the coordinators in its sight."""

    peer: str
    token: int
    heads: tuple[RunHead, ...]
    sees: frozenset[str] = frozenset()


@value(frozen=True, slots=True)
class CopiesUntold:
    """A peer did not answer AskCopies."""

    peer: str
    token: int


@value(frozen=True, slots=True)
class Gathered:
    """The copy of a run that was asked for, to be adopted in ``epoch``; ``snapshot`` has all its attempts.

    ``left`` is the epoch in which the run was this coordinator's before, where it let go of it; else 0.
    ``own`` is the state of the run that is this coordinator's own in its store by now: of one that has ended only the store tells.
    """

    head: RunHead
    epoch: int
    snapshot: Snapshot
    left: int = 0
    own: RunHead | None = None


@value(frozen=True, slots=True)
class NotGathered:
    """The copy of a run could not be had."""

    head: RunHead


@value(frozen=True, slots=True)
class Tick:
    """Time has passed (either core)."""


CoordinatorEvent = (
    Submit
    | Restore
    | RetryRun
    | CancelRun
    | Define
    | NodeSeen
    | NodeChanged
    | NodeUnreachable
    | FactsLearned
    | Delivered
    | CancelAnswered
    | Refused
    | Undelivered
    | RunsClaimed
    | TokenSeen
    | CoordinatorSeen
    | CoordinatorGone
    | OwnerInquired
    | Prune
    | Keep
    | Kept
    | NotKept
    | CopiesTold
    | CopiesUntold
    | Gathered
    | NotGathered
    | Tick
)


# --- to the runtime core --------------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Assigned:
    """A coordinator gives tasks. The core answers each through an Answer effect with this ``token``."""

    token: int
    owner: str
    tasks: tuple[Assignment, ...]


@value(frozen=True, slots=True)
class CancelAsked:
    """A coordinator wants tasks ended: (task, epoch of the order) pairs."""

    token: int
    owner: str
    tasks: tuple[tuple[TaskId, int], ...]


@value(frozen=True, slots=True)
class ClaimAsked:
    """A coordinator says that it owns runs, as (run, epoch). Answered through AnswerClaim with this ``token``."""

    token: int
    owner: str
    runs: tuple[tuple[str, int], ...]


@value(frozen=True, slots=True)
class Prepared:
    """A task's inputs are in place; ``fetched`` are the digests that came from elsewhere."""

    task: TaskId
    fetched: tuple[str, ...] = ()


@value(frozen=True, slots=True)
class PrepareFailed:
    """A task cannot start: ``missing`` names inputs nobody in reach has, ``disk_full`` says that the node has no room for its files.

    Otherwise the fault lies with the task.
    """

    task: TaskId
    error: str
    missing: tuple[str, ...] = ()
    disk_full: bool = False


@value(frozen=True, slots=True)
class ProcessStarted:
    """The spawner started a task's process."""

    task: TaskId
    pid: int
    at: float


@value(frozen=True, slots=True)
class SpawnFailed:
    """A task's process could not be started; ``disk_full``: because the node has no room for its files, which is no fault of the task's."""

    task: TaskId
    error: str
    disk_full: bool = False


@value(frozen=True, slots=True)
class Skipped:
    """A task that waited at the spawner will not start: it was revoked, told to end, or what it was to follow did not end well."""

    task: TaskId


@value(frozen=True, slots=True)
class StillWaiting:
    """After a restart of the runtime: the tasks that wait at its spawner.

    Told last of what the spawner holds, also when nothing waits there: until then nothing is started.
    """

    tasks: tuple[TaskId, ...]


@value(frozen=True, slots=True)
class ProcessExited:
    """A task's process ended; exactly one of ``exit_code`` and ``signal`` is set."""

    task: TaskId
    exit_code: int | None
    signal: int | None
    usage: Usage
    at: float
    signalled: bool = False  # a signal had been sent to it before, on this runtime's order
    reason: str = ""  # what is known of why it failed, such as that it was out of memory
    heir: TaskId | None = None  # one that waited at the spawner, and has started in its room


@value(frozen=True, slots=True)
class ProcessesLost:
    """The spawner is gone, and with it any knowledge of what it ran; or it does not know these tasks after a restart."""

    tasks: tuple[TaskId, ...]


@value(frozen=True, slots=True)
class Collected:
    """A succeeded task's outputs are hashed."""

    task: TaskId
    outputs: Mapping[str, Output]


@value(frozen=True, slots=True)
class CollectFailed:
    """A succeeded task did not leave the outputs it declares."""

    task: TaskId
    error: str


@value(frozen=True, slots=True)
class Drain:
    """Take nothing new and hand back what waits; with ``leave_at``, stop what still runs then and be done.

    ``kill`` does not wait for the ends of those that are stopped: SIGKILL follows SIGTERM at once.
    """

    leave_at: float | None = None
    kill: bool = False


@value(frozen=True, slots=True)
class Resume:
    """Take work again."""


@value(frozen=True, slots=True)
class CoordinatorsInSight:
    """The coordinators whose liveliness tokens are there."""

    names: frozenset[str]


RuntimeEvent = (
    Assigned
    | CancelAsked
    | ClaimAsked
    | Keep
    | Prepared
    | PrepareFailed
    | ProcessStarted
    | SpawnFailed
    | Skipped
    | StillWaiting
    | ProcessExited
    | ProcessesLost
    | Collected
    | CollectFailed
    | Drain
    | Resume
    | CoordinatorsInSight
    | Tick
)


def cause(event: CoordinatorEvent) -> str:
    """A short name of an event for logs and stories: what followed from it can be found by it."""
    match event:
        case FactsLearned(node, _, number):
            return f"{node}#{number}"
        case NodeSeen(info) | NodeChanged(info):
            return f"{info.name} in sight"
        case NodeUnreachable(node, incarnation):
            return f"{node}/{incarnation} out of sight"
        case _:
            return type(event).__name__
