"""Several gateways: one at a time is on duty, whoever comes, goes or is cut off."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from tests.coordinator.world import KEYS, World, document
from wattle.bus.memory import MemoryBus
from wattle.gateway import duty


async def serving(net: World, asker: MemoryBus | None = None) -> list[str]:
    """The gateways that would get a public request, as far as ``asker`` sees; they all answer for themselves."""
    bus = asker or net.client
    states = [json.loads(r.payload) for r in await bus.get(KEYS.state("gateway"), timeout=1, everyone=True) if r.ok]
    answers = await bus.get(KEYS.api("health"), timeout=1, everyone=True)
    named = sorted(state["name"] for state in states if state["serving"])
    assert len(answers) == len(named)
    return named


async def three(net: World, *names: str) -> None:
    await net.coordinator()
    for name in names or ("g1", "g2", "g3"):
        await net.gateway(name)


async def test_one_answers_and_one_that_comes_later_stands_by_though_it_precedes(net: World) -> None:
    await three(net, "g2", "g3", "g1")
    assert await serving(net) == ["g2"]


async def test_a_submission_without_an_id_starts_one_run_whoever_it_is_sent_by(net: World) -> None:
    await three(net)
    for name in ("g1", "g2", "g3", "c1"):  # a gateway's own bus gets what its clients ask
        (reply,) = await net.buses[name].get(KEYS.api("runs"), json.dumps(document(name)).encode(), timeout=1)
        assert reply.ok
        assert len((await net.api(f"runs?workflow={name}"))["runs"]) == 1


@pytest.mark.parametrize("order", [("g1", "g2", "g3"), ("g2", "g3", "g1"), ("g3", "g1", "g2")])
async def test_one_that_is_gone_is_followed_by_the_next_at_once(net: World, order: tuple[str, ...]) -> None:
    await three(net, *order)
    left, on_duty = set(order), order[0]
    while left:
        assert await serving(net) == [on_duty]
        await net.stop(on_duty)
        await trio.testing.wait_all_tasks_blocked()
        left.remove(on_duty)
        on_duty = min(left, default="")
    assert await serving(net) == []


async def test_both_sides_of_a_cut_have_one_on_duty_and_one_of_them_goes_on_after_it(net: World) -> None:
    await three(net, "g2", "g1", "g3")
    net.network.isolate(net.buses["g2"])
    await trio.testing.wait_all_tasks_blocked()
    assert await serving(net) == ["g1"]
    assert await serving(net, net.buses["g2"]) == ["g2"]
    net.network.heal()
    await trio.testing.wait_all_tasks_blocked()
    assert await serving(net) == ["g1"]


async def test_what_was_asked_before_the_duty_was_given_up_is_answered(net: World) -> None:
    await three(net, "g2", "g1")
    await net.api("runs/r", document())
    net.network.cut(net.buses["g1"], net.buses["g2"])
    await trio.testing.wait_all_tasks_blocked()
    answers = []

    async def wait(bus: MemoryBus) -> None:
        answers.extend(await bus.get(KEYS.api("runs/r"), parameters="wait=2", timeout=10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, net.buses["g2"])
        await trio.testing.wait_all_tasks_blocked()
        net.network.heal()
        await trio.testing.wait_all_tasks_blocked()
        assert await serving(net) == ["g1"]
        assert answers == []
    assert [json.loads(reply.payload)["id"] for reply in answers if reply.ok] == ["r"] * len(answers)
    assert answers


async def test_one_that_sees_nobody_on_duty_does_not_wait_for_ever_for_one_that_does(
    net: World, mock_clock: trio.testing.MockClock
) -> None:
    await three(net)
    net.network.cut(net.buses["g1"], net.buses["g3"])  # g2 sees g1
    await trio.testing.wait_all_tasks_blocked()
    assert await serving(net, net.buses["g3"]) == []
    mock_clock.jump(duty.TURN)
    await trio.testing.wait_all_tasks_blocked()
    assert await serving(net, net.buses["g3"]) == ["g3"]
    assert len(await net.client.get(KEYS.api("health"), timeout=1)) == 1  # who sees both asks one
    net.network.heal()
    await trio.testing.wait_all_tasks_blocked()
    assert await serving(net) == ["g1"]


async def test_a_token_that_is_none_is_passed_over(net: World) -> None:
    net.client.declare_alive("wattle/default/duty/g9")
    net.client.declare_alive("wattle/default/duty/g9/*")
    await three(net)
    assert await serving(net) == ["g1"]
