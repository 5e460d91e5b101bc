"""Other coordinators: who is in sight, whose runs have no owner any more, and which of them fall to this one.

An owner out of sight for ``adopt_after`` seconds is gone for good only if nobody in reach sees it either. Then every coordinator asks all
peers in sight, itself included, which copies of its runs they have, and for each run which state of it is the newest anywhere. A run
whose newest state belongs to an owner that is gone falls to one coordinator by rendezvous hash; that one gets the copy and goes on with
the run in the next epoch (core/recall.py). The questions are asked again until none of the owner's runs is left without an owner.
Peers are asked also while they are still being met, for one of them may have the end of a run; but they are not in sight before.

An owner is a name and a data folder: a coordinator that comes back on an empty folder is not the owner of what it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.hashing import ranked
from wattle.core.model import RunHead

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

Owner = tuple[str, str]
"""A coordinator's name and the identity of its data folder."""

SEEN_ELSEWHERE = 0.25
"""Seconds until it is asked again whether an owner is gone that another peer still saw."""

LOOK_AGAIN = 1.0
"""Seconds until a peer in sight that did not say which copies it has is asked again."""

LOOK_EVERY = 60.0
"""Seconds in which each peer in sight is asked once more which copies it has: it may have got some from an owner that nobody else saw."""

ASK_AGAIN = 1
"""Times that all are asked anew for the states of an owner's runs where a peer in sight did not answer: a message may be lost."""

TURN = 3
"""Inquiries in which a run is left to the coordinator that it falls to; then it falls to the next, for the first may not know of it."""


@dataclass(slots=True)
class Inquiry:
    """What is being found out about the runs of an owner that is gone."""

    due: float  # when to ask
    token: int = 0  # of the question that is out; 0 while it is waiting to be asked
    asked: set[str] = field(default_factory=set)  # peers that have not answered yet
    answered: set[str] = field(default_factory=set)  # peers that have, this time
    silent: set[str] = field(default_factory=set)  # peers that will not, this time, though their tokens are there
    again: int = 0  # how often all were asked once more because of such
    told: list[tuple[str, RunHead]] = field(default_factory=list)
    seen: bool = False  # by somebody
    unsure: bool = False  # somebody in sight did not answer
    runs: tuple[str, ...] = ()  # once these are known: asked for in the second round
    known: frozenset[str] | None = None  # all runs of which anybody in sight had a copy, once everybody has said so
    gathering: set[str] = field(default_factory=set)
    rounds: int = 0  # inquiries that have found runs without an owner


class Succession:
    """See the module's docstring. ``coordinators``: the others in sight, with the identities of their data folders."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core
        self.coordinators: dict[str, str] = {}
        self._incarnations: dict[str, str] = {}
        self._unmet: dict[str, str] = {}  # peers whose tokens are there, being met -> their incarnations
        self._inquiries: dict[Owner, Inquiry] = {}
        self._tokens: dict[int, Owner | None] = {}  # None: a question about every owner
        self._token = 0
        self._decided: list[tuple[RunHead, list[tuple[str, RunHead]]]] = []  # best states, beside all told
        self._gathers: dict[str, list[RunHead]] = {}  # runs being fetched, and states of them brought meanwhile
        self._looks: dict[str, float] = {}  # peers that did not answer which copies they have: when to ask again
        self._look_due = 0.0  # when to ask the next of those in sight
        self._to_look: list[str] = []  # who has not been asked in this turn, the next one last

    # --- who is there -------------------------------------------------------------------------------------------------

    def appeared(self, event: on.TokenSeen) -> None:
        """A peer's token is there: it is being met."""
        self._unmet[event.peer] = event.incarnation

    def met(self, peer: str) -> None:
        """A peer is in sight, and may have copies of runs whose owners are not."""
        self._unmet.pop(peer, None)
        self.look(peer)

    def disappeared(self, peer: str, incarnation: str) -> None:
        """A token is gone: where that peer was not met yet, its answers will not come."""
        if self._unmet.get(peer) == incarnation:
            del self._unmet[peer]
            if peer not in self._names_in_sight():
                self._without(peer)

    def seen(self, event: on.CoordinatorSeen) -> None:
        """Another coordinator is in sight, and may have copies of a third one's runs."""
        before = self.coordinators.get(event.name, event.store)
        self.coordinators[event.name] = event.store
        self.suspect((event.name, before))  # it came back on another data folder before it was missed
        self._incarnations[event.name] = event.incarnation
        inquiry = self._inquiries.pop((event.name, event.store), None)
        if inquiry is not None:
            self._tokens.pop(inquiry.token, None)
        self.core.replication.came()
        self.met(event.name)

    def gone(self, event: on.CoordinatorGone) -> None:
        """A coordinator is out of sight."""
        self.disappeared(event.name, event.incarnation)
        if self._incarnations.get(event.name) != event.incarnation:
            return
        del self._incarnations[event.name]
        store = self.coordinators.pop(event.name)
        self.core.replication.went(event.name)
        self.suspect((event.name, store))
        self._without(event.name)

    def node_gone(self, name: str) -> None:
        """A runtime is out of sight: its answers will not come."""
        self._without(name)

    def _without(self, peer: str) -> None:
        for inquiry in self._inquiries.values():
            if peer not in self._unmet:
                inquiry.silent.discard(peer)
            elif peer in inquiry.asked:  # a former life of it
                inquiry.silent.add(peer)
            inquiry.asked.discard(peer)
        self._go_on()

    @property
    def quorum(self) -> bool:
        """Whether as many peers are in sight as ``quorum`` asks for, this one included."""
        return not self.core.options.quorum or self.peers_in_sight >= self.core.options.quorum

    @property
    def peers_in_sight(self) -> int:
        """Coordinators and runtimes in sight, this coordinator included."""
        return 1 + len(self.coordinators) + self.core.members.in_sight_count()

    def _names_in_sight(self) -> set[str]:
        """The same peers by name."""
        return {self.core.name, *self.coordinators, *self.core.members.names_in_sight()}

    def lives(self, owner: str, store: str) -> bool:
        """Whether an owner is in sight; this coordinator itself is. One of unknown data folder is none: it may have been lost."""
        return store == (self.core.store if owner == self.core.name else self.coordinators.get(owner)) != ""

    def _may_live(self, owner: str, store: str) -> bool:
        """Whether an owner is in sight, or its token is there and it is not known yet on which data folder it is."""
        return owner in self._unmet or self.lives(owner, store)

    def may_own(self, run: str | None) -> list[Owner]:
        """Owners out of sight that may have a run, or a definition (None), that is not known here."""
        inquiries = self._inquiries.items()
        return [owner for owner, i in inquiries if i.known is None or run is None or run in i.known]

    def fetching(self, run: str) -> bool:
        """Whether a copy of a run is on its way here, to be taken over."""
        return run in self._gathers

    # --- finding runs without an owner ----------------------------------------------------------------------------------

    def look(self, peer: str) -> None:
        """Ask a peer, once it is met, of which owners it has copies."""
        self._ask(peer, self._new_token(None))

    def suspect(self, owner: Owner) -> None:
        """Find out about the runs of an owner, unless it is in sight."""
        if owner in self._inquiries:
            self._inquiries[owner].unsure = True  # whoever said so may not have been asked
        elif not self.lives(*owner):
            self._inquiries[owner] = Inquiry(self.core.now + self.core.options.adopt_after)

    def inquired(self, event: on.OwnerInquired) -> None:
        """Another coordinator has found copies of an owner that is gone: find out about it here, too.

        This one may have done so before they came to be, and own a run of which one of them tells a cancel.
        """
        owner = (event.owner, event.store)
        if owner not in self._inquiries:
            self.suspect(owner)

    def told(self, event: on.CopiesTold) -> None:
        """A peer has said which copies it has."""
        owner = self._tokens.get(event.token)
        if owner is None:
            self._tokens.pop(event.token, None)
            for head in event.heads:
                self.suspect((head.owner, head.store))
            return
        inquiry = self._inquiries.get(owner)
        if inquiry is None or inquiry.token != event.token or event.peer not in inquiry.asked:
            return
        inquiry.asked.discard(event.peer)
        inquiry.answered.add(event.peer)
        inquiry.told += [(event.peer, head) for head in event.heads]
        if self.core.options.quorum:
            for head in event.heads:
                self.core.ownership.give_way(head)
        known = owner[0] == self.core.name or owner[0] in self.coordinators  # and came back on another data folder
        inquiry.seen = inquiry.seen or (owner[0] in event.sees and not known)
        self._go_on()

    def untold(self, event: on.CopiesUntold) -> None:
        """A peer did not answer: what it has will be found when it is met, perhaps again."""
        if event.token not in self._tokens:
            return
        owner = self._tokens[event.token]
        if owner is None:
            del self._tokens[event.token]
            self._looks[event.peer] = self.core.now + LOOK_AGAIN
            return
        inquiry = self._inquiries.get(owner)
        if inquiry is not None and inquiry.token == event.token:
            if event.peer in inquiry.asked:
                inquiry.asked.remove(event.peer)
                inquiry.silent.add(event.peer)
            # One that is being met, which may never end, is looked at once it is met.
            inquiry.unsure = inquiry.unsure or event.peer in self._names_in_sight()
            self._go_on()

    def brought(self, heads: list[RunHead]) -> None:
        """A page has brought states of runs, perhaps while these are being taken over on what was told before: they count as if told."""
        for head in heads:
            if head.run in self._gathers:
                self._gathers[head.run].append(head)
        for inquiry in self._inquiries.values():
            if inquiry.token:  # else all is asked anew
                runs = set(inquiry.runs)
                inquiry.told += [(self.core.name, head) for head in heads if head.run in runs]

    def let_go(self, run: str) -> None:
        """This coordinator has let go of a run: what was told of its own state of it is out of date."""
        me = (self.core.name, self.core.store)
        for inquiry in self._inquiries.values():
            inquiry.told = [(p, head) for p, head in inquiry.told if head.run != run or (head.owner, head.store) != me]

    def check_clocks(self) -> None:
        """Ask about owners that have been gone long enough, and peers that did not say which copies they have. Ends a batch."""
        self._order_drops()
        for peer in [peer for peer, due in self._looks.items() if self.core.now >= due]:
            del self._looks[peer]
            if peer in self.coordinators or self.core.members.in_sight(peer):
                self.look(peer)
        self._look_around()
        for owner, inquiry in list(self._inquiries.items()):
            if inquiry.token or inquiry.gathering or self.core.now < inquiry.due:
                continue
            if self.lives(*owner):
                del self._inquiries[owner]
            elif self.quorum:
                inquiry.told, inquiry.seen, inquiry.unsure, inquiry.runs, inquiry.again = [], False, False, (), 0
                self._ask_all(owner, inquiry)
            else:
                inquiry.due = self.core.now + self.core.options.adopt_after

    def _look_around(self) -> None:
        """Look at the peers in sight in turn, one at a time, each about once in LOOK_EVERY seconds."""
        if self.core.now < self._look_due:
            return
        if self._look_due:
            self._to_look = self._to_look or sorted(self._names_in_sight() - {self.core.name})
            peer = self._to_look.pop() if self._to_look else ""
            if peer in self.coordinators or self.core.members.in_sight(peer):
                self.look(peer)
        self._look_due = self.core.now + LOOK_EVERY / self.peers_in_sight

    def moments(self) -> Iterator[float]:
        """When ``check_clocks`` has something to do."""
        yield self._look_due
        yield from self._looks.values()
        yield from (i.due for i in self._inquiries.values() if not i.token and not i.gathering)

    def _ask_all(self, owner: Owner, inquiry: Inquiry) -> None:
        self._tokens.pop(inquiry.token, None)
        inquiry.token = self._new_token(owner)
        inquiry.answered.clear()
        inquiry.silent.clear()
        inquiry.asked = self._names_in_sight() | self._unmet.keys()
        for peer in sorted(inquiry.asked):
            self._ask(peer, inquiry.token, *owner, inquiry.runs)

    def _new_token(self, owner: Owner | None) -> int:
        self._token += 1
        self._tokens[self._token] = owner
        return self._token

    def _ask(self, peer: str, token: int, owner: str = "", store: str = "", runs: tuple[str, ...] = ()) -> None:
        self.core.acts.append(do.AskCopies(peer, token, owner, store, runs))

    def _go_on(self) -> None:
        """Take the next step of every inquiry that has its answers."""
        for owner, inquiry in list(self._inquiries.items()):
            if not inquiry.token or inquiry.asked:
                continue
            runs = tuple(sorted({head.run for _, head in inquiry.told}))
            if self.lives(*owner) or not (inquiry.seen or inquiry.unsure or runs):
                self._tokens.pop(inquiry.token, None)
                del self._inquiries[owner]
            elif inquiry.seen:
                self._ask_later(inquiry, min(SEEN_ELSEWHERE, self.core.options.adopt_after))
            elif not runs:
                self._ask_later(inquiry, self.core.options.adopt_after)
            elif inquiry.runs and inquiry.silent and inquiry.again < ASK_AGAIN:
                inquiry.again += 1
                inquiry.told = []
                self._ask_all(owner, inquiry)
            elif inquiry.runs and len(inquiry.answered) < self.core.options.quorum:
                self._ask_later(inquiry, self.core.options.adopt_after)  # what was acknowledged may be with the others
            elif inquiry.runs:
                self._decide(inquiry)
                inquiry.rounds += 1
                self._ask_later(inquiry, self.core.options.adopt_after)  # whether each run has an owner then
            else:
                if not inquiry.unsure:
                    inquiry.known = frozenset(runs)
                inquiry.told, inquiry.runs = [], runs
                self._ask_all(owner, inquiry)

    def _ask_later(self, inquiry: Inquiry, seconds: float) -> None:
        self._tokens.pop(inquiry.token, None)
        inquiry.token, inquiry.due = 0, self.core.now + seconds

    def _decide(self, inquiry: Inquiry) -> None:
        """All states of an owner's runs are known: take those that fall to this coordinator."""
        by_run: dict[str, list[tuple[str, RunHead]]] = {}
        for peer, head in inquiry.told:
            by_run.setdefault(head.run, []).append((peer, head))
        for run, told in by_run.items():
            best = max((head for _, head in told), key=lambda head: (head.rank, self.lives(head.owner, head.store)))
            unheeded = not all(best.heeds(head) for _, head in told)
            if best.pruned_at or self.lives(best.owner, best.store):
                if unheeded and best.owner == self.core.name:
                    self.core.cancel(run)
                self._decided.append((best, told))
            elif self._may_live(best.owner, best.store):
                continue  # it is met first
            elif not (best.final and best.number) and not any(map(self.core.members.in_sight, inquiry.answered)):
                # No node has answered, missed or not yet; whoever reaches the nodes goes on with it. So it is where all that is
                # left here of an end is what stands in for it: that goes on, and others may have the end itself.
                continue
            elif any(run in other.gathering for other in self._inquiries.values()):
                continue  # it is being taken over on what was told of another of its owners; this may be out of date then
            elif self._falls_here(run, inquiry.rounds):
                peers = [peer for peer, head in told if head == best]
                peer = self.core.name if self.core.name in peers else min(peers)
                inquiry.gathering.add(run)
                self._gathers[run] = []
                best = replace(best, cancelled=best.cancelled or unheeded)
                self.core.acts.append(do.Gather(peer, best, 1 + max(head.epoch for _, head in told)))

    def _falls_here(self, run: str, rounds: int) -> bool:
        order = ranked({self.core.name, *self.coordinators}, run)
        return order[rounds // TURN % len(order)] == self.core.name

    def _order_drops(self) -> None:
        """Have worse copies dropped where the best state is safe, by what is in sight once the whole batch is known.

        It may show an owner to be back that has gone on from such a copy, or peers without which nothing would be acknowledged now.
        """
        peers = self._names_in_sight() if self._decided else set()
        for best, told in self._decided:
            safe = self.lives(best.owner, best.store) and _told_by_owner(told, best) and self._spread(told, best, peers)
            if best.pruned_at or safe:
                self._drop_worse(told, best)
        self._decided.clear()

    def _spread(self, told: Iterable[tuple[str, RunHead]], best: RunHead, peers: set[str]) -> bool:
        """Whether a state is on as many stores beside its owner's as an acknowledgement takes, so that worse ones may go.

        An owner knows which peers may keep copies of its runs; of another's, all may but one: the runtime on that owner's own data folder,
        which only a runtime without the state can be.
        """
        options, others = self.core.options, peers - {best.owner}
        same = others & {peer for peer, head in told if head.store == best.store and head.standing == best.standing}
        if best.owner == self.core.name:
            most = len(others - options.companions)
        else:
            most = len(others) - any(map(self.core.members.in_sight, others - same))
        return len(same) >= max(min(options.replicas, most), options.quorum - 1)

    def _drop_worse(self, told: Iterable[tuple[str, RunHead]], best: RunHead) -> None:
        for peer, head in told:
            worse = (head.owner, head.store) != (best.owner, best.store) and head.rank <= best.rank
            if worse and best.heeds(head) and not self.lives(head.owner, head.store):
                self.core.acts.append(do.Forget(peer, head))

    # --- taking over --------------------------------------------------------------------------------------------------

    def gathered(self, event: on.Gathered) -> None:
        """The copy of a run that falls to this coordinator is here."""
        brought = self._gathered(event.head.run)
        if any(head.standing > event.head.standing for head in brought):
            return  # it has come here itself since: an end, perhaps
        if not all(event.head.heeds(head) for head in brought):  # a cancel, which the copy lacks
            event = replace(event, head=replace(event.head, cancelled=True))
        if self.quorum and not self._may_live(event.head.owner, event.head.store):
            self.core.recall.adopt(event)

    def not_gathered(self, event: on.NotGathered) -> None:
        """The copy could not be had: the next inquiry tries again."""
        self._gathered(event.head.run)

    def _gathered(self, run: str) -> list[RunHead]:
        for inquiry in self._inquiries.values():
            inquiry.gathering.discard(run)
        return self._gathers.pop(run, [])


def _told_by_owner(told: Iterable[tuple[str, RunHead]], best: RunHead) -> bool:
    """Whether a state's owner itself says to have it: others may still keep a copy of one that it has let go of."""
    return any(
        peer == best.owner and head.store == best.store and head.standing == best.standing for peer, head in told
    )
