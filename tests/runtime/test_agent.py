"""The runtime agent on a bus in memory, with real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runtime.node import Node
from wattle.core.model import Assignment, FactKind, TaskStatus
from wattle.core.past import Past


async def ends(node: Node, count: int) -> list[tuple[str, TaskStatus | None]]:
    """How tasks ended, once so many have."""
    await node.facts.until(lambda _: len(node.told(FactKind.FINISHED)) >= count)
    return [(fact.worker, fact.status) for fact in node.told(FactKind.FINISHED)]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(tmp_path, slots=1)
    made.agent.core.following.lineup.learn(0.0)  # tasks are short here
    async with made.running():
        yield made


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
    assert await ends(node, 2) == returned
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert await ends(node, 3) == [*returned, ("first", TaskStatus.SUCCEEDED)]
    await node.assign(link("second", attempt=2, working_dir=str(folder)))
    assert (await ends(node, 4))[-1] == ("second", TaskStatus.SUCCEEDED)


async def test_one_that_cannot_start_in_its_turn_fails_after_what_it_followed(node: Node) -> None:
    gate = node.folder / "gate"
    os.mkfifo(gate)
    folder = node.folder / "gone"
    first = link("first", script=f"read line < {gate}; rmdir {folder}; touch {folder}")
    await node.assign(first, link("second", "first", working_dir=str(folder)), link("third", "second"))
    await node.facts.until(lambda _: len(node.told(FactKind.STARTED)) == 1)
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert await ends(node, 3) == [
        ("first", TaskStatus.SUCCEEDED),
        ("second", TaskStatus.FAILED),
        ("third", TaskStatus.RETURNED),
    ]


async def test_what_memory_has_let_go_of_is_looked_up_in_the_store(node: Node) -> None:
    assert await node.assign(link("a"), owner="c2") == ["OK"]
    await ends(node, 1)
    node.agent.core.past = Past(most=0)
    assert await node.assign(link("a"), link("a", attempt=2), owner="c2") == ["OVER", "OK"]
    await ends(node, 2)
    assert await node.assign(link("a"), owner="c2") == ["PASSED"]
    assert await node.assign(link("b"), owner="c1") == ["FENCED"]
