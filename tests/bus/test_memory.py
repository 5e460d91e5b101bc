"""What tests can do to a network in memory."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.bus.networks import Inbox
from wattle.bus.base import TIMEOUT, Query, Reply
from wattle.bus.memory import MemoryBus, MemoryNetwork

YES = [Reply("a", b"yes")]
TIMED_OUT = [Reply("", TIMEOUT, ok=False)]


def yes(query: Query) -> None:
    """A handler that answers."""
    query.reply(b"yes")
    query.finish()


async def test_a_cut_link_carries_nothing_until_it_is_healed() -> None:
    network = MemoryNetwork()
    left, right, third = (network.bus(name) for name in ("left", "right", "third"))
    heard, seen, changes = Inbox(), Inbox(), Inbox()
    right.subscribe("s", heard)
    right.serve("a", yes)
    left.watch_alive("alive/*", seen)
    left.publisher("s", changes)
    right.declare_alive("alive/right")
    await seen.size(1)
    await changes.size(1)

    network.cut(left, right)
    left.put("s", b"lost")
    third.put("s", b"1")
    assert await left.get("a", timeout=60) == []
    assert await third.get("a", timeout=60) == YES
    assert await seen.size(2) == [("alive/right", True), ("alive/right", False)]
    assert await changes.size(2) == [True, False]

    network.heal()
    left.put("s", b"2")
    assert await left.get("a", timeout=60) == YES
    assert (await seen.size(3))[2:] == [("alive/right", True)]
    assert (await changes.size(3))[2:] == [True]
    assert [sample.payload for sample in await heard.size(2)] == [b"1", b"2"]


async def test_a_cut_ends_questions_under_way_and_late_answers_are_dropped() -> None:
    network = MemoryNetwork()
    asker, answerer, asked, ended = network.bus(), network.bus(), Inbox(), Inbox()
    answerer.serve("a", asked)

    async def ask() -> None:
        ended(await asker.get("a", timeout=60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        (query,) = await asked.size(1)
        query.reply(b"in time")
        network.isolate(answerer)
        query.reply(b"too late")
        query.finish()
        assert await ended.size(1) == [[Reply("a", b"in time")]]


async def test_a_vanished_bus_is_gone_for_all() -> None:
    network = MemoryNetwork()
    watcher, victim, seen = network.bus(), network.bus(), Inbox()
    watcher.watch_alive("alive/*", seen)
    victim.declare_alive("alive/victim")
    victim.vanish()
    assert await seen.size(2) == [("alive/victim", True), ("alive/victim", False)]


async def test_messages_can_be_lost(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    asker, answerer, heard = network.bus("asker"), network.bus("answerer"), Inbox()
    answerer.serve("a", yes)
    answerer.subscribe("s", heard)
    told: list[tuple[str, str, str, str]] = []

    def lose_all(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        told.append((kind, sender.name, receiver.name, key))
        return True

    network.lose = lose_all
    asker.put("s", b"lost")
    before = trio.current_time()
    assert await asker.get("a", timeout=30) == TIMED_OUT
    assert trio.current_time() - before == 30
    network.lose = lambda kind, sender, receiver, key: kind == "reply"
    assert await asker.get("a", timeout=30) == TIMED_OUT
    network.lose = None
    asker.put("s", b"heard")
    assert await asker.get("a", timeout=30) == YES
    assert [sample.payload for sample in await heard.size(1)] == [b"heard"]
    assert told == [("put", "asker", "answerer", "s"), ("query", "asker", "answerer", "a")]


async def test_a_mock_clock_does_not_run_while_messages_are_on_their_way(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    asker, answerer = network.bus(), network.bus()
    answerer.serve("a", yes)
    before = trio.current_time()
    for _ in range(100):
        assert await asker.get("a", timeout=1) == YES
    assert trio.current_time() == before
