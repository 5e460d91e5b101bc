"""Which attempts the simulator lets a run's history lack: those that nobody asked about, as the run had ended when it was taken over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.coordinator import Coordinator
from tests.sim.unheard import Unheard
from tests.sim.world import START, World
from wattle.core.coordinator import CoordinatorOptions
from wattle.core.model import RunRecord, RunStatus, TaskId
from wattle.core.numbering import first_attempt

END = RunRecord("r", "w", RunStatus.CANCELLED, "c2", 3, START, completed_at=START + 4, adopted=3)
FIRST, ADOPTERS = TaskId("r", "a", 1), TaskId("r", "a", first_attempt(2, "c1-store"))


@pytest.fixture
def owner() -> Coordinator:
    return Coordinator(World(1), "c2", CoordinatorOptions())


@pytest.mark.parametrize("task", [FIRST, ADOPTERS])
def test_an_attempt_may_be_missing_where_the_run_had_ended_when_it_was_taken_over(
    owner: Coordinator, task: TaskId
) -> None:
    unheard = Unheard()
    unheard.taken_over(owner, END)
    assert unheard.excuse(owner, END, task)


def test_after_a_retry_the_first_owners_may_not(owner: Coordinator) -> None:
    unheard = Unheard()
    unheard.taken_over(owner, END)
    retried = replace(END, retried=1)
    assert unheard.excuse(owner, retried, ADOPTERS)
    assert not unheard.excuse(owner, retried, FIRST)


@pytest.mark.parametrize("taken", [replace(END, status=RunStatus.RUNNING), replace(END, epoch=2, adopted=2)])
def test_none_may_where_the_run_went_on_or_was_taken_over_again(owner: Coordinator, taken: RunRecord) -> None:
    unheard = Unheard()
    unheard.taken_over(owner, taken)
    assert not unheard.excuse(owner, END, ADOPTERS)
