"""A network in memory, for tests: buses with the promises of wattle/bus/base.py, links that can be cut, messages that can be lost.

Everything happens on one trio thread. Nothing is delivered inside the call that causes it, as on the real bus; order is kept; time
is trio's, so a mock clock works.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, TypeVar

import trio

from wattle.bus.base import TIMEOUT, Declaration, Link, Priority, Publisher, Query, Reply, Sample
from wattle.bus.keyexpr import check_key_expression, includes, intersects
from wattle.bus.lanes import QUERIES, SAMPLES, ChangeLane, Lane, QueryLane, SampleLane
from wattle.bus.queries import OpenQuery

Kind = Literal["put", "query", "reply"]


class MemoryNetwork:
    """The medium between memory buses. All of them reach each other until links are cut.

    ``lose`` is asked with (kind, sender, receiver, key) about every message, and True loses it: a lost put (or delete) is gone, a
    lost query or reply ends in a timeout.
    """

    def __init__(self) -> None:
        self.lose: Callable[[Kind, MemoryBus, MemoryBus, str], bool] | None = None
        self.introductions = 0  # begun
        self._buses: list[MemoryBus] = []
        self._cut: set[frozenset[MemoryBus]] = set()
        self._lost: set[frozenset[MemoryBus]] = set()

    def bus(self, name: str = "", *, samples: int = SAMPLES, queries: int = QUERIES) -> MemoryBus:
        """A new bus on this network, to be made inside trio; ``name`` is for people. The bounds are as for ``open_zenoh_bus``."""
        bus = MemoryBus(self, name or f"bus{len(self._buses)}", samples, queries)
        self._buses.append(bus)
        return bus

    def cut(self, *buses: MemoryBus) -> None:
        """Cut the links between any two of ``buses``: tokens go, questions under way end, puts are lost."""
        self._cut |= _links(buses)
        self.changed()

    def part(self, *buses: MemoryBus) -> None:
        """The same, but the next introduction brings them together again."""
        self._lost |= _links(buses)
        self.changed()

    def introduce(self) -> None:
        """Tell all of each other."""
        self.introductions += 1
        self._lost.clear()
        self.changed()

    def isolate(self, bus: MemoryBus) -> None:
        """Cut every link of one bus."""
        self._cut |= {frozenset((bus, other)) for other in self._buses if other is not bus}
        self.changed()

    def heal(self) -> None:
        """Restore all links."""
        self._cut.clear()
        self.changed()

    def linked(self, a: MemoryBus, b: MemoryBus) -> bool:
        """Whether ``a`` and ``b`` reach each other."""
        if a.closed or b.closed:
            return False
        link = frozenset((a, b))
        return a is b or (link not in self._cut and link not in self._lost)

    def reached(self, bus: MemoryBus) -> list[MemoryBus]:
        """The other buses that ``bus`` reaches."""
        return [other for other in self._buses if other is not bus and self.linked(bus, other)]

    def loses(self, kind: Kind, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        """Whether this message is to be lost."""
        return self.lose is not None and self.lose(kind, sender, receiver, key)

    def seen_from(self, bus: MemoryBus) -> list[_Declared]:
        """Everything declared on the buses that ``bus`` reaches, its own included."""
        return [declared for other in self._buses if self.linked(bus, other) for declared in other.declared]

    def changed(self) -> None:
        """Links or declarations changed: let every bus notice."""
        self._buses = [bus for bus in self._buses if not bus.closed]
        for bus in self._buses:
            bus.notice()


def _links(buses: Iterable[MemoryBus]) -> set[frozenset[MemoryBus]]:
    """Those between any two."""
    return {frozenset(pair) for pair in combinations(buses, 2)}


class MemoryBus:
    """``wattle.bus.base.Bus`` on a MemoryNetwork."""

    def __init__(self, network: MemoryNetwork, name: str, samples: int, queries: int) -> None:
        self.network = network
        self.name = name
        self.closed = False
        self.declared: list[_Declared] = []
        self._calls: list[_Call] = []
        self._token = trio.lowlevel.current_trio_token()
        self._samples = samples
        self._queries = queries

    def __repr__(self) -> str:
        return f"<MemoryBus {self.name}>"

    def put(
        self, key: str, payload: bytes, *, priority: Priority = Priority.NORMAL, attachment: bytes | None = None
    ) -> None:
        """Publish."""
        self._publish(Sample(key, payload, attachment))

    def delete(self, key: str, *, attachment: bytes | None = None) -> None:
        """Publish a delete."""
        self._publish(Sample(key, None, attachment))

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
        self._check(key)
        call = _Call(self, first, most)
        self._calls.append(call)
        try:
            for queryable in self._to_ask(key, everyone):
                call.ask(queryable, MemoryQuery(call, queryable.bus, key, parameters, payload, attachment))
            return await call.result(timeout)
        finally:
            self._calls.remove(call)

    def subscribe(self, key: str, handler: Callable[[Sample], None], *, ordered: bool = True) -> Declaration:
        """Call ``handler`` with everything published on keys that intersect ``key``."""
        lane = SampleLane(key, handler, self._token, read=_read, bound=self._samples, size=_size)
        return self._declare(_Subscription(self, key, lane))

    def serve(self, key: str, handler: Callable[[Query], None], *, complete: bool = True) -> Declaration:
        """Call ``handler`` with every query on keys that intersect ``key``."""
        lane = QueryLane(key, handler, self._token, bound=self._queries)
        return self._declare(_Queryable(self, key, lane, complete))

    def publisher(self, key: str, on_matching: Callable[[bool], None] | None = None) -> Publisher:
        """Declare that this peer publishes on keys within ``key``."""
        tell = (lambda _: None) if on_matching is None else on_matching
        lane = ChangeLane(key, lambda _, matching: tell(matching), self._token)
        return self._declare(_Publisher(self, key, lane))

    def declare_alive(self, key: str) -> Declaration:
        """Declare a liveliness token."""
        return self._declare(_Alive(self, key, Lane(key, lambda _: None, self._token)))

    def watch_alive(self, key: str, handler: Callable[[str, bool], None]) -> Declaration:
        """Call ``handler`` with the tokens that intersect ``key`` as they appear and go."""
        return self._declare(_Watch(self, key, ChangeLane(key, handler, self._token)))

    async def alive(self, key: str, *, timeout: float) -> list[str]:
        """The tokens in sight that intersect ``key``."""
        self._check(key)
        await trio.lowlevel.checkpoint()
        return list(_tokens(self, key))

    @property
    def id(self) -> str:
        """What this bus is known by in the links of others."""
        self.check_open()
        return self.name

    def links(self) -> list[Link]:
        """The buses that this one reaches."""
        self.check_open()
        return [Link(other.name, "peer", "memory") for other in self.network.reached(self)]

    gossips = True

    @asynccontextmanager
    async def introducing(self) -> AsyncIterator[None]:
        """Have all buses told of each other."""
        self.check_open()
        self.network.introduce()
        await trio.lowlevel.checkpoint()
        yield

    async def close(self) -> None:
        """Undeclare everything and leave the network."""
        self.vanish()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def vanish(self) -> None:
        """Be gone at once, as with a killed process; the same as ``close`` for a bus that has no unsent messages."""
        if self.closed:
            return
        for declared in self.declared:
            declared.lane.close()
        self.declared.clear()
        self.closed = True
        for call in self._calls:
            call.end()
        self.network.changed()

    def notice(self) -> None:
        """Look at what became of the network."""
        for declared in list(self.declared):
            declared.notice()
        for call in list(self._calls):
            call.notice()

    def check_open(self) -> None:
        """Raise trio.ClosedResourceError on a bus that is closed."""
        if self.closed:
            raise trio.ClosedResourceError("this bus is closed")

    def _check(self, key: str) -> None:
        self.check_open()
        check_key_expression(key)

    def _declare(self, declared: D) -> D:
        self._check(declared.key)
        self.declared.append(declared)
        self.network.changed()
        return declared

    def _publish(self, sample: Sample) -> None:
        self._check(sample.key)
        for subscription in _of(_Subscription, self, sample.key):
            if not self.network.loses("put", self, subscription.bus, sample.key):
                subscription.lane.push(sample)

    def _to_ask(self, key: str, everyone: bool) -> list[_Queryable]:
        """As Zenoh routes: all, or all of this bus's own and those of one bus that is complete, or else of all buses."""
        queryables = _of(_Queryable, self, key)
        others = [queryable for queryable in queryables if queryable.bus is not self]
        complete = [queryable.bus for queryable in others if queryable.complete and includes(queryable.key, key)]
        if everyone or not complete:
            return queryables
        return [queryable for queryable in queryables if queryable.bus in (self, complete[0])]


class MemoryQuery(OpenQuery):
    """A query on its way from one memory bus to another, or being answered there."""

    def __init__(
        self,
        call: _Call,
        answerer: MemoryBus,
        key: str,
        parameters: str,
        payload: bytes | None,
        attachment: bytes | None,
    ) -> None:
        super().__init__(key, parameters, payload, attachment)
        self.answerer = answerer
        self._call = call

    def accepts(self, key: str) -> bool:
        """Whether ``key`` is among the keys that were asked for."""
        return intersects(self.key, check_key_expression(key))

    def send_reply(self, key: str, payload: bytes, attachment: bytes | None) -> None:
        """Answer."""
        self._send(Reply(key, payload, attachment=attachment))

    def send_error(self, payload: bytes) -> None:
        """Answer with an error."""
        self._send(Reply("", payload, ok=False))

    def send_end(self) -> None:
        """Tell the asker that no more answers come."""
        self._call.ended_by(self)

    def _send(self, reply: Reply) -> None:
        self.answerer.check_open()
        self._call.answered_by(self, reply)


class _Call:
    """One ``get`` under way."""

    def __init__(self, asker: MemoryBus, first: bool, most: int | None) -> None:
        self._asker = asker
        self._first, self._most = first, most
        self._waiting: list[MemoryQuery] = []
        self._replies: list[Reply] = []
        self._lossy = False  # a message was lost: only time can end this call
        self._ended = trio.Event()

    def ask(self, queryable: _Queryable, query: MemoryQuery) -> None:
        if self._asker.network.loses("query", self._asker, queryable.bus, query.key):
            self._lossy = True
        else:
            self._waiting.append(query)
            queryable.lane.push(query)

    def answered_by(self, query: MemoryQuery, reply: Reply) -> None:
        if query not in self._waiting:  # too late, or the link was cut meanwhile
            return
        if self._asker.network.loses("reply", query.answerer, self._asker, query.key):
            self._lossy = True
        else:
            self._replies.append(reply)
            if (self._first and reply.ok) or len(self._replies) == self._most:
                self.end()

    def ended_by(self, query: MemoryQuery) -> None:
        if query in self._waiting:
            self._waiting.remove(query)
        if not self._waiting and not self._lossy:
            self.end()

    def end(self) -> None:
        self._ended.set()

    def notice(self) -> None:
        for query in list(self._waiting):
            if not self._asker.network.linked(self._asker, query.answerer):
                self.ended_by(query)

    async def result(self, timeout: float) -> list[Reply]:
        if not self._waiting and not self._lossy:
            self.end()
        with trio.move_on_after(max(timeout, 0.0)) as scope:
            await self._ended.wait()
        self._asker.check_open()
        self._waiting.clear()
        return [*self._replies, Reply("", TIMEOUT, ok=False)] if scope.cancelled_caught else self._replies


class _Declared:
    """Something declared on a memory bus, and the lane of what is to be told to its handler."""

    def __init__(self, bus: MemoryBus, key: str, lane: Lane[Any]) -> None:
        self.bus = bus
        self.key = key
        self.lane = lane

    def undeclare(self) -> None:
        """Withdraw it; a second call does nothing."""
        if self in self.bus.declared:
            self.bus.declared.remove(self)
            self.lane.close()
            self.bus.network.changed()

    def notice(self) -> None:
        """Look at what became of the network."""


D = TypeVar("D", bound=_Declared)


def _of(kind: type[D], bus: MemoryBus, key: str) -> list[D]:
    """Declarations of one kind that ``bus`` reaches and whose key intersects ``key``."""
    seen = bus.network.seen_from(bus)
    return [declared for declared in seen if isinstance(declared, kind) and intersects(declared.key, key)]


def _tokens(bus: MemoryBus, key: str) -> tuple[str, ...]:
    """The tokens that ``bus`` sees, in the order of their declaration."""
    return tuple(dict.fromkeys(alive.key for alive in _of(_Alive, bus, key)))


def _read(sample: Sample, gap: bool) -> Sample:
    return replace(sample, gap=True) if gap else sample


def _size(sample: Sample) -> int:
    return len(sample.payload or b"") + len(sample.attachment or b"")


class _Subscription(_Declared):
    pass


class _Alive(_Declared):
    pass


class _Queryable(_Declared):
    def __init__(self, bus: MemoryBus, key: str, lane: QueryLane, complete: bool) -> None:
        super().__init__(bus, key, lane)
        self.complete = complete


class _Publisher(_Declared):
    _told = False

    @property
    def matching(self) -> bool:
        """Whether any subscriber's key intersects this publisher's."""
        if self not in self.bus.declared:
            raise trio.ClosedResourceError("this publisher is undeclared, or its bus is closed")
        return bool(_of(_Subscription, self.bus, self.key))

    def notice(self) -> None:
        if self.matching != self._told:
            self._told = not self._told
            self.lane.push(("", self._told))


class _Watch(_Declared):
    _seen: tuple[str, ...] = ()

    def notice(self) -> None:
        now = _tokens(self.bus, self.key)
        changes = [(token, False) for token in self._seen if token not in now]
        changes += [(token, True) for token in now if token not in self._seen]
        self._seen = now
        for change in changes:
            self.lane.push(change)
