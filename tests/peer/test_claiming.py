"""Names that are free, taken, and had by two."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio
import trio.testing

from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.errors import Conflict, Unavailable
from wattle.peer.claiming import ANSWER_WAIT, NAME_WAIT, SILENT_WAIT, claim_name, keep_name
from wattle.protocol.keys import Alive, Keys

KEYS = Keys()


def answer(query: Query) -> None:
    """Say that one is there."""
    query.reply(b"{}")
    query.finish()


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


# --- a name that two have ---------------------------------------------------------------------------------------------------------------


def peer(network: MemoryNetwork, incarnation: str, *, answers: bool = True) -> tuple[Alive, MemoryBus]:
    """A runtime named ``mine`` that is in sight; one that does not answer is what is left of a dead one."""
    bus, me = network.bus(), Alive("runtime", "mine", incarnation)
    state = json.dumps({"incarnation": incarnation}).encode()

    def answer_state(query: Query) -> None:
        query.reply(state, key=KEYS.state("runtime", "mine"))
        query.finish()

    if answers:
        bus.serve(KEYS.state("runtime", "mine"), answer_state)
    bus.declare_alive(KEYS.alive(*me))
    return me, bus


async def test_of_two_with_one_name_the_later_gives_way(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = MemoryNetwork()
    (first, one), (second, other) = peer(network, "1"), peer(network, "2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_name, first, one, KEYS)
        with pytest.raises(Conflict, match=r"a runtime named 'mine' is .* --name") as caught:
            await keep_name(second, other, KEYS)
        assert caught.value.code == "NAME_IN_USE"
        other.vanish()
        await trio.sleep(60)  # the first one goes on
        nursery.cancel_scope.cancel()
    assert "another peer has begun with this name; it gives way" in caplog.text


async def test_a_peer_does_not_give_way_to_its_own_former_life(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    (me, bus), (_, former) = peer(network, "2"), peer(network, "1", answers=False)
    with trio.move_on_after(60) as scope:
        await keep_name(me, bus, KEYS)
    former.vanish()
    assert scope.cancelled_caught


async def test_one_that_was_too_busy_to_answer_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    (me, bus), (earlier, busy) = peer(network, "2"), peer(network, "1", answers=False)
    asked: list[Query] = []

    def answer_the_third(query: Query) -> None:
        asked.append(query)
        if len(asked) == 3:
            query.reply(json.dumps({"incarnation": earlier.incarnation}).encode(), key=KEYS.state("runtime", "mine"))
        query.finish()

    busy.serve(KEYS.state("runtime", "mine"), answer_the_third)
    with pytest.raises(Conflict):
        await keep_name(me, bus, KEYS)
    assert len(asked) == 3
