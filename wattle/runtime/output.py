"""What tasks print, for whoever asks: parts of their log files as answers, and live while somebody subscribes.

The task writes its files itself; nothing here runs or costs anything until a query comes or a subscriber appears. Live chunks are
hints, each with its offset: who misses some asks for them. The node's secrets are blanked in what is told, and not in the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import trio

from wattle.bus.base import Bus, Priority, Publisher, Query
from wattle.core.model import TaskId
from wattle.errors import InvalidRequest, Unavailable
from wattle.peer.asking import parse_number, parse_parameters, parse_seconds, refuse
from wattle.protocol.keys import STREAMS, Keys
from wattle.runtime.layout import Folders
from wattle.runtime.masking import Mask
from wattle.runtime.secrets import Secrets

LIMIT = 1 << 20
"""Bytes of one answer or live chunk, at most."""

MAX_WAIT = 3600.0
"""Seconds a question may wait for more output."""

MAX_WAITING = 1000
"""Questions that may wait at once; beyond, an answer comes at once and may be empty."""

_TICK = 0.05  # seconds between looks at files that somebody waits for or follows
_READERS = 4
_QUEUE = 1000
_SIZE_MAX = 2**62


@dataclass(slots=True, eq=False)
class _Question:
    """A question about one file; ``deadline`` (trio's clock) is until when it may wait for bytes."""

    query: Query
    key: str
    task: TaskId
    path: Path
    offset: int
    limit: int
    tail: int | None
    deadline: float


@dataclass(slots=True, eq=False)
class _Followed:
    """A running task's file that may have live listeners; ``offset`` is None while it has none."""

    task: TaskId
    path: Path
    publisher: Publisher
    offset: int | None
    ended: bool = False


class Logs:
    """The logs on this node.

    ``running`` tells which tasks print; ``ended`` whether a task's files grow no more, which those of one that is yet to start will.
    """

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        folders: Folders,
        running: Callable[[], Collection[TaskId]],
        ended: Callable[[TaskId], bool],
        secrets: Secrets | None = None,
    ) -> None:
        self._bus = bus
        self._keys = keys
        self._folders = folders
        self._running = running
        self._ended = ended
        self._secrets = Secrets(None) if secrets is None else secrets
        self._to_read, self._reading = trio.open_memory_channel[_Question](_QUEUE)
        self._waiting: list[_Question] = []
        self._somebody_waits = trio.Event()
        self._somebody_listens = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        queryable = self._bus.serve(self._keys.logs, self._on_query, complete=False)
        publisher = self._bus.publisher(self._keys.logs, lambda _: self._somebody_listens.set())
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(_READERS):
                    nursery.start_soon(self._answer_questions)
                nursery.start_soon(self._look_for_waiting)
                nursery.start_soon(self._publish_live, publisher)
                task_status.started()
        finally:
            queryable.undeclare()
            publisher.undeclare()
            for question in self._waiting:
                question.query.finish()

    # --- questions ------------------------------------------------------------------------------------------------------

    def _on_query(self, query: Query) -> None:
        try:
            self._to_read.send_nowait(self._question(query))
        except InvalidRequest as error:
            refuse(query, error)
        except trio.WouldBlock:
            refuse(query, Unavailable("this node has too many questions about logs to answer; ask again", code="BUSY"))

    def _question(self, query: Query) -> _Question:
        task, stream = self._keys.parse_log(query.key)
        parameters = parse_parameters(query.parameters)
        return _Question(
            query,
            self._keys.log(task, stream),
            task,
            self._folders.log(task, stream),
            offset=parse_number(parameters, "offset", 0, 0, _SIZE_MAX),
            limit=parse_number(parameters, "limit", LIMIT, 1, LIMIT),
            tail=parse_number(parameters, "tail", 0, 0, _SIZE_MAX) if "tail" in parameters else None,
            deadline=trio.current_time() + parse_seconds(parameters, "wait", MAX_WAIT),
        )

    async def _answer_questions(self) -> None:
        async for question in self._reading:
            # asked before the file is read: once it has ended, what is read is all there will ever be
            running = not self._ended(question.task)
            found = await trio.to_thread.run_sync(_read, question, self._mask(), running)
            if found is None:
                question.query.finish()  # not here: no answer at all, another node may have it
            elif not found[0] and running and trio.current_time() < question.deadline and self._may_wait():
                question.offset, question.tail = found[1], None
                self._waiting.append(question)
                self._somebody_waits.set()
            else:
                self._answer(question, *found, running)

    def _mask(self) -> Mask:
        self._secrets.refresh()
        return self._secrets.mask

    def _may_wait(self) -> bool:
        return len(self._waiting) < MAX_WAITING

    def _answer(self, question: _Question, data: bytes, offset: int, size: int, running: bool) -> None:
        about = {"offset": offset, "next": offset + len(data), "size": size, "running": running}
        try:
            question.query.reply(data, key=question.key, attachment=json.dumps(about).encode())
        except trio.ClosedResourceError:
            return  # the bus has been closed meanwhile
        question.query.finish()

    async def _look_for_waiting(self) -> None:
        """Give questions back to be answered once there is something to say."""
        while True:
            await self._somebody_waits.wait()
            await trio.sleep(_TICK)
            now = trio.current_time()
            grown = await trio.to_thread.run_sync(_grown, list(self._waiting))
            ready = [q for q in self._waiting if q in grown or self._ended(q.task) or now >= q.deadline]
            done = set(ready)
            self._waiting = [q for q in self._waiting if q not in done]
            if not self._waiting:
                self._somebody_waits = trio.Event()
            for question in ready:
                await self._to_read.send(question)

    # --- live -----------------------------------------------------------------------------------------------------------

    async def _publish_live(self, publisher: Publisher) -> None:
        while True:
            await self._somebody_listens.wait()
            self._somebody_listens = trio.Event()
            followed: dict[str, _Followed] = {}
            fresh = True
            try:
                while publisher.matching:
                    self._follow_running(followed, from_start=not fresh)
                    fresh = False
                    await self._publish_new(followed)
                    await trio.sleep(_TICK)
            finally:
                for file in followed.values():
                    file.publisher.undeclare()

    def _follow_running(self, followed: dict[str, _Followed], *, from_start: bool) -> None:
        """Take up the files of tasks that run by now: from their start when the task is newer than the listener."""
        running = set(self._running())
        for task in running:
            for stream in STREAMS:
                key = self._keys.log(task, stream)
                if key not in followed:
                    path, publisher = self._folders.log(task, stream), self._bus.publisher(key)
                    followed[key] = _Followed(task, path, publisher, 0 if from_start else None)
        for file in followed.values():
            file.ended = file.task not in running

    async def _publish_new(self, followed: dict[str, _Followed]) -> None:
        """Publish what was added to the files that somebody listens to; files of ended tasks are let go after their last bytes."""
        listened = {key: file for key, file in followed.items() if file.publisher.matching}
        for key in followed.keys() - listened.keys():
            followed[key].offset = None
        ended = [key for key, file in followed.items() if file.ended]
        chunks = await trio.to_thread.run_sync(_read_new, listened, self._mask()) if listened else []
        for key, offset, data in chunks:
            self._bus.put(key, data, priority=Priority.BULK, attachment=json.dumps({"offset": offset}).encode())
        more = {key for key, _, data in chunks if len(data) == LIMIT}
        for key in ended:
            if key not in more:
                followed.pop(key).publisher.undeclare()


def _read(question: _Question, mask: Mask, growing: bool) -> tuple[bytes, int, int] | None:
    """Bytes, their offset and the file's size; None where there is no such file."""
    try:
        with question.path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            offset = question.offset if question.tail is None else max(size - question.tail, 0)
            return mask.read(file.fileno(), offset, question.limit, growing=growing), offset, size
    except OSError:
        return None


def _grown(questions: list[_Question]) -> set[_Question]:
    """The questions for which there are bytes now."""
    return {question for question in questions if _size(question.path) > question.offset}


def _read_new(files: dict[str, _Followed], mask: Mask) -> list[tuple[str, int, bytes]]:
    chunks = []
    for key, file in files.items():
        if file.offset is None:
            file.offset = _size(file.path)
            continue
        try:
            with file.path.open("rb", buffering=0) as log:
                data = mask.read(log.fileno(), file.offset, LIMIT, growing=not file.ended)
        except OSError:
            continue
        if data:
            chunks.append((key, file.offset, data))
            file.offset += len(data)
    return chunks


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
