"""Requests as routes get them, how long they may take, and what they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

import trio
from pydantic_core import to_json

from wattle.errors import InvalidRequest
from wattle.values import value

LATE = 2.0
"""Seconds by which the answer to a request that waits may come after what it asked to wait."""

MOMENT = 0.2
"""Seconds until it is asked again for the owner of a run whose owner is gone."""


class Method(StrEnum):
    """How a request came: a get without or with a payload, a put, a delete."""

    GET = "get"
    POST = "get with a payload"
    PUT = "put"
    DELETE = "delete"

    @property
    def answered(self) -> bool:
        """Whether whoever asks gets an answer: Zenoh has none for puts and deletes."""
        return self in (Method.GET, Method.POST)


@value(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: Method
    key: str
    parameters: str
    payload: bytes | None
    attachment: bytes | None


@value(frozen=True, slots=True)
class Request:
    """A parsed request: the names in its path, its parameters, its payload."""

    names: Mapping[str, str]
    parameters: dict[str, str]
    payload: bytes | None

    def only(self, *allowed: str) -> None:
        """Raise InvalidRequest for a parameter the request does not have."""
        for name in self.parameters:
            if name not in allowed:
                close = get_close_matches(name[:64], allowed, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; it takes {', '.join(allowed) or 'none'}"
                raise InvalidRequest(f"this request has no parameter {name[:64]!r}{hint}")

    def choice(self, name: str, allowed: type[StrEnum]) -> str | None:
        """A parameter that is one of an enumeration's values."""
        value = self.parameters.get(name)
        if value is not None and value not in list(allowed):
            raise InvalidRequest(f"parameter {name}={value[:40]!r} must be one of {', '.join(allowed)}")
        return value


@value(frozen=True, slots=True)
class Answer:
    """A body, JSON unless it is a log's bytes, with an attachment."""

    body: bytes
    attachment: bytes | None = None


Handler = Callable[[Request], Awaitable[Answer]]


def json_answer(value: Any) -> Answer:
    """The answer that a JSON value makes."""
    return Answer(to_json(value))


@value(frozen=True, slots=True)
class Patience:
    """How long one request may take: whatever it asks of the network, again or one thing after the other, it asks within this."""

    until: float  # when what it waits for is waited for no more
    deadline: float  # when it has been answered, one way or another

    @property
    def wait(self) -> float:
        """Seconds that may still be waited."""
        return max(self.until - trio.current_time(), 0.0)

    @property
    def timeout(self) -> float:
        """Seconds that a question now may take."""
        return max(self.deadline - trio.current_time(), MOMENT)

    @property
    def over(self) -> bool:
        """Whether there is no time to ask again in a moment."""
        return trio.current_time() + MOMENT > self.deadline
