"""The two networks that the contract suite runs on, and waiting for what happens there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import trio

from wattle.bus.base import Bus
from wattle.bus.config import ZenohOptions
from wattle.bus.lanes import QUERIES, SAMPLES
from wattle.bus.memory import MemoryNetwork
from wattle.bus.zenoh import ZenohBus, open_zenoh_bus

PATIENCE = 20.0  # seconds after which a test that waits has failed


class Inbox(list[Any]):
    """A handler that keeps what it was called with, and waiting for that."""

    def __init__(self) -> None:
        super().__init__()
        self._news = trio.Event()

    def __call__(self, *args: Any) -> None:
        self.append(args[0] if len(args) == 1 else args)
        self._news.set()
        self._news = trio.Event()

    async def until(self, enough: Callable[[list[Any]], bool]) -> None:
        """Wait until the calls so far are enough."""
        with trio.fail_after(PATIENCE):
            while not enough(self):
                await self._news.wait()

    async def size(self, size: int) -> list[Any]:
        """All calls, once there are ``size``."""
        await self.until(lambda calls: len(calls) >= size)
        return list(self)


@asynccontextmanager
async def opened(*, listen: tuple[str, ...] = (), connect: tuple[str, ...] = ()) -> AsyncIterator[ZenohBus]:
    """A bus over Zenoh, closed at the end: a process that leaves one open hangs when it exits."""
    bus = await open_zenoh_bus(ZenohOptions(listen=listen, connect=connect))
    try:
        yield bus
    finally:
        await bus.close()


class Net:
    """Some buses that are linked with each other."""

    def __init__(self) -> None:
        self._watches: dict[Bus, Inbox] = {}
        self._tokens = count()

    async def bus(self, *, samples: int = SAMPLES, queries: int = QUERIES) -> Bus:
        """One more bus, linked with all before."""
        bus = await self.open(samples, queries)
        self._watches[bus] = Inbox()
        bus.watch_alive("settle/*", self._watches[bus])
        await self.settle()
        return bus

    async def open(self, samples: int, queries: int) -> Bus:
        """The part that differs."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Wait until every bus knows of all that was declared: a token declared now is seen after what was declared before."""
        tokens = []
        for bus in self._watches:
            tokens.append(f"settle/{next(self._tokens)}")
            bus.declare_alive(tokens[-1])
        for watch in self._watches.values():
            await watch.until(lambda seen: all((token, True) in seen for token in tokens))

    async def leave(self, bus: Bus) -> None:
        """Close a bus and count on it no more."""
        del self._watches[bus]
        await bus.close()

    async def close(self) -> None:
        """Close all buses."""
        for bus in self._watches:
            await bus.close()


class MemoryNet(Net):
    """Memory buses."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MemoryNetwork()

    async def open(self, samples: int, queries: int) -> Bus:
        """One more."""
        return self.network.bus(samples=samples, queries=queries)


class ZenohNet(Net):
    """Zenoh peers over unix sockets in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._endpoints: tuple[str, ...] = ()

    async def open(self, samples: int, queries: int) -> Bus:
        """One more."""
        endpoint = f"unixsock-stream/{self._folder / str(len(self._endpoints))}"
        options = ZenohOptions(listen=(endpoint,), connect=self._endpoints)
        self._endpoints += (endpoint,)
        return await open_zenoh_bus(options, samples=samples, queries=queries)
