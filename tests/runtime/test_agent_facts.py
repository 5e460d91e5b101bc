"""What the runtime agent tells in its feed of what the core says."""

from __future__ import annotations

from wattle.core import effects as do
from wattle.core.effects import RuntimeEffect
from wattle.core.model import Fact, FactKind, TaskStatus
from wattle.runtime.agent import _without_starts_of_finished


def started(worker: str, attempt: int = 1) -> RuntimeEffect:
    return do.Append(Fact(FactKind.STARTED, "r", worker, attempt, at=1.0, pid=7))


def finished(worker: str, attempt: int = 1) -> RuntimeEffect:
    fact = Fact(FactKind.FINISHED, "r", worker, attempt, at=2.0, pid=7, started_at=1.0, status=TaskStatus.SUCCEEDED)
    return do.Append(fact)


def test_a_start_whose_finish_is_in_the_same_commit_is_not_told_apart() -> None:
    effects = [started("short"), started("long"), started("retried", 2), finished("short"), finished("retried", 1)]
    kept = [started("long"), started("retried", 2), finished("short"), finished("retried", 1)]
    assert _without_starts_of_finished([*effects, do.SetTimer(None)]) == [*kept, do.SetTimer(None)]


def test_starts_alone_are_told() -> None:
    assert _without_starts_of_finished([started("a"), started("b")]) == [started("a"), started("b")]
