"""What is asked of the spawner and what it tells, as values; and their reading from its messages (wattle/runtime/spawner.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattle.core.model import TaskId, Usage
from wattle.values import value


@value(frozen=True, slots=True)
class SpawnRequest:
    """One process to start, now or, with ``needs``, once these have ended well and a task with the same kind of ``room`` has ended.

    ``room`` of None is taken over by nobody. ``env`` is added to the runtime's own environment; the files are made or appended to.
    ``confined`` is a Confinement's request.
    """

    id: TaskId
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdout: str
    stderr: str
    room: str | None = None
    needs: tuple[TaskId, ...] | None = None
    confined: Mapping[str, Any] | None = None


@value(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to one task's process."""

    id: TaskId


@value(frozen=True, slots=True)
class Started(TaskEvent):
    """A task's process runs. May be told again."""

    pid: int
    at: float


@value(frozen=True, slots=True)
class SpawnFailed(TaskEvent):
    """A task's process could not be started; ``error`` names the file and the fix. ``disk_full``: the fault is the node's."""

    error: str
    disk_full: bool = False


@value(frozen=True, slots=True)
class Skipped(TaskEvent):
    """A task that waited will not start: it was told not to, or one that it needs did not end well."""


@value(frozen=True, slots=True)
class Exited(TaskEvent):
    """A task's process ended, and its group with it. Told again after a reconnection until acknowledged.

    Either ``exit_code`` or ``signal`` is set. ``stopped`` says that the spawner ended it because it was told to stop, or because the
    runtime it was to die with was gone; ``signalled`` that a signal had been sent before, on the runtime's order. Peak memory is at least
    the spawner's own, about 11 MB: the kernel counts from the fork. Its process and when that started are told again here, for a runtime
    that was not there then. ``reason`` is what the spawner knows of why a confined task failed. ``heir`` has
    started in its room.
    """

    exit_code: int | None
    signal: int | None
    usage: Usage
    at: float
    stopped: bool = False
    signalled: bool = False
    pid: int | None = None
    started_at: float | None = None
    reason: str = ""
    heir: TaskId | None = None


@value(frozen=True, slots=True)
class Held:
    """All that the spawner knows, at the start of every connection; ``waiting`` are those it will start by itself.

    ``unfulfilled`` are those that will not be started, and told again like exits until they are acknowledged.
    """

    running: tuple[Started, ...]
    exited: tuple[Exited, ...]
    waiting: tuple[TaskId, ...] = ()
    unfulfilled: tuple[SpawnFailed | Skipped, ...] = ()


@value(frozen=True, slots=True)
class SpawnerLost:
    """The spawner was killed, and these tasks with it: how they would have ended is unknown. ``Held`` of a new spawner follows."""

    tasks: tuple[TaskId, ...]


ProcessEvent = Started | SpawnFailed | Skipped | Exited | Held | SpawnerLost


def task_id(text: str) -> TaskId:
    """The inverse of ``str(TaskId)``."""
    run, worker, attempt = text.split("/")
    return TaskId(run, worker, int(attempt))


def started_from(record: list[Any]) -> Started:
    """A ``started`` record of the protocol."""
    return Started(task_id(record[0]), record[1], record[2])


def exited_from(record: list[Any]) -> Exited:
    """An ``exit`` record of the protocol."""
    id, exit_code, number, cpu_seconds, memory_peak, at, *how = record  # a file of an earlier version's lacks some
    if len(how) > 5 and how[5] is not None:
        how[5] = task_id(how[5])
    return Exited(task_id(id), exit_code, number, Usage(cpu_seconds, memory_peak), at, *how)
