"""Feeds: a peer's facts told to those who follow it. Publishing is a hint; the query ``feed/<peer>?after=N`` is the truth.

Entries that tell only of runs that are pruned are removed, so a feed may have holes. Only an answer can tell a hole from what was missed:
a hint is taken when it goes on where the follower stands.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field

import trio

from wattle.bus.base import Bus, Declaration, Priority, Query, Sample
from wattle.core.model import Fact
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.peer.asking import parse_number, parse_parameters, refuse
from wattle.protocol.keys import Keys
from wattle.protocol.messages import FeedEntry, FeedPage, decode, encode

PAGE = 500
"""Entries in one answer, at most."""

log = get_logger("wattle.feeds")


class FeedPublisher:
    """One's own feed: published when new, served to those who ask. ``read(after, limit)`` gives entries from the store."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        peer: str,
        store: str,
        head: Callable[[], int],
        read: Callable[[int, int], list[tuple[int, tuple[Fact, ...]]]],
    ) -> None:
        self._bus, self._key, self._store, self._head, self._read = bus, keys.feed(peer), store, head, read
        self._declaration: Declaration = bus.serve(self._key, self._answer)

    def publish(self, number: int, facts: tuple[Fact, ...]) -> None:
        """Tell followers of a new entry; the caller has committed it."""
        page = FeedPage(self._store, number, (FeedEntry(number, facts),))
        self._bus.put(self._key, encode(page), priority=Priority.CONTROL)

    def _answer(self, query: Query) -> None:
        try:
            after = parse_number(parse_parameters(query.parameters), "after", 0, 0, 2**62)
        except InvalidRequest as error:
            refuse(query, error)
            return
        entries = tuple(FeedEntry(number, facts) for number, facts in self._read(after, PAGE))
        query.reply(encode(FeedPage(self._store, self._head(), entries, after)), key=self._key)
        query.finish()

    def close(self) -> None:
        """Serve no more."""
        self._declaration.undeclare()


@dataclass(slots=True)
class _Followed:
    store: str
    number: int
    behind: bool = False  # a hint told of entries that were missed, or a question for them had no answer
    catching_up: bool = False
    told: bool = False  # a hint has come since it was last looked at whether it is quiet
    fresh: bool = field(init=False)  # nothing learned since it is read from its start: all there was may be removed

    def __post_init__(self) -> None:
        self.fresh = self.number == 0


class FeedFollower:
    """Follows many feeds. ``learn(peer, store, number, facts, first)`` gets every entry exactly once, in order;
    ``first`` is true for the first that is left of a feed read from its start."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        nursery: trio.Nursery,
        cursors: dict[str, tuple[str, int]],
        learn: Callable[[str, str, int, tuple[Fact, ...], bool], None],
        *,
        timeout: float,
    ) -> None:
        self._bus, self._keys, self._nursery, self._learn, self._timeout = bus, keys, nursery, learn, timeout
        self._followed = {peer: _Followed(store, number) for peer, (store, number) in cursors.items()}
        self._joined: set[str] = set()
        self._declaration = bus.subscribe(keys.feed(), self._hint, ordered=False)

    def _hint(self, sample: Sample) -> None:
        try:
            peer = self._keys.feed_peer(sample.key)
        except InvalidRequest:
            return  # a put on a wider key than any feed's
        if peer not in self._joined or sample.payload is None:
            return  # before its joining everything is read by query
        try:
            page = decode(FeedPage, sample.payload)
        except InvalidRequest as error:
            log.warning("feed hint not understood", peer=peer, problem=error.message)
            return
        state = self._followed[peer]
        if page.store != state.store:
            return  # another life of its data folder: joining will find out
        state.told = True
        if not state.catching_up:
            self._take(peer, page)
        state.behind = state.behind or page.head > state.number
        if state.behind and not state.catching_up:
            self._nursery.start_soon(self._catch_up, peer)

    def _take(self, peer: str, page: FeedPage, *, whole: bool = False) -> None:
        """Learn the entries that follow; with ``whole``, what is not among them is gone for good."""
        state = self._followed[peer]
        for entry in page.entries:
            if entry.number == state.number + 1 or (whole and entry.number > state.number):
                first, state.fresh, state.number = state.fresh, False, entry.number
                self._learn(peer, page.store, entry.number, entry.facts, first)

    async def _catch_up(self, peer: str) -> bool:
        """Read on until nothing is missing; False when the peer does not answer, and is behind until it is asked again."""
        state = self._followed[peer]
        state.catching_up = True
        try:
            while True:
                state.behind = False
                if not await self._read_on(peer, state):
                    state.behind = True
                    return False
                if not state.behind or peer not in self._joined:
                    return True
        finally:
            state.catching_up = False

    def is_behind(self, peer: str) -> bool:
        """Whether entries of a peer's feed are known to be missing here: none of its hints may follow to show that."""
        state = self._followed.get(peer)
        return state is not None and state.behind

    def check_quiet(self, peer: str) -> None:
        """Check a peer, unless a hint of its has come since this was called last and nothing is known to be missing.

        Whoever has much to tell shows by each hint what was lost before it; 1,000 busy nodes asked all the same are 1,000 queries a round.
        """
        state = self._followed.get(peer)
        if state is not None and state.told and not state.behind:
            state.told = False
        else:
            self.check(peer)

    def check(self, peer: str) -> None:
        """Ask a peer whether its feed has gone on: for hints that were lost with none following them."""
        if peer not in self._joined:
            return
        if self._followed[peer].catching_up:
            self._followed[peer].behind = True
        else:
            self._nursery.start_soon(self._catch_up, peer)

    async def join(self, peer: str, store: str) -> bool:
        """Read a peer's feed up to its head and follow it from there; False when it does not answer.

        ``store`` is the identity of its data folder: another one than before means a new feed, from 1.
        """
        state = self._followed.get(peer)
        if state is None or state.store != store:
            state = self._followed[peer] = _Followed(store, 0)
        self._joined.add(peer)
        return await self._catch_up(peer)

    def read_again(self, but: Container[str]) -> None:
        """Start all feeds but these from their first entry, now or when their peers are met again; a reading under way fails."""
        for peer, state in self._followed.items():
            if peer not in but:
                self._followed[peer] = _Followed(state.store, 0)
                self.check(peer)

    def leave(self, peer: str) -> None:
        """Follow a peer no more until it joins again."""
        self._joined.discard(peer)

    async def _read_on(self, peer: str, state: _Followed) -> bool:
        """Query page after page until the head; False when no usable answer comes."""
        while True:
            replies = await self._bus.get(
                self._keys.feed(peer),
                parameters=f"after={state.number}",
                timeout=self._timeout,
                priority=Priority.CONTROL,
            )
            answer = next((r for r in replies if r.ok), None)
            if answer is None or self._followed[peer] is not state:
                return False
            try:
                page = decode(FeedPage, answer.payload)
            except InvalidRequest as error:
                log.warning("feed not understood", peer=peer, problem=error.message)
                return False
            if page.store != state.store:
                return False
            before = state.number
            self._take(peer, page, whole=page.after == before)
            if not page.entries and page.after == before:
                state.number = max(before, page.head)
            if state.number >= page.head or not page.entries:
                return True
            if state.number == before:
                log.warning("feed does not go on where it was read to", peer=peer, after=before)
                return False

    def close(self) -> None:
        """Follow nobody any more."""
        self._declaration.undeclare()
