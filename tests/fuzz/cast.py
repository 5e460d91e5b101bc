"""Who else is on the network of the agents' target: a real runtime without processes, and a stranger who answers anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from tests.bus.networks import Inbox
from tests.coordinator.world import KEYS, World
from wattle.bus.base import Query
from wattle.core.model import Assignment, TaskId, Usage
from wattle.errors import InvalidRequest
from wattle.peer.loop import wall_clock
from wattle.runtime import agent as runtime
from wattle.runtime import spawning, staging
from wattle.runtime.launching import Starting
from wattle.runtime.layout import Folders, Layout, layout
from wattle.runtime.process_events import Exited, Held, ProcessEvent, SpawnRequest, Started
from wattle.settings import RuntimeSettings
from wattle.store.runtime import RuntimeStore


class NoProcesses:
    """Processes that succeed at once, or with arguments go on until they are killed; none is one of this machine's."""

    def __init__(self, on_event: Callable[[list[ProcessEvent]], None]) -> None:
        self._on_event = on_event

    def spawn(self, requests: Sequence[SpawnRequest]) -> None:
        """Tell of a start, and of an end."""
        for asked in requests:
            self._on_event([Started(asked.id, 7, wall_clock())])
            if len(asked.argv) < 2:
                self._end(asked.id, 0, None)

    def _end(self, task: TaskId, exit_code: int | None, signal: int | None) -> None:
        self._on_event([Exited(task, exit_code, signal, Usage(), wall_clock())])

    def kill(self, signals: Iterable[tuple[TaskId, int]]) -> None:
        """They die of any signal."""
        for task, signal in signals:
            self._end(task, None, signal)

    def revoke(self, ids: Iterable[TaskId]) -> None:
        """None of them waits: all were started at once."""

    def acknowledge(self, ids: Iterable[TaskId]) -> None:
        """There is nothing to forget."""

    async def stop(self) -> None:
        """There is nothing to stop."""


@asynccontextmanager
async def _open(
    folder: Path,
    on_event: Callable[[list[ProcessEvent]], None],
    *,
    die_with_runtime: bool,
    starting: Starting | None = None,
) -> AsyncIterator[NoProcesses]:
    on_event([Held((), ())])
    yield NoProcesses(on_event)


def _within(assignment: Assignment, folders: Folders) -> Layout:
    """A layout, where it keeps within the data folder: an assignment may name any folder of the machine, which is not to be touched."""
    at = layout(assignment, folders)
    for path in (Path(at.cwd), *at.inputs.values(), *at.outputs.values()):
        if ".." in path.parts or not path.is_relative_to(folders.data):
            raise InvalidRequest(f"{path} is outside the folder of this test")
    return at


@contextmanager
def no_processes() -> Iterator[None]:
    """Runtimes made in this block start nothing and make no folder outside their own."""
    with (
        mock.patch.object(runtime, "open_processes", _open),
        mock.patch.object(spawning, "layout", _within),
        mock.patch.object(staging, "layout", _within),
    ):
        yield


async def start_runtime(net: World, name: str) -> None:
    """Have a real runtime on the network; the same name again has the same store."""
    folder = net.folder / name
    folder.mkdir(exist_ok=True)
    bus, store = net.network.bus(name), RuntimeStore(folder / "runtime.db")
    settings = RuntimeSettings.build({"data": folder, "name": name, "slots": 2})
    agent = runtime.RuntimeAgent(name, settings, bus, store)
    net.buses[name], net.ended[name] = bus, trio.Event()

    async def live(task_status: trio.TaskStatus[None]) -> None:
        try:
            await agent.run(task_status)
        finally:
            store.close()

    await net.nursery.start(net._live, name, live)


class Stranger:
    """A peer that comes into sight, says it is a runtime and a coordinator, and answers each question with what it was given to say."""

    def __init__(self, net: World, answers: list[tuple[str, bytes]]) -> None:
        self._bus = net.network.bus("stranger")
        self._answers: dict[str, list[bytes]] = {}
        for verb, payload in answers:
            self._answers.setdefault(verb, []).append(payload)
        self.asked = Inbox()
        for name in ("stranger", "stranger2"):
            for key in (
                KEYS.cmd(name, "*"),
                KEYS.feed(name),
                KEYS.state("runtime", name),
                KEYS.state("coordinator", name),
            ):
                self._bus.serve(key, self._answer)
        self._bus.declare_alive(KEYS.alive("runtime", "stranger", "i"))
        self._bus.declare_alive(KEYS.alive("coordinator", "stranger2", "i"))

    def _answer(self, query: Query) -> None:
        part = query.key.split("/")[2]
        verb = part if part in ("feed", "state") else KEYS.cmd_verb(query.key)
        given: Any = self._answers.get(verb)
        if given:
            given.append(given.pop(0))
            key = query.key if "*" not in query.key else KEYS.cmd("stranger", verb)
            query.reply(given[-1], key=key)
        query.finish()
        self.asked(verb)
