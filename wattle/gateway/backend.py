"""What a gateway asks of the network: all coordinators at once, or one of them, or one runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio
from pydantic_core import to_json

from wattle.bus.base import TIMEOUT, Bus, Reply, Sample
from wattle.errors import InternalError, NotFound, Unavailable, WattleError, error_from_dict
from wattle.peer.presence import Presence
from wattle.protocol.keys import Keys


class Backend:
    """Questions with one meaning of failure: an error somebody gave is raised; silence is NOT_FOUND or NO_COORDINATOR."""

    def __init__(self, bus: Bus, keys: Keys, presence: Presence, *, timeout: float) -> None:
        self.bus, self.keys, self._presence, self.timeout = bus, keys, presence, timeout

    async def everyone(self, verb: str, args: dict[str, Any]) -> list[tuple[str, Any]]:
        """What each coordinator answers, with its name; those to whom the question means nothing are silent."""
        key = self.keys.cmd("*", verb)
        replies = await self.bus.get(key, to_json(args), timeout=self.timeout, everyone=True)
        answers = [(self.keys.cmd_peer(r.key), json.loads(r.payload)) for r in replies if r.ok]
        if not answers:
            self._raise(replies)
        return answers

    def _raise(self, replies: Iterable[Reply]) -> None:
        """Raise what went wrong, if anything did."""
        for reply in replies:
            raise _error(reply)
        if not self._presence.names("coordinator"):
            raise Unavailable(
                "no coordinator is in sight; start one with: wattle coordinator --connect ...", code="NO_COORDINATOR"
            )

    async def owner(self, verb: str, args: dict[str, Any], missing: NotFound, *, wait: float = 0.0) -> Any:
        """What the one coordinator that knows the thing answers, whatever became of others; raises ``missing`` when none does.

        ``wait`` is added to the timeout.
        """
        replies = await self.bus.get(
            self.keys.cmd("*", verb), to_json(args), timeout=self.timeout + wait, everyone=True, first=True
        )
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        self._raise(replies)
        raise missing

    async def newest_workflow(self, name: str, missing: NotFound) -> tuple[str, Any]:
        """The definition that was stored last among those of all coordinators, and which one has it."""
        found = await self.everyone("workflow", {"name": name})
        if not found:
            raise missing
        return max(found, key=lambda answer: str(answer[1]["updated_at"]))

    async def holder(self, run: str) -> str | None:
        """The coordinator that has a run already, if one does."""
        key, args = self.keys.cmd("*", "run"), to_json({"run": run})
        replies = await self.bus.get(key, args, timeout=self.timeout, everyone=True, first=True)
        return next((self.keys.cmd_peer(r.key) for r in replies if r.ok), None)

    async def taker(self, name: str, run: str | None = None) -> str:
        """The coordinator for something new: the one that has that run already, or else the one that ``name`` falls to.

        The choice is the same at every gateway (rendezvous hashing) as long as they see the same coordinators.
        """
        coordinators = self._presence.names("coordinator")
        if not coordinators:
            self._raise(())
        if run is not None and len(coordinators) > 1:
            holder = await self.holder(run)
            if holder is not None:
                return holder
        return max(coordinators, key=lambda c: hashlib.sha256(f"{c}/{name}".encode(errors="replace")).digest())

    async def ask(self, coordinator: str, verb: str, payload: bytes) -> Any:
        """What one coordinator answers."""
        timeout = self.timeout + len(payload) / 1e6
        replies = await self.bus.get(self.keys.cmd(coordinator, verb), payload, timeout=timeout, first=True)
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        self._raise(replies)
        raise Unavailable(f"coordinator {coordinator} did not answer {verb!r}", code="NO_COORDINATOR")

    async def runtime(self, node: str, verb: str) -> Any:
        """What a runtime answers to an order."""
        if self._presence.incarnation("runtime", node) is None:
            raise NotFound(
                f"no node named {node!r} is in sight; wattle nodes lists those that are", code="NODE_NOT_FOUND"
            )
        replies = await self.bus.get(self.keys.cmd(node, verb), timeout=self.timeout, first=True)
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        for reply in replies:
            if reply.payload != TIMEOUT:
                raise _error(reply)
        raise Unavailable(f"node {node!r} did not answer", code="NODE_UNREACHABLE")

    async def ask_until(
        self, key: str, ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool], *, wait: float, every: float
    ) -> Any:
        """Ask again with each event on ``key``, and every so many seconds should one have been missed.

        Ends with the first answer that is enough, or with what is answered after ``wait`` seconds.
        """
        news = trio.Event()

        def on_event(sample: Sample) -> None:
            news.set()

        deadline = trio.current_time() + wait
        subscription = self.bus.subscribe(key, on_event)
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


def _error(reply: Reply) -> WattleError:
    if reply.payload == TIMEOUT:
        return Unavailable("nobody answered in time; is the coordinator up?", code="TIMEOUT")
    try:
        return error_from_dict(json.loads(reply.payload))
    except (ValueError, AttributeError):
        return InternalError(f"an answer that is no error of Wattle's: {reply.payload[:200]!r}")
