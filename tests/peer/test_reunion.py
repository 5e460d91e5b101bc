"""Peers that lose their link while others see both of them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.peer.presence import Presence
from wattle.peer.probing import probing
from wattle.peer.reunion import MOST, SETTLE, Reunion
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.verbs import PROBE

KEYS = Keys()
HOUR = 3600.0


class Peers:
    """Peers that look for each other and do nothing else."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = MemoryNetwork()
        self.buses: dict[str, MemoryBus] = {}
        self.seen: dict[str, Presence] = {}
        self._nursery = nursery

    async def start(self, role: str, name: str) -> MemoryBus:
        """One more."""
        bus = self.buses[name] = self.network.bus(name)
        self.seen[name] = Presence(bus, KEYS)
        me = Alive(role, name, "i")
        await self._nursery.start(probing, me, bus, KEYS, self.seen[name])
        bus.declare_alive(KEYS.alive(*me))
        self._nursery.start_soon(Reunion(bus, KEYS, {name}).run)
        await trio.testing.wait_all_tasks_blocked()
        return bus

    def sees(self, name: str) -> set[str]:
        """Whom a peer sees, itself included."""
        return {peer.peer for peer in self.seen[name].peers()}


@pytest.fixture
async def peers(nursery: trio.Nursery) -> Peers:
    made = Peers(nursery)
    for role, name in (("coordinator", "c"), ("gateway", "g"), ("runtime", "r")):
        await made.start(role, name)
    return made


async def test_a_pair_that_a_third_sees_is_brought_together_again(peers: Peers, autojump_clock: MockClock) -> None:
    peers.network.part(peers.buses["g"], peers.buses["r"])
    await trio.testing.wait_all_tasks_blocked()
    assert peers.sees("g") == {"c", "g"}
    await trio.sleep(2 * SETTLE)
    assert peers.sees("g") == peers.sees("r") == {"c", "g", "r"}
    before = peers.network.introductions
    await trio.sleep(HOUR)
    assert peers.network.introductions == before


async def test_what_nobody_sees_is_gone_and_looked_for_no_more(peers: Peers, autojump_clock: MockClock) -> None:
    asked: list[str] = []

    def note(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind == "query":
            asked.append(key)
        return False

    peers.network.lose = note
    peers.buses["r"].vanish()
    await trio.sleep(HOUR)
    assert peers.network.introductions == 0
    assert sorted(asked) == [KEYS.cmd("c", PROBE), KEYS.cmd("g", PROBE)]


async def test_one_that_comes_back_by_itself_is_asked_about_by_nobody(peers: Peers, autojump_clock: MockClock) -> None:
    peers.network.cut(peers.buses["g"], peers.buses["r"])
    await trio.sleep(SETTLE / 2)
    peers.network.heal()
    await trio.sleep(HOUR)
    assert peers.network.introductions == 0


async def test_a_pair_that_cannot_be_linked_is_tried_again_ever_less_often(
    peers: Peers, autojump_clock: MockClock
) -> None:
    peers.network.cut(peers.buses["g"], peers.buses["r"])
    await trio.sleep(HOUR)
    by_each = peers.network.introductions / 2
    assert HOUR / (MOST + 10) <= by_each <= HOUR / MOST + 10
    peers.network.heal()
    await trio.sleep(MOST)
    before = peers.network.introductions
    await trio.sleep(HOUR)
    assert peers.network.introductions == before


async def test_who_says_nothing_leaves_it_open_whether_another_is_gone(peers: Peers, autojump_clock: MockClock) -> None:
    peers.network.lose = lambda kind, sender, receiver, key: kind == "query"
    peers.network.part(peers.buses["g"], peers.buses["r"])
    await trio.sleep(10 * SETTLE)
    assert peers.network.introductions == 0
    peers.network.lose = None
    await trio.sleep(MOST)
    assert peers.sees("g") == {"c", "g", "r"}


@pytest.mark.parametrize(
    "said", [b"", b"{}", b'{"role": "r", "name": "c", "session": "s", "links": [], "others": [5]}']
)
async def test_what_is_no_view_counts_as_no_word(nursery: trio.Nursery, autojump_clock: MockClock, said: bytes) -> None:
    peers = Peers(nursery)
    await peers.start("gateway", "g")
    other, strange = await peers.start("runtime", "r"), peers.network.bus()

    def answer(query: Query) -> None:
        query.reply(said)
        query.finish()

    strange.serve(KEYS.cmd("c", PROBE), answer)
    strange.declare_alive(KEYS.alive("coordinator", "c", "i"))
    peers.network.part(peers.buses["g"], other)
    await trio.sleep(10 * SETTLE)
    assert peers.network.introductions == 0
