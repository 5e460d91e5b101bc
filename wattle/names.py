"""The one grammar of names, and the making of run ids.

Workflows, workers, runs, peers, namespaces, parameters, inputs and outputs are all named by the same grammar. It has no
``/``, ``*``, ``$``, ``#`` or ``?`` and cannot start with a dot, so a name can never act as a key expression or as a path.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from wattle.errors import InvalidRequest

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""The grammar: a letter or digit, then up to 63 letters, digits, dots, underscores or hyphens."""

_NAME = re.compile(NAME_PATTERN)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def is_name(text: object) -> bool:
    """Whether ``text`` is a string that follows the grammar of names."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def name_problem(text: object) -> str | None:
    """Why ``text`` is no name, as the end of a sentence that starts with it; None when it is one."""
    if is_name(text):
        return None
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not a string (in YAML, quote it)"
    if not text:
        return "is empty"
    if len(text) > 64:
        return f"is {len(text)} characters long; names have at most 64"
    if not text[0].isascii() or not text[0].isalnum():
        return "must start with a letter or a digit"
    bad = sorted({c for c in text if not (c.isascii() and (c.isalnum() or c in "._-"))})
    return f"holds {' '.join(repr(c) for c in bad)}; names use letters, digits, '.', '_' and '-'"


def check_name(text: object, what: str) -> str:
    """``text`` itself when it is a name; raises InvalidRequest that says what is wrong with ``what`` otherwise."""
    problem = name_problem(text)
    if problem is not None:
        shown = repr(text)
        raise InvalidRequest(f"{what} {shown if len(shown) <= 100 else shown[:100] + '...'} {problem}")
    return str(text)


def as_name(text: str) -> str:
    """The nearest name to ``text``: for host names and titles of foreign documents. Never empty."""
    cleaned = _NOT_IN_NAMES.sub("-", text).strip("-._")[:64]
    return cleaned or "x"


def peer_name(name: str, role: str, roles: Collection[str]) -> str:
    """What the peer of one role is called in a process of these roles: as the process is, which a runtime has for itself among others."""
    return name if len(roles) == 1 or role == "runtime" else f"{name[:52]}-{role}"


def process_name(peer: str, role: str) -> str:
    """What the process of a peer is called that ``peer_name`` named, unless its name was so long that it was cut off."""
    return peer.removesuffix(f"-{role}")


def new_run_id(workflow: str, now: float, nonce: str) -> str:
    """A run id a person can read: workflow, UTC time and ``nonce`` (a few random letters), at most 64 characters.

    >>> new_run_id("wordcount", 0.0, "k3f9")
    'wordcount-19700101-000000-k3f9'
    """
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
    tail = f"-{stamp}-{nonce}"
    return workflow[: 64 - len(tail)] + tail
