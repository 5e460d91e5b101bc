"""A runtime on a bus in memory, with real processes, and somebody else on that bus who gives it commands and hears its feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.bus.networks import Inbox
from wattle.bus.base import Reply, Sample
from wattle.bus.memory import MemoryNetwork
from wattle.core.model import Assignment, Fact, FactKind
from wattle.protocol.keys import Keys
from wattle.protocol.messages import AssignBatch, FeedPage, TaskAnswers, decode, encode
from wattle.runtime.agent import RuntimeAgent
from wattle.settings import RuntimeSettings
from wattle.store.runtime import RuntimeStore

KEYS = Keys()


class Node:
    """See the module's docstring. ``given`` are settings; ``facts`` is what the feed has told so far."""

    def __init__(self, folder: Path, **given: Any) -> None:
        network = MemoryNetwork()
        self.folder = folder
        self.bus, self.store = network.bus("node"), RuntimeStore(folder / "runtime.db")
        always = {"data": folder, "name": "node", "slots": 2, "die_with_runtime": True}
        self.agent = RuntimeAgent("node", RuntimeSettings.build(always | given), self.bus, self.store)
        self.other, self.facts = network.bus("other"), Inbox()
        self.other.subscribe(KEYS.feed("node"), self._hear)

    def _hear(self, sample: Sample) -> None:
        for entry in decode(FeedPage, sample.payload).entries:
            for fact in entry.facts:
                self.facts(fact)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It lives as long as the block."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.agent.run)
            yield
            nursery.cancel_scope.cancel()
        self.store.close()

    async def command(self, verb: str, payload: bytes) -> Reply:
        """Give it a command; what it says to that."""
        (reply,) = await self.other.get(KEYS.cmd("node", verb), payload, timeout=20)
        return reply

    async def codes(self, verb: str, payload: bytes) -> list[str]:
        """What it says to each task of a command."""
        reply = await self.command(verb, payload)
        assert reply.ok
        return [answer.code for answer in decode(TaskAnswers, reply.payload).tasks]

    async def assign(self, *tasks: Assignment, owner: str = "c") -> list[str]:
        """Give it tasks; what it says to each."""
        return await self.codes("assign", encode(AssignBatch(owner, tasks)))

    def told(self, kind: FactKind) -> list[Fact]:
        """The facts of one kind so far."""
        return [fact for fact in self.facts if fact.kind is kind]

    async def end(self, worker: str) -> Fact:
        """How a worker's task ended, once it has."""

        def ends() -> list[Fact]:
            return [fact for fact in self.told(FactKind.FINISHED) if fact.worker == worker]

        await self.facts.until(lambda _: bool(ends()))
        return ends()[0]
