"""A task on its runtime: what is kept of it in memory, why it may be stopped, and what its end means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from signal import Signals

from wattle.core.effects import HeldTask
from wattle.core.model import Fact, FactKind, Output, TaskId, TaskStatus, Usage
from wattle.core.states import Phase


class Ending(StrEnum):
    """Why a task is being stopped before its own end."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    UNMET = "unmet"  # what it was to follow did not succeed
    IMPATIENT = "impatient"  # it has waited too long for room
    DRAINING = "draining"  # the node takes no new work
    LEAVING = "leaving"  # the runtime is told to go
    DISCONNECTED = "disconnected"  # no coordinator in sight and the worker asked for `on_disconnect: stop`


@dataclass(slots=True)
class Task:
    """A task in memory: what is stored of it, and the moments that matter next."""

    held: HeldTask
    queued_at: float
    kill_at: float | None = None  # when SIGKILL follows the SIGTERM
    lined_up: bool = False  # it waits at the spawner, for room
    revoked: Ending | None = None  # why the spawner is told not to start it
    unmet: set[TaskId] = field(default_factory=set)  # tasks here that must succeed first
    id: TaskId = field(init=False)  # made once: it is looked at twenty times

    def __post_init__(self) -> None:
        self.id = self.held.assignment.id


ENDINGS: dict[Ending, tuple[TaskStatus, str]] = {
    Ending.CANCELLED: (TaskStatus.CANCELLED, "cancelled"),
    Ending.TIMEOUT: (TaskStatus.FAILED, "timed out"),
    Ending.UNMET: (TaskStatus.RETURNED, "what it was to follow here did not succeed"),
    Ending.IMPATIENT: (TaskStatus.RETURNED, "no room on the node for longer than its queue_patience"),
    Ending.DRAINING: (TaskStatus.RETURNED, "the node takes no new work"),
    Ending.LEAVING: (TaskStatus.RETURNED, "its node was told to leave"),
    Ending.DISCONNECTED: (TaskStatus.RETURNED, "no coordinator was in sight and the worker says on_disconnect: stop"),
}


def verdict(held: HeldTask, known: str = "") -> tuple[TaskStatus, str | None]:
    """How a task whose process has exited ended, and why; ``known`` is what its spawner knows of a failure.

    A process that was told to stop has not succeeded even with exit status 0: many programs end so on SIGTERM, midway.
    """
    if held.ending is not None:
        status, reason = ENDINGS[Ending(held.ending)]
        return status, f"timed out after {held.assignment.timeout:g} s" if held.ending == Ending.TIMEOUT else reason
    if held.exit_code == 0:
        return TaskStatus.SUCCEEDED, None
    how = f"exit status {held.exit_code}" if held.signal is None else f"killed by signal {_signal_name(held.signal)}"
    return TaskStatus.FAILED, f"{known} ({how})" if known else how


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # real-time signals have no name
        return str(number)


def deadline_of(task: Task) -> float | None:
    """When a running task is over its timeout; None when it has none, has not started, or is being stopped already."""
    held = task.held
    if (
        held.started_at is None
        or held.ending is not None
        or held.assignment.timeout is None
        or held.phase is Phase.COLLECTING
    ):
        return None
    return held.started_at + held.assignment.timeout


def next_moment(task: Task, patience: float) -> float | None:
    """When there is something to do about a task if nothing happens to it before; ``patience`` is how long it may wait for room."""
    if task.kill_at is not None:
        return task.kill_at
    waits_for_room = task.held.phase is Phase.QUEUED or (task.lined_up and task.held.phase is Phase.STARTING)
    if waits_for_room and not task.unmet and not task.revoked:
        return task.queued_at + patience
    return deadline_of(task)


def finish(
    held: HeldTask,
    status: TaskStatus,
    error: str | None,
    at: float,
    outputs: Mapping[str, Output],
    missing: tuple[str, ...],
    disk_full: bool,
) -> Fact:
    """What the feed says of the end of a task."""
    ran = held.started_at is not None
    return Fact(
        FactKind.FINISHED,
        *held.assignment.id,
        at=at,
        pid=held.pid,
        started_at=held.started_at,
        status=status,
        exit_code=held.exit_code,
        signal=held.signal,
        error=error,
        outputs=dict(outputs),
        missing=missing,
        fetched=tuple(i.digest for i in held.assignment.inputs.values()) if ran else (),
        usage=Usage(held.cpu_seconds, held.memory_peak) if ran else None,
        disk_full=disk_full,
    )
