"""Who is in sight."""

from __future__ import annotations

import trio
import trio.testing

from wattle.bus.memory import MemoryNetwork
from wattle.peer.presence import Presence, new_incarnation
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


async def test_of_two_lives_the_later_one_counts_also_where_the_former_is_seen_last() -> None:
    """Who begins to look, or is linked again, before a machine that crashed and is back was missed hears of both in any order."""
    network = MemoryNetwork()
    here, old, new = network.bus(), network.bus(), network.bus()
    presence = Presence(here, KEYS)
    new.declare_alive(KEYS.alive("runtime", "a", "2"))
    old.declare_alive(KEYS.alive("runtime", "a", "1"))
    await trio.testing.wait_all_tasks_blocked()
    assert presence.incarnation("runtime", "a") == "2"
    assert presence.newest("runtime") == [Alive("runtime", "a", "2")]
    assert presence.lives("runtime", "a") == {"1", "2"}
    new.vanish()
    await trio.testing.wait_all_tasks_blocked()
    assert presence.newest("runtime", "a") == [Alive("runtime", "a", "1")]
    assert presence.lives("runtime", "b") == set()


def test_lives_of_one_name_sort_by_when_they_began() -> None:
    lives = [new_incarnation() for _ in range(100)]
    assert [life[:12] for life in lives] == sorted(life[:12] for life in lives)
    assert len(set(lives)) == 100
