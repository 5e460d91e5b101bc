"""Tasks as operating-system processes, seen from the runtime: start, signal, and learn what became of them.

The processes are the spawner's children (wattle/runtime/spawner.py), so they and their exit statuses outlive this process. The
first event is always ``Held``: every task's process there is and every exit that nobody acknowledged. A task that the runtime's
store believes to run and ``Held`` does not name is not running and never will be.

A dropped connection is made again without loss. When the spawner itself is gone a new one is started; that one first kills what
the old one left behind, and ``SpawnerLost`` names the tasks whose end nobody saw.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

import trio

from wattle.core.model import TaskId
from wattle.errors import InternalError, InvalidRequest
from wattle.logs import get_logger
from wattle.runtime.channel import LINE_MAX, VERSION, Lines, address, encode
from wattle.runtime.launching import LINGER, SOCKET, Starting
from wattle.runtime.process_events import (
    Exited,
    Held,
    ProcessEvent,
    Skipped,
    SpawnerLost,
    SpawnFailed,
    SpawnRequest,
    Started,
    exited_from,
    started_from,
    task_id,
)
from wattle.runtime.procfs import kill_group, started_at

__all__ = [
    "Exited",
    "Held",
    "ProcessEvent",
    "Processes",
    "Skipped",
    "SpawnFailed",
    "SpawnRequest",
    "SpawnerLost",
    "Started",
    "kill_orphans",
    "open_processes",
]

_log = get_logger("wattle.runtime.processes")

_NOT_FOR_TASKS = ("WATTLE_TOKEN",)  # it says who somebody is, and commands are others'
_ANSWER_TIMEOUT = 10.0  # seconds for a spawner to start, or to say what it holds
_ATTEMPTS = 5  # at reaching or starting a spawner, before giving up
_LAST_WORDS = 1.0  # seconds for the buffer to empty when this side leaves
_SHORT_LIFE = 10.0  # seconds; a connection that lasts less counts as a failed attempt
_RECEIVE = 1 << 18


class Processes:
    """A connection to the folder's spawner, kept up. The calls only fill a buffer: they never block and may come at any time."""

    def __init__(
        self,
        folder: Path,
        on_event: Callable[[list[ProcessEvent]], None],
        *,
        die_with_runtime: bool,
        linger: float,
        starting: Starting | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._on_event = on_event
        self._die_with_runtime = die_with_runtime
        self._linger = linger
        self._starting = starting
        self._asked: dict[TaskId, bytes] = {}  # spawns that nothing was heard of yet, as sent
        self._running: dict[TaskId, Started] = {}
        self._outgoing: list[bytes] = []
        self._incoming = Lines()  # of the connection at hand
        self._unread: list[bytes] = []  # lines that came with its first one
        self._wake = trio.Event()
        self._spawner: int | None = None  # the process number of the spawner last connected to
        self._child: int | None = None  # the spawner that this process started, to be reaped
        self._stopping = False
        self._gone = trio.Event()

    def spawn(self, requests: Sequence[SpawnRequest]) -> None:
        """Start processes. An id that the spawner holds already is not started again; its state is told again.

        Raises InvalidRequest, having asked for none, where one is too long to be told.
        """
        lines = [(request.id, _line(request)) for request in requests]
        for id, line in lines:
            self._asked[id] = line
            self._send(line)

    def kill(self, signals: Iterable[tuple[TaskId, int]]) -> None:
        """Send signals to whole process groups; tasks that do not run are passed over."""
        self._send(encode({"kill": [[str(id), int(number)] for id, number in signals]}))

    def revoke(self, ids: Iterable[TaskId]) -> None:
        """Have those of these that wait not started: ``Skipped`` is told of them."""
        self._send(encode({"revoke": [str(id) for id in ids]}))

    def acknowledge(self, ids: Iterable[TaskId]) -> None:
        """Have the spawner forget these exits: they are stored."""
        self._send(encode({"ack": [str(id) for id in ids]}))

    async def stop(self) -> None:
        """End every task (TERM, and KILL after the spawner's grace) and the spawner; returns when it is gone. Exits are still told."""
        self._stopping = True
        self._send(encode({"stop": True}))
        await self._gone.wait()

    def _send(self, line: bytes) -> None:
        self._outgoing.append(line)
        self._wake.set()

    # --- the connection -------------------------------------------------------------------------------------------------

    async def _run(self, stream: trio.SocketStream) -> None:
        """Keep connected until cancelled or stopped. Raises InternalError when no spawner can be had any more."""
        short_lives = 0
        while True:
            since = trio.current_time()
            async with stream:
                await self._talk(stream)
            if self._stopping:
                self._gone.set()
                return
            _log.warning("spawner connection lost", folder=str(self._folder), spawner=self._spawner)
            short_lives = short_lives + 1 if trio.current_time() - since < _SHORT_LIFE else 0
            if short_lives >= _ATTEMPTS:
                raise self._failure("ends the connection again and again")
            stream = await self._connect()

    async def _connect(self) -> trio.SocketStream:
        """Reach the folder's spawner, or start one, and tell what it holds."""
        problem = ""
        for attempt in range(_ATTEMPTS):
            await trio.sleep(0.1 * (2**attempt - 1))
            stream = None if self._starting is not None else await self._dial()
            if stream is None:
                problem = await self._start()
                stream = None if problem else await self._dial()
            if stream is None:
                continue
            held = await self._greet(stream)
            if held is not None:
                self._take_over(held)
                return stream
            problem = "does not answer"
            await trio.aclose_forcefully(stream)
        raise self._failure(problem or "cannot be reached")

    async def _dial(self) -> trio.SocketStream | None:
        sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            with address(str(self._folder / SOCKET)) as path:
                await sock.connect(path)
        except OSError:
            sock.close()
            return None
        return trio.SocketStream(sock)

    async def _greet(self, stream: trio.SocketStream) -> dict[str, Any] | None:
        """Say ``open`` and return what the spawner holds; None when it is just ending, or hangs.

        What happened since may come with the answer: it is left for ``_talk``.
        """
        self._incoming = Lines()
        environ = {name: text for name, text in os.environ.items() if name not in _NOT_FOR_TASKS}
        hello = {"environ": environ, "die_with_runtime": self._die_with_runtime}
        with trio.move_on_after(_ANSWER_TIMEOUT), suppress(trio.BrokenResourceError):
            await stream.send_all(encode({"open": hello}))
            while data := await stream.receive_some(_RECEIVE):
                if not (lines := self._incoming.feed(data)):
                    continue
                held: dict[str, Any] = json.loads(lines[0])["held"]
                if held["version"] != VERSION:
                    raise self._failure(
                        f"(process {held['pid']}) is of another version of Wattle; end its tasks and it"
                    )
                self._unread = lines[1:]
                return held
        return None

    async def _start(self) -> str:
        """Start a spawner, or take the one that was started ahead, and wait until it listens; returns what went wrong, or nothing."""
        self._reap()
        starting, self._starting = self._starting or Starting(self._folder, self._linger), None
        starting.taken, self._child = True, starting.pid
        return await starting.wait(_ANSWER_TIMEOUT)

    def _reap(self) -> None:
        if self._child is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._child, os.WNOHANG)

    def _failure(self, problem: str) -> InternalError:
        log = self._folder / "spawner.log"
        with suppress(OSError):
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            return InternalError(f"the spawner of {self._folder} {problem}; see {log}", detail=list(last))
        return InternalError(f"the spawner of {self._folder} {problem}")

    def _take_over(self, held: dict[str, Any]) -> None:
        """Tell what a spawner holds. With the same spawner as before, ask again for what it was not yet told about."""
        running = tuple(started_from(record) for record in held["running"])
        exited = tuple(exited_from(record) for record in held["exited"])
        waiting = tuple(map(task_id, held["waiting"]))
        failed: list[SpawnFailed | Skipped] = [
            SpawnFailed(task_id(id), error, full) for id, error, full in held["failed"]
        ]
        unfulfilled = (*failed, *(Skipped(task_id(id)) for id in held["skipped"]))
        heard = {event.id for event in (*running, *exited, *unfulfilled)}
        known = heard | set(waiting)
        events: list[ProcessEvent] = []
        if self._spawner not in (None, held["pid"]):
            unsent = set(self._outgoing)
            lost = [id for id, line in self._asked.items() if line not in unsent and id not in known]
            vanished = [started for id, started in self._running.items() if id not in known]
            kill_orphans([(started.pid, started.at) for started in vanished])
            events.append(SpawnerLost((*lost, *(started.id for started in vanished))))
            for id in lost:
                del self._asked[id]
        self._spawner = held["pid"]
        self._running = {event.id: event for event in running}
        for id in heard:
            self._asked.pop(id, None)
        for id in waiting:
            self._asked.setdefault(id, b"")  # asked for by an earlier runtime: there is nothing to send again
        others = [line for line in self._outgoing if not line.startswith(b'{"spawn"')]
        self._outgoing = [*self._asked.values(), *others]
        self._on_event([*events, Held(running, exited, waiting, unfulfilled)])

    async def _talk(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream)
            self._hear(self._unread)
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some(_RECEIVE):
                    self._hear(self._incoming.feed(data))
            nursery.cancel_scope.cancel()

    async def _write(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # the reader notices as well
            whole_lines = True
            try:
                while True:
                    if self._outgoing:
                        batch, self._outgoing = self._outgoing, []
                        whole_lines = False
                        await stream.send_all(b"".join(batch))
                        whole_lines = True
                    else:
                        self._wake = trio.Event()
                        await self._wake.wait()
            finally:
                if self._outgoing and whole_lines:  # leaving: what is in the buffer gets a moment to go out
                    with trio.move_on_after(_LAST_WORDS, shield=True):
                        await stream.send_all(b"".join(self._outgoing))

    def _hear(self, lines: Iterable[bytes]) -> None:
        events = [event for line in lines for event in self._events(json.loads(line))]
        if events:
            self._on_event(events)

    def _events(self, message: dict[str, Any]) -> list[ProcessEvent]:
        events: list[ProcessEvent] = []
        for record in message["started"]:
            started = started_from(record)
            self._asked.pop(started.id, None)
            self._running[started.id] = started
            events.append(started)
        for record in message["exited"]:  # before what came of them
            exited = exited_from(record)
            self._asked.pop(exited.id, None)
            self._running.pop(exited.id, None)
            events.append(exited)
        for id, error, full in message["failed"]:
            failed = SpawnFailed(task_id(id), error, full)
            self._asked.pop(failed.id, None)
            events.append(failed)
        for id in message["skipped"]:
            skipped = Skipped(task_id(id))
            self._asked.pop(skipped.id, None)
            events.append(skipped)
        return events


@asynccontextmanager
async def open_processes(
    folder: Path,
    on_event: Callable[[list[ProcessEvent]], None],
    *,
    die_with_runtime: bool = False,
    linger: float = LINGER,
    starting: Starting | None = None,
) -> AsyncIterator[Processes]:
    """Connect to the spawner that serves ``folder``, or start one; ``on_event`` is called on the trio thread, ``Held`` first.

    ``starting`` is one that was started ahead.

    Leaving the block leaves the processes running, unless ``die_with_runtime``: then the spawner ends them and itself. A spawner
    without runtime and without processes ends after ``linger`` seconds. Raises InternalError when no spawner can be had; should none be
    had later on either, the block is cancelled and the error comes in an exception group.
    """
    processes = Processes(folder, on_event, die_with_runtime=die_with_runtime, linger=linger, starting=starting)
    stream = await processes._connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(processes._run, stream)
        yield processes
        nursery.cancel_scope.cancel()


def kill_orphans(orphans: Iterable[tuple[int, float]]) -> list[int]:
    """Kill the groups of tasks that a store believes to run and no spawner holds; returns the leaders that were killed.

    Orphans are (pid, started_at) pairs. A new spawner has already killed what is recognized by its environment; this is for programs
    that overwrite theirs. A group is killed only when its leader is there and started within a second of the time recorded.
    """
    killed = []
    for pid, at in orphans:
        start = started_at(pid)
        if start is not None and abs(start - at) < 1.0 and pid > 1 and _leads_group(pid):
            kill_group(pid, SIGKILL)
            killed.append(pid)
    return killed


def _line(request: SpawnRequest) -> bytes:
    needs = None if request.needs is None else [str(need) for need in request.needs]
    what = [str(request.id), request.argv, request.env, request.cwd, request.stdout, request.stderr, request.confined]
    line = encode({"spawn": [[*what, request.room, needs]]})
    if len(line) > LINE_MAX:
        raise InvalidRequest("its command, script and environment are too long")
    return line


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
