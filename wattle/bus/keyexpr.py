"""Key expressions as the in-memory bus understands them: ``*`` stands for one chunk, ``**`` for any number, also none.

``$*`` before the end of a chunk stands for anything before that end. The real bus leaves all this to Zenoh. ``$*`` elsewhere and ``@``
chunks are not supported here; Wattle uses neither.
"""

from __future__ import annotations

from functools import lru_cache

from wattle.errors import InvalidRequest

_CACHED = 4096


def check_key_expression(key: str) -> str:
    """``key`` itself when it is a key expression that both buses understand; raises InvalidRequest otherwise."""
    chunks = key.split("/")
    for chunk, following in zip(chunks, [*chunks[1:], ""], strict=True):
        if not chunk:
            raise InvalidRequest(
                f"key expression {key!r} has an empty chunk; it starts and ends without '/' and has no '//'"
            )
        if chunk not in ("*", "**") and any(c in "*#?$@" for c in chunk.removeprefix("$*") or "$*"):
            raise InvalidRequest(
                f"key expression {key!r}: chunk {chunk!r} must be '*', '**' or hold none of '*#?$@' but one '$*' at its start"
            )
        if chunk == "**" and following in ("*", "**"):
            raise InvalidRequest(
                f"key expression {key!r} is not in its shortest form; write '**/**' as '**', '**/*' as '*/**'"
            )
    return key


def has_wildcard(key: str) -> bool:
    """Whether ``key`` may stand for more than one key."""
    return "*" in key


@lru_cache(_CACHED)
def intersects(left: str, right: str) -> bool:
    """Whether some key belongs to both."""
    return _meet(left.split("/"), right.split("/"))


@lru_cache(_CACHED)
def includes(outer: str, inner: str) -> bool:
    """Whether every key of ``inner`` belongs to ``outer``."""
    return _hold(outer.split("/"), inner.split("/"))


def _meet(left: list[str], right: list[str]) -> bool:
    if not left or not right:
        return all(chunk == "**" for chunk in left or right)
    if left[0] == "**":
        return _meet(left[1:], right) or _meet(left, right[1:])
    if right[0] == "**":
        return _meet(right, left)
    return _chunks_meet(left[0], right[0]) and _meet(left[1:], right[1:])


def _chunks_meet(left: str, right: str) -> bool:
    if "*" in (left, right):
        return True
    ends, others = left.removeprefix("$*"), right.removeprefix("$*")
    return ends == others or (left != ends and others.endswith(ends)) or (right != others and ends.endswith(others))


def _hold(outer: list[str], inner: list[str]) -> bool:
    if not inner:
        return all(chunk == "**" for chunk in outer)
    if not outer:
        return False
    if outer[0] == "**":
        return _hold(outer[1:], inner) or _hold(outer, inner[1:])
    return inner[0] != "**" and _chunk_holds(outer[0], inner[0]) and _hold(outer[1:], inner[1:])


def _chunk_holds(outer: str, inner: str) -> bool:
    end = outer.removeprefix("$*")
    return outer in ("*", inner) or (end != outer and inner != "*" and inner.removeprefix("$*").endswith(end))
