"""How runs were told to have ended, and which of two ends of one run must stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wattle.core.model import RunRecord

if TYPE_CHECKING:
    from tests.sim.checks import Checks
    from tests.sim.coordinator import Coordinator

Key = tuple[str, int]
"""A run, and how often it had been retried."""


@dataclass
class Told:
    """An end that was told: of which store, on how many others it had to be, and which peers had it then."""

    end: RunRecord
    store: str
    need: int
    knew: frozenset[str]
    at: float


class Ends:
    """``told`` are the ends told first; of two that may both be told, the one that stands.

    ``apart`` are those with two owners of which one knew nothing of the other's end, as everybody that did was away.
    """

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.told: dict[Key, Told] = {}
        self.apart: set[Key] = set()

    def first(self, peer: Coordinator, run: RunRecord) -> RunRecord:
        """The end of a run that was told first, which may be this one."""
        key = (run.id, run.retried)
        if key not in self.told:
            self._note(key, peer, run)
        return self.told[key].end

    def of(self, run: str, retried: int) -> RunRecord | None:
        """The end that must stand."""
        told = self.told.get((run, retried))
        return None if told is None else told.end

    def retries_of(self, run: str) -> int:
        """The last retry of a run of which an end was told."""
        return max((retried for other, retried in self.told if other == run), default=0)

    def bound(self, run: RunRecord) -> bool:
        """Whether a quorum keeps the end of this retry of a run that was told first from being followed by another.

        It does while it is of more than half of all peers and of the disks together that were lost since (docs/replication.md, "Quorum").
        """
        peers, quorum, first = self.checks.keepers(), self.checks.quorum, self.told[run.id, run.retried]
        lost = {peer.name for peer in peers if peer.new_since > first.at} - self._who_knows(first.end, first.store)
        bound = 2 * quorum > len(peers) + len(lost)
        if quorum and not bound:
            self.checks.world.faults["two ends, on more lost disks than the quorum is for"] += 1
        return bound

    def may_differ(self, peer: Coordinator, run: RunRecord) -> bool:
        """Whether a coordinator may tell another end than the first: all that know of that are down, and more than it needed copies.

        To a former owner that comes back meanwhile this is a cut, and without a quorum it goes on (docs/guarantees.md). So it is to whoever
        took the run over while they were down, whatever comes back until it has ended. The later owner's end must stand.
        """
        key = (run.id, run.retried)
        self.part(peer, run)
        self.checks.world.faults["two ends, and who knew of the first was down"] += (
            self.checks.calm and key in self.apart
        )
        if key in self.apart and (run.epoch, run.owner) > (self.told[key].end.epoch, self.told[key].end.owner):
            self._note(key, peer, run)
        return key in self.apart

    def part(self, peer: Coordinator, run: RunRecord) -> None:
        """Note that a coordinator goes on with a run while all that know its end are down, or up and not in its sight yet."""
        key = (run.id, run.retried)
        if key in self.told and key not in self.apart and self._all_away(peer, self.told[key]):
            self.apart.add(key)

    def _note(self, key: Key, peer: Coordinator, run: RunRecord) -> None:
        core = peer.core
        assert core is not None
        need = min(core.options.replicas, len(core.replication.followers))
        store = peer.store.id
        self.told[key] = Told(run, store, need, self._who_knows(run, store), self.checks.world.now)

    def _who_knows(self, end: RunRecord, store: str) -> frozenset[str]:
        """The peers, up or down, whose stores have an end. Its owner may be given the run again on an empty disk, in the same epoch."""
        state = (end.retried, end.epoch, end.owner, store)
        return frozenset(
            peer.name
            for peer in self.checks.keepers()
            for head in self.checks.heads(peer, end.id)
            if head.final and (head.retried, head.epoch, head.owner, head.store) == state
        )

    def _all_away(self, peer: Coordinator, first: Told) -> bool:
        peers = self.checks.keepers()
        replaced = {other.name for other in peers if other.new_since > first.at}
        away = {other.name for other in peers if other is not peer and peer.tokens.get(other.name) != other.life}
        return (
            len(first.knew) > first.need
            and first.knew <= away | replaced
            and self._who_knows(first.end, first.store) <= away
        )
