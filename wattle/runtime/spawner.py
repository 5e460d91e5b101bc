"""The spawner: a small process that starts tasks, outlives the runtime, and keeps exit statuses until they are acknowledged.

``main FOLDER [--linger SECONDS] [--grace SECONDS]``, started by wattle/runtime/processes.py without site packages: it imports the
standard library and its neighbours channel, children, launch, outcomes, procfs and waiting, with the first confined task confined,
cgroups and disks, and nothing else. It prints ``ready`` once ``FOLDER/spawner.sock`` (mode 0600) listens. It serves one runtime at a time;
a newer connection replaces an older one.

Messages are JSON objects, one a line. From the runtime, with any of these keys, which take effect in this order::

    {"open": {"environ": {...}, "die_with_runtime": false}}      first on every connection; environ is the base of every task's
    {"ack": [id, ...]}                                           these ends are stored: forget them
    {"spawn": [[id, argv, env, cwd, stdout, stderr, confined, room, needs], ...]}   a known id is told again, not started again
    {"kill": [[id, signal], ...]}                                to the whole process group; one that waits is not started
    {"revoke": [id, ...]}                                        those of these that wait are not started
    {"stop": true}                                               end all tasks, then this process

``room`` is a text that names the kind of room a task takes up; null, where nothing may take that over. With ``needs`` of null a task
starts now: it has room. Otherwise it waits, for the tasks in ``needs`` to exit with status 0 without having been told to end, and then for
its turn to take over the room of one of the same kind that has ended. It is skipped when one of them does not end so, or is not known
here. Asked for again with null, one that waits starts at once; asked for again otherwise, it goes on waiting as it did. ``confined`` is
null, or how the task is confined (wattle/runtime/confinement.py makes it, confined.py obeys).

To the runtime: the answer to ``open``, and then at most one line per turn of the loop. Starts are told at most ``START_LINGER`` seconds
(outcomes.py) later; starts of tasks that waited, and ends of tasks whose room another one has taken over, at most ``LINGER``; all others
at once. All but starts are kept until they are acknowledged::

    {"held": {"version": 7, "pid": p, "running": [started, ...], "waiting": [id, ...], "failed": ..., "skipped": ..., "exited": ...}}
    {"started": [started, ...], "failed": [[id, error, disk full], ...], "skipped": [id, ...], "exited": [exit, ...]}
    started = [id, pid, at]
    exit = [id, exit code or null, signal or null, CPU seconds, peak memory in bytes, at, stopped, signalled, pid, started at, reason, heir]

``heir`` is the task that has taken over its room, or null. ``skipped`` waited and will not start.
``stopped`` marks a task that the spawner ended of its own accord: on ``stop``, SIGTERM, or the loss of a ``die_with_runtime`` runtime;
``signalled`` one that had been sent a signal, on the runtime's order. ``reason`` is what is known of why a confined task failed, else
empty.

Two threads share one lock. One listens, the other waits for ends (``Children.await_end``): the kernel wakes who waits for a process in
``waitid`` on the CPU that this process is about to leave, and who gets a signal or an event perhaps beside a task that runs, on the other.

What always holds. A task is a session and process group of its own, and nothing of it survives its first process: the group is killed
while its leader is a zombie still, so that the group's number cannot have been given away; processes that left the group are adopted
here (this process is a subreaper) and told apart by their environment. What is in a task's control group is killed, and the
group removed. Exits that nobody acknowledged are in ``FOLDER/exits.json`` once this process has ended. A spawner that finds its forerunner
was killed kills what that one left behind before it serves.
"""

from __future__ import annotations

import _thread
import ctypes
import fcntl
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

from wattle.runtime.channel import VERSION, Connection, listen
from wattle.runtime.children import SWEEP, Children, check_request
from wattle.runtime.outcomes import Outcomes
from wattle.runtime.procfs import has_children, kill_left_behind

_FIRST_LINGER = 10.0  # seconds
_SPAWNS_PER_TURN = 16  # so that exits do not wait for the end of a large batch
_SIGNALS = signal.valid_signals()
_PR_SET_CHILD_SUBREAPER = 36


class _Lock:
    """A lock that two threads have by turns where both want it: one that waits behind its door has it next."""

    def __init__(self) -> None:
        self._door = _thread.allocate_lock()
        self._lock = _thread.allocate_lock()

    def __enter__(self) -> None:
        with self._door:
            self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class _Spawner:
    """Receive, start and kill, reap, tell; all of it with ``lock``."""

    def __init__(self, folder: str, linger: float, grace: float) -> None:
        self.folder = folder
        self.linger_then = linger
        self.linger = max(linger, _FIRST_LINGER)  # until the first connection: whoever started this needs a moment
        self.grace = grace
        self.outcomes = Outcomes(f"{folder}/exits.json", _log)
        self.pending: deque[tuple[str, list[Any]]] = deque()
        self.connection: Connection | None = None
        self.die_with_runtime = False
        self.asked_to_stop = False
        self.kill_at: float | None = None  # set once everything is being ended: when SIGKILL follows SIGTERM
        self.idle_since: float | None = None
        self.lock = _Lock()
        self.looks_at = 0.0  # when the thread that listens looks by itself, by the monotonic clock
        self.failed: Exception | None = None  # what has ended the other thread
        self.selector = selectors.DefaultSelector()
        self.wakeup, self.waker = _wake_on_signals(self.on_term)
        self.children = Children(folder, self.outcomes, self.wake)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self.drain_wakeups)
        self.listener = listen(f"{folder}/spawner.sock")
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def run(self) -> None:
        """Serve until told to stop, or until ``linger`` seconds have passed without a runtime and without tasks."""
        with self.lock:
            _thread.start_new_thread(self.wait_for_ends, ())
            while not self.finished():
                for key, _ in self.listen():
                    key.data()
                if self.failed is not None:
                    raise self.failed
                if self.asked_to_stop:
                    self.stop_all()
                self.work()
                self.turn()
            self.end()

    def listen(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until there is something to do, without the lock; the other thread may do things meanwhile."""
        self.looks_at = self.next_look()
        seconds = max(self.looks_at - time.monotonic(), 0)
        self.lock.__exit__()
        try:
            return self.selector.select(None if seconds == math.inf else seconds)
        finally:
            self.lock.__enter__()

    def wait_for_ends(self) -> None:
        """See to every process that ends, and have the thread that listens look earlier where that is necessary."""
        try:
            while True:
                pid = self.children.await_end()
                with self.lock:
                    self.children.reap(pid)
                    self.turn()
                    # Without a runtime, or while all is being ended, that may have been the last task.
                    if self.next_look() < self.looks_at or self.connection is None or self.kill_at is not None:
                        self.wake()
        except Exception as error:  # noqa: BLE001  # the other thread raises it
            self.failed = error
            self.wake()

    def turn(self) -> None:
        """End what takes up too much, see to adopted processes, and tell what there is to tell."""
        self.children.end_over()
        if self.children.sweep_due and time.monotonic() >= self.children.swept_at + SWEEP:
            self.children.sweep()
        self.flush()
        if self.children.moved:
            os.chdir("/")  # a task's folder must not stay in use
            self.children.moved = False

    def next_look(self) -> float:
        """When there is something to do that nobody asks for then, by the monotonic clock; may be over, or never come."""
        if self.pending or (self.asked_to_stop and self.kill_at is None):
            return 0.0
        if self.kill_at is not None:
            return time.monotonic() + 0.05  # while everything ends, adopted processes are looked at again and again
        return min(
            math.inf if self.outcomes.tell_at is None else self.outcomes.tell_at,
            math.inf if self.idle_since is None else self.idle_since + self.linger,
            self.children.swept_at + SWEEP if self.children.sweep_due else math.inf,
        )

    def finished(self) -> bool:
        now = time.monotonic()
        if self.kill_at is not None:
            return self.stopped(now)
        if self.connection is not None or self.children.tasks or self.pending or self.children.sweep_due:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        return self.idle_since is not None and now >= self.idle_since + self.linger

    def stopped(self, now: float) -> bool:
        assert self.kill_at is not None
        if now >= self.kill_at:
            self.children.kill_all()
        if not self.children.tasks:
            self.children.sweep()
        return not has_children() or now >= self.kill_at + self.grace  # one in an uninterruptible wait survives SIGKILL

    def end(self) -> None:
        if self.connection is not None:
            self.connection.sock.settimeout(1.0)
            self.connection.send()
        self.outcomes.save(list(self.outcomes.exits.values()))
        _end_groups(self.folder)
        with suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/spawner.sock")

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
            # In turn: a start that was asked for before may go by the end that is forgotten.
            self.pending.append(("ack", [id]))
        for request in message.get("spawn", ()):
            check_request(*request)
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
        self.children.environ = dict(environ)
        self.die_with_runtime = die_with_runtime
        running = [[task.id, task.pid, task.at] for task in self.children.tasks.values()]
        held = {"version": VERSION, "pid": os.getpid(), "running": running, "waiting": self.children.waiting.tasks()}
        connection.tell({"held": {**held, **self.outcomes.kept()}})
        connection.opened = True

    def flush(self) -> None:
        """Tell the runtime what happened, when it is time; when there is none, the answer to the next ``open`` will."""
        connection = self.connection
        tell_at = self.outcomes.tell_at
        if tell_at is not None and (connection is None or time.monotonic() >= tell_at):
            news = self.outcomes.news()
            if connection is not None and connection.opened:
                connection.tell(news)
        if connection is None:
            return
        if not connection.send():
            self.lost("the runtime is gone or does not read")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        key = self.selector.get_key(connection.sock)
        if key.events != events:
            self.selector.modify(connection.sock, events, key.data)

    # --- starting and stopping --------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Do what was asked for, in order, up to a few starts."""
        starts = 0
        while self.pending and starts < _SPAWNS_PER_TURN:
            action, request = self.pending.popleft()
            if action == "spawn":
                starts += self.children.ask(*request)
            elif action == "ack":
                self.outcomes.forget(*request)
            else:
                self.children.end(*request)

    def stop_all(self) -> None:
        """Have every task end: SIGTERM now, SIGKILL after the grace."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace
            self.children.stop_all()

    def on_term(self) -> None:
        self.asked_to_stop = True

    def wake(self) -> None:
        """Have the loop take a turn; may be called in any thread."""
        with suppress(BlockingIOError):  # it is full of wake-ups
            os.write(self.waker, b"\0")

    def drain_wakeups(self) -> None:
        with suppress(BlockingIOError):
            self.wakeup.recv(4096)


def _end_groups(folder: str) -> None:
    """Remove the control groups of a folder's tasks, and kill what is left in them."""
    if os.path.exists(f"{folder}/cgroups.json"):
        from wattle.runtime.cgroups import end_left_behind

        left = end_left_behind(folder)
        if left:
            _log(f"control groups of tasks cannot be removed: {left}")


def _wake_on_signals(on_term: Any) -> tuple[socket.socket, int]:
    """A socket that becomes readable with SIGTERM, and what to write to for that."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    waker = writer.detach()
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    # Were it ignored, as whoever started this may have it, ends would go by unseen. And it is held back in all threads: while one of
    # them starts a process, which it does with all signals held back, each end would interrupt another one's wait for nothing.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGTERM, lambda number, frame: on_term())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return reader, waker


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
