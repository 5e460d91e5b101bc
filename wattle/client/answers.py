"""From what a gateway answered to records, or to the error it stands for. No I/O.

Fields that this version does not know are left out, so a newer gateway can be asked; a field that it needs and does not
find is an INTERNAL error that names the answer's kind and the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from functools import cache
from typing import Any, Generic, TypeVar

from wattle.bus.base import Reply
from wattle.errors import InternalError, Unavailable, WattleError, error_from_dict
from wattle.protocol.records import (
    AttemptView,
    NodeView,
    PeerView,
    ResultView,
    RunView,
    UsageView,
    WorkerView,
    WorkflowView,
)
from wattle.values import value

T = TypeVar("T")
V = TypeVar("V")


@value(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a listing; ``next`` is the ``after`` of the page that follows, None on the last one."""

    items: list[T]
    next: str | None = None


@value(frozen=True, slots=True, kw_only=True)
class Health:
    """What a gateway sees of the network; ``status`` is ok, or degraded when no coordinator or no runtime is in sight."""

    status: str
    namespace: str
    peers: list[PeerView] = field(default_factory=list)
    version: str = ""


@value(frozen=True, slots=True, kw_only=True)
class WorkerChange:
    """A worker's new status, as published: where, in which attempt, why, and when (RFC 3339)."""

    run: str
    name: str
    status: str
    node: str | None = None
    attempt: int | None = None
    error_message: str | None = None
    unreachable: bool = False
    at: str | None = None

    @property
    def final(self) -> bool:
        """Whether the worker is done with, one way or another."""
        return self.status in FINAL_WORKER


@value(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The runs that were removed; ``more`` says that another request would find others."""

    runs: list[str] = field(default_factory=list)
    more: bool = False


@value(frozen=True, slots=True)
class LogChunk:
    """Some bytes of a task's output, from ``offset`` on; ``next`` follows them, ``size`` is how many there are by now."""

    data: bytes
    attempt: int
    node: str
    offset: int
    next: int
    size: int
    running: bool


FINAL_WORKER = frozenset({"succeeded", "failed", "cancelled", "skipped"})
_TIMED_OUT = b"Timeout"


def first_answer(replies: Sequence[Reply], asked: str) -> Reply:
    """The one answer to a request; raises what an error reply stands for, or Unavailable when nobody answered ``asked``."""
    for reply in replies:
        if reply.ok:
            return reply
    for reply in replies:
        if reply.payload != _TIMED_OUT:
            raise _error(reply.payload)
    if replies:
        raise Unavailable(f"no answer in time to {asked}", code="TIMEOUT")
    raise Unavailable(f"no gateway serves {asked}", code="NO_GATEWAY")


def _error(payload: bytes) -> WattleError:
    try:
        data = json.loads(payload)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return InternalError(f"an error came back that is no error reply of Wattle: {payload[:200]!r}")
    return error_from_dict(data)


def json_of(payload: bytes) -> Any:
    """The JSON value of an answer."""
    try:
        return json.loads(payload)
    except ValueError as error:
        raise InternalError(f"the answer is not JSON ({error}): {payload[:200]!r}") from None


def run_view(data: Any) -> RunView:
    """A run."""
    return _view(RunView, data)


def worker_view(data: Any) -> WorkerView:
    """A worker with its results and attempts."""
    results = {name: _view(ResultView, value) for name, value in _mapping(data).get("results", {}).items()}
    attempts = [_attempt(value) for value in data.get("attempts", [])]
    return _view(WorkerView, data, results=results, attempts=attempts)


def _attempt(data: Any) -> AttemptView:
    usage = _mapping(data).get("usage")
    return _view(AttemptView, data, usage=None if usage is None else _view(UsageView, usage))


def workflow_view(data: Any) -> WorkflowView:
    """A workflow; with its document and latest run where the answer holds them."""
    latest = _mapping(data).get("latest_run")
    return _view(WorkflowView, data, latest_run=None if latest is None else run_view(latest))


def node_view(data: Any) -> NodeView:
    """A node."""
    return _view(NodeView, data)


def health(data: Any) -> Health:
    """Peers in sight."""
    return _view(Health, data, peers=[_view(PeerView, peer) for peer in _mapping(data).get("peers", [])])


def pruned(data: Any) -> Pruned:
    """What was removed."""
    return _view(Pruned, data)


def worker_change(data: Any) -> WorkerChange:
    """A worker's event."""
    return _view(WorkerChange, data)


def page(name: str, parse: Callable[[Any], T]) -> Callable[[Any], Page[T]]:
    """A parser of the listing whose items stand under ``name``."""

    def parse_page(data: Any) -> Page[T]:
        items = _mapping(data).get(name)
        if not isinstance(items, list):
            raise InternalError(f"the answer holds no list {name!r}: {str(data)[:200]}")
        return Page([parse(item) for item in items], data.get("next"))

    return parse_page


def log_chunk(reply: Reply) -> LogChunk:
    """A piece of a log: the payload, and where it stands from the attachment."""
    about = _mapping(json_of(reply.attachment or b"{}"))
    offset = int(about.get("offset", 0))
    return LogChunk(
        data=reply.payload,
        attempt=int(about.get("attempt", 1)),
        node=str(about.get("node") or ""),  # null while nobody knows
        offset=offset,
        next=int(about.get("next", offset + len(reply.payload))),
        size=int(about.get("size", offset + len(reply.payload))),
        running=bool(about.get("running", False)),
    )


def _view(kind: type[V], data: Any, **nested: Any) -> V:
    shape: Any = kind  # hashable, which mypy does not know of type[V]
    known, required = _fields(shape)
    values = {key: value for key, value in _mapping(data).items() if key in known} | nested
    missing = required - values.keys()
    if missing:
        raise InternalError(f"the answer is no {kind.__name__}: {', '.join(sorted(missing))} missing")
    return kind(**values)


@cache
def _fields(kind: Any) -> tuple[frozenset[str], frozenset[str]]:
    known = fields(kind)
    required = (f.name for f in known if f.default is MISSING and f.default_factory is MISSING)
    return frozenset(f.name for f in known), frozenset(required)


def _mapping(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise InternalError(f"the answer is {type(data).__name__}, not a JSON object")
    return data
