"""The loop: batches, timers, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from wattle.peer.loop import MAX_BATCH, Loop

Step = Callable[[list[str], float], None]


def make(step: Step) -> Loop[str]:
    return Loop(step, lambda: "tick", trio.current_time)


async def test_what_piles_up_is_one_batch_in_order() -> None:
    batches: list[list[str]] = []

    def step(events: list[str], now: float) -> None:
        batches.append(events)
        if events == ["a", "b"]:
            loop.post("c")  # while handling: the next batch
        else:
            loop.stop()

    loop = make(step)
    loop.post("a")
    loop.post("b")
    await loop.run()
    assert batches == [["a", "b"], ["c"]]


async def test_a_batch_is_bounded_and_nothing_is_lost() -> None:
    sizes: list[int] = []

    def step(events: list[str], now: float) -> None:
        sizes.append(len(events))
        if sum(sizes) == 2 * MAX_BATCH + 1:
            loop.stop()

    loop = make(step)
    for number in range(2 * MAX_BATCH + 1):
        loop.post(str(number))
    await loop.run()
    assert sizes == [MAX_BATCH, MAX_BATCH, 1]


async def test_others_get_their_turn_between_batches() -> None:
    turns: list[str] = []

    def step(events: list[str], now: float) -> None:
        turns.append("step")
        loop.post("again")

    async def other() -> None:
        await trio.lowlevel.checkpoint()
        turns.append("other")
        loop.stop()

    loop = make(step)
    loop.post("first")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        nursery.start_soon(other)
    assert "other" in turns


async def test_the_timer_makes_one_tick_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[list[str], float]] = []

    def step(events: list[str], now: float) -> None:
        seen.append((events, now))
        if events == ["tick"]:
            loop.post("x")  # no tick follows unless the timer is set again
        else:
            loop.stop()

    loop = make(step)
    loop.set_timer(trio.current_time() + 50)
    loop.set_timer(trio.current_time() + 5)
    await loop.run()
    assert seen == [(["tick"], 5.0), (["x"], 5.0)]


async def test_an_event_takes_the_place_of_a_tick_that_is_due(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[list[str]] = []

    def step(events: list[str], now: float) -> None:
        seen.append(events)
        loop.stop()

    loop = make(step)
    loop.set_timer(trio.current_time() - 1)
    loop.post("a")
    await loop.run()
    assert seen == [["a"]]


async def test_what_step_raises_ends_the_loop() -> None:
    def step(events: list[str], now: float) -> None:
        raise LookupError("broken")

    loop = make(step)
    loop.post("a")
    with pytest.raises(LookupError, match="broken"):
        await loop.run()
