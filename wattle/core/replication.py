"""Copies of this coordinator's runs on other stores: who has them, how far each one is, and what therefore may be acknowledged.

All coordinators in sight follow, and as many runtimes as ``replicas`` says, or as a quorum takes. Each is sent what was committed after
what it has; its answer says how far it has come. So nothing hangs on a message arriving, and a follower that is new or was away is just one
that is far behind.

With a quorum, what may be acknowledged is on the stores of that many peers, this one's included, and an adopter has heard as many
(core/succession.py). Where a quorum is more than half of all peers, it has heard of it.

It may also have heard too early. So with a quorum

* an owner ends a run only once the state that it began with is settled (submitted, taken over or retried): as many peers have it, and none
  of them had another owner's end before;
* it does not count on a follower, from there on, where a later owner's state was before an end of its own.

As two quorums share a peer, only one of two ends is told. What counts is what a follower answers: what was not heard is asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.hashing import ranked
from wattle.core.model import RunHead

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

LINGER = 0.25
"""Seconds that changes nobody waits for are collected before they are sent."""

SOON = 0.02
"""Seconds that a submission whose end is waited for may wait for that end, to be sent with it. Were its owner lost until then, it would be
submitted once more, and what had been started would be started again."""

RETRY_FIRST, RETRY_MOST = 0.2, 5.0
"""Seconds until a follower that did not answer is sent the same again, doubling from the first to the most."""


@dataclass(slots=True)
class Follower:
    """``kept`` is how far its copies go; None until it has said so. ``counted`` is how far this owner counts on it.

    The two differ only with a quorum, while it contests an end, or has not been heard on all that it has: then it is asked at ``ask_at``.
    """

    counted: int
    kept: int | None = None
    sending: bool = False
    asked: bool = False  # what is on its way is a question
    behind_since: float | None = None
    retry_at: float | None = None
    delay: float = 0.0
    ask_at: float | None = None
    ask_delay: float = 0.0


class Replication:
    """The followers of one coordinator core."""

    def __init__(self, core: CoordinatorCore, settled: int) -> None:
        self.core = core
        self.followers: dict[str, Follower] = {}
        self._urgent = False  # somebody waits for what this batch commits
        self._awaited = 0  # the newest commit that somebody waits for
        self._soon = False  # what this batch commits is to be sent soon
        self._due: tuple[int, float] = (0, 0.0)  # the newest such commit, and when it is to be sent
        self._settled = 0  # as it was when a quorum was last in sight
        self._ever_settled = self._saved = settled  # the newest that ever was, with a quorum; as the store remembers it
        self._changed = False  # somebody came or went since the followers were chosen

    def hasten(self) -> None:
        """What this batch commits is waited for: send it at once."""
        self._urgent = True

    def send_soon(self) -> None:
        """What this batch commits is waited for, but with something that is to follow: send it with that, or after SOON seconds."""
        self._soon = True

    @property
    def settled(self) -> int:
        """What may be acknowledged: the newest commit that is on ``min(replicas, followers in sight)`` other disks and at a quorum.

        It stays what it was while no quorum is in sight.
        """
        if self.core.succession.quorum:
            self._settled = self._on_followers()
            if self.core.options.quorum:
                self._ever_settled = max(self._ever_settled, self._settled)
        return self._settled

    def remember(self) -> None:
        """Store with this batch how far commits have been settled: what came after is told to followers again after a restart."""
        if self.core.options.quorum and self.settled and self._ever_settled > self._saved:
            self._saved = self._ever_settled
            self.core.saves.append(do.SaveSettled(self._saved))

    def _on_followers(self) -> int:
        options = self.core.options
        if len(self.followers) < options.quorum - 1:
            return self._settled  # they are in sight, and chosen at the end of this batch
        apart = [follower for name, follower in self.followers.items() if name not in options.companions]
        settled = self._reached(apart, min(options.replicas, len(apart)))
        return min(settled, self._reached(self.followers.values(), options.quorum - 1))

    def _reached(self, followers: Iterable[Follower], need: int) -> int:
        """The newest commit that ``need`` of these followers have."""
        if need <= 0:
            return self.core.number
        return sorted((min(follower.counted, follower.kept or 0) for follower in followers), reverse=True)[need - 1]

    def came(self) -> None:
        """A peer is in sight: the followers are chosen anew with this batch, once for all that came."""
        self._changed = True

    def went(self, peer: str) -> None:
        """A peer is out of sight: should it be back with this very batch, it is asked anew how far it is."""
        self.followers.pop(peer, None)
        self._changed = True
        self.core.look_for_quorum()

    def choose(self) -> None:
        """Choose the followers anew where peers came or went: all coordinators, and some runtimes.

        A runtime on this coordinator's own disk keeps no copy, unless the quorum takes it: it is a peer that answers an adopter.
        """
        if not self._changed:
            return
        self._changed = False
        options, members = self.core.options, self.core.members
        coordinators = self.core.succession.coordinators
        nodes = ranked(members.names_in_sight(), self.core.name)
        apart = [name for name in nodes if name not in options.companions]
        beside = [name for name in nodes if name in options.companions]
        voters = max(options.quorum - 1 - len(coordinators), 0)
        chosen = {*coordinators, *apart[: options.replicas], *[*apart, *beside][:voters]}
        for name in [name for name in self.followers if name not in chosen]:
            del self.followers[name]
        for name in sorted(chosen - set(self.followers)):
            self.followers[name] = Follower(self._ever_settled)

    def kept(self, event: on.Kept) -> None:
        """A follower says how far it has come, and what it knows better of what it was sent or asked about."""
        follower = self.followers.get(event.peer)
        if follower is None:
            return
        contested, asked = self._count(follower, event), follower.asked
        follower.kept, follower.sending, follower.asked, follower.behind_since = event.number, False, False, None
        follower.delay, follower.retry_at = 0.0, None
        if follower.counted >= event.number:
            follower.ask_at, follower.ask_delay = None, 0.0
        elif asked or follower.ask_at is None:  # else it was a page, and the question is still to come
            follower.ask_delay = _longer(follower.ask_delay) if asked or contested else 0.0
            follower.ask_at = self.core.now + follower.ask_delay

    def _count(self, follower: Follower, event: on.Kept) -> bool:
        """Count on a follower as far as its answers were heard, unless one of them contests an end: True then."""
        if not self.core.options.quorum:
            follower.counted = event.number
            return False
        own = {head.run: head for head in event.own}
        contested = any(
            head.run in own and head.overtook(own[head.run]) and not self._gave_way(head, own[head.run])
            for head in event.heads
        )
        if not contested and event.since <= follower.counted:
            follower.counted = max(follower.counted, event.heard)
        follower.counted = min(follower.counted, event.number)
        return contested

    def _gave_way(self, later: RunHead, end: RunHead) -> bool:
        """Whether a later owner is in sight and has kept the end itself: then it has let go, though copies of its state are left."""
        its = self.followers.get(later.owner)
        if its is None or self.core.succession.coordinators.get(later.owner) != later.store:
            return False
        return min(its.counted, its.kept or 0) >= end.number

    def not_kept(self, event: on.NotKept) -> None:
        """A follower did not answer: it is asked again as long as it is in sight."""
        follower = self.followers.get(event.peer)
        if follower is not None:
            follower.sending = follower.asked = False
            follower.delay = _longer(follower.delay)
            follower.retry_at = self.core.now + follower.delay
            if follower.ask_at is not None:
                follower.ask_at = follower.retry_at

    def ship(self) -> None:
        """Send every follower what it lacks, unless something is on its way there or it may wait for more."""
        self.choose()
        if self._urgent:
            self._awaited, self._urgent = self.core.number, False
        if self._soon:
            due = self._due[1] if self._due[1] > self.core.now else self.core.now + SOON
            self._due, self._soon = (self.core.number, due), False
        for name, follower in self.followers.items():
            if follower.sending:
                continue
            if follower.ask_at is not None and self.core.now >= follower.ask_at:
                self._ask(name, follower)
                continue
            if follower.kept is not None and follower.kept >= self.core.number:
                follower.retry_at = follower.behind_since = None
                continue
            if follower.retry_at is not None and self.core.now < follower.retry_at:
                continue
            follower.retry_at = None
            if follower.kept is None:
                self._ask(name, follower)
                continue
            if follower.behind_since is None:
                follower.behind_since = self.core.now
            if follower.kept < self._awaited or self.core.now >= self._send_at(follower, follower.behind_since):
                follower.sending, follower.behind_since = True, None
                self.core.acts.append(do.Ship(name, follower.kept))

    def _send_at(self, follower: Follower, behind_since: float) -> float:
        number, due = self._due
        lingered = behind_since + LINGER
        return min(due, lingered) if (follower.kept or 0) < number else lingered

    def _ask(self, name: str, follower: Follower) -> None:
        """Ask how far a follower is, and with a quorum which better states it knows of what is not counted on yet."""
        follower.sending, follower.asked, follower.retry_at, follower.behind_since = True, True, None, None
        self.core.acts.append(do.Ask(name, follower.counted if self.core.options.quorum else None))

    def moments(self) -> Iterable[float]:
        """When ``ship`` has something to do."""
        for follower in self.followers.values():
            if follower.sending:
                continue
            if follower.ask_at is not None:
                yield follower.ask_at
            if follower.retry_at is not None:
                yield follower.retry_at
            elif follower.behind_since is not None:
                yield self._send_at(follower, follower.behind_since)


def _longer(delay: float) -> float:
    return min(max(2 * delay, RETRY_FIRST), RETRY_MOST)
