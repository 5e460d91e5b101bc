"""The bus of the command line."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.bus.networks import PATIENCE, Inbox, opened
from wattle.bus.base import TIMEOUT, Priority, Query, Reply, Sample
from wattle.bus.blocking import BlockingBus
from wattle.bus.config import ZenohOptions
from wattle.errors import InvalidRequest, Unavailable

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_it_needs_neither_trio_nor_structlog() -> None:
    script = (
        "import sys, wattle.bus.blocking; print(*({'trio', 'structlog', 'pydantic', 'asyncio'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


async def test_it_talks_to_an_agent(sockets: Path) -> None:
    endpoint, silent, seen = f"unixsock-stream/{sockets}/s", Inbox(), Inbox()

    def handler(query: Query) -> None:
        query.reply(query.payload or b"", attachment=query.attachment)
        query.reply(query.parameters.encode())
        query.reply_error(b"but")
        query.finish()

    async with opened(listen=(endpoint,)) as agent:
        agent.serve("a", handler)
        agent.serve("silent", silent)
        agent.serve("silent/one", lambda query: query.reply(b"enough", key="silent/one"))
        agent.subscribe("seen", seen)
        agent.declare_alive("alive/agent")
        await trio.to_thread.run_sync(command, endpoint)
        assert await seen.size(1) == [Sample("seen", b"by the agent")]


def command(endpoint: str) -> None:
    """What a blocking program does."""
    with BlockingBus(ZenohOptions(mode="client", connect=(endpoint,))) as bus:
        replies = bus.get(
            "a", b"x", parameters="p=1", timeout=60, everyone=True, priority=Priority.CONTROL, attachment=b"y"
        )
        assert replies == [Reply("a", b"x", attachment=b"y"), Reply("a", b"p=1"), Reply("", b"but", ok=False)]
        assert bus.get("silent/*", timeout=60, first=True) == [Reply("silent/one", b"enough")]
        assert bus.get("nobody", timeout=60) == []
        assert bus.get("silent", timeout=0.1) == [Reply("", TIMEOUT, ok=False)]
        assert bus.alive("alive/*", timeout=60) == ["alive/agent"]
        samples: queue.SimpleQueue[Sample] = queue.SimpleQueue()
        subscription = bus.subscribe("own/*", samples.put)
        bus.put("own/a", b"1", attachment=b"2")
        bus.delete("own/a", attachment=b"3")
        assert samples.get(timeout=PATIENCE) == Sample("own/a", b"1", b"2")
        assert samples.get(timeout=PATIENCE) == Sample("own/a", None, b"3")
        subscription.undeclare()
        subscription.undeclare()
        bus.put("seen", b"by the agent")


def test_mistakes_are_told(sockets: Path) -> None:
    bus = BlockingBus(ZenohOptions(listen=(f"unixsock-stream/{sockets}/s",)))
    for wrong in (
        lambda: bus.put("a//b", b""),
        lambda: bus.delete("a//b"),
        lambda: bus.get("a//b", timeout=1),
        lambda: bus.subscribe("a//b", print),
    ):
        with pytest.raises(InvalidRequest, match="a//b"):
            wrong()
    bus.close()
    bus.close()
    for late in (lambda: bus.put("a", b""), lambda: bus.get("a", timeout=1), lambda: bus.subscribe("a", print)):
        with pytest.raises(Unavailable, match="closed"):
            late()


async def test_ctrl_c_ends_a_get(sockets: Path) -> None:
    endpoint, asked = f"unixsock-stream/{sockets}/s", Inbox()
    script = f"""
from wattle.bus.blocking import BlockingBus
from wattle.bus.config import ZenohOptions
with BlockingBus(ZenohOptions(mode="client", connect=("{endpoint}",))) as bus:
    bus.get("a", timeout=3600)
"""
    async with opened(listen=(endpoint,)) as agent:
        agent.serve("a", asked)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", script], env=ENVIRONMENT, stderr=subprocess.PIPE
        )
        await asked.size(1)
        process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE):
            assert process.stderr is not None
            words = b"".join([part async for part in process.stderr])
            assert await process.wait() == -signal.SIGINT
    assert words.splitlines()[-1] == b"KeyboardInterrupt"
