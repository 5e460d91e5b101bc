"""The spawner's children: tasks are started, or wait for others, and are reaped; so are processes that it has adopted.

Standard library only: the spawner imports it.
"""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wattle.runtime.launch import disk_full, explain, start
from wattle.runtime.outcomes import LINGER, START_LINGER, Outcomes
from wattle.runtime.procfs import children, kill_group, task_of
from wattle.runtime.waiting import Waiting

if TYPE_CHECKING:
    from wattle.runtime.cgroups import Group
    from wattle.runtime.confined import Confined
    from wattle.runtime.disks import Disks

SWEEP = 0.05  # seconds between two looks at adopted processes, at least: with many short tasks more would cost more than they
_ERROR_MAX = 2000  # characters: a command's name may be a megabyte


class _Task:
    """A running task, by its first process, which leads its group."""

    __slots__ = ("at", "confined", "id", "pid", "room", "signalled", "stopped")

    def __init__(self, id: str, pid: int, at: float, confined: Confined | None, room: str | None) -> None:
        self.id = id
        self.pid = pid
        self.at = at
        self.confined = confined
        self.room = room
        self.signalled = False
        self.stopped = False


class Children:
    """See the module's docstring. ``environ`` is the base of every task's environment.

    ``wake`` may be called in any thread: it has ``end_over`` called soon.
    """

    def __init__(self, folder: str, outcomes: Outcomes, wake: Callable[[], None]) -> None:
        self.folder = folder
        self.outcomes = outcomes
        self.wake = wake
        self.environ = dict(os.environ)
        self.tasks: dict[str, _Task] = {}
        self.leaders: dict[int, _Task] = {}
        self.waiting: Waiting[str, list[Any]] = Waiting()
        self.disks: Disks | None = None
        self.leaving: list[Group] = []  # control groups of ended tasks that are not gone yet
        self.swept_at = 0.0
        self.sweep_due = False
        self.moved = False  # into some task's folder
        self.stopping = False
        self.born = _thread.allocate_lock()  # held while no task has been started that await_end has not seen to
        self.born.acquire()

    def ask(self, id: str, *request: Any) -> bool:
        """Start a task, or have it wait; whether it was started."""
        *what, needs = request
        if id in self.outcomes.unfulfilled:
            self.outcomes.tell_unfulfilled(self.outcomes.unfulfilled[id])
            return False
        if needs is not None and id not in self.tasks and id not in self.outcomes.exits:
            unmet = [need for need in needs if not _well(self.outcomes.exits.get(need))]
            if id in self.waiting or all(need in self.tasks or need in self.waiting for need in unmet):
                self.waiting.add(id, [id, *what], what[-1], unmet)
            else:
                self.skip([id])
            return False
        self.waiting.detach(id)
        self.spawn(id, *what)
        self.outcomes.tell(START_LINGER)
        return True

    def pass_on(self, room: str | None) -> str | None:
        """Start the first that waits for such room, if any can be started; returns it."""
        while room is not None and (request := self.waiting.take(room)) is not None:
            self.spawn(*request)
            if request[0] in self.tasks:
                return str(request[0])
        return None

    def end(self, id: str, number: int | None = None) -> None:
        """A task that waits is not started; one that runs is sent the signal, if there is one."""
        if id in self.waiting:
            self.skip(self.waiting.drop(id))
        elif number is not None and id in self.tasks:
            self.tasks[id].signalled = True
            kill_group(self.tasks[id].pid, number)

    def skip(self, ids: list[str]) -> None:
        """Have it told that tasks which waited do not start."""
        for id in ids:
            self.outcomes.tell_unfulfilled([id])

    def fail(self, id: str, problem: str, disk_full: bool = False) -> None:
        """Have it told that a task cannot be started."""
        self.outcomes.tell_unfulfilled([id, problem[:_ERROR_MAX], disk_full])
        self.skip(self.waiting.ended(id, well=False))

    def spawn(
        self,
        id: str,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        stdout: str,
        stderr: str,
        how: dict[str, Any] | None,
        room: str | None,
    ) -> None:
        task = self.tasks.get(id)
        if task is not None:
            self.outcomes.started.append([id, task.pid, task.at])
            self.outcomes.tell(LINGER)
            return
        if id in self.outcomes.exits:
            self.outcomes.exited.append(self.outcomes.exits[id])
            self.outcomes.tell(0)
            return
        if self.stopping:
            self.fail(id, "the spawner is being stopped and starts nothing any more")
            return
        at = time.time()
        self.moved = True
        confined = None
        try:
            if how is None:
                env = {**self.environ, **env, "WATTLE_TASK": id, "WATTLE_SPAWNER": self.folder}
                pid = start(argv, env, cwd, stdout, stderr)
            else:
                confined = _confined(how)
                env = {**confined.environ(self.environ), **env, "WATTLE_TASK": id, "WATTLE_SPAWNER": self.folder}
                pid = confined.start(self.folder, argv, env, cwd, stdout, stderr)
        except (OSError, ValueError, TypeError) as error:
            problem = confined.problem if confined is not None else ""
            self.fail(id, problem or explain(error, argv, env, cwd, stdout, stderr), disk_full(error))
            return
        if self.born.locked():
            self.born.release()
        self.tasks[id] = self.leaders[pid] = _Task(id, pid, at, confined, room)
        if confined is not None and confined.disk is not None:
            self.disks = self.disks or _disks(self.wake)
            self.disks.watch(id, **confined.disk)
        self.outcomes.started.append([id, pid, at])
        self.outcomes.tell(LINGER)

    def end_over(self) -> None:
        """Kill the tasks that were found to take up too much of the disk."""
        while self.disks is not None and self.disks.over:
            id, problem = self.disks.over.popleft()
            task = self.tasks.get(id)
            if task is not None and task.confined is not None:
                unknown = f"limits.disk cannot be enforced: {problem}" if problem else ""
                task.confined.over = unknown or task.confined.reasons["disk"]
                kill_group(task.pid, signal.SIGKILL)

    def stop_all(self) -> None:
        """Have every task end, with SIGTERM, and no other start."""
        self.stopping = True
        self.skip(self.waiting.tasks())
        self.waiting.clear()
        for task in self.tasks.values():
            task.stopped = True
            kill_group(task.pid, signal.SIGTERM)
            kill_group(task.pid, signal.SIGCONT)

    def kill_all(self) -> None:
        """Kill what has not ended with SIGTERM."""
        for task in self.tasks.values():
            kill_group(task.pid, signal.SIGKILL)

    # --- ends -----------------------------------------------------------------------------------------------------------

    def await_end(self) -> int:
        """Block until a process has ended that is not reaped yet, and return its number; on a thread of its own."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
                assert ended is not None  # as it may be with WNOHANG alone
                return ended.si_pid
            except ChildProcessError:
                self.born.acquire()

    def reap(self, pid: int) -> None:
        """Take note of a process that has ended, a task's first or an adopted one."""
        self.sweep_due = True
        task = self.leaders.pop(pid, None)
        if task is None:
            with suppress(ChildProcessError):  # where a command could not be started, the C library has reaped it
                os.waitpid(pid, os.WNOHANG)
            return
        kill_group(pid, signal.SIGKILL)  # while the zombie leader keeps the group's number from being given away
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = [code, None] if code >= 0 else [None, -code]
        cpu = usage.ru_utime + usage.ru_stime
        record = [task.id, *how, cpu, usage.ru_maxrss * 1024, time.time()]
        record += [task.stopped, task.signalled, task.pid, task.at, "", None]
        if task.confined is not None:
            self.leave(task.confined, record)
        del self.tasks[task.id]
        self.outcomes.exits[task.id] = record
        self.outcomes.exited.append(record)
        self.skip(self.waiting.ended(task.id, well=_well(record)))
        record[11] = self.pass_on(task.room)
        short = len(self.outcomes.exited) >= 3 * len(self.waiting)  # more has to be given before nothing waits
        self.outcomes.tell(0 if short or record[11] is None else LINGER)

    def leave(self, confined: Confined, record: list[Any]) -> None:
        """A confined task has ended: say in its record what is known of why, and end its group."""
        record[1:3], record[10] = confined.ended(record[1], record[2], told=record[6] or record[7])
        if self.disks is not None:
            self.disks.forget(record[0])
        if confined.group is not None and not confined.group.end():
            self.leaving.append(confined.group)

    def sweep(self) -> None:
        """Kill adopted processes that belong to no running task.

        One that names none (its environment is unreadable or wiped) might belong to any, so it goes when none runs. A process whose
        parent is just dying is adopted only then; its parent's end is noticed here as well and brings the next sweep.
        """
        self.leaving = [group for group in self.leaving if not group.end()]
        self.sweep_due, self.swept_at = bool(self.leaving), time.monotonic()
        for pid in children():
            if pid in self.leaders:
                continue
            owner = task_of(pid)
            may_stay = owner in self.tasks if owner else bool(self.tasks)
            if not may_stay:
                with suppress(PermissionError):  # one that has changed its user
                    os.kill(pid, signal.SIGKILL)  # our child and not reaped: the number is its own


def _well(exit: list[Any] | None) -> bool:
    """Whether a task has ended with status 0 by itself."""
    return exit is not None and exit[1] == 0 and not any(exit[6:8])


def check_request(
    id: str,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    stdout: str,
    stderr: str,
    how: dict[str, Any] | None,
    room: str | None,
    needs: list[str] | None,
) -> None:
    """Raises TypeError for a spawn request whose parts are not what they have to be."""
    texts = [id, cwd, stdout, stderr, room or "", *argv, *env.values(), *(needs or ())]
    lists = isinstance(argv, list) and isinstance(needs, list | None)
    if not lists or not set(map(type, texts)) <= {str} or (room is None and needs is not None):
        raise TypeError("a spawn request is not made of texts")
    if how is not None:
        _confined(how)


def _confined(how: dict[str, Any]) -> Confined:
    from wattle.runtime.confined import Confined  # few have such tasks, and all start this program

    return Confined(**how)


def _disks(wake: Callable[[], None]) -> Disks:
    from wattle.runtime.disks import Disks

    return Disks(wake)
