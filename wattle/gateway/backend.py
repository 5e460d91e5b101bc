"""What a gateway asks of the network: all coordinators at once, or one of them, or one runtime."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import trio
from pydantic_core import to_json

from wattle.bus.base import TIMEOUT, Bus, Reply, Sample
from wattle.core.hashing import ranked
from wattle.errors import InternalError, NotFound, Unavailable, WattleError, error_from_dict
from wattle.gateway.request import LATE, MOMENT, Patience
from wattle.peer.presence import Presence
from wattle.protocol.keys import Alive, Keys

COMEBACK = 2.0
"""Seconds that a submission waits for a coordinator where one was in sight before."""


class Backend:
    """Questions with one meaning of failure: an error somebody gave is raised; silence is NOT_FOUND or NO_COORDINATOR."""

    def __init__(self, bus: Bus, keys: Keys, presence: Presence, *, timeout: float) -> None:
        self.bus, self.keys, self._presence, self.timeout = bus, keys, presence, timeout
        self._had_coordinator = False

    def patience(self, wait: float = 0.0) -> Patience:
        """For a request that comes now, and asks to wait so many seconds."""
        now = trio.current_time()
        return Patience(now + wait, now + max(self.timeout, wait + LATE))

    async def _get(
        self,
        key: str,
        payload: bytes | None = None,
        *,
        answerers: Collection[Alive],
        timeout: float,
        everyone: bool = False,
        parameters: str = "",
        first: bool = True,
    ) -> list[Reply] | None:
        """All answers; None when one of ``answerers`` goes out of sight before they are there."""
        with self._presence.while_in_sight(answerers):
            return await self.bus.get(
                key, payload, parameters=parameters, timeout=timeout, everyone=everyone, first=first
            )
        return None

    async def everyone(self, verb: str, args: dict[str, Any]) -> list[tuple[str, Any]]:
        """What each coordinator answers, with its name; those to whom the question means nothing are silent."""
        patience = self.patience()
        key, replies = self.keys.cmd("*", verb), None
        while replies is None:
            answerers = self._presence.newest("coordinator")
            replies = await self._get(
                key, to_json(args), answerers=answerers, timeout=patience.timeout, everyone=True, first=False
            )
        answers = [(self.keys.cmd_peer(r.key), json.loads(r.payload)) for r in replies if r.ok]
        self._had_coordinator = self._had_coordinator or bool(answers)
        if not answers:
            self._raise(replies)
        return answers

    async def all_agree(self, verb: str, args: dict[str, Any]) -> list[tuple[str, Any]]:
        """What each coordinator answers; an error of any of them is raised."""
        key = self.keys.cmd("*", verb)
        replies = await self.bus.get(key, to_json(args), timeout=self.timeout, everyone=True)
        failed = [reply for reply in replies if not reply.ok]
        if failed or not replies:
            self._raise(failed)
        return [(self.keys.cmd_peer(r.key), json.loads(r.payload)) for r in replies]

    def _raise(self, replies: Iterable[Reply]) -> None:
        """Raise what went wrong, if anything did."""
        for reply in replies:
            raise _error(reply)
        if not self._presence.names("coordinator"):
            raise Unavailable(
                "no coordinator is in sight; start one with: wattle coordinator --connect ...", code="NO_COORDINATOR"
            )

    async def owner(
        self,
        verb: str,
        args: dict[str, Any],
        missing: NotFound,
        patience: Patience | None = None,
        *,
        repeatable: bool = True,
    ) -> Any:
        """What the one coordinator that knows the thing answers, whatever became of others; raises ``missing`` when none does.

        ``repeatable`` says that it may be asked again while the owner may be about to answer.
        """
        patience = patience or self.patience()
        while True:
            before = self._presence.newest("coordinator")
            replies = await self._owner(verb, args, before if repeatable else [], patience)
            for reply in replies:
                if reply.ok:
                    return json.loads(reply.payload)
            self._raise_refusal(replies)
            if patience.over or not self._may_be_between_owners(replies, before):
                break
            await trio.sleep(MOMENT)
        self._raise(replies)
        raise missing

    @staticmethod
    def _raise_refusal(replies: Iterable[Reply]) -> None:
        """Raise what the owner says against it: it answered, though others with a copy, which cannot know that, say it may not."""
        for reply in replies:
            error = _error(reply)
            if not isinstance(error, Unavailable):
                raise error

    async def _owner(
        self, verb: str, args: dict[str, Any], coordinators: list[Alive], patience: Patience
    ) -> list[Reply]:
        """The answers; none when one of these goes meanwhile, which may be the owner."""
        asked = args | {"wait": patience.wait} if "wait" in args else args
        key = self.keys.cmd("*", verb)
        replies = await self._get(key, to_json(asked), answerers=coordinators, timeout=patience.timeout, everyone=True)
        return replies or []

    def _may_be_between_owners(self, replies: Iterable[Reply], before: list[Alive]) -> bool:
        """Whether a run that nobody owns may have an owner in a moment: one says so, or a coordinator has just gone."""
        if any(_code(reply) == "OWNER_UNREACHABLE" for reply in replies):
            return True
        now = self._presence.newest("coordinator")
        return bool(now) and not set(before) <= set(now)

    async def newest_workflow(self, name: str, missing: NotFound) -> tuple[str, Any]:
        """The definition that was stored last among those of all coordinators, and which one has it."""
        found = await self.everyone("workflow", {"name": name})
        if not found:
            raise missing
        return max(found, key=lambda answer: str(answer[1]["updated_at"]))

    async def holder(self, run: str) -> str | None:
        """The coordinator that has a run already, if one does."""
        patience = self.patience()
        while True:
            before = self._presence.newest("coordinator")
            replies = await self._owner("run", {"run": run}, before, patience)
            found = next((self.keys.cmd_peer(r.key) for r in replies if r.ok), None)
            if found is not None or not self._may_be_between_owners(replies, before):
                return found
            if patience.over:
                self._raise(r for r in replies if _code(r) == "OWNER_UNREACHABLE")
                return None
            await trio.sleep(MOMENT)

    async def taker(self, name: str, run: str | None = None) -> str:
        """The coordinator for something new: the one that has that run already, or else the one that ``name`` falls to.

        The choice is the same at every gateway (rendezvous hashing) as long as they see the same coordinators.
        """
        coordinators = await self._coordinators()
        if not coordinators:
            self._raise(())
        if run is not None and len(coordinators) > 1:
            holder = await self.holder(run)
            if holder is not None:
                return holder
        return ranked(coordinators, name)[0]

    async def _coordinators(self) -> list[str]:
        """The coordinators in sight; where there was one before, it is given a moment to come back: suspicion is not death."""
        names = self._presence.names("coordinator")
        for _ in range(round(COMEBACK / MOMENT) if self._had_coordinator else 0):
            if names:
                break
            await trio.sleep(MOMENT)
            names = self._presence.names("coordinator")
        self._had_coordinator = self._had_coordinator or bool(names)
        return names

    async def take(
        self, verb: str, name: str, payload: bytes, run: str | None = None, *, new: str | None = None
    ) -> Any:
        """What the coordinator answers that something new falls to (see ``taker``); the payload is safe to be sent twice.

        One that goes out of sight before it answers may have taken it, and told others: then whoever has that run is asked, or whose
        turn it is now. ``new`` is the run's id where nobody can have it yet.
        """
        patience = self.patience()
        while True:
            coordinator = await self.taker(name, run)
            try:
                return await self.ask(coordinator, verb, payload)
            except Unavailable as error:
                between = error.code in ("NO_COORDINATOR", "OWNER_UNREACHABLE")
                if not between or patience.over:
                    raise
            run = run or new
            await trio.sleep(MOMENT)

    async def ask(self, coordinator: str, verb: str, payload: bytes) -> Any:
        """What one coordinator answers."""
        timeout = self.timeout + len(payload) / 1e6
        answerers = self._presence.newest("coordinator", coordinator)
        replies = await self._get(self.keys.cmd(coordinator, verb), payload, answerers=answerers, timeout=timeout)
        for reply in replies or ():
            if reply.ok:
                return json.loads(reply.payload)
        self._raise(replies or ())
        raise Unavailable(f"coordinator {coordinator} did not answer {verb!r}", code="NO_COORDINATOR")

    async def runtime(self, node: str, verb: str) -> Any:
        """What a runtime answers to an order."""
        answerers = self._presence.newest("runtime", node)
        if not answerers:
            raise NotFound(
                f"no node named {node!r} is in sight; wattle nodes lists those that are", code="NODE_NOT_FOUND"
            )
        replies = await self._get(self.keys.cmd(node, verb), answerers=answerers, timeout=self.timeout) or []
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        self._raise_for_node(replies, node)
        raise Unavailable(f"node {node!r} did not answer", code="NODE_UNREACHABLE")

    async def log(self, key: str, place: dict[str, int], patience: Patience, node: str | None = None) -> Reply | None:
        """What the node that has a log answers; None when all say that they do not have it. ``node`` is the one that should."""
        parameters = ";".join(f"{name}={value}" for name, value in {**place, "wait": patience.wait}.items())
        answerers = self._presence.newest("runtime", node) if node is not None else ()
        replies = await self._get(
            key, parameters=parameters, answerers=answerers, timeout=patience.timeout, everyone=True
        )
        if replies is None:
            raise Unavailable(f"node {node!r} went out of sight before it answered", code="NODE_UNREACHABLE")
        for reply in replies:
            if reply.ok:
                return reply
        self._raise_for_node(replies, node)
        return None

    def _raise_for_node(self, replies: Iterable[Reply], node: str | None) -> None:
        for reply in replies:
            if reply.payload == TIMEOUT:
                who = "a node in sight" if node is None else f"node {node!r}"
                raise Unavailable(f"{who} did not answer in time", code="NODE_UNREACHABLE")
            raise _error(reply)

    async def ask_until(
        self, run: str, ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool], *, wait: float, every: float
    ) -> Any:
        """Ask again with each event of a run, and every so many seconds should one have been missed.

        Ends with the first answer that is enough, or with what is answered after ``wait`` seconds.
        """
        news = trio.Event()

        def on_event(sample: Sample) -> None:
            if self.keys.is_of_run(sample.key, run):
                news.set()

        deadline = trio.current_time() + wait
        subscription = self.bus.subscribe(self.keys.events_near_run(run), on_event)
        try:
            while True:
                answer = await ask()
                left = deadline - trio.current_time()
                if enough(answer) or left <= 0:
                    return answer
                with trio.move_on_after(min(left, every)):
                    await news.wait()
                news = trio.Event()
        finally:
            subscription.undeclare()


def _code(reply: Reply) -> str:
    return "" if reply.ok or reply.payload == TIMEOUT else _error(reply).code


def _error(reply: Reply) -> WattleError:
    if reply.payload == TIMEOUT:
        return Unavailable("nobody answered in time; is the coordinator up?", code="TIMEOUT")
    try:
        return error_from_dict(json.loads(reply.payload))
    except (ValueError, AttributeError):
        return InternalError(f"an answer that is no error of Wattle's: {reply.payload[:200]!r}")
