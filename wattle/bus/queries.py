"""The part of answering a query that is the same on every bus: what may be said when, and to which key."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable

import trio

from wattle.bus.keyexpr import has_wildcard
from wattle.errors import InternalError, InvalidRequest, Unavailable, WattleError


def error_payload(error: WattleError) -> bytes:
    """What an error reply carries."""
    return json.dumps(error.as_dict()).encode()


BUSY = error_payload(Unavailable("this peer has too many unanswered requests; try again later", code="BUSY"))
INTERNAL = error_payload(InternalError("the peer failed to handle this request; its log says why"))


class OpenQuery(ABC):
    """A query as handlers see it (see wattle/bus/base.py); buses say how answers travel."""

    def __init__(self, key: str, parameters: str, payload: bytes | None, attachment: bytes | None) -> None:
        self.key = key
        self.parameters = parameters
        self.payload = payload
        self.attachment = attachment
        self.on_finish: Callable[[OpenQuery], None] | None = None
        self._finished = False

    def reply(self, payload: bytes, *, key: str | None = None, attachment: bytes | None = None) -> None:
        """Answer on ``key`` (by default the query's own, which must then hold no wildcard)."""
        self._check_unfinished()
        key = self.key if key is None else key
        if has_wildcard(key):
            raise InvalidRequest(f"reply on {key!r}: must be one key without wildcards")
        if not self.accepts(key):
            raise InvalidRequest(f"reply on {key!r}: does not belong to the query for {self.key!r}")
        self.send_reply(key, payload, attachment)

    def reply_error(self, payload: bytes) -> None:
        """Answer with an error."""
        self._check_unfinished()
        self.send_error(payload)

    def finish(self) -> None:
        """Say that no more answers come."""
        if self._finished:
            return
        self._finished = True
        if self.on_finish is not None:
            self.on_finish(self)
        self.send_end()

    def fail(self) -> None:
        """Answer INTERNAL and finish; the fault is in the log."""
        if not self._finished:
            self.send_error(INTERNAL)
            self.finish()

    def refuse(self) -> None:
        """Answer BUSY and finish."""
        self.send_error(BUSY)
        self.finish()

    @abstractmethod
    def accepts(self, key: str) -> bool:
        """Whether ``key`` is among the keys that were asked for."""

    @abstractmethod
    def send_reply(self, key: str, payload: bytes, attachment: bytes | None) -> None:
        """Send an answer behind those before."""

    @abstractmethod
    def send_error(self, payload: bytes) -> None:
        """Send an error behind the answers before."""

    @abstractmethod
    def send_end(self) -> None:
        """Tell the asker, behind all answers, that no more come."""

    def _check_unfinished(self) -> None:
        if self._finished:
            raise trio.ClosedResourceError("this query is finished: it was answered, or its bus is closed")
