"""The logs of workers: pieces of what an attempt has written, read on the node that ran it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import to_json

from wattle.bus.base import Reply
from wattle.core.model import TaskId
from wattle.errors import InvalidRequest, NotFound, Unavailable
from wattle.gateway.backend import Backend
from wattle.gateway.request import Answer, Patience, Request
from wattle.names import check_name
from wattle.peer.asking import parse_number, parse_seconds
from wattle.peer.presence import Presence
from wattle.protocol.keys import STREAMS
from wattle.settings import GatewaySettings

MAX_LOG = 1 << 20
"""Bytes of a log in one answer, at most."""

LOOK_AGAIN = 2.0
"""Seconds between looks at what is waited for, should the event that tells of it have been missed."""


class Logs:
    """See the module's docstring. ``find_worker`` asks for the worker that a request names."""

    def __init__(
        self,
        backend: Backend,
        presence: Presence,
        settings: GatewaySettings,
        find_worker: Callable[[Request, Patience], Awaitable[Any]],
    ) -> None:
        self._backend, self._presence, self._settings = backend, presence, settings
        self._find_worker = find_worker

    async def answer(self, request: Request) -> Answer:
        """What was asked for of one stream, from the node that has it."""
        request.only("offset", "limit", "attempt", "wait", "tail", "node")
        stream = request.names["stream"]
        if stream not in STREAMS:
            raise InvalidRequest(f"a log is stdout or stderr, not {stream!r}")
        limit = parse_number(request.parameters, "limit", MAX_LOG, 1, MAX_LOG)
        wait = parse_seconds(request.parameters, "wait", self._settings.max_wait)
        patience = self._backend.patience(wait)
        place = {"limit": limit, "offset": parse_number(request.parameters, "offset", 0, 0, 2**62)}
        if "tail" in request.parameters:
            place["tail"] = parse_number(request.parameters, "tail", 0, 0, 2**62)
        wanted = parse_number(request.parameters, "attempt", 0, 1, 10**9)
        said = request.parameters.get("node")
        if wanted and said is not None and self._presence.incarnation("runtime", check_name(said, "parameter node")):
            # Who reads on says where the log is: a coordinator need not be asked again for every piece of it.
            task = TaskId(request.names["run"], request.names["worker"], wanted)
            reply = await self._backend.log(self._backend.keys.log(task, stream), place, patience, said)
            if reply is not None:
                return _log_answer(reply, task, said)
        try:
            worker = await self._with_attempt(request, patience)
        except Unavailable:
            # Nobody in sight knows the run; a node that has the log of this attempt needs nobody for that.
            task = TaskId(request.names["run"], request.names["worker"], wanted)
            reply = await self._backend.log(self._backend.keys.log(task, stream), place, patience) if wanted else None
            if reply is None:
                raise
            return _log_answer(reply, task)
        numbers = [a["attempt"] for a in worker["attempts"]]
        if not numbers and not wanted:
            return _no_log_yet(worker)
        attempt = wanted or numbers[-1]
        if attempt not in numbers:
            raise NotFound(
                f"worker {worker['name']!r} has no attempt {attempt}; it has {numbers or 'none'}", code="LOG_NOT_FOUND"
            )
        node = next(a["node"] for a in worker["attempts"] if a["attempt"] == attempt)
        return await self._read(TaskId(worker["run"], worker["name"], attempt), stream, place, node, worker, patience)

    async def _with_attempt(self, request: Request, patience: Patience) -> Any:
        """The worker, once it has an attempt, or after what the request waits."""

        async def find() -> Any:
            return await self._find_worker(request, patience)

        worker = await find()
        if _may_have_log(worker) or not patience.wait:
            return worker
        return await self._backend.ask_until(worker["run"], find, _may_have_log, wait=patience.wait, every=LOOK_AGAIN)

    async def _read(
        self, task: TaskId, stream: str, place: dict[str, int], node: str, worker: Any, patience: Patience
    ) -> Answer:
        while True:
            reply = await self._backend.log(self._backend.keys.log(task, stream), place, patience, node)
            if reply is not None:
                return _log_answer(reply, task, node)
            if await self._backend.reaches(node):
                break
            if patience.over or not await self._backend.comes_back(node, patience):
                raise Unavailable(f"the log is on node {node!r}, which is out of sight", code="NODE_UNREACHABLE")
        made = next(a for a in worker["attempts"] if a["attempt"] == task.attempt)
        if made["status"] in ("assigned", "accepted"):
            return _no_log_yet(worker)
        why = "its command was not started there"
        if made["started_at"] is not None:
            why = "its command ran there, and what it wrote is gone: somebody deleted it, or the node's store is from a backup"
        raise NotFound(f"node {node!r} has no {stream} of {task}: {why}", code="LOG_NOT_FOUND")


def _may_have_log(worker: Any) -> bool:
    return bool(worker["attempts"]) or worker["completed_at"] is not None


def _log_answer(reply: Reply, task: TaskId, node: str | None = None) -> Answer:
    """What a node answered about its log; without ``node`` nobody knows which one that was."""
    about = {"attempt": task.attempt, **({"node": node} if node else {}), **json.loads(reply.attachment or b"{}")}
    return Answer(reply.payload, to_json(about))


def _no_log_yet(worker: Any) -> Answer:
    """The empty log of a worker that has not been started; ``running`` says whether one may still come."""
    about = {"attempt": 0, "node": None, "offset": 0, "next": 0, "size": 0, "running": worker["completed_at"] is None}
    return Answer(b"", to_json(about))
