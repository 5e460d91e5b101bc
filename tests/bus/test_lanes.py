"""The bridge to trio by itself: fairness, bounds, and what is pushed at awkward moments."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from threading import Thread
from typing import Any

import trio
import trio.testing

from tests.bus.networks import Inbox
from wattle.bus.base import Sample
from wattle.bus.lanes import COUNTED, PER_TICK, ChangeLane, Lane, QueryLane, SampleLane
from wattle.bus.queries import OpenQuery


def sample_lane(handler: Any, bound: int) -> SampleLane[int]:
    """A lane of numbers."""

    def read(number: int, gap: bool) -> Sample:
        return Sample(str(number), b"", gap=gap)

    return SampleLane("n", handler, trio.lowlevel.current_trio_token(), read=read, bound=bound, size=lambda _: 0)


async def test_a_long_backlog_lets_other_tasks_run() -> None:
    seen, turns = Inbox(), []
    lane: Lane[int] = Lane("n", seen, trio.lowlevel.current_trio_token())
    for number in range(5 * PER_TICK):
        lane.push(number)
    while len(seen) < 5 * PER_TICK:
        await trio.lowlevel.checkpoint()
        turns.append(len(seen))
    turns.insert(0, 0)
    # trio shuffles the tasks of a tick, so this one may run first in one tick and last in the next.
    assert all(after - before <= 2 * PER_TICK for before, after in pairwise(turns))
    assert seen == list(range(5 * PER_TICK))


async def test_a_full_lane_keeps_the_newest_and_marks_the_first_it_delivers() -> None:
    seen = Inbox()
    lane = sample_lane(seen, bound=3)
    for number in range(10):
        lane.push(number)
    await seen.size(3)
    lane.push(10)
    assert [(sample.key, sample.gap) for sample in await seen.size(4)] == [
        ("7", True),
        ("8", False),
        ("9", False),
        ("10", False),
    ]


async def test_a_lane_keeps_so_many_bytes_and_takes_more_once_they_are_handed_over() -> None:
    seen = Inbox()
    token = trio.lowlevel.current_trio_token()

    def read(raw: bytes, gap: bool) -> Sample:
        return Sample(raw[:1].decode(), raw, gap=gap)

    lane: SampleLane[bytes] = SampleLane("n", seen, token, read=read, bound=100, size=len, most=3 * COUNTED)
    for name in (b"a", b"b", b"c", b"d"):
        lane.push(name * COUNTED)
    lane.push(b"e")
    await seen.size(4)
    lane.push(b"f" * 100 * COUNTED)
    lane.push(b"g" * COUNTED)
    await seen.size(5)
    assert [(sample.key, sample.gap) for sample in seen] == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("e", False),
        ("f", True),  # alone it may be as large as it likes, and then leaves no room
    ]


async def test_no_gap_goes_unmarked_while_another_thread_pushes() -> None:
    seen, total = Inbox(), 20_000
    lane = sample_lane(seen, bound=2)

    def push_all() -> None:
        for number in range(total):
            lane.push(number)

    thread = Thread(target=push_all)
    thread.start()
    await seen.until(lambda samples: bool(samples) and samples[-1].key == str(total - 1))
    thread.join()
    expected = 0
    for sample in seen:
        assert int(sample.key) >= expected
        assert sample.gap or int(sample.key) == expected
        expected = int(sample.key) + 1


async def test_too_many_changes_leave_the_latest_word_on_each_token() -> None:
    seen = Inbox()
    lane = ChangeLane("t", seen, trio.lowlevel.current_trio_token(), bound=6)
    for _ in range(3):
        for token in ("a", "b"):
            lane.push((token, True))
            lane.push((token, False))
    lane.push(("a", True))
    await seen.until(lambda changes: ("a", True) in changes)
    assert len(seen) <= 6
    assert dict(seen) == {"a": True, "b": False}


class Told(OpenQuery):
    """A query that keeps what it is told to send."""

    def __init__(self, payload: bytes | None = None) -> None:
        super().__init__("a", "", payload, None)
        self.sent: list[str] = []

    def accepts(self, key: str) -> bool:
        return True

    def send_reply(self, key: str, payload: bytes, attachment: bytes | None) -> None:
        self.sent.append("reply")

    def send_error(self, payload: bytes) -> None:
        self.sent.append("error")

    def send_end(self) -> None:
        self.sent.append("end")


async def test_a_query_that_meets_a_closing_lane_is_ended() -> None:
    lane = QueryLane("a", lambda _: None, trio.lowlevel.current_trio_token(), bound=10)
    before, after = Told(), Told()
    lane.push(before)
    lane.close()
    lane.push(after)
    await trio.testing.wait_all_tasks_blocked()
    assert before.sent == after.sent == ["end"]
    assert not lane.open


async def test_queries_with_too_many_bytes_are_turned_away_until_others_are_let_go_of() -> None:
    held: list[OpenQuery] = []
    lane = QueryLane("a", held.append, trio.lowlevel.current_trio_token(), bound=10, most=2 * COUNTED)
    first, beyond, small, last = Told(b"x" * 2 * COUNTED), Told(b"x"), Told(b"x"), Told(b"x" * COUNTED)
    beyond.attachment = b"x" * COUNTED  # which is held as the payload is
    for query in (first, beyond, small):
        lane.push(query)
    await trio.testing.wait_all_tasks_blocked()
    assert held == [first, small]
    assert beyond.sent == ["error", "end"]
    first.finish()
    held.clear()
    del first, query
    lane.push(last)
    await trio.testing.wait_all_tasks_blocked()
    assert held == [last]


async def test_a_query_that_is_forgotten_takes_no_place() -> None:
    lane = QueryLane("a", lambda _: None, trio.lowlevel.current_trio_token(), bound=1)
    lane.push(Told())
    held, refused = Told(), Told()
    await trio.testing.wait_all_tasks_blocked()
    lane.push(held)
    lane.push(refused)
    assert held.sent == []
    assert refused.sent == ["error", "end"]


async def test_a_lane_whose_loop_has_ended_drops_what_is_pushed() -> None:
    def inner() -> Lane[int]:
        async def make() -> Lane[int]:
            return Lane("n", lambda _: None, trio.lowlevel.current_trio_token())

        return trio.run(make)

    lane = await trio.to_thread.run_sync(inner)
    await trio.to_thread.run_sync(partial(lane.push, 1))
    assert not lane.items
