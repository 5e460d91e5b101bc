"""A network in memory with real coordinators and gateways on it, and runtimes that only say what a test has them say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio

from tests.bus.networks import PATIENCE, Inbox
from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.coordinator.agent import CoordinatorAgent
from wattle.core.copies import Copies
from wattle.core.model import Assignment, CopyPage, Fact, FactKind, NodeInfo, RunHead, TaskId, TaskStatus
from wattle.errors import InvalidRequest, error_from_dict
from wattle.gateway.agent import GatewayAgent
from wattle.peer.asking import refuse
from wattle.peer.feeds import FeedPublisher
from wattle.peer.loop import wall_clock
from wattle.peer.presence import new_incarnation
from wattle.protocol.keys import Keys
from wattle.protocol.messages import (
    PROTOCOL,
    AssignBatch,
    CancelBatch,
    CopiesAnswer,
    FactsAnswer,
    FactsQuestion,
    HeldQuestion,
    HeldTasks,
    KeepAnswer,
    TaskAnswer,
    TaskAnswers,
    TaskRef,
    decode,
    encode,
)
from wattle.settings import CoordinatorSettings, GatewaySettings
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import MODELS

KEYS = Keys()


def document(name: str = "p", *workers: str, **more: Any) -> dict[str, Any]:
    """A workflow of independent workers."""
    return {"name": name, "workers": [{"name": w, "command": "true"} for w in workers or ("a",)], **more}


class OneOfMany:
    """A coordinator's store that is not the only one in its process: peewee's tables know one database at a time."""

    def __init__(self, path: Path) -> None:
        object.__setattr__(self, "_store", CoordinatorStore(path))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._store, name, value)

    def __getattr__(self, name: str) -> Any:
        self._store.database.bind(MODELS, bind_refs=False, bind_backrefs=False)
        return getattr(self._store, name)


class Runtime:
    """A runtime that takes every task and ends none by itself."""

    def __init__(self, bus: MemoryBus, name: str = "node1", *, slots: int = 4, store: str = "s1") -> None:
        self.bus, self.name, self.slots, self.store = bus, name, slots, store
        self.assigned = Inbox()  # every assignment that arrives, told twice or not
        self.cancelled = Inbox()
        self.held: dict[TaskId, Assignment] = {}
        self.owners: dict[str, str] = {}  # of runs
        self.entries: list[tuple[int, tuple[Fact, ...]]] = []
        self.copies = Copies()
        self.kept: list[CopyPage] = []  # pages of coordinators' changes
        self.copied: tuple[RunHead, ...] = ()  # states of which it tells whoever asks for copies
        self.better: tuple[RunHead, ...] = ()  # states of other owners of which it tells whoever sends a page
        self.answer = True  # whether assignments are answered
        self.ends = True  # whether what is cancelled ends at once
        self.incarnation = new_incarnation()
        self.feed = FeedPublisher(bus, KEYS, name, store, lambda: len(self.entries), self._read)
        bus.serve(KEYS.state("runtime", name), self._state)
        bus.serve(KEYS.cmd(name, "*"), self._command)
        bus.declare_alive(KEYS.alive("runtime", name, self.incarnation))

    def _read(self, after: int, limit: int) -> list[tuple[int, tuple[Fact, ...]]]:
        return [entry for entry in self.entries if entry[0] > after][:limit]

    def _state(self, query: Query) -> None:
        info = NodeInfo(
            self.name, self.incarnation, self.store, feed=len(self.entries), slots=self.slots, protocol=PROTOCOL
        )
        query.reply(encode(info), key=KEYS.state("runtime", self.name))
        query.finish()

    def _command(self, query: Query) -> None:
        try:
            self._take_command(query)
        except InvalidRequest as error:
            refuse(query, error)

    def _take_command(self, query: Query) -> None:
        answer: Any = None
        match KEYS.cmd_verb(query.key):
            case "held":
                owner = decode(HeldQuestion, query.payload).owner
                mine = [task for task in self.held.values() if self.owners[task.run] == owner]
                answer = HeldTasks(tuple(TaskRef(*task.id, task.epoch) for task in mine))
            case "keep":
                page = decode(CopyPage, query.payload)
                save, number = self.copies.keep(page)
                if save:
                    self.kept.append(page)
                answer = KeepAnswer(number, heads=self.better)
            case "copies":
                answer = CopiesAnswer(self.copied)
            case "facts":
                run = decode(FactsQuestion, query.payload).run
                answer = FactsAnswer(tuple(f for _, facts in self.entries for f in facts if f.run == run))
            case "assign":
                batch = decode(AssignBatch, query.payload)
                tasks = batch.tasks
                self.owners |= {task.run: batch.owner for task in tasks}
                self.held |= {task.id: task for task in tasks}
                answer = TaskAnswers(tuple(TaskAnswer(*task.id) for task in tasks))
                for task in tasks:
                    self.assigned(task)
            case "cancel":
                refs = decode(CancelBatch, query.payload).tasks
                answer = TaskAnswers(tuple(TaskAnswer(*ref.id) for ref in refs))
                for ref in refs:
                    self.cancelled(ref.id)
                    if ref.id in self.held and self.ends:
                        self.finish(ref.id, TaskStatus.CANCELLED)
        if answer is not None and (self.answer or not isinstance(answer, TaskAnswers)):
            query.reply(encode(answer), key=query.key)
        query.finish()

    def finish(self, task: TaskId, status: TaskStatus = TaskStatus.SUCCEEDED, *, tell: bool = True) -> None:
        """Record that a task has ended, and publish it."""
        del self.held[task]
        code = {TaskStatus.SUCCEEDED: 0, TaskStatus.FAILED: 1}.get(status)
        fact = Fact(FactKind.FINISHED, *task, at=wall_clock(), status=status, exit_code=code)
        self._append(fact, tell)

    def start(self, task: TaskId) -> None:
        """Record that a task's command runs, and publish it."""
        now = wall_clock()
        self._append(Fact(FactKind.STARTED, *task, at=now, pid=7, started_at=now), tell=True)

    def _append(self, fact: Fact, tell: bool) -> None:
        self.entries.append((len(self.entries) + 1, (fact,)))
        if tell:
            self.feed.publish(*self.entries[-1])

    async def next(self, count: int = 1) -> Assignment:
        """The ``count``-th assignment, once it is there."""
        assignment: Assignment = (await self.assigned.size(count))[count - 1]
        return assignment


@dataclass
class World:
    """The network, what runs on it, and a client of it."""

    folder: Path
    nursery: trio.Nursery
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    stores: dict[str, CoordinatorStore] = field(default_factory=dict)
    buses: dict[str, MemoryBus] = field(default_factory=dict)
    ended: dict[str, trio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = self.network.bus("client")
        self.alive = Inbox()
        self.client.watch_alive(KEYS.alive(), self.alive)

    async def coordinator(self, name: str = "c1", **settings: Any) -> CoordinatorAgent:
        """Start a coordinator; the same name again has the same store."""
        (self.folder / name).mkdir(exist_ok=True)
        given = {"data": self.folder / name, "name": name, "command_timeout": 0.2} | settings
        bus = self.network.bus(name)
        store = cast(CoordinatorStore, OneOfMany(self.folder / name / "coordinator.db"))
        agent = CoordinatorAgent(name, CoordinatorSettings.build(given), bus, store)
        self.buses[name], self.stores[name], self.ended[name] = bus, store, trio.Event()
        await self.nursery.start(self._live, name, agent.run)
        return agent

    async def gateway(self, name: str = "g1", **settings: Any) -> GatewayAgent:
        """Start a gateway."""
        bus = self.network.bus(name)
        self.buses[name], self.ended[name] = bus, trio.Event()
        agent = GatewayAgent(name, GatewaySettings.build({"data": self.folder, "name": name} | settings), bus)
        await self.nursery.start(self._live, name, agent.run)
        return agent

    async def _live(self, name: str, run: Callable[..., Any], task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self.scopes[name]:
            await run(task_status=task_status)
        with trio.CancelScope(shield=True):
            await self.buses[name].close()
        if name in self.stores:
            self.stores.pop(name).close()
        self.ended[name].set()

    async def stop(self, name: str) -> None:
        """Have an agent end as if its process were gone: what it committed stays."""
        self.scopes[name].cancel()
        await self.ended[name].wait()

    def runtime(self, name: str = "node1", **more: Any) -> Runtime:
        """A runtime on a bus of its own."""
        self.buses[name] = self.network.bus(name)
        return Runtime(self.buses[name], name, **more)

    async def ask(self, key: str, payload: Any = None, *, parameters: str = "", timeout: float = PATIENCE) -> Any:
        """The JSON of the one answer; raises the error in an error reply."""
        body = payload if payload is None or isinstance(payload, bytes) else json.dumps(payload).encode()
        (reply,) = await self.client.get(key, body, parameters=parameters, timeout=timeout)
        if not reply.ok:
            raise error_from_dict(json.loads(reply.payload))
        return json.loads(reply.payload)

    async def command(self, verb: str, args: Any = None, peer: str = "c1") -> Any:
        """What a coordinator answers to a request as gateways send it."""
        return await self.ask(KEYS.cmd(peer, verb), args)

    async def api(self, path: str, payload: Any = None) -> Any:
        """What a gateway answers to a public request."""
        path, _, parameters = path.partition("?")
        return await self.ask(KEYS.api(path), payload, parameters=parameters)

    async def submit(self, run: str, *workers: str, peer: str = "c1", **more: Any) -> Any:
        """Submit a workflow to a coordinator."""
        return await self.command("submit", {"document": document("p", *workers), "run": run, **more}, peer)

    async def final(self, run: str, peer: str = "c1") -> Any:
        """The run, once it has ended."""
        view = await self.command("run", {"run": run, "wait": PATIENCE}, peer)
        assert view["completed_at"] is not None, view
        return view


@asynccontextmanager
async def world(folder: Path, patience: float = PATIENCE) -> AsyncIterator[World]:
    """A world that ends with the block, which fails when it takes longer than ``patience``."""
    async with trio.open_nursery() as nursery:
        made = World(folder, nursery)
        with trio.fail_after(patience):
            yield made
        nursery.cancel_scope.cancel()
