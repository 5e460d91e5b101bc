"""The bus over Zenoh.

Three kinds of threads meet here. Zenoh's own, and the Python thread that Zenoh runs for most declarations, only fill lanes
(wattle/bus/lanes.py). The trio thread runs all handlers. Outlets (wattle/bus/senders.py) send queries and answers, which may have
to wait for a link. Puts and declarations are sent from the trio thread: a put is dropped rather than made to wait, and
declarations are few and small.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any, Protocol

import trio
import zenoh

from wattle.bus.base import Declaration, Link, Priority, Publisher, Query, Reply, Sample
from wattle.bus.config import ZenohOptions, more_threads, open_configured, open_session, reason
from wattle.bus.exchange import Call, ZenohQuery
from wattle.bus.introducer import introducer
from wattle.bus.lanes import QUERIES, SAMPLES, ChangeLane, Lane, QueryLane, SampleLane
from wattle.bus.senders import Outlets
from wattle.bus.translate import (
    MAX_TIMEOUT,
    PUT_PRIORITIES,
    QUERY_PRIORITIES,
    key_expression,
    read_sample,
    target,
    tokens,
)
from wattle.errors import InvalidRequest, Unavailable
from wattle.logs import get_logger

FLUSH = 1.0
"""Seconds that ``close`` gives the last answers to leave."""

CLOSE_DEADLINE = 3.0
"""Seconds after which ``close`` leaves the session to end by itself."""

GRACE = 1.0  # seconds by which ours comes after Zenoh's own timeout of a query

log = get_logger("wattle.bus")


async def open_zenoh_bus(options: ZenohOptions, *, samples: int = SAMPLES, queries: int = QUERIES) -> ZenohBus:
    """Open a session and a bus over it; raises as ``wattle.bus.config.open_session`` does.

    ``samples`` bounds the backlog of each subscription, ``queries`` the unfinished queries of each queryable.
    """
    with more_threads():
        session = await trio.to_thread.run_sync(open_session, options)
    return ZenohBus(session, samples=samples, queries=queries, options=options)


class ZenohBus:
    """``wattle.bus.base.Bus`` over an open session, which is closed with it; made and used on the trio thread.

    ``options`` are what the session was opened with, where it is to find peers again that it has lost.
    """

    def __init__(
        self,
        session: zenoh.Session,
        *,
        samples: int = SAMPLES,
        queries: int = QUERIES,
        options: ZenohOptions | None = None,
    ) -> None:
        self.session = session
        self._options = options
        self._token = trio.lowlevel.current_trio_token()
        self._samples = samples
        self._queries = queries
        self._outlets = Outlets()  # for what this bus asks
        self._answering: dict[str, Outlets] = {}  # by the key of a queryable, also after it is undeclared
        self.declared: set[_Declared] = set()
        self._calls: set[Call] = set()
        self._closed = False

    def put(
        self, key: str, payload: bytes, *, priority: Priority = Priority.NORMAL, attachment: bytes | None = None
    ) -> None:
        """Publish; dropped where the link cannot take it within about a millisecond."""
        self._check_open()
        try:
            self.session.put(key, payload, priority=PUT_PRIORITIES[priority], attachment=attachment)
        except zenoh.ZError as error:
            raise InvalidRequest(f"put on {key!r}: {reason(error)}") from None

    def delete(self, key: str, *, attachment: bytes | None = None) -> None:
        """Publish a delete."""
        self._check_open()
        try:
            self.session.delete(key, attachment=attachment, priority=PUT_PRIORITIES[Priority.NORMAL])
        except zenoh.ZError as error:
            raise InvalidRequest(f"delete on {key!r}: {reason(error)}") from None

    async def get(
        self,
        key: str,
        payload: bytes | None = None,
        *,
        parameters: str = "",
        timeout: float,
        everyone: bool = False,
        first: bool = False,
        most: int | None = None,
        priority: Priority = Priority.NORMAL,
        attachment: bytes | None = None,
    ) -> list[Reply]:
        """Ask, and collect the answers in the order of arrival."""
        self._check_open()
        call = Call(self._token, first=first, most=most)
        ask = partial(
            self.session.get,
            zenoh.Selector(key_expression(key), parameters),
            # Called on a thread of Zenoh: cheaper than the Python thread that Zenoh would start for each query.
            zenoh.handlers.Callback(call.on_reply, call.on_last, indirect=False),
            target=target(everyone),
            consolidation=zenoh.ConsolidationMode.NONE,
            timeout=min(max(timeout, 0.0), MAX_TIMEOUT),
            congestion_control=zenoh.CongestionControl.BLOCK,
            priority=QUERY_PRIORITIES[priority],
            payload=payload,
            attachment=attachment,
        )
        return await self._ask(call, ask, timeout, key, len(payload or b""))

    async def _ask(self, call: Call, ask: Callable[[], Any], timeout: float, key: str, size: int = 0) -> list[Reply]:
        self._outlets.pick(size).submit(partial(call.issue, ask))
        self._calls.add(call)
        try:
            replies = await call.result(timeout + GRACE)
        finally:
            self._calls.discard(call)
        self._check_open()
        if call.error is not None:
            raise InvalidRequest(f"get of {key!r}: {call.error}")
        return replies

    def subscribe(self, key: str, handler: Callable[[Sample], None], *, ordered: bool = True) -> Declaration:
        """Call ``handler`` with everything published on keys that intersect ``key``."""
        lane: SampleLane[zenoh.Sample]
        lane = SampleLane(key, handler, self._token, read=read_sample, bound=self._samples, size=_size)
        # On the thread that reads the link, a put is in its lane before the query behind it is read. The Python thread that Zenoh
        # runs otherwise may lag behind the one of a queryable, but costs less: it does not have to be made a Python thread each time.
        receive = zenoh.handlers.Callback(lane.push, indirect=not ordered)
        return self._declare(lane, lambda keys: self.session.declare_subscriber(keys, receive), key)

    def serve(self, key: str, handler: Callable[[Query], None], *, complete: bool = True) -> Declaration:
        """Call ``handler`` with every query on keys that intersect ``key``."""
        self._check_open()
        lane = QueryLane(key, handler, self._token, bound=self._queries)
        outlets = self._answering.setdefault(key, Outlets())

        def receive(raw: zenoh.Query) -> None:
            lane.push(ZenohQuery(raw, outlets))

        return self._declare(lane, lambda keys: self.session.declare_queryable(keys, receive, complete=complete), key)

    def publisher(self, key: str, on_matching: Callable[[bool], None] | None = None) -> Publisher:
        """Declare that this peer publishes on keys within ``key``."""
        self._check_open()
        publisher = self.session.declare_publisher(key_expression(key))
        if on_matching is None:
            return _Publisher(self, None, publisher)
        lane = ChangeLane(key, lambda _, matching: on_matching(matching), self._token)
        listener = publisher.declare_matching_listener(lambda status: lane.push(("", status.matching)))
        return _Publisher(self, lane, publisher, listener)

    def declare_alive(self, key: str) -> Declaration:
        """Declare a liveliness token."""
        return self._declare(None, self.session.liveliness().declare_token, key)

    def watch_alive(self, key: str, handler: Callable[[str, bool], None]) -> Declaration:
        """Call ``handler`` with the tokens that intersect ``key`` as they appear and go."""
        lane = ChangeLane(key, handler, self._token)

        def receive(sample: zenoh.Sample) -> None:
            lane.push((str(sample.key_expr), sample.kind == zenoh.SampleKind.PUT))

        watch = self.session.liveliness().declare_subscriber
        return self._declare(lane, lambda keys: watch(keys, receive, history=True), key)

    async def alive(self, key: str, *, timeout: float) -> list[str]:
        """The tokens in sight that intersect ``key``."""
        self._check_open()
        call = Call(self._token)
        handler = zenoh.handlers.Callback(call.on_reply, call.on_last, indirect=False)
        ask = partial(self.session.liveliness().get, key_expression(key), handler, timeout=timeout)
        return tokens(await self._ask(call, ask, timeout, key), timeout)

    @property
    def id(self) -> str:
        """What this session is known by in the links of others."""
        self._check_open()
        return str(self.session.info.zid())

    def links(self) -> list[Link]:
        """The sessions that this one is directly linked with."""
        self._check_open()
        info: Any = self.session.info  # its annotations lack what follows
        seen = {str(link.zid): (str(link.dst), link.auth_identifier or "") for link in info.links()}
        return [Link(str(t.zid), str(t.whatami), *seen.get(str(t.zid), ("", ""))) for t in info.transports()]

    @property
    def gossips(self) -> bool:
        """Whether peers are linked with this one because others told them of each other."""
        return self._options is not None and introducer(self._options) is not None

    @asynccontextmanager
    async def introducing(self) -> AsyncIterator[None]:
        """Have all peers around told of each other: see wattle/bus/introducer.py."""
        self._check_open()
        config = introducer(self._options) if self._options is not None else None
        if config is None:
            raise Unavailable("gossip links nobody with this session", code="NO_NETWORK")
        session = await trio.to_thread.run_sync(open_configured, config)
        try:
            yield
        finally:
            with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                await trio.to_thread.run_sync(session.close, abandon_on_cancel=True)

    async def close(self) -> None:
        """Undeclare everything, let the last answers leave and close the session; takes at most ``CLOSE_DEADLINE`` seconds."""
        if self._closed:
            return
        self._closed = True
        declared = list(self.declared)
        for declaration in declared:
            declaration.silence()
        for call in self._calls:
            call.end()
        for outlets in self._all_outlets():
            outlets.close()
        with trio.move_on_after(CLOSE_DEADLINE, shield=True) as scope:
            await trio.to_thread.run_sync(self._leave, declared, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("the Zenoh session did not close in time", seconds=CLOSE_DEADLINE)

    def _leave(self, declared: list[_Declared]) -> None:
        for declaration in declared:
            declaration.withdraw()
        until = monotonic() + FLUSH
        for outlets in self._all_outlets():
            outlets.join(max(0.0, until - monotonic()))
        self.session.close()  # type: ignore[no-untyped-call]  # unannotated in the stub of zenoh

    def _all_outlets(self) -> list[Outlets]:
        return [self._outlets, *self._answering.values()]

    def _declare(self, lane: Lane[Any] | None, declare: Callable[[zenoh.KeyExpr], _Entity], key: str) -> _Declared:
        self._check_open()
        return _Declared(self, lane, declare(key_expression(key)))

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this bus is closed")


def _size(sample: zenoh.Sample) -> int:
    return len(sample.payload) + len(sample.attachment or b"")


class _Entity(Protocol):
    def undeclare(self) -> None: ...


class _Declared:
    """Something declared over Zenoh, and the lane it fills."""

    def __init__(self, bus: ZenohBus, lane: Lane[Any] | None, *entities: _Entity) -> None:
        self._bus = bus
        self._lane = lane
        self._entities = entities
        bus.declared.add(self)

    def undeclare(self) -> None:
        """Withdraw it; a second call does nothing."""
        if self in self._bus.declared:
            self.silence()
            self.withdraw()

    def silence(self) -> None:
        """Call no handler any more."""
        self._bus.declared.discard(self)
        if self._lane is not None:
            self._lane.close()

    def withdraw(self) -> None:
        """Tell Zenoh; from any thread."""
        for entity in self._entities:
            try:
                entity.undeclare()
            except zenoh.ZError as error:
                log.debug("undeclaring failed", reason=reason(error))


class _Publisher(_Declared):
    """A declared publisher, and the lane of its changes."""

    def __init__(self, bus: ZenohBus, lane: Lane[Any] | None, publisher: zenoh.Publisher, *others: _Entity) -> None:
        super().__init__(bus, lane, *others, publisher)
        self._publisher = publisher

    @property
    def matching(self) -> bool:
        """Whether any subscriber's key intersects this publisher's."""
        if self not in self._bus.declared:
            raise trio.ClosedResourceError("this publisher is undeclared, or its bus is closed")
        status: Any = self._publisher.matching_status  # annotated as bool and is none
        return bool(status.matching)
