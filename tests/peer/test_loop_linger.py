"""Events that are not urgent: they wait for company, and never for long."""

from __future__ import annotations

import trio
import trio.testing

from wattle.peer.loop import LINGER, Loop


class Seen:
    """A loop that notes its batches, and stops after the one that holds ``last``."""

    def __init__(self, last: str) -> None:
        self.batches: list[tuple[float, list[str]]] = []
        self.loop: Loop[str] = Loop(self._step, lambda: "tick", trio.current_time)
        self._last = last

    def _step(self, events: list[str], now: float) -> None:
        self.batches.append((now, events))
        if self._last in events:
            self.loop.stop()


async def test_an_event_that_is_not_urgent_is_handled_with_the_next_that_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen = Seen("finished")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.loop.run)
        await trio.testing.wait_all_tasks_blocked()
        seen.loop.post("started", within=LINGER)
        await trio.testing.wait_all_tasks_blocked()
        seen.loop.post("finished")
    assert seen.batches == [(0.0, ["started", "finished"])]


async def test_alone_it_is_handled_after_a_moment(autojump_clock: trio.testing.MockClock) -> None:
    seen = Seen("started")
    seen.loop.post("started", within=LINGER)
    await seen.loop.run()
    assert seen.batches == [(LINGER, ["started"])]


async def test_more_of_its_kind_do_not_make_it_wait_longer(autojump_clock: trio.testing.MockClock) -> None:
    seen = Seen("third")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen.loop.run)
        seen.loop.post("first", within=LINGER)
        await trio.sleep(LINGER / 2)
        seen.loop.post("second", within=LINGER)
        await trio.sleep(LINGER)
        seen.loop.post("third")
    assert seen.batches == [(LINGER, ["first", "second"]), (LINGER * 1.5, ["third"])]


async def test_it_is_handled_with_a_timer_that_is_due_before(autojump_clock: trio.testing.MockClock) -> None:
    seen = Seen("started")
    seen.loop.set_timer(LINGER / 2)
    seen.loop.post("started", within=LINGER)
    await seen.loop.run()
    assert seen.batches == [(LINGER / 2, ["started"])]


async def test_it_does_not_hold_up_what_is_urgent_already(autojump_clock: trio.testing.MockClock) -> None:
    seen = Seen("urgent")
    seen.loop.post("urgent")
    seen.loop.post("later", within=LINGER)
    await seen.loop.run()
    assert seen.batches == [(0.0, ["urgent", "later"])]
