"""Queries and answers over Zenoh: a call waits for answers, a query is answered through an outlet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
import zenoh

from wattle.bus.base import Reply
from wattle.bus.config import reason
from wattle.bus.queries import BUSY, OpenQuery
from wattle.bus.senders import Outlet, Outlets
from wattle.bus.translate import key_expression, read_bytes, read_replies
from wattle.logs import get_logger

log = get_logger("wattle.bus")


class Call:
    """One ``get`` under way: its answers come on Zenoh's threads, its task is woken once."""

    def __init__(self, token: trio.lowlevel.TrioToken, *, first: bool = False, most: int | None = None) -> None:
        self.error: str | None = None  # why Zenoh refused the query
        self._token = token
        self._first = first  # whether one answer that is no error is enough
        self._most = most  # how many answers are enough
        self._answers: deque[zenoh.Reply] = deque()
        self._over: list[str] = []  # of the two that have to be over: "sending" and "answers"
        self._ended = trio.Event()
        self._woken = False  # two threads may both find it unset: then trio is woken twice, which does no harm

    def issue(self, ask: Callable[[], Any]) -> None:
        """Send the query; runs on an outlet."""
        if self._ended.is_set():  # its task has given up meanwhile
            return
        try:
            ask()
        except (zenoh.ZError, ValueError) as error:
            self.error = reason(error)
            self._wake()
        self._part("sending")

    def on_reply(self, reply: zenoh.Reply) -> None:
        """Keep an answer; runs on a thread of Zenoh."""
        self._answers.append(reply)
        if (self._first and reply.ok is not None) or len(self._answers) == self._most:
            self._wake()

    def on_last(self) -> None:
        """No more answers come; runs on a thread of Zenoh."""
        self._part("answers")

    def end(self) -> None:
        """Let the task go on with what there is; on the trio thread."""
        self._ended.set()

    async def result(self, patience: float) -> list[Reply]:
        """The answers, once all are there; after ``patience`` seconds those that are, and a timeout."""
        try:
            with trio.move_on_after(patience) as scope:
                await self._ended.wait()
        finally:
            answers, self._answers = self._answers, deque(maxlen=0)  # what comes late is not kept
            self._ended.set()
        return read_replies(answers, in_time=not scope.cancelled_caught)

    def _part(self, over: str) -> None:
        # Answers can be over before the sending is known to have failed, so trio is woken by the second of the two.
        self._over.append(over)
        if len(self._over) == 2:
            self._wake()

    def _wake(self) -> None:
        if self._woken:
            return
        self._woken = True
        try:
            self._token.run_sync_soon(self.end)
        except trio.RunFinishedError:  # nobody is left to be told
            self._answers.clear()


class ZenohQuery(OpenQuery):
    """A query that came in; made on a thread of Zenoh, answered on the trio thread, its answers sent by one outlet in order."""

    def __init__(self, raw: zenoh.Query, outlets: Outlets) -> None:
        super().__init__(str(raw.key_expr), str(raw.parameters), read_bytes(raw.payload), read_bytes(raw.attachment))
        self._raw = raw
        self._outlets = outlets
        self._outlet: Outlet | None = None

    def accepts(self, key: str) -> bool:
        """Whether ``key`` is among the keys that were asked for."""
        return key == self.key or self._raw.key_expr.intersects(key_expression(key))

    def send_reply(self, key: str, payload: bytes, attachment: bytes | None) -> None:
        """Send an answer behind those before; BUSY in its place where too much waits to be sent already."""
        if payload and self._outlets.full:
            self.send_error(BUSY)
            return
        self._send(partial(self._raw.reply, key, payload, attachment=attachment), len(payload))

    def send_error(self, payload: bytes) -> None:
        """Send an error behind the answers before."""
        self._send(partial(self._raw.reply_err, payload), len(payload))

    def send_end(self) -> None:
        """Let go of the query, behind all answers; without this the asker waits for its timeout."""
        try:
            self._send(self._raw.drop, 0)
        except trio.ClosedResourceError:  # with its session the query is gone
            log.debug("query finished after its bus was closed", key=self.key)

    def refuse(self) -> None:
        """Answer BUSY and finish, from the thread that Zenoh runs for this queryable: the outlets may be what is busy."""
        self._raw.reply_err(BUSY)
        self._raw.drop()  # type: ignore[no-untyped-call]  # unannotated in the stub of zenoh

    def _send(self, job: Callable[[], Any], size: int) -> None:
        if self._outlet is None:
            self._outlet = self._outlets.pick(size)
        self._outlet.submit(partial(self._attempt, job), size)

    def _attempt(self, job: Callable[[], Any]) -> None:
        try:
            job()
        except zenoh.ZError as error:  # the session is closed
            log.debug("answer not sent", key=self.key, reason=reason(error))
