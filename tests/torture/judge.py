"""Whether everything acknowledged ended right: ledger against histories. Pure, so that its own tests can lie to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.torture.work import Document
from wattle.protocol.records import seconds

GAVE_WAY = ("lost", "superseded", "cancelled")
"""How an attempt may have ended that ran beside or before another of its worker."""

Worker = Mapping[str, Any]  # as the API shows it


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger: that this attempt ran, where, and when."""

    run: str
    worker: str
    attempt: int
    node: str
    at: float

    @classmethod
    def parse(cls, text: str) -> Line:
        """Raises ValueError for what no task wrote."""
        run, worker, attempt, node, at = text.split()
        return cls(run, worker, int(attempt), node, float(at))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, with which worker of which run; ``worker`` is empty when it is the run."""

    run: str
    worker: str
    what: str

    def __str__(self) -> str:
        return f"{self.run} {self.worker}: {self.what}"


def judge(
    documents: Mapping[str, Document],
    runs: Mapping[str, Mapping[str, Any]],
    histories: Mapping[str, Mapping[str, Worker]],
    ledger: Iterable[Line],
) -> list[Problem]:
    """Everything that is wrong. ``documents`` are those of all acknowledged runs, ``runs`` and ``histories`` what the API says now."""
    ran: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in ledger:
        ran[line.run, line.worker].append(line)
    problems: list[Problem] = []
    for run, document in documents.items():
        view = runs.get(run)
        if view is None:
            problems.append(Problem(run, "", "was acknowledged, and nobody knows it"))
            continue
        if view["status"] != "succeeded":
            problems.append(Problem(run, "", f"is {view['status']}: {view['error_message']}; {view['counts']}"))
        needs = {worker["name"]: worker["needs"] for worker in document["workers"]}
        for name in needs:
            worker = histories[run].get(name)
            found = ["is not among its run's workers"] if worker is None else _worker(worker, ran[run, name])
            problems += [Problem(run, name, what) for what in found]
        problems += [Problem(run, name, what) for name, what in _order(run, needs, ran)]
        problems += [Problem(run, name, "is no worker of this run") for name in set(histories[run]) - set(needs)]
    for run, name in ran:
        if name not in histories.get(run, {}):
            problems.append(Problem(run, name, "ran, and no history knows it"))
    return problems


def _worker(worker: Worker, lines: list[Line]) -> list[str]:
    problems = []
    attempts = {attempt["attempt"]: attempt for attempt in worker["attempts"]}
    if worker["status"] != "succeeded":
        problems.append(f"is {worker['status']}: {worker['error_message']}")
    succeeded = [number for number, attempt in attempts.items() if attempt["status"] == "succeeded"]
    if len(succeeded) != 1 or len(attempts) != len(worker["attempts"]):
        problems.append(f"has not exactly one succeeded attempt: {summary(worker)}")
    times: dict[int, int] = defaultdict(int)
    for line in lines:
        times[line.attempt] += 1
        attempt = attempts.get(line.attempt)
        if attempt is None:
            problems.append(f"attempt {line.attempt} ran on {line.node}, and its history does not know it")
        elif attempt["node"] != line.node:
            problems.append(f"attempt {line.attempt} ran on {line.node}, and its history says {attempt['node']}")
        elif attempt["status"] != "succeeded" and attempt["status"] not in GAVE_WAY:
            problems.append(f"attempt {line.attempt} ran, and its history says that it was {attempt['status']}")
    problems += [f"attempt {number} ran {count} times" for number, count in times.items() if count > 1]
    problems += [f"attempt {number} succeeded, and did not run" for number in succeeded if number not in times]
    unended = [n for n, attempt in attempts.items() if attempt["status"] in ("assigned", "accepted", "running")]
    problems += [f"attempt {number} is still {attempts[number]['status']}" for number in unended]
    problems += [f"attempt {n} failed, which it cannot" for n, a in attempts.items() if a["status"] == "failed"]
    return problems


def _order(
    run: str, needs: Mapping[str, list[str]], ran: Mapping[tuple[str, str], list[Line]]
) -> Iterable[tuple[str, str]]:
    """Workers that ran before all that they need had run."""
    first = {name: min((line.at for line in ran[run, name]), default=None) for name in needs}
    for name, needed in needs.items():
        for other in needed:
            one, before = first[name], first[other]
            if one is not None and (before is None or before > one):
                yield name, f"ran before {other}, which it needs"


def ran_twice(ledger: Iterable[Line]) -> int:
    """How often a worker ran once more than it had to."""
    lines = list(ledger)
    return len(lines) - len({(line.run, line.worker) for line in lines})


def summary(worker: Worker) -> str:
    """A worker's attempts in one line."""
    return ", ".join(f"{a['attempt']} {a['node']} {a['status']}" for a in worker["attempts"]) or "no attempts"


def story(
    problem: Problem, worker: Worker | None, ledger: Iterable[Line], faults: Iterable[tuple[float, str]], around: float
) -> str:
    """Everything known about one worker, in the order in which it happened, with the faults ``around`` seconds before and after."""
    told: list[tuple[float, str]] = []
    for attempt in worker["attempts"] if worker is not None else ():
        name = f"attempt {attempt['attempt']} on {attempt['node']}"
        ended = f"{attempt['status']}: {attempt['error_message']}" if attempt["error_message"] else attempt["status"]
        for key, what in (("assigned_at", "assigned"), ("started_at", "started"), ("completed_at", ended)):
            at = seconds(attempt[key])
            if at is not None:
                told.append((at, f"history: {name} {what}"))
    mine = [line for line in ledger if (line.run, line.worker) == (problem.run, problem.worker)]
    told += [(line.at, f"ledger:  attempt {line.attempt} on {line.node} ran") for line in mine]
    if told:
        begin, end = min(told)[0] - around, max(told)[0] + around
        told += [(at, f"fault:   {what}") for at, what in faults if begin <= at <= end]
    return "\n".join([str(problem), *(f"  {at:.3f} {what}" for at, what in sorted(told))])
