"""How simulated processes go; the small harness of the cores and the simulator of whole networks have the same kinds."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Outcome:
    """How a simulated process goes: ``seconds`` until it ends by itself, and how it ends."""

    seconds: float = 1.0
    exit_code: int = 0
    heeds_term: bool = True
    spawn_error: str | None = None
    disk_full: bool = False  # why it is not started
    output_lost: bool = False  # exits well and leaves no output file


def random_outcome(seed: int | str, failing: float, lengths: tuple[float, ...]) -> Outcome:
    """How one process goes, the same for the same seed."""
    rng = Random(seed)
    seconds = rng.choice(lengths)
    if rng.random() >= failing:
        return Outcome(seconds)
    bad = (
        Outcome(seconds, exit_code=1),
        Outcome(seconds, spawn_error="no such file, or no space left", disk_full=seconds < 0.1),
        Outcome(seconds, output_lost=True),
    )
    return rng.choice((*bad, Outcome(seconds, heeds_term=False)))
