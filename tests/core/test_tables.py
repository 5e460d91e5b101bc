"""The transition tables: every pair is in its grid, and every cell that can be reached is reached by some storm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import pytest

from tests.core.storms import Storm
from wattle.core import attempts, coordinator, runtime
from wattle.core.model import TaskStatus, WorkerStatus
from wattle.core.states import (
    NEVER,
    PHASE_TABLE,
    TASK_TABLE,
    WORKER_TABLE,
    IllegalTransition,
    Phase,
    PhaseEvent,
    TaskEvent,
    WorkerEvent,
    next_state,
)

Grid = Mapping[Any, Mapping[Any, object]]

GRIDS: dict[str, tuple[Grid, type[StrEnum], type[StrEnum]]] = {
    "worker": (WORKER_TABLE, WorkerStatus, WorkerEvent),
    "task": (TASK_TABLE, TaskStatus, TaskEvent),
    "phase": (PHASE_TABLE, Phase, PhaseEvent),
}

TASK, WORKER, PHASE = "task", "worker", "phase"
Cell = tuple[str, str, str]
"""A table's name, a state and an event; members of different enums with the same text are equal, so the name is needed."""


def cells_of(name: str, states: Iterable[StrEnum], events: Iterable[StrEnum]) -> set[Cell]:
    return {(name, state.value, event.value) for state in states for event in events}


ENDED_TASK = [state for state in TaskStatus if state.final and state is not TaskStatus.LOST]
ENDED_WORKER = [state for state in WorkerStatus if state.final]

SECOND_LINE = {
    # an attempt that has ended is not looked up any more
    *cells_of(TASK, ENDED_TASK, TaskEvent),
    # only a lost attempt is ever said to be found
    *cells_of(TASK, [s for s in TaskStatus if s is not TaskStatus.LOST], [TaskEvent.FOUND]),
    # a worker that has ended is asked only when an attempt of it goes on
    *cells_of(WORKER, ENDED_WORKER, [e for e in WorkerEvent if e is not WorkerEvent.REOPENED]),
    (WORKER, "succeeded", "reopened"),
    # a task leaves the runtime's memory as it ends
    *cells_of(PHASE, [Phase.DONE], PhaseEvent),
} - {(WORKER, "succeeded", "files_lost")}
"""Cells that no event gets to, because something before the table already knows better."""

DIRECTED = {
    # told by an exit without a start, or by either told twice: test_runtime_core.py
    (PHASE, "starting", "collect"),
    (PHASE, "collecting", "started"),
    (PHASE, "collecting", "collect"),
    (TASK, "assigned", "succeeded"),
    (TASK, "accepted", "succeeded"),
    # the order of three messages decides: test_runs.py, and rare in storms
    (TASK, "accepted", "cancelled"),
    (TASK, "accepted", "superseded"),
    # attempts that come back while their worker waits for files: test_files.py; or of which an adopter hears before it hears of what their
    # worker needed: test_replication.py
    (WORKER, "created", "again"),
    (WORKER, "created", "failed"),
    (WORKER, "created", "started"),
    (WORKER, "created", "succeeded"),
    # a storm in a thousand: WATTLE_STORMS=5000
    (TASK, "lost", "accepted"),
    (TASK, "lost", "cancelled"),
    (WORKER, "running", "input_lost"),
    (WORKER, "running", "skipped"),
}
"""Cells that the storms below need not reach."""


@pytest.mark.parametrize(("table", "states", "events"), GRIDS.values(), ids=GRIDS)
def test_every_pair_is_in_its_grid(table: Grid, states: type[StrEnum], events: type[StrEnum]) -> None:
    assert sorted(table) == sorted(states)
    for row in table.values():
        assert sorted(row) == sorted(events)
        assert all(cell is None or cell is NEVER or cell in list(states) for cell in row.values())


def test_a_late_event_is_none_and_an_impossible_one_raises() -> None:
    assert next_state(TASK_TABLE, TaskStatus.SUCCEEDED, TaskEvent.FAILED, tuple) is None
    with pytest.raises(IllegalTransition, match="task x: event 'started' in state 'queued'\n  so far\n  so good"):
        next_state(PHASE_TABLE, Phase.QUEUED, PhaseEvent.STARTED, lambda: ("task x", "so far", "so good"))


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> set[Cell]:
    """The cells that the cores ask for while the test runs."""
    seen: set[Cell] = set()
    names = {id(table): name for name, (table, _, _) in GRIDS.items()}

    def noting(table: Any, state: Any, event: Any, story: Callable[[], Sequence[str]]) -> object:
        seen.add((names[id(table)], state.value, event.value))
        return next_state(table, state, event, story)

    for module in (attempts, coordinator, runtime):
        monkeypatch.setattr(module, "next_state", noting)
    return seen


def test_storms_reach_every_cell_that_can_be_reached(reached: set[Cell]) -> None:
    for seed in range(150):
        storm = Storm(seed)
        storm.shake(200)
        storm.heal()
        storm.cluster.finish()
    possible = {
        (name, state.value, event.value)
        for name, (table, _, _) in GRIDS.items()
        for state, row in table.items()
        for event, cell in row.items()
        if cell is not NEVER
    }
    assert possible - SECOND_LINE - DIRECTED <= reached, sorted(possible - SECOND_LINE - DIRECTED - reached)
