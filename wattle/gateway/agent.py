"""The gateway agent: translates public requests into questions to coordinators and runtimes. It holds no state, so any number may run.

Gets are answered; puts and deletes have no answer in Zenoh, so what is refused is published on ``event/rejected``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio
from pydantic_core import to_json

from wattle import __version__
from wattle.bus.base import Bus, Query, Sample
from wattle.errors import InternalError, InvalidRequest, NotFound, Unavailable, WattleError
from wattle.gateway.backend import Backend
from wattle.gateway.routes import Answer, Method, Request, Routes
from wattle.logs import get_logger
from wattle.peer.asking import parse_parameters, refuse
from wattle.peer.presence import Presence, new_incarnation
from wattle.protocol.keys import Keys
from wattle.protocol.messages import PROTOCOL
from wattle.protocol.records import timestamp
from wattle.settings import GatewaySettings

REQUEST_TIMEOUT = 10.0
"""Seconds that coordinators and runtimes have for an answer, on top of what the request itself asks to wait."""

log = get_logger("wattle.gateway")


class GatewayAgent:
    """One gateway; ``run`` is its life."""

    def __init__(self, name: str, settings: GatewaySettings, bus: Bus) -> None:
        self.name, self.bus = name, bus
        self.keys = Keys(settings.namespace)
        self.incarnation = new_incarnation()
        self._settings = settings
        self._open = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        presence = Presence(self.bus, self.keys)
        backend = Backend(self.bus, self.keys, presence, timeout=REQUEST_TIMEOUT)
        self._routes = Routes(backend, presence, self._settings)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            declarations = [
                self.bus.serve(self.keys.api(), self._asked),
                self.bus.subscribe(self.keys.api(), self._put),
                self.bus.serve(self.keys.state("gateway", self.name), self._answer_state),
                self.bus.declare_alive(self.keys.alive("gateway", self.name, self.incarnation)),
            ]
            log.info("gateway ready", api=self.keys.api())
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for declaration in reversed(declarations):
                    declaration.undeclare()
                presence.close()

    def _asked(self, query: Query) -> None:
        if self._open >= self._settings.max_waiting:
            problem = f"this gateway has {self._open} requests open; try again, or start another gateway"
            refuse(query, Unavailable(problem, code="BUSY"))
            return
        method = Method.GET if query.payload is None else Method.POST

        async def reply(answer: Answer) -> None:
            query.reply(answer.body, attachment=answer.attachment)

        async def reject(error: WattleError) -> None:
            query.reply_error(to_json(error.as_dict()))

        self._start(method, query.key, query.parameters, query.payload, reply, reject, query.finish)

    def _put(self, sample: Sample) -> None:
        method = Method.DELETE if sample.payload is None else Method.PUT

        async def done(answer: Answer) -> None:
            log.debug("done", key=sample.key, method=method)

        async def reject(error: WattleError) -> None:
            log.info("rejected", key=sample.key, method=method, code=error.code, reason=error.message)
            self.bus.put(self.keys.event_rejected, to_json({"key": sample.key, "method": method, **error.as_dict()}))

        self._start(method, sample.key, "", sample.payload, done, reject, lambda: None)

    def _start(
        self,
        method: Method,
        key: str,
        parameters: str,
        payload: bytes | None,
        reply: Callable[[Answer], Awaitable[None]],
        reject: Callable[[WattleError], Awaitable[None]],
        finish: Callable[[], None],
    ) -> None:
        self._open += 1

        async def serve() -> None:
            try:
                await reply(await self._answer(method, key, parameters, payload))
            except WattleError as error:
                await reject(error)
            except Exception as error:  # the boundary of one request: the gateway goes on
                log.error("request failed", key=key, method=method, exc_info=error)
                await reject(InternalError(f"the gateway failed at {method} {key}: {error!r}; its log says more"))
            finally:
                self._open -= 1
                finish()

        self._nursery.start_soon(serve)

    async def _answer(self, method: Method, key: str, parameters: str, payload: bytes | None) -> Answer:
        if "*" in key or "$" in key:
            raise InvalidRequest(
                f"a request names one thing; {key!r} holds a wildcard. Listings: api/v1/runs, workflows, nodes"
            )
        if payload is not None and len(payload) > self._settings.max_payload:
            raise InvalidRequest(
                f"the payload has {len(payload)} bytes; this gateway takes {self._settings.max_payload} (max_payload)"
            )
        path = self.keys.api_path(key)
        route = self._routes.find(method, path)
        if route is None:
            raise NotFound(f"there is no {method} on {path!r}; {self._routes.near(path)}", code="KEY_NOT_FOUND")
        function, names = route
        return await function(Request(names, parse_parameters(parameters), payload))

    def _answer_state(self, query: Query) -> None:
        state = {
            "role": "gateway",
            "name": self.name,
            "incarnation": self.incarnation,
            "namespace": self.keys.namespace,
            "version": __version__,
            "protocol": PROTOCOL,
            "open_requests": self._open,
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=self.keys.state("gateway", self.name))
        query.finish()
