"""The runtime agent on a bus in memory, with real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.bus.networks import Inbox
from wattle.bus.base import Sample
from wattle.bus.memory import MemoryNetwork
from wattle.core.model import Assignment, Fact, FactKind, TaskStatus
from wattle.core.past import Past
from wattle.protocol.keys import Keys
from wattle.protocol.messages import AssignBatch, FeedPage, TaskAnswers, decode, encode
from wattle.runtime.agent import RuntimeAgent
from wattle.settings import RuntimeSettings
from wattle.store.runtime import RuntimeStore

KEYS = Keys()


class Node:
    """A runtime, and what its feed tells."""

    def __init__(self, folder: Path) -> None:
        network = MemoryNetwork()
        self.folder = folder
        self.bus, self.store = network.bus("node"), RuntimeStore(folder / "runtime.db")
        settings = RuntimeSettings.build({"data": folder, "name": "node", "slots": 1, "die_with_runtime": True})
        self.agent = RuntimeAgent("node", settings, self.bus, self.store)
        self.agent.core.following.lineup.learn(0.0)  # tasks are short here
        self.pages, self.other = Inbox(), network.bus("other")
        self.other.subscribe(KEYS.feed("node"), self._hear)

    def _hear(self, sample: Sample) -> None:
        self.pages(decode(FeedPage, sample.payload or b""))

    def facts(self, kind: FactKind) -> list[Fact]:
        """What has been told so far."""
        return [fact for page in self.pages for entry in page.entries for fact in entry.facts if fact.kind is kind]

    async def ends(self, count: int) -> list[tuple[str, TaskStatus | None]]:
        """How tasks ended, once so many have."""
        await self.pages.until(lambda _: len(self.facts(FactKind.FINISHED)) >= count)
        return [(fact.worker, fact.status) for fact in self.facts(FactKind.FINISHED)]

    async def assign(self, *tasks: Assignment, owner: str = "c") -> list[str]:
        """Give it tasks; what it says to each."""
        (reply,) = await self.other.get(KEYS.cmd("node", "assign"), encode(AssignBatch(owner, tasks)), timeout=20)
        assert reply.ok
        return [answer.code for answer in decode(TaskAnswers, reply.payload).tasks]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.agent.run)
        yield made
        nursery.cancel_scope.cancel()
    made.store.close()


def link(worker: str, *after: str, attempt: int = 1, **more: Any) -> Assignment:
    needs = tuple((name, 1) for name in after)
    return Assignment("r", worker, attempt, 1, "p", **{"argv": ("true",), "after": needs, **more})


async def test_one_that_cannot_start_yet_has_not_failed_before_its_turn(node: Node) -> None:
    """Its folder cannot be made as long as a file is there, which the one that it is to follow removes."""
    gate, folder = node.folder / "gate", node.folder / "later"
    os.mkfifo(gate)
    folder.touch()
    first = link("first", script=f"read line < {gate}; rm {folder}")
    await node.assign(first, link("second", "first", working_dir=str(folder)), link("third", "second"))
    returned = [("second", TaskStatus.RETURNED), ("third", TaskStatus.RETURNED)]
    assert await node.ends(2) == returned
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert await node.ends(3) == [*returned, ("first", TaskStatus.SUCCEEDED)]
    await node.assign(link("second", attempt=2, working_dir=str(folder)))
    assert (await node.ends(4))[-1] == ("second", TaskStatus.SUCCEEDED)


async def test_one_that_cannot_start_in_its_turn_fails_after_what_it_followed(node: Node) -> None:
    gate = node.folder / "gate"
    os.mkfifo(gate)
    folder = node.folder / "gone"
    first = link("first", script=f"read line < {gate}; rmdir {folder}; touch {folder}")
    await node.assign(first, link("second", "first", working_dir=str(folder)), link("third", "second"))
    await node.pages.until(lambda _: len(node.facts(FactKind.STARTED)) == 1)
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert await node.ends(3) == [
        ("first", TaskStatus.SUCCEEDED),
        ("second", TaskStatus.FAILED),
        ("third", TaskStatus.RETURNED),
    ]


async def test_what_memory_has_let_go_of_is_looked_up_in_the_store(node: Node) -> None:
    assert await node.assign(link("a"), owner="c2") == ["OK"]
    await node.ends(1)
    node.agent.core.past = Past(most=0)
    assert await node.assign(link("a"), link("a", attempt=2), owner="c2") == ["OVER", "OK"]
    await node.ends(2)
    assert await node.assign(link("a"), owner="c2") == ["PASSED"]
    assert await node.assign(link("b"), owner="c1") == ["FENCED"]
