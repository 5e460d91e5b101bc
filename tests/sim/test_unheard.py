"""Which attempts the simulator lets a run's history lack: those of an adopter that let go of the run for an end that came before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.outcomes import Outcome
from tests.sim.checks import Checks
from tests.sim.coordinator import Coordinator
from tests.sim.runtime import Runtime
from tests.sim.world import START, World
from wattle.core import effects as do
from wattle.core.coordinator import CoordinatorOptions
from wattle.core.invariants import InvariantBroken
from wattle.core.model import Fact, FactKind, RunRecord, RunStatus, TaskId, TaskRecord, TaskStatus, Workflow
from wattle.core.numbering import first_attempt
from wattle.core.run import head_of
from wattle.core.runtime import RuntimeOptions

END = RunRecord("r", "w", RunStatus.CANCELLED, "c2", 1, START, completed_at=START + 4, cancel_requested=True)
GOING_ON = replace(END, status=RunStatus.RUNNING, completed_at=None, cancel_requested=False)


class Network:
    """c1 took run r over from c2's copy in epoch 2 and gave n1 an attempt, which has ended there; c2 has the run's end."""

    def __init__(self) -> None:
        world = World(1)
        self.checks = world.checks = Checks(world)
        self.c1, self.c2 = (Coordinator(world, name, CoordinatorOptions()) for name in ("c1", "c2"))
        self.n1 = Runtime(world, "n1", RuntimeOptions(1, {}), lambda _: Outcome())
        for peer in (self.c1, self.c2, self.n1):
            peer.start()
        self.checks.workflows["r"] = Workflow("w", {})
        self.gives_out(first_attempt(2, self.c1.store.id))

    def gives_out(self, attempt: int) -> None:
        task = TaskId("r", "a", attempt)
        self.checks.committed(self.c1, [do.SaveTask(TaskRecord(*task, "n1", TaskStatus.ASSIGNED, START + 3))], {})
        started = Fact(FactKind.STARTED, *task, at=START + 3)
        ended = Fact(FactKind.FINISHED, *task, at=START + 9, status=TaskStatus.SUCCEEDED)
        self.n1.store.feed[:] = [(started,), (ended,)]

    def let_go_for(self, state: RunRecord) -> None:
        self.checks.committed(self.c1, [do.ReleaseRun(head_of(state, self.c2.store.id, 9))], {})

    def has_read(self, entries: int) -> None:
        self.c2.store.cursors["n1"] = (self.n1.store.id, entries)

    def in_the_end(self, state: RunRecord = END) -> None:
        self.checks._check_attempts("r", {"run": state}, self.c2)


@pytest.fixture
def network() -> Network:
    return Network()


def test_what_was_given_out_in_ignorance_of_a_runs_end_may_be_missing_in_its_history(network: Network) -> None:
    network.let_go_for(END)
    network.in_the_end()
    network.has_read(1)
    network.in_the_end()
    network.in_the_end(replace(END, epoch=2, retried=1))


def test_it_may_not_once_the_owner_has_read_of_its_end(network: Network) -> None:
    network.let_go_for(END)
    network.has_read(2)
    with pytest.raises(InvariantBroken, match="not in the history"):
        network.in_the_end()


def test_it_may_not_where_nobody_has_let_go(network: Network) -> None:
    with pytest.raises(InvariantBroken, match="not in the history"):
        network.in_the_end()


@pytest.mark.parametrize("state", [replace(END, epoch=3), replace(END, epoch=2), replace(GOING_ON, epoch=3)])
def test_it_may_not_where_the_run_was_let_go_for_a_later_owners_state(network: Network, state: RunRecord) -> None:
    network.let_go_for(state)
    with pytest.raises(InvariantBroken, match="not in the history"):
        network.in_the_end(replace(state, status=RunStatus.CANCELLED))


def test_the_first_owners_attempts_may_not(network: Network) -> None:
    network.gives_out(1)
    network.let_go_for(END)
    with pytest.raises(InvariantBroken, match="not in the history"):
        network.in_the_end()
