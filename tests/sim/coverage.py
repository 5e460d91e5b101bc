"""Which cells of the three transition tables the cores have looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from wattle.core import attempts, coordinator, runtime
from wattle.core.states import NEVER, PHASE_TABLE, TASK_TABLE, WORKER_TABLE, next_state

Cell = tuple[str, str, str]
"""A table's name, a state and an event."""

TABLES: dict[str, Any] = {"worker": WORKER_TABLE, "task": TASK_TABLE, "phase": PHASE_TABLE}

RARE = frozenset(
    {
        ("task", "accepted", "superseded"),
        ("task", "assigned", "superseded"),
        ("task", "lost", "cancelled"),
        ("worker", "created", "failed"),
        ("worker", "created", "succeeded"),
        ("worker", "running", "input_lost"),
        ("worker", "running", "skipped"),
    }
)
"""Moves that take several faults at the right moments. One seed in 40,000 takes (created, failed): an adopter whose copy lags behind hears
of an attempt that failed before it hears, from another node, that what its worker needed has succeeded."""

SEEDS_FOR_ALL, SEEDS_FOR_RARE = 2_000, 100_000
"""Seeds of a campaign that misses no move but rare ones, and none at all, unless something has changed."""


@contextmanager
def noting(seen: set[Cell]) -> Iterator[None]:
    """Add the cells that are looked up meanwhile to ``seen``."""
    names = {id(table): name for name, table in TABLES.items()}

    def look_up(table: Any, state: Any, event: Any, story: Callable[[], Sequence[str]]) -> Any:
        seen.add((names[id(table)], state.value, event.value))
        return next_state(table, state, event, story)

    modules: tuple[Any, ...] = (attempts, coordinator, runtime)
    for module in modules:
        module.next_state = look_up
    try:
        yield
    finally:
        for module in modules:
            module.next_state = next_state


def missed(seen: set[Cell], seeds: int) -> list[Cell]:
    """The moves that a campaign of so many seeds should have taken and has not."""
    expected = moves() if seeds >= SEEDS_FOR_RARE else moves() - RARE if seeds >= SEEDS_FOR_ALL else frozenset()
    return sorted(expected - seen)


def moves() -> frozenset[Cell]:
    """The cells that change a state: the rows of the tables, one for each state and what can happen in it."""
    return frozenset(
        (name, state.value, event.value)
        for name, table in TABLES.items()
        for state, row in table.items()
        for event, cell in row.items()
        if cell is not NEVER and cell is not None
    )
