"""The spawner: a small process that starts tasks, outlives the runtime, and keeps exit statuses until they are acknowledged.

``main FOLDER [--linger SECONDS] [--grace SECONDS]``, started by wattle/runtime/processes.py without site packages: it imports the
standard library and its neighbours channel, exits, launch, procfs and waiting, with the first confined task confined and cgroups, and
nothing else. It prints ``ready`` once
``FOLDER/spawner.sock`` (mode 0600) listens. It serves one runtime at a time; a newer connection replaces an older one.

Messages are JSON objects, one a line. From the runtime, with any of these keys, which take effect in this order::

    {"open": {"environ": {...}, "die_with_runtime": false}}      first on every connection; environ is the base of every task's
    {"ack": [id, ...]}                                           these ends are stored: forget them
    {"spawn": [[id, argv, env, cwd, stdout, stderr, confined, after, on_success], ...]}   a known id is told again, not started again
    {"kill": [[id, signal], ...]}                                to the whole process group; one that waits is not started
    {"revoke": [id, ...]}                                        those of these that wait are not started
    {"stop": true}                                               end all tasks, then this process

``after`` is null, or the id of a task: the new one waits for its end, if that is still to come; with ``on_success`` it starts only if that
exits with status 0 and nobody has told it to end. Asked for again with null, one that waits starts at once; asked for again otherwise,
it goes on waiting as it did. ``confined`` is null, or how the task is confined (wattle/runtime/confinement.py makes it, confined.py obeys).

To the runtime: the answer to ``open``, and then at most one line per turn of the loop. Starts, and ends after which another task started
here by itself, are told at most ``_LINGER`` seconds later, all others at once. All but starts are kept until they are acknowledged::

    {"held": {"version": 5, "pid": p, "running": [started, ...], "lines": [[id, ...], ...], "failed": ..., "skipped": ..., "exited": ...}}
    {"started": [started, ...], "failed": [[id, error, disk full], ...], "skipped": [id, ...], "exited": [exit, ...]}
    started = [id, pid, at]
    exit = [id, exit code or null, signal or null, CPU seconds, peak memory in bytes, at, stopped, signalled, pid, started at, reason]

``lines`` are those that wait, each line behind one that runs, in the order of their turns. ``skipped`` waited and will not start.
``stopped`` marks a task that the spawner ended of its own accord: on ``stop``, SIGTERM, or the loss of a ``die_with_runtime`` runtime;
``signalled`` one that had been sent a signal, on the runtime's order. ``reason`` is what is known of why a confined task failed, else
empty.

What always holds. A task is a session and process group of its own, and nothing of it survives its first process: the group is killed
while its leader is a zombie still, so that the group's number cannot have been given away; processes that left the group are adopted
here (this process is a subreaper) and told apart by their environment. What is in a task's control group is killed, and the
group removed. Exits that nobody acknowledged are in ``FOLDER/exits.json`` once this process has ended. A spawner that finds its forerunner
was killed kills what that one left behind before it serves.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wattle.runtime.channel import VERSION, Connection, listen
from wattle.runtime.exits import load_exits, save_exits
from wattle.runtime.launch import disk_full, explain, start
from wattle.runtime.procfs import children, has_children, kill_group, kill_left_behind, task_of
from wattle.runtime.waiting import Waiting

if TYPE_CHECKING:
    from wattle.runtime.cgroups import Group
    from wattle.runtime.confined import Confined

_FIRST_LINGER = 10.0  # seconds
_ERROR_MAX = 2000  # characters: a command's name may be a megabyte
_SPAWNS_PER_TURN = 16  # so that exits do not wait for the end of a large batch
_LINGER = 0.01  # seconds; the runtime has nothing to do about what waits so long to be told
_SWEEP = (
    0.01  # seconds between two looks at adopted processes, at least: with many short tasks it would cost more than they
)
_SIGNALS = signal.valid_signals()
_PR_SET_CHILD_SUBREAPER = 36


class _Task:
    """A running task, by its first process, which leads its group."""

    __slots__ = ("at", "confined", "id", "pid", "signalled", "stopped")

    def __init__(self, id: str, pid: int, at: float, confined: Confined | None) -> None:
        self.id = id
        self.pid = pid
        self.at = at
        self.confined = confined
        self.signalled = False
        self.stopped = False


class _Spawner:
    """One loop: receive, start and kill, reap, tell."""

    def __init__(self, folder: str, linger: float, grace: float) -> None:
        self.folder = folder
        self.linger_then = linger
        self.linger = max(linger, _FIRST_LINGER)  # until the first connection: whoever started this needs a moment
        self.grace = grace
        self.tasks: dict[str, _Task] = {}
        self.leaders: dict[int, _Task] = {}
        self.exits = load_exits(f"{folder}/exits.json")
        self.on_disk = set(self.exits)
        self.pending: deque[tuple[str, list[Any]]] = deque()
        self.waiting: Waiting[str, list[Any]] = Waiting()
        self.unfulfilled: dict[
            str, list[Any]
        ] = {}  # those that failed to start, and [id] of those skipped; not acknowledged yet
        self.started: list[list[Any]] = []
        self.failed: list[list[Any]] = []
        self.skipped: list[str] = []
        self.exited: list[list[Any]] = []
        self.tell_at: float | None = None  # when what happened is to be told, by the monotonic clock
        self.leaving: list[Group] = []  # control groups of ended tasks that are not gone yet
        self.swept_at = 0.0
        self.sweep_due = False
        self.moved = False  # into some task's folder
        self.environ = dict(os.environ)
        self.connection: Connection | None = None
        self.die_with_runtime = False
        self.asked_to_stop = False
        self.kill_at: float | None = None  # set once everything is being ended: when SIGKILL follows SIGTERM
        self.idle_since: float | None = None
        self.selector = selectors.DefaultSelector()
        self.wakeup = _wake_on_signals(self.on_term)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.drain_wakeups)
        self.listener = listen(f"{folder}/spawner.sock")
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def run(self) -> None:
        """Serve until told to stop, or until ``linger`` seconds have passed without a runtime and without tasks."""
        while not self.finished():
            for key, _ in self.selector.select(self.timeout()):
                key.data()
            if self.asked_to_stop:
                self.stop_all()
            self.work()
            self.reap()
            if self.sweep_due and time.monotonic() >= self.swept_at + _SWEEP:
                self.sweep()
            self.flush()
            if self.moved:
                os.chdir("/")  # a task's folder must not stay in use
                self.moved = False
        self.end()

    def timeout(self) -> float | None:
        if self.pending:
            return 0
        if self.kill_at is not None:
            return 0.05  # while everything ends, adopted processes and the clock are looked at again and again
        moments = [self.tell_at] if self.tell_at is not None else []
        if self.idle_since is not None:
            moments.append(self.idle_since + self.linger)
        if self.sweep_due:
            moments.append(self.swept_at + _SWEEP)
        return max(min(moments) - time.monotonic(), 0) if moments else None

    def finished(self) -> bool:
        now = time.monotonic()
        if self.kill_at is not None:
            return self.stopped(now)
        if self.connection is not None or self.tasks or self.pending or self.sweep_due:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        return self.idle_since is not None and now >= self.idle_since + self.linger

    def stopped(self, now: float) -> bool:
        assert self.kill_at is not None
        if now >= self.kill_at:
            for task in self.tasks.values():
                kill_group(task.pid, signal.SIGKILL)
        if not self.tasks:
            self.sweep()
        return not has_children() or now >= self.kill_at + self.grace  # one in an uninterruptible wait survives SIGKILL

    def end(self) -> None:
        if self.connection is not None:
            self.connection.sock.settimeout(1.0)
            self.connection.send()
        self.save(list(self.exits.values()))
        _end_groups(self.folder)
        with suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/spawner.sock")

    def save(self, exits: list[list[Any]]) -> None:
        try:
            save_exits(f"{self.folder}/exits.json", exits)
        except OSError as error:
            _log(f"unacknowledged exits cannot be kept: {error}")

    # --- the connection -------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        if self.connection is not None:
            self.disconnect("replaced by a newer connection")
        self.linger = self.linger_then
        connection = self.connection = Connection(sock)
        self.selector.register(sock, selectors.EVENT_READ, lambda: self.receive(connection))

    def disconnect(self, reason: str) -> None:
        """Forget the runtime; what it asked for is done all the same."""
        if self.connection is not None:
            self.selector.unregister(self.connection.sock)
            self.connection.sock.close()
        if reason:
            _log(f"connection dropped: {reason}")
        self.connection = None

    def lost(self, reason: str = "") -> None:
        self.disconnect(reason)
        self.asked_to_stop = self.asked_to_stop or self.die_with_runtime

    def receive(self, connection: Connection) -> None:
        """Read and obey; called as well when the socket can be written to again."""
        if connection is not self.connection:
            return  # replaced in this very turn
        try:
            messages = connection.receive()
            for message in messages or ():
                self.obey(connection, message)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self.lost(f"a message was not understood: {type(error).__name__}: {error}")
        else:
            if messages is None:
                self.lost()

    def obey(self, connection: Connection, message: dict[str, Any]) -> None:
        if "open" in message:
            self.open(connection, **message["open"])
        for id in message.get("ack", ()):
            self.forget(id)
        for request in message.get("spawn", ()):
            _check_request(*request)
            self.pending.append(("spawn", request))
        for id, number in message.get("kill", ()):
            if number not in _SIGNALS:
                raise ValueError(f"{number!r} is no signal")
            self.pending.append(("kill", [id, number]))
        for id in message.get("revoke", ()):
            self.pending.append(("revoke", [id]))
        self.asked_to_stop = self.asked_to_stop or "stop" in message

    def open(self, connection: Connection, environ: dict[str, str], die_with_runtime: bool) -> None:
        while self.pending:  # of the connection before
            self.work()
        self.environ = dict(environ)
        self.die_with_runtime = die_with_runtime
        running = [[task.id, task.pid, task.at] for task in self.tasks.values()]
        held = {"version": VERSION, "pid": os.getpid(), "running": running, "lines": self.waiting.lines()}
        failed = [record for record in self.unfulfilled.values() if len(record) > 1]
        skipped = [id for id, record in self.unfulfilled.items() if len(record) == 1]
        connection.tell({"held": {**held, "failed": failed, "skipped": skipped, "exited": list(self.exits.values())}})
        connection.opened = True

    def forget(self, id: str) -> None:
        self.exits.pop(id, None)
        self.unfulfilled.pop(id, None)
        if id in self.on_disk:
            self.on_disk.discard(id)
            if not self.on_disk:
                self.save([])

    def flush(self) -> None:
        """Tell the runtime what happened, when it is time; when there is none, the answer to the next ``open`` will."""
        connection = self.connection
        if self.tell_at is not None and (connection is None or time.monotonic() >= self.tell_at):
            if connection is not None and connection.opened:
                connection.tell({name: getattr(self, name) for name in ("started", "failed", "skipped", "exited")})
            self.started, self.failed, self.skipped, self.exited, self.tell_at = [], [], [], [], None
        if connection is None:
            return
        if not connection.send():
            self.lost("the runtime is gone or does not read")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        key = self.selector.get_key(connection.sock)
        if key.events != events:
            self.selector.modify(connection.sock, events, key.data)

    def tell(self, within: float) -> None:
        """Have what happened told after so many seconds at the latest."""
        at = time.monotonic() + within
        self.tell_at = at if self.tell_at is None else min(self.tell_at, at)

    # --- starting and stopping --------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Do what was asked for, in order, up to a few starts."""
        starts = 0
        while self.pending and starts < _SPAWNS_PER_TURN:
            action, request = self.pending.popleft()
            id = request[0]
            if action == "spawn":
                starts += self.ask(*request)
            elif id in self.waiting:
                self.skip(self.waiting.drop(id))
            elif action == "kill" and id in self.tasks:
                self.tasks[id].signalled = True
                kill_group(self.tasks[id].pid, request[1])

    def ask(self, id: str, *request: Any) -> bool:
        """Start a task, or have it wait; whether it was started."""
        *what, after, on_success = request
        if id in self.unfulfilled:
            self.tell_unfulfilled(self.unfulfilled[id])
            return False
        known = id in self.tasks or id in self.exits
        if after is not None and not known and (id in self.waiting or after in self.tasks or after in self.waiting):
            self.waiting.add(id, [id, *what], after, on_success=on_success)
            return False
        if on_success and not known and not _well(self.exits.get(after)):
            self.skip([id])
            return False
        self.waiting.detach(id)
        self.spawn(id, *what)
        return True

    def follow(self, ended: str, *, well: bool) -> bool:
        """Start what waits for a task's end; whether there was any."""
        following, skipped = self.waiting.ended(ended, well=well)
        self.skip(skipped)
        if following is not None:
            if not os.path.isdir(following[3]):  # what went before may have removed it
                with suppress(OSError):  # the start fails as well, and says why
                    os.makedirs(following[3])
            self.spawn(*following)
        return following is not None

    def skip(self, ids: list[str]) -> None:
        """Have it told that tasks which waited do not start."""
        for id in ids:
            self.tell_unfulfilled([id])

    def fail(self, id: str, problem: str, disk_full: bool = False) -> None:
        """Have it told that a task cannot be started."""
        self.tell_unfulfilled([id, problem[:_ERROR_MAX], disk_full])
        self.follow(id, well=False)

    def tell_unfulfilled(self, record: list[Any]) -> None:
        """Have a failure to start told, or, by a record of an id only, that one is not started; it is kept until acknowledged."""
        self.unfulfilled[record[0]] = record
        if len(record) > 1:
            self.failed.append(record)
        else:
            self.skipped.append(record[0])
        self.tell(0)

    def spawn(
        self,
        id: str,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        stdout: str,
        stderr: str,
        how: dict[str, Any] | None,
    ) -> None:
        task = self.tasks.get(id)
        if task is not None:
            self.started.append([id, task.pid, task.at])
            self.tell(_LINGER)
            return
        if id in self.exits:
            self.exited.append(self.exits[id])
            self.tell(0)
            return
        if self.kill_at is not None:
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
        self.tasks[id] = self.leaders[pid] = _Task(id, pid, at, confined)
        self.started.append([id, pid, at])
        self.tell(_LINGER)

    def stop_all(self) -> None:
        """Have every task end: SIGTERM now, SIGKILL after the grace."""
        if self.kill_at is not None:
            return
        self.kill_at = time.monotonic() + self.grace
        self.skip(self.waiting.tasks())
        self.waiting.clear()
        for task in self.tasks.values():
            task.stopped = True
            kill_group(task.pid, signal.SIGTERM)
            kill_group(task.pid, signal.SIGCONT)

    def on_term(self) -> None:
        self.asked_to_stop = True

    def drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self.wakeup.recv(4096)

    # --- ends -----------------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Take note of every process that has ended, tasks and adopted ones alike."""
        ended = False
        while (pid := _zombie()) is not None:
            ended = True
            task = self.leaders.pop(pid, None)
            if task is None:
                os.waitpid(pid, 0)
                continue
            kill_group(pid, signal.SIGKILL)  # while the zombie leader keeps the group's number from being given away
            _, status, usage = os.wait4(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            how = [code, None] if code >= 0 else [None, -code]
            cpu = usage.ru_utime + usage.ru_stime
            record = [task.id, *how, cpu, usage.ru_maxrss * 1024, time.time()]
            record += [task.stopped, task.signalled, task.pid, task.at, ""]
            if task.confined is not None:
                self.leave(task.confined, record)
            del self.tasks[task.id]
            self.exits[task.id] = record
            self.exited.append(record)
            self.tell(_LINGER if self.follow(task.id, well=_well(record)) else 0)
        if ended:
            self.sweep_due = True

    def leave(self, confined: Confined, record: list[Any]) -> None:
        """A confined task has ended: say in its record what is known of why, and end its group."""
        record[1:3], record[10] = confined.ended(record[1], record[2], told=record[6] or record[7])
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


def _check_request(
    id: str,
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    stdout: str,
    stderr: str,
    how: dict[str, Any] | None,
    after: str | None,
    on_success: bool,
) -> None:
    """Raises TypeError for a spawn request whose parts are not what they have to be."""
    texts = [id, cwd, stdout, stderr, after or "", *argv, *env.values()]
    if not isinstance(argv, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("a spawn request is not made of texts")
    if how is not None:
        _confined(how)


def _confined(how: dict[str, Any]) -> Confined:
    from wattle.runtime.confined import Confined  # few have such tasks, and all start this program

    return Confined(**how)


def _end_groups(folder: str) -> None:
    """Remove the control groups of a folder's tasks, and kill what is left in them."""
    if os.path.exists(f"{folder}/cgroups.json"):
        from wattle.runtime.cgroups import end_left_behind

        left = end_left_behind(folder)
        if left:
            _log(f"control groups of tasks cannot be removed: {left}")


def _zombie() -> int | None:
    """A child that has ended and is not reaped yet."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def _wake_on_signals(on_term: Any) -> socket.socket:
    """A socket that becomes readable with every SIGCHLD and SIGTERM."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: on_term())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return reader


def _become_the_only_one(folder: str) -> int:
    """Wait until no other spawner serves the folder; returns the descriptor that holds the lock.

    The lock's file is empty after a clean end; otherwise its spawner was killed, and what that one left behind is killed now.
    """
    lock = os.open(f"{folder}/spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fstat(lock).st_size:
        left = kill_left_behind(folder)
        if left:
            _log(f"processes that an earlier spawner started do not end: {left}")
    _end_groups(folder)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _log(text: str) -> None:
    with suppress(OSError):  # a full disk is no reason to lose the tasks
        print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Serve the folder named first; the options are at the top of this file."""
    folder = os.path.realpath(arguments[0])
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    os.closerange(3, 1 << 20)  # what the runtime inherited from wherever it was started is not for its tasks
    os.chdir("/")
    lock = _become_the_only_one(folder)
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        _log("this system has no subreapers: processes that leave their task's group are not ended with it")
    spawner = _Spawner(folder, float(options.get("--linger", 10)), float(options.get("--grace", 5)))
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    spawner.run()
    os.ftruncate(lock, 0)
