"""The arguments of a request: one JSON object, of which whoever asks may have made anything. All raise InvalidRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattle.bus.base import Query
from wattle.errors import InvalidRequest
from wattle.peer.asking import parse_object
from wattle.protocol.messages import FIRST_TIME, LAST_TIME

Args = Mapping[str, Any]


def of(query: Query) -> dict[str, Any]:
    """Those of a query; none where it has no payload."""
    return parse_object(query.payload) if query.payload else {}


def number(args: Args, name: str) -> float:
    """A number among the arguments that a clock can have, 0 when absent."""
    value = args.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not FIRST_TIME <= value <= LAST_TIME:
        raise InvalidRequest(f"{name!r} must be a number from {FIRST_TIME:.0f} to {LAST_TIME:.0f}")
    return float(value)


def count(args: Args, name: str, least: int) -> int:
    """A whole number among the arguments, that SQLite can hold; ``least`` when absent."""
    value = args.get(name, least)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**62:
        raise InvalidRequest(f"{name!r} must be a whole number, {least} or more")
    return value


def text(args: Args, name: str) -> str | None:
    """A text among the arguments, None when absent."""
    value = args.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name!r} must be a string")
    return value
