"""The gateway agent: translates public requests into questions to coordinators and runtimes. It holds no state, so any number may run.

Gets are answered by the gateway on duty (wattle/gateway/duty.py). Puts and deletes reach every gateway and are carried out by each, which
does no harm, since they name what they change; they have no answer in Zenoh, so what is refused is published on ``event/rejected``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from pydantic_core import to_json

from wattle import __version__
from wattle.bus.base import Bus, Query, Sample
from wattle.bus.lanes import WAITING_BYTES
from wattle.bus.queries import error_payload
from wattle.errors import InternalError, InvalidRequest, NotFound, Unavailable, WattleError
from wattle.gateway.backend import Backend
from wattle.gateway.duty import Duty
from wattle.gateway.gate import Gate
from wattle.gateway.request import Answer, Asked, Method, Request
from wattle.gateway.routes import Route, Routes
from wattle.logs import get_logger
from wattle.peer.asking import parse_parameters, refuse
from wattle.peer.claiming import keep_name
from wattle.peer.presence import Presence, new_incarnation
from wattle.peer.probing import probing
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import PROTOCOL
from wattle.protocol.records import timestamp
from wattle.settings import GatewaySettings

if TYPE_CHECKING:
    from wattle.store.audit import AuditStore

REQUEST_TIMEOUT = 10.0
"""Seconds that coordinators and runtimes have for an answer, on top of what the request itself asks to wait."""

PUT_BYTES = WAITING_BYTES
"""Bytes of puts that are worked on at a time; one alone may be larger. Queries with payloads are bounded by the bus."""

log = get_logger("wattle.gateway")


class GatewayAgent:
    """One gateway; ``run`` is its life."""

    def __init__(self, name: str, settings: GatewaySettings, bus: Bus, audit: AuditStore | None = None) -> None:
        self.name, self.bus = name, bus
        self.keys = Keys(settings.namespace)
        self.incarnation = new_incarnation()
        self._settings = settings
        self._gate = Gate(name, settings, audit, bus.links)
        self._open = 0
        self._putting = 0  # bytes of the puts among them
        self._changing: dict[str, trio.Event] = {}  # subject -> set when its newest put or delete is done

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        presence = self._presence = Presence(self.bus, self.keys)
        backend = Backend(self.bus, self.keys, presence, timeout=REQUEST_TIMEOUT)
        self._routes = Routes(backend, presence, self._settings)
        me = Alive("gateway", self.name, self.incarnation)
        self._duty = Duty(me, self.bus, self.keys, presence, self._asked)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(probing, me, self.bus, self.keys, presence)
            declarations = [
                self.bus.subscribe(self.keys.api(), self._put),
                self.bus.serve(self.keys.state("gateway", self.name), self._answer_state),
                self.bus.declare_alive(self.keys.alive(*me)),
            ]
            nursery.start_soon(keep_name, me, self.bus, self.keys)
            try:
                await nursery.start(self._duty.run)
                log.info("gateway ready", serving=self._duty.serving, tokens=self._gate.asks)
                task_status.started()
                await trio.sleep_forever()
            finally:
                for declaration in reversed(declarations):
                    declaration.undeclare()
                presence.close()

    def _asked(self, query: Query) -> None:
        if self._open >= self._settings.max_waiting:
            refuse(query, self._busy())
            return
        method = Method.GET if query.payload is None else Method.POST

        async def reply(answer: Answer) -> None:
            query.reply(answer.body, attachment=answer.attachment)

        async def reject(error: WattleError) -> None:
            query.reply_error(error_payload(error))

        self._start(
            Asked(method, query.key, query.parameters, query.payload, query.attachment), reply, reject, query.finish
        )

    def _put(self, sample: Sample) -> None:
        method = Method.DELETE if sample.payload is None else Method.PUT

        async def done(answer: Answer) -> None:
            log.debug("done", key=sample.key, method=method)

        async def reject(error: WattleError) -> None:
            log.info("rejected", key=sample.key, method=method, code=error.code, reason=error.message)
            self.bus.put(self.keys.event_rejected, rejection(sample.key, method, error))

        size = len(sample.payload or b"")
        if self._open >= self._settings.max_waiting or (self._putting and self._putting + size > PUT_BYTES):
            self.bus.put(self.keys.event_rejected, rejection(sample.key, method, self._busy()))
            return

        def finish() -> None:
            self._putting -= size

        self._putting += size
        self._start(Asked(method, sample.key, "", sample.payload, sample.attachment), done, reject, finish)

    def _busy(self) -> Unavailable:
        problem = f"this gateway has {self._open} requests open, with {self._putting} bytes to put; try again later"
        return Unavailable(problem, code="BUSY")

    def _start(
        self,
        asked: Asked,
        reply: Callable[[Answer], Awaitable[None]],
        reject: Callable[[WattleError], Awaitable[None]],
        finish: Callable[[], None],
    ) -> None:
        self._open += 1
        # What changes one run or workflow is done one by one in the order of arrival, and what asks for it later sees it done.
        method, key = asked.method, asked.key
        subject = _subject(key)
        before, done = self._changing.get(subject), None
        if not method.answered:
            done = self._changing[subject] = trio.Event()

        async def serve() -> None:
            try:
                route, record = await self._admitted(asked)
                if before is not None:
                    await before.wait()
                answer = await self._recorded(record, route, asked)
                await reply(answer)
            except WattleError as error:
                await reject(error)
            except Exception as error:  # the boundary of one request: the gateway goes on
                log.error("request failed", key=key, method=method, exc_info=error)
                await reject(InternalError(f"the gateway failed at {method} {key}: {error!r}; its log says more"))
            finally:
                self._open -= 1
                if done is not None:
                    done.set()
                    if self._changing.get(subject) is done:
                        del self._changing[subject]
                finish()

        self._nursery.start_soon(serve)

    async def _admitted(self, asked: Asked) -> tuple[Route, int | None]:
        """What answers a request, if whoever makes it may; and the number of its record in the audit."""
        if "*" in asked.key or "$" in asked.key:
            raise InvalidRequest(
                f"a request names one thing; {asked.key[:100]!r} holds a wildcard. Listings: api/v1/runs, workflows, nodes"
            )
        path = self.keys.api_path(asked.key)
        route = self._routes.find(asked.method, path)
        if route is None:
            near = self._routes.near(path)
            raise NotFound(f"there is no {asked.method} on {path[:100]!r}; {near}", code="KEY_NOT_FOUND")
        return route, await self._gate.admit(asked, path, route.action)

    async def _recorded(self, record: int | None, route: Route, asked: Asked) -> Answer:
        """The answer of a route; what becomes of it is recorded, too."""
        size, most = len(asked.payload or b""), self._settings.max_payload
        try:
            if size > most:
                raise InvalidRequest(f"the payload has {size} bytes; this gateway takes {most} (max_payload)")
            answer = await route.handler(Request(route.names, parse_parameters(asked.parameters), asked.payload))
        except Exception as error:
            self._gate.done(record, error.code if isinstance(error, WattleError) else InternalError.code)
            raise
        self._gate.done(record, "OK", answer)
        return answer

    def _answer_state(self, query: Query) -> None:
        state = {
            "role": "gateway",
            "name": self.name,
            "incarnation": self.incarnation,
            "namespace": self.keys.namespace,
            "version": __version__,
            "protocol": PROTOCOL,
            "serving": self._duty.serving,
            "sees": [peer.peer for peer in self._presence.peers()],
            "open_requests": self._open,
            "insecure": self._settings.insecure,
            "tokens": self._gate.asks,
            "audit": self._gate.head,
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=self.keys.state("gateway", self.name))
        query.finish()


def _subject(key: str) -> str:
    """The run or workflow that a request is about, as the first part of its key: ``.../runs/<id>``."""
    return "/".join(key.split("/")[:6])


def rejection(key: str, method: Method, error: WattleError) -> bytes:
    """The payload of ``event/rejected``."""
    return json.dumps({"key": key, "method": method, **error.as_dict()}).encode()
