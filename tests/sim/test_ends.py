"""Which ends of a run the simulator lets two owners tell where nothing was cut: those of which neither could know of the other's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.outcomes import Outcome
from tests.sim.checks import Checks
from tests.sim.coordinator import Coordinator
from tests.sim.peer import Keeper
from tests.sim.runtime import Runtime
from tests.sim.world import START, World
from wattle.core import effects as do
from wattle.core.coordinator import CoordinatorOptions
from wattle.core.invariants import InvariantBroken
from wattle.core.model import CopiedRun, RunRecord, RunStatus, Snapshot, Workflow
from wattle.core.run import head_of
from wattle.core.runtime import RuntimeOptions

LATER = RunRecord("r", "w", RunStatus.SUCCEEDED, "c1", 2, START, completed_at=START + 6, adopted=2)
FORMER = replace(LATER, status=RunStatus.CANCELLED, owner="c2", epoch=1, completed_at=START + 7, adopted=0)


class Network:
    """Two coordinators and two nodes, of which c2 and n2 are down at first; nothing is ever cut."""

    def __init__(self, replicas: int = 2) -> None:
        world = self.world = World(1)
        self.checks = world.checks = Checks(world)
        options = CoordinatorOptions(replicas=replicas)
        self.c1, self.c2 = (Coordinator(world, name, options) for name in ("c1", "c2"))
        self.n1, self.n2 = (Runtime(world, name, RuntimeOptions(1, {}), lambda _: Outcome()) for name in ("n1", "n2"))
        self.up(self.c1, self.n1)

    def up(self, *peers: Keeper) -> None:
        for peer in peers:
            peer.start()
        self.world.run(self.world.now + 1.0, 10_000)

    def down(self, *peers: Keeper) -> None:
        for peer in peers:
            peer.crash()
        self.world.run(self.world.now + 1.0, 10_000)

    def tell(self, owner: Coordinator, end: RunRecord, *copied: Keeper) -> None:
        """An owner has stored an end, others have a copy of it, and it is told."""
        store = owner.store
        store.number += 1
        store.runs["r"], store.touched["r"] = {"run": end}, store.number
        head = head_of(end, store.id, store.number)
        for peer in copied:
            peer.copies().put(owner.name, store.id, CopiedRun("r", store.number, (("run", end),), head))  # type: ignore[arg-type]
        self.checks.told(owner, end)

    def take_over(self, owner: Coordinator, run: RunRecord) -> None:
        """A coordinator has stored that a run is its own now."""
        self.checks.committed(owner, [do.AdoptRun(Snapshot(run, Workflow("w", {}), {}, ()))], {})

    def in_the_end(self, record: RunRecord) -> None:
        self.checks._check_run("r", record, {})


def test_a_former_owner_may_tell_another_end_while_all_that_know_the_later_owners_are_away_and_that_one_stands() -> (
    None
):
    network = Network()
    network.tell(network.c1, LATER, network.n1)
    network.down(network.c1, network.n1)
    network.up(network.c2)
    network.tell(network.c2, FORMER)
    network.in_the_end(LATER)
    with pytest.raises(InvariantBroken):
        network.in_the_end(FORMER)


def test_a_later_owner_that_comes_back_when_the_former_is_away_may_too_and_its_end_stands() -> None:
    network = Network()
    network.down(network.c1, network.n1)
    network.up(network.c2)
    network.tell(network.c2, FORMER)
    network.down(network.c2)
    network.up(network.c1, network.n1)
    network.tell(network.c1, LATER, network.n1)
    network.in_the_end(LATER)
    with pytest.raises(InvariantBroken):
        network.in_the_end(FORMER)


def test_who_took_the_run_over_while_all_that_know_were_away_may_though_one_is_back_when_it_ends() -> None:
    network = Network(replicas=1)
    network.up(network.c2)
    network.tell(network.c2, FORMER, network.n1)
    network.down(network.c2, network.n1)
    running = replace(LATER, status=RunStatus.RUNNING, completed_at=None)
    network.take_over(network.c1, running)
    network.up(network.n1)
    network.tell(network.c1, LATER)
    network.in_the_end(LATER)
    with pytest.raises(InvariantBroken):
        network.in_the_end(FORMER)


def test_it_may_not_where_one_that_knew_was_in_sight_then() -> None:
    network = Network(replicas=1)
    network.up(network.c2)
    network.tell(network.c2, FORMER, network.n1)
    network.down(network.c2)
    network.take_over(network.c1, replace(LATER, status=RunStatus.RUNNING, completed_at=None))
    with pytest.raises(InvariantBroken):
        network.tell(network.c1, LATER)


def test_it_may_not_with_a_peer_in_sight_that_knows() -> None:
    network = Network()
    network.tell(network.c1, LATER, network.n1)
    network.down(network.c1)
    network.up(network.c2)
    with pytest.raises(InvariantBroken):
        network.tell(network.c2, FORMER)


def test_it_may_not_where_a_peer_in_sight_has_learned_of_the_end_since() -> None:
    network = Network()
    network.tell(network.c1, LATER, network.n1)
    network.n2.copies().kept |= network.n1.copies().kept
    network.down(network.c1, network.n1)
    network.up(network.c2, network.n2)
    with pytest.raises(InvariantBroken):
        network.tell(network.c2, FORMER)


def test_it_may_not_where_the_end_was_told_before_it_had_its_copies() -> None:
    network = Network()
    network.tell(network.c1, LATER)
    network.down(network.c1, network.n1)
    network.up(network.c2)
    with pytest.raises(InvariantBroken):
        network.tell(network.c2, FORMER)


def test_it_may_not_where_one_that_knew_is_back_and_has_dropped_the_end() -> None:
    network = Network()
    network.tell(network.c1, LATER, network.n1)
    network.down(network.c1)
    network.n1.copies().kept.clear()
    network.up(network.c2)
    with pytest.raises(InvariantBroken):
        network.tell(network.c2, FORMER)


def test_with_a_quorum_it_may_never() -> None:
    network = Network()
    network.checks.quorum = 3
    network.tell(network.c1, LATER, network.n1)
    network.down(network.c1, network.n1)
    network.up(network.c2)
    with pytest.raises(InvariantBroken):
        network.tell(network.c2, FORMER)


@pytest.mark.parametrize(("quorum", "wiped"), [(2, ()), (3, ("n1", "n2"))])
def test_a_quorum_binds_no_longer_once_more_disks_are_lost_than_it_is_for(quorum: int, wiped: tuple[str, ...]) -> None:
    network = Network()
    network.checks.quorum, network.checks.calm = quorum, False
    network.up(network.c2, network.n2)
    network.tell(network.c1, LATER, network.n1, network.n2)
    for name in wiped:
        peer: Keeper = network.world.peers[name]  # type: ignore[assignment]
        with pytest.raises(InvariantBroken):
            network.tell(network.c2, FORMER)
        network.down(peer)
        peer.new_disk()  # type: ignore[attr-defined]
        peer.new_since = network.world.now
    network.tell(network.c2, FORMER)


def test_a_quorum_binds_no_longer_also_where_an_owner_set_up_anew_is_given_the_run_again_in_the_same_epoch() -> None:
    network = Network()
    network.checks.quorum, network.checks.calm = 3, False
    network.up(network.c2, network.n2)
    network.tell(network.c2, FORMER, network.c1, network.n1)
    network.down(network.c1, network.c2)
    again = replace(FORMER, status=RunStatus.SUCCEEDED, completed_at=START + 9)
    for peer in (network.c2, network.c1):
        with pytest.raises(InvariantBroken):
            network.tell(network.c2, again)
        peer.new_disk()
        peer.new_since = network.world.now
    network.tell(network.c2, again, network.c1, network.n2)
