"""The judge finds what is wrong: a true story with one lie at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.torture.judge import Line, Problem, judge, ran_twice, story
from tests.torture.run import complaints


def attempt(number: int, node: str, status: str) -> dict[str, Any]:
    at = "1970-01-01T00:00:{:02}.000000Z"
    times = {key: at.format(10 * number + n) for n, key in enumerate(("assigned_at", "started_at", "completed_at"))}
    return {"attempt": number, "node": node, "status": status, "error_message": None, **times}


class Told:
    """A run of two workers; ``b`` needs ``a``, which ran twice because its first node was lost."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {"r": {"workers": [{"name": "a", "needs": []}, {"name": "b", "needs": ["a"]}]}}
        self.runs: dict[str, Any] = {"r": {"status": "succeeded", "error_message": None, "counts": {}}}
        attempts = {
            "a": [attempt(1, "n1", "lost"), attempt(2, "n2", "succeeded")],
            "b": [attempt(1, "n2", "succeeded")],
        }
        self.histories: dict[str, Any] = {
            "r": {
                name: {"status": "succeeded", "error_message": None, "attempts": copy.deepcopy(found)}
                for name, found in attempts.items()
            }
        }
        self.ledger = [Line("r", "a", 1, "n1", 11.5), Line("r", "a", 2, "n2", 21.5), Line("r", "b", 1, "n2", 31.5)]

    def attempts(self, worker: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.histories["r"][worker]["attempts"]
        return found

    def judged(self) -> list[str]:
        return [str(problem) for problem in judge(self.documents, self.runs, self.histories, self.ledger)]


def test_what_is_right_is_found_right() -> None:
    told = Told()
    assert told.judged() == []
    assert ran_twice(told.ledger) == 1


LIES: dict[str, tuple[Callable[[Told], Any], str]] = {
    "a run is gone": (lambda t: t.runs.clear(), "was acknowledged, and nobody knows it"),
    "a run failed": (lambda t: t.runs["r"].update(status="failed"), "r : is failed"),
    "a worker is missing": (lambda t: t.histories["r"].pop("b"), "r b: is not among its run's workers"),
    "a worker is not done": (lambda t: t.histories["r"]["b"].update(status="running"), "r b: is running"),
    "an unknown worker": (lambda t: t.histories["r"].update(c=t.histories["r"]["b"]), "r c: is no worker of this run"),
    "two succeeded": (lambda t: t.attempts("a")[0].update(status="succeeded"), "not exactly one succeeded attempt"),
    "one number twice": (lambda t: t.attempts("a")[0].update(attempt=2), "not exactly one succeeded attempt"),
    "an attempt unknown": (lambda t: t.attempts("a").pop(0), "attempt 1 ran on n1, and its history does not know it"),
    "a wrong node": (lambda t: t.attempts("b")[0].update(node="n1"), "attempt 1 ran on n2, and its history says n1"),
    "it ran, says the ledger": (
        lambda t: t.attempts("a")[0].update(status="returned"),
        "r a: attempt 1 ran, and its history says that it was returned",
    ),
    "it failed": (lambda t: t.attempts("a")[0].update(status="failed"), "attempt 1 failed, which it cannot"),
    "it never ended": (lambda t: t.attempts("a")[0].update(status="running"), "attempt 1 is still running"),
    "one attempt ran twice": (lambda t: t.ledger.append(Line("r", "b", 1, "n2", 40)), "r b: attempt 1 ran 2 times"),
    "it did not run": (lambda t: t.ledger.pop(), "r b: attempt 1 succeeded, and did not run"),
    "a run nobody submitted": (
        lambda t: t.ledger.append(Line("s", "a", 1, "n1", 1)),
        "s a: ran, and no history knows it",
    ),
    "too early": (lambda t: t.ledger.append(Line("r", "b", 1, "n2", 1)), "r b: ran before a, which it needs"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_wrong_is_found(lie: str) -> None:
    told = Told()
    change, expected = LIES[lie]
    change(told)
    assert any(expected in problem for problem in told.judged()), told.judged()


def test_a_story_tells_everything_in_order_with_the_faults_around() -> None:
    told = Told()
    faults = [(1.0, "long before"), (12.5, "kill n1"), (90.0, "long after")]
    text = story(Problem("r", "a", "looks odd"), told.histories["r"]["a"], told.ledger, faults, around=5)
    assert [line.split(" ", 3)[2:] for line in text.splitlines()[1:]]
    order = [
        "r a: looks odd",
        "attempt 1 on n1 assigned",
        "on n1 started",
        "on n1 ran",
        "lost",
        "kill n1",
        "on n2 assigned",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "long" not in text


def test_faults_of_an_agents_own_are_found_in_its_log() -> None:
    right = ['{"level": "info", "event": "ready"}', '{"level": "error", "event": "spawner lost", "tasks": 4}']
    wrong = [
        '{"level": "error", "event": "request failed"}',
        '{"level": "info", "event": "x", "exception": "..."}',
        "boom",
    ]
    assert complaints("\n".join([*right, *wrong])) == wrong
