"""What only real processes and real sockets can show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.bus.networks import PATIENCE, Inbox, opened
from tests.links import shut_down
from wattle.bus.base import Query, Reply
from wattle.bus.config import ZenohOptions
from wattle.bus.zenoh import ZenohBus, open_zenoh_bus
from wattle.errors import Unavailable

ROOT = Path(__file__).parents[2]
HERE = [Reply("child", b"here")]
LONG = 600.0  # a timeout that no test waits for


@asynccontextmanager
async def child(**arguments: str) -> AsyncIterator[trio.Process]:
    """A peer in a process of its own (see tests/bus/child.py), ready; killed at the end."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(Path(__file__).with_name("child.py")), *(f"{k}={v}" for k, v in arguments.items())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        with trio.fail_after(PATIENCE):
            assert process.stdout is not None
            assert await process.stdout.receive_some()
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def answered(bus: ZenohBus) -> None:
    """Ask the child until it answers: on a new link its token may be seen a moment before what it serves."""
    with trio.fail_after(PATIENCE):
        while (replies := await bus.get("child", timeout=LONG)) == []:
            pass
    assert replies == HERE


def answer(query: Query) -> None:
    """A handler."""
    query.reply(b"here")
    query.finish()


async def test_a_killed_peer_ends_the_questions_put_to_it(sockets: Path) -> None:
    socket = f"unixsock-stream/{sockets}/s"
    seen, held = Inbox(), Inbox()
    async with opened(listen=(socket,)) as bus:
        bus.watch_alive("alive/*", seen)
        bus.subscribe("held", held)
        async with child(connect=socket) as process:
            await seen.size(1)
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    assert await bus.get("hold", timeout=LONG) == []
                    ended.set()

                ended = trio.Event()
                nursery.start_soon(ask)
                await held.size(1)
                process.kill()
                with trio.fail_after(PATIENCE):
                    await ended.wait()
            assert await seen.size(2) == [("alive/child", True), ("alive/child", False)]


async def test_a_killed_listener_is_followed_by_another_on_its_socket(sockets: Path) -> None:
    socket = f"unixsock-stream/{sockets}/s"
    seen = Inbox()
    async with child(listen=socket) as first, opened(connect=(socket,)) as bus:
        bus.watch_alive("alive/*", seen)
        await seen.size(1)
        first.send_signal(signal.SIGKILL)
        await seen.size(2)
        async with child(listen=socket):
            await seen.size(3)
            await answered(bus)
    assert seen[:3] == [("alive/child", True), ("alive/child", False), ("alive/child", True)]


async def test_a_peer_that_has_not_said_what_it_sees_is_waited_for(sockets: Path) -> None:
    """A client has to ask: to hear nothing of a token is not to hear that there is none."""
    socket = f"unixsock-stream/{sockets}/s"
    async with child(listen=socket) as busy:
        bus = await open_zenoh_bus(ZenohOptions(mode="client", connect=(socket,), lease_ms=round(LONG * 1000)))
        try:
            busy.send_signal(signal.SIGSTOP)
            with pytest.raises(Unavailable):
                await bus.alive("alive/*", timeout=0.1)
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    asked.set()
                    assert await bus.alive("alive/*", timeout=LONG) == ["alive/child"]

                asked = trio.Event()
                nursery.start_soon(ask)
                await asked.wait()
                busy.send_signal(signal.SIGCONT)
        finally:
            await bus.close()


async def test_a_stopped_peer_holds_up_nobody_else(sockets: Path) -> None:
    """Held up behind a question to the stopped one, what follows would not be done before Zenoh closes the link and so ends that one."""
    mine, others = f"unixsock-stream/{sockets}/m", f"unixsock-stream/{sockets}/o"
    seen, ended = Inbox(), Inbox()
    async with (
        opened(listen=(mine,)) as bus,
        child(connect=mine) as stopped,
        opened(listen=(others,), connect=(mine,)) as other,
    ):
        bus.watch_alive("alive/*", seen)
        other.serve("other", answer)
        other.declare_alive("alive/other")
        await seen.size(2)
        stopped.send_signal(signal.SIGSTOP)

        async def ask(key: str, payload: bytes) -> None:
            ended((key, await bus.get(key, payload, timeout=LONG)))

        async with trio.open_nursery() as nursery:
            for payload in (b"x" * 2_000_000, b"x" * 20_000, b"x" * 20_000):
                nursery.start_soon(ask, "hold", payload)
            await trio.testing.wait_all_tasks_blocked()
            for payload in (b"small", b"x" * 100_000, b"small"):
                bus.put("fed", b"x")
                await ask("other", payload)
            assert ended == [("other", [Reply("other", b"here")])] * 3
            stopped.kill()


async def test_a_stopped_asker_holds_up_nobody_else(sockets: Path) -> None:
    socket = f"unixsock-stream/{sockets}/s"
    asked = Inbox()
    async with opened(listen=(socket,)) as bus:
        bus.serve("large", asked)
        bus.serve("other", answer)
        async with child(connect=socket, ask="large") as stopped, opened(connect=(socket,)) as other:
            (query,) = await asked.size(1)
            stopped.send_signal(signal.SIGSTOP)
            query.reply(b"x" * 10_000_000)
            query.reply(b"x")
            query.finish()
            assert await other.get("other", timeout=LONG) == [Reply("other", b"here")]
            assert not query._outlet.idle  # the answer to the stopped one is still on its way
            stopped.kill()


async def test_a_peer_opens_before_those_it_connects_to(sockets: Path) -> None:
    socket = f"unixsock-stream/{sockets}/s"
    seen = Inbox()
    async with opened(connect=(socket,)) as bus:
        bus.watch_alive("alive/*", seen)
        async with child(listen=socket):
            await seen.size(1)
            await answered(bus)


async def test_a_process_that_closes_its_bus_ends(sockets: Path) -> None:
    script = f"""
import trio
from wattle.bus.config import ZenohOptions
from wattle.bus.zenoh import ZenohBus, open_zenoh_bus
async def main():
    bus = await open_zenoh_bus(ZenohOptions(listen=("unixsock-stream/{sockets}/s",)))
    bus.subscribe("a", print)
    bus.serve("a", lambda query: query.finish())
    bus.publisher("a", print)
    bus.watch_alive("a", print)
    await bus.get("a", timeout=5)
    await bus.close()
trio.run(main)
"""
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_stdout=True,
            capture_stderr=True,
        )
    assert result.stderr == b""


async def test_zenohs_own_words_stay_off_the_terminal(sockets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ZenohOptions(mode="client", connect=(f"unixsock-stream/{sockets}/nobody",))
    with pytest.raises(Unavailable):
        await open_zenoh_bus(options)
    assert capfd.readouterr() == ("", "")


async def test_peers_that_gossip_linked_and_that_lost_their_link_are_linked_again_by_an_introduction(
    sockets: Path,
) -> None:
    at = {name: f"unixsock-stream/{sockets}/{name}" for name in "abc"}
    seen = Inbox()
    async with (
        opened(listen=(at["a"],)) as a,
        opened(listen=(at["b"],), connect=(at["a"],)) as b,
        opened(listen=(at["c"],), connect=(at["a"],)) as c,
    ):
        assert a.gossips
        assert b.gossips
        b.watch_alive("alive/c", seen)
        c.declare_alive("alive/c")
        await seen.size(1)
        assert shut_down(os.getpid(), sockets / "b", sockets / "c") > 0
        await seen.size(2)
        async with b.introducing():
            await seen.size(3)
        assert seen == [("alive/c", True), ("alive/c", False), ("alive/c", True)]


async def test_clients_are_linked_by_nobody_s_gossip(sockets: Path) -> None:
    at = f"unixsock-stream/{sockets}/s"
    async with opened(listen=(at,)):
        client = await open_zenoh_bus(ZenohOptions(mode="client", connect=(at,)))
        try:
            assert not client.gossips
            with pytest.raises(Unavailable):
                async with client.introducing():
                    pass
        finally:
            await client.close()
