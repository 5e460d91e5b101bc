"""What a gateway asks of the network: all coordinators at once, or one of them, or one runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from wattle.bus.base import Bus, Reply
from wattle.errors import InternalError, NotFound, Unavailable, WattleError, error_from_dict
from wattle.peer.presence import Presence
from wattle.protocol.keys import Keys


class Backend:
    """Questions with one meaning of failure: an error somebody gave is raised; silence is NOT_FOUND or NO_COORDINATOR."""

    def __init__(self, bus: Bus, keys: Keys, presence: Presence, *, timeout: float) -> None:
        self.bus, self.keys, self._presence, self.timeout = bus, keys, presence, timeout

    async def everyone(self, verb: str, args: dict[str, Any], *, wait: float = 0.0) -> list[Any]:
        """What the coordinators answer; those to whom the question means nothing are silent. ``wait`` is added to the timeout."""
        replies = await self.bus.get(
            self.keys.cmd("*", verb), to_json(args), timeout=self.timeout + wait, everyone=True
        )
        answers = [json.loads(r.payload) for r in replies if r.ok]
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
        """What the one coordinator that knows the thing answers; raises ``missing`` when none does."""
        answers = await self.everyone(verb, args, wait=wait)
        if not answers:
            raise missing
        return answers[0]

    async def chosen(self, verb: str, name: str, payload: bytes) -> Any:
        """What the coordinator answers that the name falls to: the same for every gateway (rendezvous hashing)."""
        coordinators = self._presence.names("coordinator")
        if not coordinators:
            self._raise(())
        chosen = max(coordinators, key=lambda c: hashlib.sha256(f"{c}/{name}".encode()).digest())
        replies = await self.bus.get(self.keys.cmd(chosen, verb), payload, timeout=self.timeout + len(payload) / 1e6)
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        self._raise(replies)
        raise Unavailable(f"coordinator {chosen} did not answer {verb!r}", code="NO_COORDINATOR")

    async def runtime(self, node: str, verb: str) -> Any:
        """What a runtime answers to an order."""
        if self._presence.incarnation("runtime", node) is None:
            raise NotFound(
                f"no node named {node!r} is in sight; wattle nodes lists those that are", code="NODE_NOT_FOUND"
            )
        replies = await self.bus.get(self.keys.cmd(node, verb), timeout=self.timeout)
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
            raise _error(reply)
        raise Unavailable(f"node {node!r} did not answer", code="NODE_UNREACHABLE")


def _error(reply: Reply) -> WattleError:
    if reply.payload == b"Timeout":
        return Unavailable("nobody answered in time; is the coordinator up?", code="TIMEOUT")
    try:
        return error_from_dict(json.loads(reply.payload))
    except (ValueError, AttributeError):
        return InternalError(f"an answer that is no error of Wattle's: {reply.payload[:200]!r}")
