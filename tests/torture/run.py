"""One torture: start the network, torment it under work, heal it, wait for every run, and judge."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.network.processes import ApiError, StockClient, stock_client, wait_until
from tests.torture.faults import Fault, Tormentor, schedule
from tests.torture.judge import Line, Problem, judge, ran_twice, story
from tests.torture.site import Site, site, wait_gone
from tests.torture.work import LATER, Submitters, Watcher, Work, work

AFTER_HEAL = 120.0
"""Seconds that a healed network has to acknowledge and end everything."""

EXPECTED = ("spawner lost",)
"""Errors that an agent is right to log here: somebody killed its spawner."""

LINE = 2000  # characters told of an entry of a log
STORIES = 5  # told in full when something is wrong
AROUND = 8.0  # seconds of faults told before and after what went wrong


@dataclass(frozen=True, slots=True)
class Options:
    """How much of everything."""

    seconds: float = 300.0
    seed: int = 1
    runs: int = 20
    workers: int = 100
    coordinators: int = 2
    runtimes: int = 3
    gateways: int = 2
    slots: int = 4
    wipe: bool = False
    down: bool = False


@dataclass(slots=True)
class Outcome:
    """What came out: figures for the report, and texts about everything that is wrong."""

    figures: dict[str, Any] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def torture(folder: Path, options: Options) -> Outcome:
    """Do all of it; faults, ledger and outcome are also left in ``folder``, with the agents' logs and stores."""
    ledger = folder / "ledger"
    ledger.touch()
    given = work(options.seed, options.seconds, options.runs, options.workers, options.runtimes * options.slots, ledger)
    outcome = Outcome()
    counts = {"coordinators": options.coordinators, "runtimes": options.runtimes, "gateways": options.gateways}
    with site(folder, **counts, slots=options.slots) as made:
        faults = schedule(options.seed, options.seconds, made.names, wipe=options.wipe, down=options.down)
        submitters, watcher = Submitters(made, given, options.seed), Watcher(made)
        tormentor = Tormentor(made, faults)
        with _beside(watcher.run, watcher.stop), _beside(submitters.run, submitters.stop) as submitting:
            tormentor.run()
            healed = time.time()
            submitting.join(AFTER_HEAL)
        _judge(made, given, submitters, watcher, tormentor, healed, outcome)
        _figures(outcome.figures, faults, submitters, watcher, made)
        _end(made, outcome)
    outcome.bad += [f"the folder still has process {pid}" for pid in wait_gone(folder, 10.0)]
    outcome.bad += [
        f"{name} logged: {line[:LINE]}" for name in made.names for line in complaints(made.agents[name].log)
    ]
    (folder / "outcome.json").write_text(json.dumps({"figures": outcome.figures, "bad": outcome.bad}, indent=1))
    return outcome


@contextmanager
def _beside(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[threading.Thread]:
    """Something that runs in a thread until the block ends; what it raises is raised there."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits for this one
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        stop()
        thread.join()
    if failed:
        raise failed[0]


def _judge(
    made: Site,
    given: Work,
    submitters: Submitters,
    watcher: Watcher,
    tormentor: Tormentor,
    healed: float,
    outcome: Outcome,
) -> None:
    """Wait for all runs to end, ask for their histories at every gateway, and compare."""
    lines_of = Path(made.folder / "ledger")
    runs: dict[str, dict[str, Any]] = {}
    histories: dict[str, dict[str, dict[str, Any]]] = {}
    documents = {run: given.documents[run] for run in submitters.acknowledged}
    outcome.bad += submitters.refused
    outcome.bad += [f"{run} was never acknowledged" for run in given.documents if run not in documents]
    for door in made.doors():
        with stock_client(door) as client:
            for run in documents:
                view = _final(client, run, healed + AFTER_HEAL - time.time())
                if view is not None:
                    watcher.note(view)
                    runs[run] = view
                    histories[run] = client.workers(run)
            outcome.figures["s from heal to all final"] = round(time.time() - healed, 1)
            outcome.bad += _unsettled(client, made)
    outcome.bad += _disagreements(made, list(runs))
    for run in runs:
        histories.setdefault(run, {})
    lines = [Line.parse(text) for text in lines_of.read_text().splitlines()]
    problems = judge(documents, runs, histories, lines)
    told = [_story(problem, histories, lines, tormentor) for problem in problems[:STORIES]]
    outcome.bad += [*watcher.changed, *told, *(str(problem) for problem in problems[STORIES:])]
    statuses = Counter(a["status"] for run in histories.values() for w in run.values() for a in w["attempts"])
    outcome.figures |= {
        "acknowledged runs": len(documents),
        "runs by status": dict(Counter(view["status"] for view in runs.values())),
        "ledger lines": len(lines),
        "workers run once more than needed": ran_twice(lines),
        "attempts by status": dict(statuses),
    }
    (made.folder / "histories.json").write_text(json.dumps({"runs": runs, "histories": histories}, indent=1))


def complaints(log: str) -> list[str]:
    """What in an agent's log speaks of a fault of its own: errors, exceptions, and lines that are no entries at all."""
    found = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(line)
            continue
        if (entry["level"] in ("error", "critical") and entry["event"] not in EXPECTED) or "exception" in entry:
            found.append(line)
    return found


def _story(
    problem: Problem, histories: dict[str, dict[str, dict[str, Any]]], lines: list[Line], tormentor: Tormentor
) -> str:
    return story(problem, histories.get(problem.run, {}).get(problem.worker), lines, tormentor.log, AROUND)


def _final(client: StockClient, run: str, patience: float) -> dict[str, Any] | None:
    """A run, final or as it is when patience ends; None when nobody knows it even then.

    Right after the heal the gateway may not see a coordinator yet, and one with an empty disk still gathers copies.
    """
    deadline = time.monotonic() + max(patience, 1.0)
    while True:
        left = deadline - time.monotonic()
        try:
            view: dict[str, Any] = client.get(f"runs/{run}?wait={max(left, 0.0):.1f}", timeout=max(left, 0.0) + 15)
        except ApiError as error:
            if error.code not in (*LATER, "RUN_NOT_FOUND"):
                raise
            if left <= 0:
                return None
            threading.Event().wait(0.2)
        else:
            return view


def _disagreements(made: Site, runs: list[str]) -> list[str]:
    """Runs of which the gateways tell different things for longer than an adoption takes."""
    with ExitStack() as stack:
        clients = [stack.enter_context(stock_client(door)) for door in made.doors()]

        def told() -> dict[str, list[Any]]:
            return {run: [client.get(f"runs/{run}") for client in clients] for run in runs}

        try:
            wait_until(
                lambda: all(view == views[0] for views in told().values() for view in views), "all tell the same"
            )
        except AssertionError:
            return [f"{run} is told differently: {v}" for run, v in told().items() if any(view != v[0] for view in v)]
    return []


def _unsettled(client: StockClient, made: Site) -> list[str]:
    """Nodes that are not in sight, or do not become idle after all runs have ended."""
    names = sorted(name for name in made.names if name.startswith("runtime"))

    def idle() -> bool:
        nodes = [n for n in client.get("nodes")["nodes"] if n["status"] == "ready"]
        return sorted(n["name"] for n in nodes) == names and not any(n["running"] or n["queued"] for n in nodes)

    try:
        wait_until(idle, "all nodes are ready and idle")
    except AssertionError:
        return [f"healed, all nodes should be ready and idle: {client.get('nodes')}"]
    return []


def _figures(
    figures: dict[str, Any], faults: list[Fault], submitters: Submitters, watcher: Watcher, made: Site
) -> None:
    again = [a.submissions for a in submitters.acknowledged.values()]
    figures |= {
        "faults": dict(Counter(fault.kind for fault in faults)),
        "submissions until acknowledged": f"1 to {max(again, default=0)}, {sum(again)} in all",
        "answers to the watcher": watcher.answers,
        "runs it saw final": len(watcher.final),
        "final runs told with another time": watcher.redated,
        "final runs shown by a former owner that was back": watcher.behind,
        "starts that had to be repeated": len(made.refusals),
    }


def _end(made: Site, outcome: Outcome) -> None:
    """Tell every agent to stop: all must leave in peace, and take their processes with them."""
    for name in reversed(made.names):
        if made.agents[name].process.poll() is None:
            status = made.terminate(name)
            if status != 0:
                outcome.bad.append(f"{name} ended with status {status} at SIGTERM: {made.agents[name].log[-1000:]}")
    outcome.bad += [f"process {pid} is left over" for pid in wait_gone(made.folder, 10.0)]
