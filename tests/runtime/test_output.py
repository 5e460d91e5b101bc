"""Logs served from files that the test writes as a task would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from wattle.bus.base import Reply, Sample
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.core.model import TaskId
from wattle.protocol.keys import Keys
from wattle.runtime import output
from wattle.runtime.layout import Folders
from wattle.runtime.masking import Mask
from wattle.runtime.output import LIMIT, Logs

KEYS = Keys("test")
TASK = TaskId("r1", "w", 1)


class Node:
    """A node whose tasks run as long as the test says."""

    def __init__(self, folder: Path, bus: MemoryBus, asker: MemoryBus) -> None:
        self.folders = Folders(folder)
        self.bus = bus
        self.asker = asker
        self.running: set[TaskId] = set()
        self.coming: set[TaskId] = set()  # not started yet, as far as the runtime knows
        self.logs = Logs(
            bus, KEYS, self.folders, lambda: self.running, lambda task: task not in self.running | self.coming
        )
        self.looks = 0  # at the files that somebody follows

    def write(self, data: bytes, task: TaskId = TASK, stream: str = "stdout") -> None:
        path = self.folders.log(task, stream)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)

    async def ask(self, parameters: str = "", task: TaskId = TASK, stream: str = "stdout") -> Reply | None:
        with trio.fail_after(20):
            replies = await self.asker.get(KEYS.log(task, stream), parameters=parameters, timeout=15)
        assert len(replies) < 2
        return replies[0] if replies else None


@pytest.fixture
async def node(tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    network = MemoryNetwork()
    node = Node(tmp_path, network.bus("node"), network.bus("asker"))
    read_new = output._read_new

    def counted(files: dict[str, Any], mask: Mask) -> list[tuple[str, int, bytes]]:
        try:
            return read_new(files, mask)
        finally:
            node.looks += 1

    monkeypatch.setattr(output, "_read_new", counted)
    await nursery.start(node.logs.run)
    yield node
    nursery.cancel_scope.cancel()


class Listener:
    """Puts together what is published."""

    def __init__(self, bus: MemoryBus, key: str) -> None:
        self.data: dict[str, bytes] = {}
        self.offsets: dict[str, list[int]] = {}
        self._more = trio.Event()
        self._subscription = bus.subscribe(key, self._on_sample)

    def _on_sample(self, sample: Sample) -> None:
        assert sample.payload is not None
        assert sample.attachment is not None
        self.data[sample.key] = self.data.get(sample.key, b"") + sample.payload
        self.offsets.setdefault(sample.key, []).append(json.loads(sample.attachment)["offset"])
        self._more.set()
        self._more = trio.Event()

    async def wait(self, there: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            while not there():
                await self._more.wait()

    def close(self) -> None:
        self._subscription.undeclare()


def about(reply: Reply | None) -> Any:
    assert reply is not None
    assert reply.attachment is not None
    return json.loads(reply.attachment)


@pytest.mark.parametrize(
    ("parameters", "data", "offset"),
    [
        ("", b"0123456789", 0),
        ("offset=4", b"456789", 4),
        ("offset=4;limit=2", b"45", 4),
        ("offset=4&limit=2", b"45", 4),
        ("offset=10", b"", 10),
        ("offset=99", b"", 99),
        ("tail=3", b"789", 7),
        ("tail=0", b"", 10),
        ("tail=99", b"0123456789", 0),
        ("tail=5;limit=2", b"56", 5),
        ("wait=5", b"0123456789", 0),
        ("offset=10;wait=15", b"", 10),
    ],
)
async def test_a_part_of_a_log_is_answered(node: Node, parameters: str, data: bytes, offset: int) -> None:
    node.write(b"0123456789")
    reply = await node.ask(parameters)
    assert reply is not None
    assert (reply.key, reply.payload) == (KEYS.log(TASK, "stdout"), data)
    assert about(reply) == {"offset": offset, "next": offset + len(data), "size": 10, "running": False}


async def test_a_long_log_is_answered_piece_by_piece(node: Node) -> None:
    content = bytes(range(256)) * 5000
    node.write(content, stream="stderr")
    got, offset = b"", 0
    while offset < len(content):
        reply = await node.ask(f"offset={offset}", stream="stderr")
        assert reply is not None
        assert len(reply.payload) <= LIMIT
        got += reply.payload
        offset = about(reply)["next"]
    assert got == content


async def test_only_logs_that_are_here_are_answered(node: Node) -> None:
    node.write(b"x")
    assert await node.ask(task=TaskId("r1", "w", 2)) is None
    assert await node.ask(stream="stderr") is None
    assert await node.ask("wait=10", task=TaskId("r2", "w", 1)) is None


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("r1/w/1/stdlog", ""),
        ("r1/w/one/stdout", ""),
        ("r1/../1/stdout", ""),
        ("r1/w/*/stdout", ""),
        ("r1/w/1/stdout", "offset=-1"),
        ("r1/w/1/stdout", "limit=0"),
        ("r1/w/1/stdout", "wait=nan"),
        ("r1/w/1/stdout", "tail=x"),
        ("r1/w/1/stdout", "offset=1;offset=2"),
    ],
)
async def test_what_cannot_be_understood_is_refused(node: Node, path: str, parameters: str) -> None:
    node.write(b"x")
    (reply,) = await node.asker.get(f"wattle/test/log/{path}", parameters=parameters, timeout=5)
    assert not reply.ok
    assert json.loads(reply.payload)["code"] == "INVALID_REQUEST"


async def test_a_question_waits_until_there_is_more(node: Node, nursery: trio.Nursery) -> None:
    node.running.add(TASK)
    node.write(b"first")
    answers: list[Reply | None] = []

    async def ask() -> None:
        answers.append(await node.ask("offset=5;wait=10"))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        asking.start_soon(ask)
        await waiting(node, 2)
        node.write(b"second")
    for reply in answers:
        assert reply is not None
        assert reply.payload == b"second"
        assert about(reply) == {"offset": 5, "next": 11, "size": 11, "running": True}


async def test_a_question_waits_no_longer_than_the_task_runs(node: Node) -> None:
    node.running.add(TASK)
    node.write(b"all")
    async with trio.open_nursery() as asking:
        replies: list[Reply | None] = []

        async def ask() -> None:
            replies.append(await node.ask("tail=0;wait=10"))

        asking.start_soon(ask)
        await waiting(node, 1)
        node.running.clear()
    assert about(replies[0]) == {"offset": 3, "next": 3, "size": 3, "running": False}


async def test_a_question_waits_for_a_task_that_starts_as_it_is_asked(node: Node) -> None:
    node.coming.add(TASK)
    node.write(b"")  # the spawner has made the file, and the runtime has not heard of the start
    answers: list[Reply | None] = []

    async def ask() -> None:
        answers.append(await node.ask("wait=10"))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await waiting(node, 1)
        node.write(b"first")
    (answer,) = answers
    assert answer is not None
    assert answer.payload == b"first"
    assert about(answer)["running"]


async def test_a_question_waits_no_longer_than_it_says(node: Node) -> None:
    node.running.add(TASK)
    node.write(b"all")
    reply = await node.ask("offset=3;wait=0.01")
    assert about(reply) == {"offset": 3, "next": 3, "size": 3, "running": True}


async def test_too_many_questions_do_not_wait(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MAX_WAITING", 1)
    node.running.add(TASK)
    node.write(b"all")
    async with trio.open_nursery() as asking:
        asking.start_soon(node.ask, "offset=3;wait=10")
        await waiting(node, 1)
        assert about(await node.ask("offset=3;wait=10"))["running"] is True
        node.running.clear()


async def waiting(node: Node, count: int) -> None:
    """Until so many questions wait."""
    with trio.fail_after(20):
        while len(node.logs._waiting) < count:
            await trio.lowlevel.checkpoint()


async def test_a_listener_gets_what_running_tasks_print_from_then_on(node: Node) -> None:
    node.running.add(TASK)
    node.write(b"before ")
    key = KEYS.log(TASK, "stdout")
    listener = Listener(node.asker, KEYS.log(TASK, "*"))
    new = TaskId("r1", "new", 1)
    everything = Listener(node.asker, KEYS.logs)
    await followed(node)
    node.write(b"one ")
    await listener.wait(lambda: listener.data.get(key) == b"one ")
    node.write(b"two")
    node.write(b"problem", stream="stderr")
    await listener.wait(lambda: listener.data.get(key) == b"one two" and len(listener.data) == 2)
    assert listener.offsets[key] == [7, 11]
    node.running.add(new)
    node.write(b"its start", new)
    await everything.wait(lambda: everything.data.get(KEYS.log(new, "stdout")) == b"its start")
    assert everything.offsets[KEYS.log(new, "stdout")] == [0]
    assert set(listener.data) == {key, KEYS.log(TASK, "stderr")}


async def test_the_last_bytes_of_a_task_are_published_and_then_it_is_let_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LIMIT", 4)
    node.running.add(TASK)
    node.write(b"")
    key = KEYS.log(TASK, "stdout")
    listener = Listener(node.asker, key)
    await followed(node)
    node.write(b"the last words")
    node.running.clear()
    await listener.wait(lambda: listener.data.get(key) == b"the last words")
    with trio.fail_after(20):
        while key in [declared.key for declared in node.bus.declared]:
            await trio.lowlevel.checkpoint()


async def test_without_listeners_no_file_is_touched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("nobody asked")

    node.running.add(TASK)
    listener = Listener(node.asker, KEYS.logs)
    await followed(node)
    listener.close()
    with trio.fail_after(20):
        while len([declared for declared in node.bus.declared if "/r1/" in declared.key]):
            await trio.lowlevel.checkpoint()
    monkeypatch.setattr(output, "_read_new", fail)
    monkeypatch.setattr(output, "_grown", fail)
    node.write(b"unheard")
    await trio.testing.wait_all_tasks_blocked()


async def followed(node: Node) -> None:
    """Until the running tasks' files are watched and it is known where they end."""
    with trio.fail_after(20):
        while node.looks == 0:
            await trio.lowlevel.checkpoint()
