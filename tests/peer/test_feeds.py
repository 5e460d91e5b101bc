"""Feeds: whatever becomes of hints, a follower learns every entry once and in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.core.model import Fact, FactKind
from wattle.peer.feeds import PAGE, FeedFollower, FeedPublisher
from wattle.protocol.keys import Keys
from wattle.protocol.messages import FeedEntry, FeedPage, decode, encode

KEYS = Keys()
TIMEOUT = 5.0

Entries = list[tuple[int, tuple[Fact, ...]]]


class Node:
    """A peer with a feed."""

    def __init__(self, bus: MemoryBus, name: str = "n", store: str = "s1") -> None:
        self.bus, self.name, self.store = bus, name, store
        self.entries: Entries = []
        self.head = 0
        self.publisher = FeedPublisher(bus, KEYS, name, store, lambda: self.head, self.read)

    def read(self, after: int, limit: int) -> Entries:
        return [entry for entry in self.entries if entry[0] > after][:limit]

    def add(self, count: int = 1, *, tell: bool = True) -> None:
        for _ in range(count):
            self.head = number = self.head + 1
            facts = (Fact(FactKind.STARTED, "r", "w", number, at=float(number)),)
            self.entries.append((number, facts))
            if tell:
                self.publisher.publish(number, facts)


class Follower:
    """What a follower learned: (peer, store, number), and that facts and numbers belong together."""

    def __init__(
        self, bus: MemoryBus, nursery: trio.Nursery, cursors: dict[str, tuple[str, int]] | None = None
    ) -> None:
        self.learned: list[tuple[str, str, int]] = []
        self.first: list[int] = []
        self.feeds = FeedFollower(bus, KEYS, nursery, cursors or {}, self._learn, timeout=TIMEOUT)

    def _learn(self, peer: str, store: str, number: int, facts: tuple[Fact, ...], first: bool) -> None:
        assert first or self.learned or number > 1
        assert [fact.attempt for fact in facts] == [number]
        self.learned.append((peer, store, number))
        if first:
            self.first.append(number)

    @property
    def numbers(self) -> list[int]:
        return [number for _, _, number in self.learned]


class World:
    """A network with one node and one follower that has not joined yet."""

    def __init__(self, nursery: trio.Nursery, cursors: dict[str, tuple[str, int]] | None = None) -> None:
        self.network = MemoryNetwork()
        self.there, self.here = self.network.bus("there"), self.network.bus("here")
        self.node = Node(self.there)
        self.follower = Follower(self.here, nursery, cursors)
        self.lost: set[str] = set()
        self.asked = 0
        self.network.lose = self._lose

    def _lose(self, kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        self.asked += kind == "query"
        return kind in self.lost

    async def join(self) -> bool:
        return await self.follower.feeds.join("n", self.node.store)


@asynccontextmanager
async def world(cursors: dict[str, tuple[str, int]] | None = None) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, cursors)
        nursery.cancel_scope.cancel()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_joining_reads_what_there_is_page_after_page_and_then_follows() -> None:
    async with world() as w:
        w.node.add(2 * PAGE + 7)
        await settled()
        assert w.follower.learned == []  # hints before joining are not taken
        assert await w.join()
        assert w.follower.numbers == list(range(1, 2 * PAGE + 8))
        assert w.asked == 3
        w.node.add(3)
        await settled()
        assert w.follower.numbers == list(range(1, 2 * PAGE + 11))
        assert w.asked == 3  # what hints carry is not asked for again


async def test_a_cursor_goes_on_where_it_was() -> None:
    async with world({"n": ("s1", 4)}) as w:
        w.node.add(6)
        assert await w.join()
        assert w.follower.numbers == [5, 6]


async def test_a_lost_hint_is_made_up_for_by_the_next() -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(2, tell=False)
        w.node.add()
        await settled()
        assert w.follower.numbers == [1, 2, 3]


async def test_a_lost_last_hint_is_found_by_checking() -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(2, tell=False)
        w.follower.feeds.check("n")
        w.follower.feeds.check("stranger")
        await settled()
        assert w.follower.numbers == [1, 2]


async def test_who_has_told_something_since_is_not_checked() -> None:
    async with world() as w:
        assert await w.join()
        asked = w.asked
        w.node.add()
        await settled()
        w.node.add(tell=False)
        w.follower.feeds.check_quiet("n")
        await settled()
        assert w.asked == asked
        assert w.follower.numbers == [1]
        w.follower.feeds.check_quiet("n")
        w.follower.feeds.check_quiet("stranger")
        await settled()
        assert w.follower.numbers == [1, 2]


async def test_who_is_known_to_be_behind_is_checked_although_it_has_told_something(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(tell=False)
        w.lost.add("reply")
        w.node.add()
        await trio.sleep(2 * TIMEOUT)
        w.lost.clear()
        assert w.follower.feeds.is_behind("n")
        w.follower.feeds.check_quiet("n")
        await settled()
        assert w.follower.numbers == [1, 2]


async def test_hints_told_twice_or_late_count_once() -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(3)
        for number, facts in [*w.node.entries, *reversed(w.node.entries)]:
            w.node.publisher.publish(number, facts)
        await settled()
        assert w.follower.numbers == [1, 2, 3]


async def test_hints_while_it_reads_are_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(3, tell=False)
        w.follower.feeds.check("n")
        w.node.add()  # arrives while the answer is on its way
        await settled()
        assert w.follower.numbers == [1, 2, 3, 4]


async def test_what_is_new_when_it_is_checked_is_found_though_an_answer_is_on_its_way() -> None:
    async with world() as w:
        assert await w.join()
        w.node.add(tell=False)

        def answered(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
            if kind == "reply" and w.node.head == 1:
                w.node.add(tell=False)
                w.follower.feeds.check("n")
            return False

        w.network.lose = answered
        w.follower.feeds.check("n")
        await settled()
        assert w.follower.numbers == [1, 2]


async def test_joining_fails_when_nobody_answers_and_works_later(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        w.node.add(2)
        w.lost = {"query"}
        assert not await w.join()
        w.lost = {"reply"}
        assert not await w.join()
        w.lost = set()
        assert await w.join()
        assert w.follower.numbers == [1, 2]


async def test_who_had_no_answer_is_behind_until_it_has_one(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        w.node.add(2)
        assert await w.join()
        feeds = w.follower.feeds
        assert not feeds.is_behind("n")
        assert not feeds.is_behind("stranger")
        w.lost = {"reply"}
        feeds.read_again(())
        await trio.sleep(2 * TIMEOUT)
        assert w.follower.numbers == [1, 2]
        assert feeds.is_behind("n")
        w.lost = set()
        feeds.check("n")
        await settled()
        assert w.follower.numbers == [1, 2, 1, 2]
        assert not feeds.is_behind("n")


@pytest.mark.parametrize("tell", [True, False])
async def test_what_comes_after_all_of_a_feed_was_removed_is_the_first_of_what_is_left(tell: bool) -> None:
    """Whoever reads it anew heeds it from its first entry on, and that is none of those that it was read over."""
    async with world({"n": ("s1", 3)}) as w:
        w.node.add(5)
        assert await w.join()
        assert (w.follower.numbers, w.follower.first) == ([4, 5], [])
        w.follower.feeds.leave("n")
        w.node.entries.clear()
        w.follower.feeds.read_again(())
        assert await w.join()
        w.node.add(2, tell=tell)
        w.follower.feeds.check("n")
        await settled()
        assert (w.follower.numbers, w.follower.first) == ([4, 5, 6, 7], [6])


async def test_another_store_is_another_feed_from_its_beginning() -> None:
    async with world() as w:
        w.node.add(3)
        assert await w.join()
        w.node.publisher.close()
        w.node = Node(w.there, store="s2")
        w.node.add(2)
        await settled()
        assert w.follower.numbers == [1, 2, 3]  # what the new store says is not taken for the old one's
        assert await w.join()
        assert w.follower.learned[3:] == [("n", "s2", 1), ("n", "s2", 2)]


async def test_a_store_other_than_the_one_announced_is_not_joined() -> None:
    async with world() as w:
        w.node.add(1)
        assert not await w.follower.feeds.join("n", "other")
        assert w.follower.learned == []


async def test_who_has_left_is_followed_no_more_until_it_joins_again() -> None:
    async with world() as w:
        assert await w.join()
        w.follower.feeds.leave("n")
        w.node.add()
        await settled()
        assert w.follower.learned == []
        assert await w.join()
        assert w.follower.numbers == [1]


JUNK = [
    b"",
    b"\xff",
    b"null",
    b"{}",
    b'{"store": "s1", "head": 1e30, "entries": []}',
    b'{"store": "s1", "head": 99999999999999999999, "entries": []}',
    b'{"store": "s1", "head": 1, "entries": [{"number": 1, "facts": [{"kind": "nonsense"}]}]}',
    b'{"store": "s1", "head": 1, "entries": [{"number": 1, "facts": [{"kind":"started","run":"r","worker":"w","attempt":1,"at":1e300}]}]}',
]


@pytest.mark.parametrize("junk", JUNK)
async def test_junk_among_hints_changes_nothing(junk: bytes) -> None:
    async with world() as w:
        assert await w.join()
        w.there.put(KEYS.feed("n"), junk)
        w.there.put("wattle/default/**", junk)
        w.there.delete(KEYS.feed("n"))
        w.node.add()
        await settled()
        assert w.follower.numbers == [1]


@pytest.mark.parametrize("junk", JUNK)
async def test_junk_for_an_answer_is_no_answer(junk: bytes) -> None:
    async with world() as w:
        w.node.publisher.close()

        def answer(query: Query) -> None:
            query.reply(junk)
            query.finish()

        w.there.serve(KEYS.feed("n"), answer)
        assert not await w.join()
        w.there.put(KEYS.feed("n"), encode(FeedPage("s1", 9, ())))  # makes the follower ask
        await settled()
        assert w.follower.learned == []


async def test_a_feed_that_skips_entries_is_not_asked_for_ever() -> None:
    async with world() as w:
        w.node.publisher.close()
        fact = Fact(FactKind.STARTED, "r", "w", 5, at=1.0)

        def answer(query: Query) -> None:
            query.reply(encode(FeedPage("s1", 9, (FeedEntry(5, (fact,)),))))
            query.finish()

        w.there.serve(KEYS.feed("n"), answer)
        assert not await w.join()
        assert w.asked == 1


async def test_holes_are_passed_over_when_asked_and_not_when_hinted() -> None:
    async with world({"n": ("s1", 2)}) as w:
        w.node.add(2 * PAGE)
        w.node.entries = [
            e for e in w.node.entries if e[0] in (1, 2, 5, PAGE, PAGE + 3)
        ]  # the newest one is gone as well
        assert await w.join()
        assert w.follower.numbers == [5, PAGE, PAGE + 3]
        w.node.add()
        await settled()
        assert w.follower.numbers[3:] == [2 * PAGE + 1]
        asked = w.asked
        fact = Fact(FactKind.STARTED, "r", "w", 2 * PAGE + 5, at=1.0)
        hint = FeedPage("s1", 2 * PAGE + 5, (FeedEntry(2 * PAGE + 5, (fact,)),), after=2 * PAGE + 1)
        w.there.put(KEYS.feed("n"), encode(hint))  # a put is no answer, whatever it says
        await settled()
        assert w.asked == asked + 1
        assert w.follower.numbers[3:] == [2 * PAGE + 1]


async def test_a_follower_that_is_new_or_restarted_passes_over_holes() -> None:
    async with world({"n": ("s1", 4)}) as w:
        w.node.add(9)
        w.node.entries = [e for e in w.node.entries if e[0] in (3, 7)]
        assert await w.join()
        assert w.follower.numbers == [7]
        async with trio.open_nursery() as nursery:
            other = Follower(w.there, nursery)
            assert await other.feeds.join("n", "s1")
            assert other.numbers == [3, 7]
            w.node.add(2)
            await settled()
            assert (w.follower.numbers, other.numbers) == ([7, 10, 11], [3, 7, 10, 11])
            nursery.cancel_scope.cancel()


async def test_questions_on_a_feed() -> None:
    async with world() as w:
        w.node.add(3)
        (reply,) = await w.here.get("wattle/default/feed/*", parameters="after=1", timeout=TIMEOUT, everyone=True)
        page = decode(FeedPage, reply.payload)
        assert (reply.key, page.store, page.head, [e.number for e in page.entries]) == (KEYS.feed("n"), "s1", 3, [2, 3])
        for parameters in ("after=x", "after=-1", "after=1;after=2", f"after={2**70}"):
            (reply,) = await w.here.get(KEYS.feed("n"), parameters=parameters, timeout=TIMEOUT)
            assert not reply.ok


@given(
    plan=st.lists(
        st.tuples(st.integers(1, 4), st.booleans(), st.sampled_from(["", "put", "query", "reply"])), max_size=12
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_lost_every_entry_is_learned_once_and_in_order(plan: list[tuple[int, bool, str]]) -> None:
    async def scenario() -> None:
        async with world() as w:
            assert await w.join()
            for count, check, lost in plan:
                w.lost = {lost}
                w.node.add(count)
                if check:
                    w.follower.feeds.check("n")
                await settled()
            w.lost = set()
            with trio.move_on_after(2 * TIMEOUT):  # questions that were lost run out
                await trio.sleep_forever()
            w.follower.feeds.check("n")
            await settled()
            assert w.follower.numbers == list(range(1, sum(count for count, _, _ in plan) + 1))

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
