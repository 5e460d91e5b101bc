"""Runtimes that execute nothing, many in one process: ``python -m benchmarks.nodes ENDPOINT COUNT SLOTS``.

Each is a peer of its own to a coordinator: a token, a state, commands, a feed. What it is assigned has succeeded at once, and is told in
entries of as many facts as a runtime with such tasks tells at once. Prints ``ready`` once all are declared, and ends with its standard
input.
"""

from __future__ import annotations

import sys
import time
from functools import partial

import trio

from wattle.bus.base import Bus, Priority, Query
from wattle.bus.config import ZenohOptions
from wattle.bus.zenoh import open_zenoh_bus
from wattle.core.model import Assignment, CopyPage, Fact, FactKind, NodeInfo, TaskStatus, Usage
from wattle.peer.asking import parse_parameters
from wattle.protocol.keys import Keys
from wattle.protocol.messages import (
    PROTOCOL,
    AssignBatch,
    CopiesAnswer,
    FeedEntry,
    FeedPage,
    HeldTasks,
    KeepAnswer,
    TaskAnswer,
    TaskAnswers,
    decode,
    encode,
)
from wattle.runtime.outcomes import LINGER

PAGE = 500
"""Entries in one answer, at most."""

SECONDS = 0.002
"""How long a task is said to have taken."""

LEASE = 20.0
"""Seconds for which the link of all nodes is kept: a process that reads for a thousand of them may lag behind for more than 1."""

AT_ONCE = 32
"""Nodes that join at a time: one process answers for all of them."""


class Node:
    """One runtime."""

    def __init__(self, bus: Bus, keys: Keys, name: str, slots: int) -> None:
        self.bus, self.keys = bus, keys
        self.info = NodeInfo(
            name, "1", f"store-{name}", slots=slots, resources={"cpus": float(slots)}, protocol=PROTOCOL
        )
        self.entries: list[FeedEntry] = []
        self.kept = 0
        self.joined = trio.Event()
        bus.serve(keys.state("runtime", name), self._state)
        bus.serve(keys.cmd(name, "*"), self._command)
        bus.serve(keys.feed(name), self._feed)
        bus.declare_alive(keys.alive("runtime", name, "1"))

    def _state(self, query: Query) -> None:
        query.reply(encode(self.info), key=self.keys.state("runtime", self.info.name))
        query.finish()

    def _command(self, query: Query) -> None:
        verb = self.keys.cmd_verb(query.key)
        answer = partial(query.reply, key=self.keys.cmd(self.info.name, verb))
        match verb:
            case "held":
                answer(encode(HeldTasks(())))
            case "keep":
                self.kept = max(self.kept, decode(CopyPage, query.payload).number)
                answer(encode(KeepAnswer(self.kept, self.info.store)))
            case "copies":
                answer(encode(CopiesAnswer(())))
            case "assign":
                tasks = decode(AssignBatch, query.payload).tasks
                answer(encode(TaskAnswers(tuple(TaskAnswer(*task.id) for task in tasks))))
                self._finish(tasks)
        query.finish()

    def _finish(self, tasks: tuple[Assignment, ...]) -> None:
        told = self.info.slots * round(LINGER / SECONDS)
        for start in range(0, len(tasks), told):
            entry = FeedEntry(len(self.entries) + 1, tuple(map(_succeeded, tasks[start : start + told])))
            self.entries.append(entry)
            page = FeedPage(self.info.store, entry.number, (entry,))
            self.bus.put(self.keys.feed(self.info.name), encode(page), priority=Priority.CONTROL)

    def _feed(self, query: Query) -> None:
        self.joined.set()
        after = int(parse_parameters(query.parameters).get("after", 0))
        entries = tuple(self.entries[after : after + PAGE])
        page = FeedPage(self.info.store, len(self.entries), entries, after)
        query.reply(encode(page), key=self.keys.feed(self.info.name))
        query.finish()


def _succeeded(task: Assignment) -> Fact:
    now = time.time()
    return Fact(
        FactKind.FINISHED,
        *task.id,
        at=now,
        pid=1,
        started_at=now - SECONDS,
        status=TaskStatus.SUCCEEDED,
        exit_code=0,
        usage=Usage(0.001, 1_000_000),
    )


async def main(endpoint: str, count: int, slots: int) -> None:
    """Be so many nodes until the end of the standard input."""
    bus = await open_zenoh_bus(ZenohOptions(mode="client", connect=(endpoint,), lease_ms=int(LEASE * 1e3)))
    try:
        keys = Keys("default")
        nodes: list[Node] = []
        for number in range(count):
            if number >= AT_ONCE:
                await nodes[number - AT_ONCE].joined.wait()
            nodes.append(Node(bus, keys, f"node{number}", slots))
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
    finally:
        await bus.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
