"""The port to the network: what an agent may do with it, and the promises every bus keeps.

Two buses implement it: wattle/bus/zenoh.py (the real one) and wattle/bus/memory.py (for tests); tests/bus runs one contract
suite on both.

Promises:

* Handlers are called on the trio thread, one at a time, each in the order of arrival, and must neither block nor raise; most only
  enqueue. One that raises is logged, and a query it was called with is answered INTERNAL and finished.
* A handler's backlog is bounded. A subscription that overflows drops its oldest samples and marks the next one delivered with
  ``gap=True``; a queryable with too many unfinished queries answers BUSY by itself. Nothing else is dropped on the receiving side.
* ``get`` always ends: when all who match have answered or are gone, or after ``timeout``. Zenoh does not always notice that one is gone
  to whom the question is sent as it dies, or as it undeclares what is asked; who sets a long timeout watches its token
  (``wattle.peer.presence.Presence.while_in_sight``). What had arrived when a queryable was undeclared is answered, or ended.
* No call waits for a stalled link: queries and answers are sent from other threads, a put that would have to wait is dropped.
* ``close`` undeclares everything first and is idempotent; after it every call raises ``trio.ClosedResourceError``.
* A key expression that is not valid, or a reply that does not fit its query, raises ``wattle.errors.InvalidRequest``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from wattle.values import value

TIMEOUT = b"Timeout"
"""The payload of the error reply that ends a ``get`` whose time is up."""


class Priority(Enum):
    """How urgent a message is against others of this process: commands and facts, ordinary traffic, file chunks and logs."""

    CONTROL = "control"
    NORMAL = "normal"
    BULK = "bulk"


@value(frozen=True, slots=True)
class Sample:
    """Something published. ``payload`` is None for a delete; ``gap`` says that samples before this one were dropped here."""

    key: str
    payload: bytes | None
    attachment: bytes | None = None
    gap: bool = False


@value(frozen=True, slots=True)
class Reply:
    """One answer to a ``get``. ``ok`` is False for an error reply, whose ``key`` is empty."""

    key: str
    payload: bytes
    ok: bool = True
    attachment: bytes | None = None


@value(frozen=True, slots=True)
class Link:
    """A direct link to another session: its id, what it is to the network (peer, client or router), and its address as seen here.

    ``certificate`` is the common name in the certificate that the link was opened with; empty where it has none.
    """

    id: str
    kind: str
    address: str
    certificate: str = ""


class Query(Protocol):
    """A question to answer: any number of ``reply`` and ``reply_error``, then exactly one ``finish`` (a second does nothing).

    May be kept and answered later, from the trio thread. ``parameters`` is the text after ``?``. Answers of any size return at
    once and are sent in order by another thread; the asker's priority applies to them. An asker that is gone is no error; a
    reply after ``finish`` raises ``trio.ClosedResourceError``.
    """

    key: str
    parameters: str
    payload: bytes | None
    attachment: bytes | None

    def reply(self, payload: bytes, *, key: str | None = None, attachment: bytes | None = None) -> None:
        """Answer on ``key`` (by default the query's own, which must then hold no wildcard)."""

    def reply_error(self, payload: bytes) -> None:
        """Answer with an error."""

    def finish(self) -> None:
        """Say that no more answers come."""


class Declaration(Protocol):
    """Something declared on the bus, until undeclared."""

    def undeclare(self) -> None:
        """Withdraw it; a second call does nothing."""


class Publisher(Declaration, Protocol):
    """A standing wish to publish under a key expression that knows whether anybody listens."""

    @property
    def matching(self) -> bool:
        """Whether any subscriber's key intersects this publisher's."""


class Bus(Protocol):
    """A peer's connection to the network."""

    def put(
        self, key: str, payload: bytes, *, priority: Priority = Priority.NORMAL, attachment: bytes | None = None
    ) -> None:
        """Publish; delivery is best effort (design rule: pub/sub is a hint, the store is the truth)."""

    def delete(self, key: str, *, attachment: bytes | None = None) -> None:
        """Publish a delete."""

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
        """Ask, and collect the answers in the order of arrival.

        ``everyone`` asks all who match; otherwise one complete queryable is enough. ``first`` ends with the first answer that is
        no error, whoever else has not answered yet; ``most`` with that many answers, errors included. Replies are never
        consolidated: each answer is delivered even when several stand on one key. A query that times out ends with what has
        arrived so far plus an error reply whose payload is ``TIMEOUT``; one that nobody serves ends at once with an empty list.
        What this very bus serves is always asked, too.
        """

    def subscribe(self, key: str, handler: Callable[[Sample], None], *, ordered: bool = True) -> Declaration:
        """Call ``handler`` with everything published on keys that intersect ``key``.

        ``ordered`` also keeps what a peer puts before it asks something here, at the same priority, before that query. Without it
        a busy subscription takes about three times as many samples per second.
        """

    def serve(self, key: str, handler: Callable[[Query], None], *, complete: bool = True) -> Declaration:
        """Call ``handler`` with every query on keys that intersect ``key``.

        ``complete`` promises that this peer alone can answer any query on ``key``.
        """

    def publisher(self, key: str, on_matching: Callable[[bool], None] | None = None) -> Publisher:
        """Declare that this peer publishes on keys within ``key``; publish with ``put``.

        ``on_matching``, a handler, is called with every change of ``matching`` (and with True where it holds from the start).
        """

    def declare_alive(self, key: str) -> Declaration:
        """Declare a liveliness token: others see it appear, and disappear when this peer leaves, dies or is cut off."""

    def watch_alive(self, key: str, handler: Callable[[str, bool], None]) -> Declaration:
        """Call ``handler(token, True)`` for every token that intersects ``key``, now or later, and ``(token, False)`` when one goes.

        This bus's own tokens are among them. Of a backlog too long to keep, the latest word on each token remains.
        """

    async def alive(self, key: str, *, timeout: float) -> list[str]:
        """The tokens in sight that intersect ``key``, once everyone linked with this bus has said what it sees.

        Raises Unavailable (TIMEOUT) where somebody has not within ``timeout``. Watching cannot tell that nothing is there: a token
        comes when whoever knows of it finds the time.
        """

    @property
    def id(self) -> str:
        """What this session is known by in the links of others."""

    def links(self) -> list[Link]:
        """The sessions that this one is directly linked with."""

    @property
    def gossips(self) -> bool:
        """Whether peers are linked with this one because others told them of each other."""

    def introducing(self) -> AbstractAsyncContextManager[None]:
        """Have all peers around told of each other during the block, so that those link which can and are not linked.

        Peers that have lost their link stay apart otherwise, as long as both keep theirs to those that could tell them of each other.
        Raises Unavailable where that cannot be begun, and where gossip links nobody with this one.
        """

    async def close(self) -> None:
        """Undeclare everything and leave the network, within a few seconds and also in a task that is cancelled."""
