"""The bus for programs without an event loop: the command line and the blocking SDK. Imports no trio.

Every call may be made from any thread. Callbacks run on a thread of their own per subscription, one at a time and in order; one
that is slow holds up its own subscription and, in the end, who publishes to it.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import zenoh

from wattle.bus.base import Declaration, Priority, Reply, Sample
from wattle.bus.config import ZenohOptions, open_session, reason
from wattle.bus.translate import (
    MAX_TIMEOUT,
    PUT_PRIORITIES,
    QUERY_PRIORITIES,
    key_expression,
    read_replies,
    read_sample,
    target,
)
from wattle.errors import InvalidRequest, Unavailable

BLOCK = zenoh.CongestionControl.BLOCK
PRIORITY = PUT_PRIORITIES[Priority.NORMAL]
GRACE = 1.0  # seconds by which ours comes after Zenoh's own timeout of a query
SLICE = 0.1  # seconds that a Ctrl-C may go unnoticed


class BlockingBus:
    """A connection to the network that blocks; a context manager.

    Raises as ``wattle.bus.config.open_session`` does when opened, Unavailable (NO_NETWORK) when used after ``close``, and
    InvalidRequest for keys that are none.
    """

    def __init__(self, options: ZenohOptions) -> None:
        self.session = open_session(options)
        self._declared: set[_Declared] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> str:
        """What this session is known by in the links of others."""
        self._check_open()
        return str(self.session.info.zid())

    def put(self, key: str, payload: bytes, *, attachment: bytes | None = None) -> None:
        """Publish, and wait for the link to take it: a command that puts and ends must not lose it."""
        self._check_open()
        try:
            self.session.put(key, payload, attachment=attachment, congestion_control=BLOCK, priority=PRIORITY)
        except zenoh.ZError as error:
            raise InvalidRequest(f"put on {key!r}: {reason(error)}") from None

    def delete(self, key: str, *, attachment: bytes | None = None) -> None:
        """Publish a delete, and wait for the link to take it."""
        self._check_open()
        try:
            self.session.delete(key, attachment=attachment, congestion_control=BLOCK, priority=PRIORITY)
        except zenoh.ZError as error:
            raise InvalidRequest(f"delete on {key!r}: {reason(error)}") from None

    def get(
        self,
        key: str,
        payload: bytes | None = None,
        *,
        parameters: str = "",
        timeout: float,
        everyone: bool = False,
        first: bool = False,
        priority: Priority = Priority.NORMAL,
        attachment: bytes | None = None,
    ) -> list[Reply]:
        """Ask, and collect the answers, as ``wattle.bus.base.Bus.get`` does; a KeyboardInterrupt comes through at once."""
        self._check_open()
        answers: list[zenoh.Reply] = []
        ended = Event()

        def on_reply(reply: zenoh.Reply) -> None:
            answers.append(reply)
            if first and reply.ok is not None:
                ended.set()

        self.session.get(
            zenoh.Selector(key_expression(key), parameters),
            zenoh.handlers.Callback(on_reply, ended.set, indirect=False),
            target=target(everyone),
            consolidation=zenoh.ConsolidationMode.NONE,
            timeout=min(max(timeout, 0.0), MAX_TIMEOUT),
            congestion_control=BLOCK,
            priority=QUERY_PRIORITIES[priority],
            payload=payload,
            attachment=attachment,
        )
        in_time = _wait(ended, timeout + GRACE)
        return read_replies(list(answers), in_time)

    def subscribe(self, key: str, callback: Callable[[Sample], object]) -> Declaration:
        """Call ``callback`` with everything published on keys that intersect ``key``; a queue's ``put`` serves well."""
        self._check_open()
        subscriber = self.session.declare_subscriber(key_expression(key), lambda raw: callback(read_sample(raw)))
        return _Declared(self._declared, subscriber)

    def alive(self, key: str, *, timeout: float) -> list[str]:
        """The liveliness tokens in sight that intersect ``key``."""
        self._check_open()
        tokens: list[zenoh.Reply] = []
        ended = Event()
        handler = zenoh.handlers.Callback(tokens.append, ended.set, indirect=False)
        self.session.liveliness().get(key_expression(key), handler, timeout=timeout)
        _wait(ended, timeout + GRACE)
        return [reply.key for reply in read_replies(list(tokens)) if reply.ok]

    def close(self) -> None:
        """Undeclare everything and close the session; a second call does nothing."""
        for declared in list(self._declared):
            declared.undeclare()
        self.session.close()  # type: ignore[no-untyped-call]  # unannotated in the stub of zenoh

    def _check_open(self) -> None:
        if self.session.is_closed():
            raise Unavailable("this connection to the network is closed; open another", code="NO_NETWORK")


def _wait(event: Event, seconds: float) -> bool:
    """Whether ``event`` was set in time. A signal that arrives just before a wait begins does not interrupt it, so waits are short."""
    until = monotonic() + seconds
    while not event.wait(min(SLICE, max(0.0, until - monotonic()))):
        if monotonic() >= until:
            return False
    return True


class _Entity(Protocol):
    def undeclare(self) -> None: ...


class _Declared:
    def __init__(self, declared: set[_Declared], entity: _Entity) -> None:
        self._all = declared
        self._entity = entity
        declared.add(self)

    def undeclare(self) -> None:
        """Withdraw it; a second call does nothing."""
        if self in self._all:
            self._all.discard(self)
            self._entity.undeclare()
