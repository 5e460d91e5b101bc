"""The connection to the spawner when it breaks, or the spawner does: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.spawning import Events, fifo, release, request, shell, spawner_pid, task
from wattle.runtime.channel import VERSION, address, encode
from wattle.runtime.processes import Exited, Held, Skipped, SpawnerLost, SpawnRequest, open_processes


def line(folder: Path, script: str) -> list[SpawnRequest]:
    """Three that follow each other, each only if the one before succeeds."""
    made = [shell(folder, task("a"), script)]
    for name in "bc":
        made.append(shell(folder, task(name), "echo once", (made[-1].id,)))
    return made


async def test_requests_that_a_broken_connection_swallowed_are_sent_again(data: Path) -> None:
    events = Events()
    async with open_processes(data, events) as processes:
        spawner = spawner_pid(data)
        os.kill(spawner, signal.SIGSTOP)
        processes.spawn([request(data, task(), "true")])
        await trio.testing.wait_all_tasks_blocked()  # it is in the socket of a spawner that does not read
        thief = Events()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace_connection, data, thief)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(spawner, signal.SIGCONT)
        assert (await events.exit(task())).exit_code == 0
        assert events.of(SpawnerLost) == []
        await processes.stop()


@pytest.mark.parametrize("cut", [0, 1, 40])
async def test_what_is_told_in_one_breath_with_what_is_held_is_heard(data: Path, cut: int) -> None:
    """A spawner of this test's own; ``cut`` bytes of the last line come later."""
    running = ["run/w/1", 4_000_000, 1.0]
    nothing: dict[str, list[Any]] = {"started": [], "failed": [], "skipped": [], "exited": []}
    held = {**nothing, "version": VERSION, "pid": 1, "running": [running], "waiting": []}
    ended = ["run/w/1", 0, None, 0.1, 1 << 20, 2.0, False, False, 4_000_000, 1.0]
    told = encode({"held": held}) + encode({**nothing, "exited": [ended]}) + encode({**nothing, "skipped": ["run/x/1"]})
    events = Events()
    with trio.socket.socket(socket.AF_UNIX) as listener:
        with address(str(data / "spawner.sock")) as path:
            await listener.bind(path)
        listener.listen()

        async def serve() -> None:
            spawner = trio.SocketStream((await listener.accept())[0])
            await spawner.receive_some()
            await spawner.send_all(told[: len(told) - cut])
            await events.wait(Exited, task())
            await spawner.send_all(told[len(told) - cut :])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with open_processes(data, events):
                await events.wait(Skipped, task("x"))
    assert [type(event) for event in events.all] == [Held, Exited, Skipped]


async def test_what_waits_is_lost_with_its_spawner(data: Path) -> None:
    events = Events()
    async with open_processes(data, events) as processes:
        processes.spawn([*line(data, "exec sleep 1000"), request(data, task("probe"), "true")])
        await events.exit(task("probe"))  # so all that was asked for before has been read
        os.kill(spawner_pid(data), signal.SIGKILL)
        assert set((await events.wait(SpawnerLost)).tasks) == {task(name) for name in "abc"}
        assert (await events.wait(Held, count=2)).waiting == ()
        processes.spawn([shell(data, task("d"), "echo once", (task("a"),))])  # on its way meanwhile
        await events.wait(Skipped, task("d"))
        await processes.stop()
    assert [name for name in "bcd" if (data / f"{name}.stdout").exists()] == []


@pytest.mark.parametrize("read", [True, False], ids=["read", "on its way"])
async def test_what_waits_goes_on_waiting_when_the_connection_breaks(data: Path, read: bool) -> None:
    gate, events = fifo(data / "gate"), Events()
    async with open_processes(data, events) as processes:
        if not read:
            os.kill(spawner_pid(data), signal.SIGSTOP)
        processes.spawn([*line(data, f"read x < {gate}"), request(data, task("probe"), "true")])
        if read:
            await events.exit(task("probe"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace_connection, data, Events())
            await trio.testing.wait_all_tasks_blocked()
            os.kill(spawner_pid(data), signal.SIGCONT)
        held = await events.wait(Held, count=2)
        if read:
            assert [started.id for started in held.running] == [task("a")]
            assert held.waiting == (task("b"), task("c"))
        await release(gate)
        for name in "abc":
            assert (await events.exit(task(name))).exit_code == 0
        assert [*events.of(SpawnerLost), *events.of(Skipped)] == []
        await processes.stop()
    assert [(data / f"{name}.stdout").read_text() for name in "bc"] == ["once\n"] * 2


async def replace_connection(data: Path, events: Events) -> None:
    async with open_processes(data, events):
        pass
