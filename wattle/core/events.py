"""What can be told to the cores. Everything from outside comes in as one of these, with the time as a separate argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wattle.core.model import (
    Assignment,
    Fact,
    NodeInfo,
    Output,
    RunRecord,
    TaskId,
    TaskRecord,
    Usage,
    WorkerRecord,
    Workflow,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as its store remembers it: all that is needed to go on with it. ``holders``: digest -> nodes known to have it."""

    run: RunRecord
    workflow: Workflow
    workers: Mapping[str, WorkerRecord]
    tasks: tuple[TaskRecord, ...] = ()
    holders: Mapping[str, frozenset[str]] = field(default_factory=dict)


# --- to the coordinator core --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a new run. ``submission`` is opaque here and handed on with CreateRun: what the store keeps of the request."""

    run: str
    workflow: Workflow
    submission: Any = None


@dataclass(frozen=True, slots=True)
class Restore:
    """Take up an unfinished run again, after a restart."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class RetryRun:
    """Run again what did not succeed in a final run."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class CancelRun:
    """End a run as soon as what runs has been stopped."""

    run: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A runtime is in sight. ``held`` are this owner's tasks it had open, with their epochs; its feed has been read since then."""

    info: NodeInfo
    held: Mapping[TaskId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A runtime in sight says something new of itself."""

    info: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeUnreachable:
    """A runtime's liveliness token is gone. ``incarnation`` guards against a token that a restart replaced."""

    node: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class FactsLearned:
    """One entry of a runtime's feed. Entries count from 1; each is told once, in order (the shell keeps the cursor with the core)."""

    node: str
    store: str
    number: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A runtime has stored these tasks."""

    node: str
    tasks: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """A runtime has taken note that these tasks are to end."""

    node: str
    tasks: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A runtime did not take a task. ``code`` is FENCED (then ``epoch`` and ``owner`` are the current ones), DRAINING or UNFIT."""

    node: str
    task: TaskId
    code: str
    reason: str
    epoch: int = 0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A command to this node got no answer: what is open is sent again, with the same identities, while the node is in sight."""

    node: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed (either core)."""


CoordinatorEvent = (
    Submit
    | Restore
    | RetryRun
    | CancelRun
    | NodeSeen
    | NodeChanged
    | NodeUnreachable
    | FactsLearned
    | Delivered
    | CancelAnswered
    | Refused
    | Undelivered
    | Tick
)


# --- to the runtime core --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """A coordinator gives tasks. The core answers each through an Answer effect with this ``token``."""

    token: int
    owner: str
    tasks: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """A coordinator wants tasks ended: (task, epoch of the order) pairs."""

    token: int
    owner: str
    tasks: tuple[tuple[TaskId, int], ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task's inputs are in place; ``fetched`` are the digests that came from elsewhere."""

    task: TaskId
    fetched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """A task cannot start. ``missing`` names inputs nobody in reach has; without any, the fault lies with the task."""

    task: TaskId
    error: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The spawner started a task's process."""

    task: TaskId
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The spawner could not start a task's process."""

    task: TaskId
    error: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A task's process ended; exactly one of ``exit_code`` and ``signal`` is set."""

    task: TaskId
    exit_code: int | None
    signal: int | None
    usage: Usage
    at: float


@dataclass(frozen=True, slots=True)
class ProcessesLost:
    """The spawner is gone, and with it any knowledge of what it ran; or it does not know these tasks after a restart."""

    tasks: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """A succeeded task's outputs are hashed."""

    task: TaskId
    outputs: Mapping[str, Output]


@dataclass(frozen=True, slots=True)
class CollectFailed:
    """A succeeded task did not leave the outputs it declares."""

    task: TaskId
    error: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing new and hand back what waits; with ``leave_at``, stop what still runs then and be done."""

    leave_at: float | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Take work again."""


@dataclass(frozen=True, slots=True)
class CoordinatorsInSight:
    """The coordinators whose liveliness tokens are there."""

    names: frozenset[str]


RuntimeEvent = (
    Assigned
    | CancelAsked
    | Prepared
    | PrepareFailed
    | ProcessStarted
    | SpawnFailed
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
