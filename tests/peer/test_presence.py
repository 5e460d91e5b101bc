"""Who is in sight, and names that are taken."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wattle.bus.memory import MemoryNetwork
from wattle.errors import Conflict
from wattle.peer.presence import NAME_WAIT, Presence, claim_name
from wattle.protocol.keys import Alive, Keys

KEYS = Keys()


async def test_peers_come_and_go() -> None:
    network = MemoryNetwork()
    here, there = network.bus(), network.bus()
    changes: list[tuple[Alive, bool]] = []
    there.declare_alive(KEYS.alive("runtime", "b", "1"))
    presence = Presence(here, KEYS, lambda peer, alive: changes.append((peer, alive)))
    there.declare_alive(KEYS.alive("runtime", "a", "1"))
    there.declare_alive(KEYS.alive("gateway", "g", "1"))
    await trio.testing.wait_all_tasks_blocked()
    assert presence.names("runtime") == ["a", "b"]
    assert presence.peers() == [Alive("gateway", "g", "1"), Alive("runtime", "a", "1"), Alive("runtime", "b", "1")]
    there.vanish()
    await trio.testing.wait_all_tasks_blocked()
    assert presence.peers() == []
    assert presence.incarnation("runtime", "a") is None
    assert [peer.peer for peer, alive in changes if not alive] == ["b", "a", "g"]


async def test_a_restarted_peer_is_never_out_of_sight_however_late_its_old_token_goes() -> None:
    network = MemoryNetwork()
    here, old, new = network.bus(), network.bus(), network.bus()
    presence = Presence(here, KEYS)
    old.declare_alive(KEYS.alive("runtime", "a", "1"))
    new.declare_alive(KEYS.alive("runtime", "a", "2"))
    await trio.testing.wait_all_tasks_blocked()
    assert presence.incarnation("runtime", "a") == "2"
    assert len(presence.peers()) == 2
    old.vanish()
    await trio.testing.wait_all_tasks_blocked()
    assert presence.incarnation("runtime", "a") == "2"
    assert presence.names("runtime") == ["a"]
    presence.close()
    new.vanish()
    await trio.testing.wait_all_tasks_blocked()
    assert presence.names("runtime") == ["a"]  # it looks no more


async def test_a_name_that_is_free_is_taken_at_once(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    network.bus().declare_alive(KEYS.alive("runtime", "other", "1"))
    await claim_name(network.bus(), KEYS, "runtime", "mine")
    assert trio.current_time() < NAME_WAIT


async def test_a_name_in_use_is_refused_whatever_the_role(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    network.bus().declare_alive(KEYS.alive("runtime", "mine", "1"))
    with pytest.raises(Conflict, match="--name") as caught:
        await claim_name(network.bus(), KEYS, "coordinator", "mine")
    assert caught.value.code == "NAME_IN_USE"


async def test_a_killed_predecessor_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    old, new = network.bus(), network.bus()
    old.declare_alive(KEYS.alive("runtime", "mine", "1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim_name, new, KEYS, "runtime", "mine")
        await trio.testing.wait_all_tasks_blocked()
        old.vanish()
    assert trio.current_time() < NAME_WAIT


async def test_of_two_that_claim_one_after_the_other_the_second_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    first, second = network.bus(), network.bus()
    await claim_name(first, KEYS, "runtime", "mine")
    first.declare_alive(KEYS.alive("runtime", "mine", "1"))
    with pytest.raises(Conflict):
        await claim_name(second, KEYS, "runtime", "mine")
