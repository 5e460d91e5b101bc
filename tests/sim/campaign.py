"""Many seeds, their figures, and what to look at when one fails."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from tests.sim import plan as plans
from tests.sim.coverage import Cell, missed, moves, noting
from tests.sim.plan import Fault
from tests.sim.simulate import Result, simulate

CHUNK = 25
"""Seeds that one process is given at a time."""


@dataclass
class Figures:
    """What a campaign saw."""

    seeds: int = 0
    events: int = 0
    messages: int = 0
    simulated: float = 0.0
    seconds: float = 0.0
    runs: int = 0
    excused: int = 0
    split: int = 0
    doubled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    cells: set[Cell] = field(default_factory=set)
    failed: list[Result] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Add what another part of the campaign saw."""
        for name in ("seeds", "events", "messages", "simulated", "runs", "excused", "split", "doubled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.cells |= other.cells
        self.failed += other.failed

    def table(self) -> str:
        """All of it, to be read by people."""
        rows: list[tuple[str, int | float | str]] = [
            ("seeds", self.seeds),
            ("failed", len(self.failed)),
            ("events", self.events),
            ("messages", self.messages),
            ("simulated seconds", round(self.simulated)),
            ("real seconds", round(self.seconds, 1)),
            ("runs", self.runs),
            ("excused: on more lost disks than there were copies", self.excused),
            ("submitted twice by accident", self.doubled),
            ("split decisions, without a quorum", self.split),
            *sorted((f"fault: {kind}", count) for kind, count in self.faults.items()),
        ]
        for name in ("worker", "task", "phase"):
            moving = {cell for cell in moves() if cell[0] == name}
            rows.append((f"table of {name}: moves taken", f"{len(moving & self.cells)} of {len(moving)}"))
            late = {cell for cell in self.cells - moving if cell[0] == name}
            rows.append((f"table of {name}: kinds of late events met", len(late)))
        width = max(len(name) for name, _ in rows)
        lines = [
            f"{name:<{width}}  {value:>14,}" if isinstance(value, int) else f"{name:<{width}}  {value:>14}"
            for name, value in rows
        ]
        for title, cells in (
            ("moves never taken", sorted(moves() - self.cells)),
            ("of which so many seeds should have taken", missed(self.cells, self.seeds)),
        ):
            if cells:
                lines.append(f"{title}: " + ", ".join("/".join(cell) for cell in cells))
        return "\n".join(lines)


def part(seeds: Iterable[int]) -> Figures:
    """Some seeds, one after another."""
    figures = Figures()
    with noting(figures.cells):
        for seed in seeds:
            result = simulate(plans.make(seed))
            figures.seeds += 1
            figures.events += result.events
            figures.messages += result.messages
            figures.simulated += result.seconds
            figures.runs += result.runs
            figures.excused += result.excused
            figures.split += result.split
            figures.doubled += result.doubled
            figures.faults += result.faults
            if result.error is not None:
                figures.failed.append(result)
    return figures


def campaign(first: int, seeds: int, jobs: int, told: Callable[[Figures], None] | None = None) -> Figures:
    """The seeds from ``first`` on, in so many processes; ``told`` hears of the figures so far, now and then."""
    figures, begun = Figures(), time.monotonic()
    chunks = [range(start, min(start + CHUNK, first + seeds)) for start in range(first, first + seeds, CHUNK)]
    for found in _parts(chunks, jobs):
        figures.add(found)
        figures.seconds = time.monotonic() - begun
        if told is not None:
            told(figures)
    return figures


def _parts(chunks: list[range], jobs: int) -> Iterator[Figures]:
    if jobs == 1:
        yield from map(part, chunks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(part, chunks)


def shrink(seed: int) -> tuple[list[Fault], Result]:
    """The fewest faults found with which a seed fails as before, and how it then goes, with its story."""
    plan = plans.make(seed)
    kind = _kind(simulate(plan))
    index = 0
    while index < len(plan.faults):
        smaller = replace(plan, faults=plan.faults[:index] + plan.faults[index + 1 :])
        if _kind(simulate(smaller)) == kind:
            plan = smaller
        else:
            index += 1
    return plan.faults, simulate(plan, tracing=True)


def _kind(result: Result) -> str | None:
    """What a failure is recognised by: its type and first words."""
    return None if result.error is None else " ".join(result.error.split()[:2])


def story(result: Result, lines: int = 60) -> str:
    """The end of what happened to the run that an error names, and all that went wrong in the network."""
    error = result.error or ""
    runs = [f"r{i}" for i in range(1, result.runs + 1) if f"r{i}" in error.split("\n")[0]] or ["r"]
    words = (*runs, "FAULT", "HEAL", "dies", "starts,", "wiped")
    chosen = [line for line in result.trace if any(word in line for word in words)]
    left_out = len(chosen) - lines
    faults = [line for line in chosen[: max(left_out, 0)] if "FAULT" in line]
    head = [*faults, f"({left_out - len(faults)} lines left out)"] if left_out > 0 else []
    return "\n".join([*head, *(line[:400] for line in chosen[-lines:])])
