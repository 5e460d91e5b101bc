"""The cables between agents: every pair is linked through a relay of its own, over unix sockets, and each can be cut and healed.

A cut is silence: what was sent waits in the cable, and an end that closes or dials is not heard of by the other before the heal. So it is
with a pulled cable and TCP, and needs neither root nor network namespaces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path

import trio

CHUNK = 1 << 16
START_TIMEOUT = 10.0


class Links:
    """One cable per pair of names; made by ``links``. Of each pair the one that comes later in ``names`` dials the other."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder, self._names = folder, names
        self._holds: dict[frozenset[str], int] = {frozenset(pair): 0 for pair in combinations(names, 2)}
        self._open: dict[frozenset[str], trio.Event] = {}  # set: the cable is whole
        self._ready = threading.Event()

    def endpoints(self, name: str) -> list[str]:
        """What an agent dials to be linked to those before it; those after it dial it themselves."""
        return [f"unixsock-stream/{self._socket(name, peer)}" for peer in self._names[: self._names.index(name)]]

    def listen(self, name: str) -> Path:
        """The socket that an agent must listen on."""
        return self._folder / name / "wattle.sock"

    def pairs(self, *ends: str) -> list[frozenset[str]]:
        """The cables of one agent, or the one between two."""
        return [pair for pair in self._holds if pair >= set(ends)]

    def cut(self, *ends: str) -> None:
        """Cut the cables of one agent, or the one between two. What was cut twice must be healed twice."""
        self._call(partial(self._hold, self.pairs(*ends), 1))

    def heal(self, *ends: str) -> None:
        """Undo one ``cut`` of the same."""
        self._call(partial(self._hold, self.pairs(*ends), -1))

    # --- in the relay's thread ------------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], None]) -> None:
        trio.from_thread.run_sync(function, trio_token=self._token)

    def _hold(self, pairs: list[frozenset[str]], change: int) -> None:
        for pair in pairs:
            self._holds[pair] += change
            if self._holds[pair] == 0:
                self._open[pair].set()
            elif self._open[pair].is_set():
                self._open[pair] = trio.Event()

    async def serve(self) -> None:
        """Pass on until stopped."""
        self._token = trio.lowlevel.current_trio_token()
        self._scope = trio.CancelScope()
        for pair in self._holds:
            self._open[pair] = trio.Event()
            self._open[pair].set()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for peer, name in combinations(self._names, 2):
                    listener = trio.socket.socket(trio.socket.AF_UNIX)
                    await listener.bind(str(self._socket(name, peer)))
                    listener.listen()
                    connect = partial(self._connected, frozenset((name, peer)), self.listen(peer))
                    nursery.start_soon(trio.serve_listeners, connect, [trio.SocketListener(listener)])
                self._ready.set()

    def wait_ready(self) -> None:
        """Wait until all sockets are there."""
        assert self._ready.wait(START_TIMEOUT), "the relay did not start"

    def stop(self) -> None:
        """End ``serve``."""
        self._call(self._scope.cancel)

    async def _connected(self, pair: frozenset[str], target: Path, dialler: trio.SocketStream) -> None:
        await self._whole(pair)
        try:
            dialled = await trio.open_unix_socket(str(target))
        except OSError:
            return  # that agent is down: the dialler sees its connection end, and dials again
        async with dialled, trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, pair, dialler, dialled, nursery.cancel_scope)
            nursery.start_soon(self._copy, pair, dialled, dialler, nursery.cancel_scope)

    async def _copy(
        self, pair: frozenset[str], source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        """One direction; the end of either ends the connection."""
        try:
            while True:
                data = await source.receive_some(CHUNK)
                await self._whole(pair)
                if not data:
                    break
                await sink.send_all(data)
        except trio.BrokenResourceError:
            await self._whole(pair)
        both.cancel()

    async def _whole(self, pair: frozenset[str]) -> None:
        while not self._open[pair].is_set():
            await self._open[pair].wait()

    def _socket(self, name: str, peer: str) -> Path:
        return self._folder / f"{name}-{peer}.sock"


@contextmanager
def links(folder: Path, names: list[str]) -> Iterator[Links]:
    """Cables between all pairs of ``names``, with their sockets in ``folder``, until the block ends."""
    made = Links(folder, names)
    thread = threading.Thread(target=trio.run, args=(made.serve,), name="links")
    thread.start()
    made.wait_ready()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
