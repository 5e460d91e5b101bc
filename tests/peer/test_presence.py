"""Who is in sight, and names that are taken."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from wattle.bus.base import Query
from wattle.bus.memory import MemoryNetwork
from wattle.errors import Conflict, Unavailable
from wattle.peer.presence import ANSWER_WAIT, NAME_WAIT, SILENT_WAIT, Presence, claim_name
from wattle.protocol.keys import Alive, Keys

KEYS = Keys()


def answer(query: Query) -> None:
    """Say that one is there."""
    query.reply(b"{}")
    query.finish()


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
    await claim_name(network.bus(), KEYS, "runtime", "mine", lease=1)
    assert trio.current_time() < NAME_WAIT


async def test_a_name_in_use_is_refused_whatever_the_role(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    holder = network.bus()
    holder.serve(KEYS.state("runtime", "mine"), answer)
    holder.declare_alive(KEYS.alive("runtime", "mine", "1"))
    with pytest.raises(Conflict, match=r"a runtime named 'mine' is .* --name") as caught:
        await claim_name(network.bus(), KEYS, "coordinator", "mine", lease=3600)
    assert caught.value.code == "NAME_IN_USE"
    assert (
        trio.current_time() < NAME_WAIT + ANSWER_WAIT
    )  # one that answers is no former life: the lease is not waited for


@pytest.mark.parametrize("lease", [1.0, 60.0])
async def test_a_former_life_that_nobody_has_missed_yet_is_waited_for_as_long_as_that_may_last(
    lease: float, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine is back from a power failure before its links are given up: its name is in sight, and its questions go nowhere."""
    network = MemoryNetwork()
    old, new = network.bus(), network.bus()
    kept: list[Query] = []
    old.serve(KEYS.state("runtime", "mine"), kept.append)
    old.declare_alive(KEYS.alive("runtime", "mine", "1"))
    noticed = max(lease, SILENT_WAIT)

    async def miss() -> None:
        await trio.sleep(noticed)
        old.vanish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(miss)
        await claim_name(new, KEYS, "runtime", "mine", lease=lease)
    assert noticed <= trio.current_time() < noticed + NAME_WAIT
    assert "does not answer" in caplog.text


async def test_a_silent_holder_that_stays_is_refused_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    holder = network.bus()
    kept: list[Query] = []
    holder.serve(KEYS.state("runtime", "mine"), kept.append)
    holder.declare_alive(KEYS.alive("runtime", "mine", "1"))
    with pytest.raises(Conflict, match=r"does not answer, and has not gone in 63 s, .* --name") as caught:
        await claim_name(network.bus(), KEYS, "runtime", "mine", lease=60)
    assert caught.value.code == "NAME_IN_USE"


async def test_a_killed_predecessor_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    old, new = network.bus(), network.bus()
    old.declare_alive(KEYS.alive("runtime", "mine", "1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(claim_name, new, KEYS, "runtime", "mine", lease=1))
        await trio.testing.wait_all_tasks_blocked()
        old.vanish()
    assert trio.current_time() < NAME_WAIT


async def test_of_two_that_claim_one_after_the_other_the_second_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    first, second = network.bus(), network.bus()
    await claim_name(first, KEYS, "runtime", "mine", lease=1)
    first.declare_alive(KEYS.alive("runtime", "mine", "1"))
    with pytest.raises(Conflict):
        await claim_name(second, KEYS, "runtime", "mine", lease=1)


async def test_a_name_is_not_free_before_those_who_see_others_have_said_so(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine that takes its time: nothing heard is not nobody there."""
    network = MemoryNetwork()
    holder, late = network.bus(), network.bus()
    holder.serve(KEYS.state("runtime", "mine"), answer)
    holder.declare_alive(KEYS.alive("runtime", "mine", "1"))
    alive = late.alive

    async def busy(key: str, *, timeout: float) -> list[str]:
        if trio.current_time() < until:
            await trio.sleep(timeout)
            raise Unavailable("not yet")
        return await alive(key, timeout=timeout)

    monkeypatch.setattr(late, "alive", busy)
    for moment in (1.0, NAME_WAIT + 1.0):
        until = trio.current_time() + moment
        with pytest.raises(Conflict, match="a runtime named 'mine'"):
            await claim_name(late, KEYS, "runtime", "mine", lease=1)
    until = float("inf")
    with pytest.raises(Unavailable, match="nobody has said in 13 s whether a peer named 'mine' is"):
        await claim_name(late, KEYS, "runtime", "mine", lease=1)
