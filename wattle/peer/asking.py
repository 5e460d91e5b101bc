"""Small manners of questions and answers that every agent shares: parameters, refusals, one answer from one peer."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import unquote

from pydantic_core import from_json

from wattle.bus.base import Bus, Priority, Query, Reply
from wattle.bus.queries import error_payload
from wattle.errors import InvalidRequest, Unavailable, WattleError


def parse_parameters(text: str) -> dict[str, str]:
    """``a=1;b=x%20y`` as a dict; ``&`` separates too. Raises InvalidRequest for a parameter given twice or without a name."""
    found: dict[str, str] = {}
    for part in text.replace("&", ";").split(";"):
        if not part:
            continue
        name, _, value = part.partition("=")
        if not name or name in found:
            raise InvalidRequest(
                f"parameter {name!r} is {'given twice' if name else 'without a name'} in {text[:200]!r}"
            )
        found[name] = unquote(value)
    return found


def parse_number(parameters: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number among the parameters; raises InvalidRequest outside ``least``..``most``."""
    text = parameters.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 else None
    if number is None or not least <= number <= most:
        raise InvalidRequest(f"parameter {name}={text[:40]!r} must be a whole number from {least} to {most}")
    return number


def parse_seconds(parameters: dict[str, str], name: str, most: float) -> float:
    """A duration among the parameters, 0 when absent, cut to ``most``; raises InvalidRequest for anything else."""
    text = parameters.get(name, "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise InvalidRequest(f"parameter {name}={text[:40]!r} must be seconds, 0 or more")
    return min(seconds, most)


def parse_object(payload: bytes | None) -> dict[str, Any]:
    """The JSON object in a payload; raises InvalidRequest for anything else, also for NaN, half characters and too deep nesting."""
    if not payload:
        raise InvalidRequest("the payload is empty; it must be a JSON object")
    try:
        value = from_json(payload, allow_inf_nan=False)
        if _may_be_infinite(payload):
            json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the payload is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the payload must be a JSON object, not {_KINDS.get(type(value), 'null')}")
    return value


def _may_be_infinite(payload: bytes) -> bool:
    """Whether some number may be read as infinite: all others have two digits of exponent at most, and less than 200 before it.

    All threads stand still meanwhile, those of Zenoh too that hand over what they read. One expression for both took 2.4 s for 64 MiB,
    longer than a link is kept without a word (the lease); these take 0.2 s: two begin with a letter, and of 20 bytes one is looked at.
    """
    return _LONG.search(payload[::20]) is not None or any(exponent.search(payload) for exponent in _EXPONENTS)


_EXPONENTS = (re.compile(rb"e[+]?[0-9]{3}"), re.compile(rb"E[+]?[0-9]{3}"))
_LONG = re.compile(rb"[0-9]{10}")
_KINDS = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def refuse(query: Query, error: WattleError) -> None:
    """Answer with an error, and nothing more."""
    query.reply_error(error_payload(error))
    query.finish()


async def ask(
    bus: Bus,
    key: str,
    payload: bytes | None = None,
    *,
    parameters: str = "",
    timeout: float,
    priority: Priority = Priority.CONTROL,
) -> Reply:
    """The first answer from the one peer behind ``key``; raises Unavailable when none comes in time."""
    replies = await bus.get(key, payload, parameters=parameters, timeout=timeout, first=True, priority=priority)
    for reply in replies:
        if reply.ok:
            return reply
    said = replies[0].payload.decode(errors="replace") if replies else "nobody serves it"
    raise Unavailable(f"no answer on {key}: {said}", code="NODE_UNREACHABLE")
