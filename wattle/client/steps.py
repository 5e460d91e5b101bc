"""What the clients do, step by step, without doing any of it: retries, long polls, writes; more in following.py.

Each operation is a generator. It yields an ``Ask``, ``Pause`` or ``Next`` and is sent the outcome (the replies, None, a
``Happening``); it yields ``Emit`` for each item it produces, and returns its result. ``TrioClient`` and ``Client``
differ only in how they perform these steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from wattle.bus.base import Reply, Sample
from wattle.client import requests
from wattle.client.answers import Page
from wattle.client.requests import Document, Request
from wattle.errors import InternalError, NotFound, Unavailable, WattleError, error_from_dict
from wattle.protocol.keys import Keys
from wattle.protocol.records import RunView, WorkflowView
from wattle.values import value

T = TypeVar("T")
R = TypeVar("R")


@value(frozen=True, slots=True)
class Happening:
    """An event off the network; ``gap`` when some before it were dropped here."""

    sample: Sample
    gap: bool = False


@value(frozen=True, slots=True)
class Ask:
    """Send a request and give back all replies."""

    request: Request[Any]
    timeout: float


@value(frozen=True, slots=True)
class Pause:
    """Let some seconds pass."""

    seconds: float


@value(frozen=True, slots=True)
class Next:
    """Give back the next event, or None when none comes for some seconds."""

    seconds: float


@value(frozen=True, slots=True)
class Emit(Generic[T]):
    """An item for the caller."""

    value: T


@value(frozen=True, slots=True)
class Put:
    """Publish on an api path; ``payload`` None is a delete. Nothing answers."""

    path: str
    payload: bytes | None


Step = Ask | Pause | Next | Put | Emit[T]
Steps = Generator[Step[T], Any, R]
"""Emits items of type T and ends with an R."""

BACKLOG = 10_000
"""Events that may wait for the caller; one beyond is dropped and marked as a gap."""

NO_ANSWER = (
    "NO_GATEWAY",
    "NO_NETWORK",
    "NO_COORDINATOR",
    "NO_QUORUM",
    "NODE_UNREACHABLE",
    "OWNER_UNREACHABLE",
    "TIMEOUT",
    "BUSY",
)
"""Errors that the same request may not meet a moment later."""


@dataclass(slots=True)
class Policy:
    """How patient a client is, in seconds.

    ``timeout``: for one answer. ``patience``: how long a request that may be repeated is, once a gateway has answered;
    before the first answer it is ``first_contact``, so that a wrong endpoint is noticed soon. ``poll``: how often state is read
    although no event came, since an event may be lost.
    """

    clock: Callable[[], float]
    where: str = "the network"
    timeout: float = 10.0
    patience: float = 30.0
    first_contact: float = 2.0
    poll: float = 2.0
    hold: float = 20.0
    heard: bool = field(default=False, init=False)

    def explain(self, error: WattleError) -> WattleError:
        """``error``, with what to do about it where nobody answered at all."""
        if error.code != "NO_GATEWAY":
            return error
        message = (
            f"no gateway answers at {self.where}. Start a network with `wattle up`, or name one with --connect or WATTLE_CONNECT,"
            " its namespace with --namespace or WATTLE_NAMESPACE"
        )
        return Unavailable(message, code="NO_GATEWAY", detail=error.detail)


def ask(policy: Policy, request: Request[R]) -> Steps[Any, R]:
    """One request; a repeatable one is sent again while nobody answers, for a bounded time."""
    began = policy.clock()
    silent: float | None = None  # since when nobody answers: a gateway may have held the request until it was gone
    pause = 0.1
    while True:
        replies: list[Reply] = yield Ask(request, policy.timeout + request.held)
        try:
            answer = request.answer(replies)
        except WattleError as error:
            policy.heard = policy.heard or error.code not in ("NO_GATEWAY", "TIMEOUT")
            # Nobody can have acted on a request that no gateway received.
            may_repeat = request.repeatable or error.code == "NO_GATEWAY"
            patience = policy.patience if policy.heard else policy.first_contact
            if silent is None:
                silent = policy.clock() if error.code == "NO_GATEWAY" or request.held else began
            if error.code not in NO_ANSWER or not may_repeat or policy.clock() - silent + pause > patience:
                raise policy.explain(error) from None
        else:
            policy.heard = True
            return answer
        yield Pause(pause)
        pause = min(2 * pause, 2.0)


def once(policy: Policy, request: Request[R]) -> Steps[Any, R]:
    """One request, for a caller who wants to know now: again only while no gateway is in sight, and not for long."""
    began = policy.clock()
    while True:
        replies: list[Reply] = yield Ask(request, policy.timeout + request.held)
        try:
            return request.answer(replies)
        except WattleError as error:
            if error.code != "NO_GATEWAY" or policy.clock() - began > policy.first_contact:
                raise policy.explain(error) from None
        yield Pause(0.2)


def pages(policy: Policy, listing: Callable[[str | None], Request[Page[T]]]) -> Steps[T, None]:
    """Every item of a listing, page by page."""
    after: str | None = None
    while True:
        page = yield from ask(policy, listing(after))
        for item in page.items:
            yield Emit(item)
        if page.next is None:
            return
        if page.next == after:
            raise InternalError(f"the listing does not get beyond {after!r}")
        after = page.next


def wait(policy: Policy, run: str, timeout: float | None) -> Steps[Any, RunView]:
    """Long polls until the run is final; raises Unavailable (TIMEOUT) when it is not within ``timeout`` seconds."""
    ends = None if timeout is None else policy.clock() + timeout
    while True:
        left = policy.hold if ends is None else max(0.0, ends - policy.clock())
        view = yield from ask(policy, requests.run(run, min(left, policy.hold)))
        if view.final:
            return view
        if ends is not None and policy.clock() >= ends:
            raise Unavailable(f"run {run} is still {view.status} after {timeout:g} s", code="TIMEOUT")


def submit_and_wait(
    policy: Policy, document: Document, params: Mapping[str, Any] | None, run: str, timeout: float | None
) -> Steps[Any, RunView]:
    """Submit, and wait until the run is final, in one request where it does not take long; raises Unavailable as ``wait`` does."""
    hold = policy.hold if timeout is None else min(timeout, policy.hold)
    began = policy.clock()
    view = yield from ask(policy, requests.submit(document, params, run, hold))
    if view.final:
        return view
    return (yield from wait(policy, run, None if timeout is None else max(timeout - (policy.clock() - began), 0.0)))


# --- writing without an answer -----------------------------------------------------------------------------------------


def put_workflow(policy: Policy, keys: Keys, name: str, payload: bytes) -> Steps[Any, WorkflowView]:
    """Create or replace a workflow. A put has no reply: it has happened when the stored definition is a newer one."""
    before = yield from _workflow_or_none(policy, name)
    view = yield from _write(
        policy,
        keys,
        name,
        payload,
        lambda now: now is not None and (before is None or now.updated_at != before.updated_at),
    )
    assert view is not None
    return view


def delete_workflow(policy: Policy, keys: Keys, name: str) -> Steps[Any, None]:
    """Delete a workflow softly, and see it gone."""
    yield from ask(policy, requests.workflow(name))
    yield from _write(policy, keys, name, None, lambda now: now is None)


def put(keys: Keys, path: str, payload: bytes, seconds: float) -> Steps[Any, None]:
    """Publish, and listen for a refusal for a while."""
    yield Put(path, payload)
    raise_if_rejected((yield Next(seconds)), requests.full_key(keys, path))


def _write(
    policy: Policy, keys: Keys, name: str, payload: bytes | None, done: Callable[[WorkflowView | None], bool]
) -> Steps[Any, WorkflowView | None]:
    path = requests.workflow(name).path
    began = policy.clock()
    while policy.clock() - began < policy.timeout:
        yield Put(path, payload)
        for pause in (0.02, 0.1, 0.4, 1.0):
            happening: Happening | None = yield Next(pause)
            raise_if_rejected(happening, keys.api(path))
            now = yield from _workflow_or_none(policy, name)
            if done(now):
                return now
    raise Unavailable(f"no gateway carried out the {'put' if payload else 'delete'} of {path}", code="TIMEOUT")


def raise_if_rejected(happening: Happening | None, key: str) -> None:
    """Raises what a refused put or delete of ``key`` was refused for."""
    if happening is None:
        return
    try:
        data = json.loads(happening.sample.payload or b"")
    except ValueError:
        return
    if isinstance(data, dict) and data.get("key") == key:
        raise error_from_dict(data)


def _workflow_or_none(policy: Policy, name: str) -> Steps[Any, WorkflowView | None]:
    try:
        return (yield from ask(policy, requests.workflow(name)))
    except NotFound:
        return None
