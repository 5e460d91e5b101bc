"""How long users wait when something is killed or cut off, and after it is back: what ``python -m tests.namespaces`` measures.

Seconds from the fault, or from its end, to what shows at a task or at a client. All clocks are this machine's one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tests.namespaces.events import Events
from tests.namespaces.gates import ADOPTED, Gates
from tests.namespaces.site import Site, owner, run_of
from tests.network.processes import wait_until

PATIENCE = 60.0

Figures = dict[str, float]
"""Seconds by what they are of."""

_numbers = count(1)


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._start


def owner_killed(site: Site, folder: Path) -> Figures:
    """The owner of a run is killed (SIGKILL) just as a task ends; it is started again later."""
    with closing(_gates(folder)) as gates:
        run = _two_steps(site, gates)
        figures = _after(site, gates, run, "killed", site.agents["one"].kill)
        gates.open(f"second.{ADOPTED}")
        _ended(site, run, "two")
    site.start("coordinator", "one")
    site.whole()
    return figures


def owner_cut_off(site: Site, folder: Path) -> Figures:
    """The host of a run's owner is cut off just as a task ends, and its link is repaired later."""
    with closing(_gates(folder)) as gates:
        run = _two_steps(site, gates)
        figures = _after(site, gates, run, "cut off", partial(site.cut, "one"))
        clock = Clock()
        site.lan.heal(site.lan["one"])
        wait_until(lambda: owner(site.clients["side"], run) == ("two", 2), "it has stepped down", PATIENCE)
        stepped_down = clock()
        site.whole()
        whole = clock()
        gates.open(f"second.{ADOPTED}")
        _ended(site, run, "two")
    return figures | {
        "repaired -> the former owner has stepped down": stepped_down,
        "repaired -> everybody sees everybody": whole,
    }


def runtime_cut_off(site: Site, folder: Path) -> Figures:
    """A node is cut off while it runs a task, and its link is repaired once that shows."""
    with closing(_gates(folder)) as gates:
        run = run_of("one")
        events = _submit(site, run, _worker("first", gates.script, node="near"))
        gates.arrived("first.1")
        events.wait(name="first", status="running")
        clock = Clock()
        site.cut("near")
        events.wait(name="first", unreachable=True)
        shown = clock()
        clock = Clock()
        site.lan.heal(site.lan["near"])
        events.wait(name="first", unreachable=False)
        back = clock()
        site.whole()
        gates.open("first.1")
        _ended(site, run, "one")
    return {"cut off -> unreachable is shown": shown, "repaired -> it is shown as running": back}


CASES: dict[str, Callable[[Site, Path], Figures]] = {
    "owner-killed": owner_killed,
    "owner-cut-off": owner_cut_off,
    "runtime-cut-off": runtime_cut_off,
}


def _after(site: Site, gates: Gates, run: str, fault: str, strike: Callable[[], None]) -> Figures:
    """Strike the owner of a run, and see when its next task begins. Two users ask the gateway that is left at the same moment."""
    clock = Clock()
    answers: dict[str, Callable[[], Any]] = {
        "its status, asked for at once, is told": lambda: site.door.get(f"runs/{run}"),
        "what would fall to the owner is taken": lambda: _submit(site, run_of("one"), _worker("w", "true")),
    }
    with ThreadPoolExecutor(len(answers)) as users:
        strike()
        answered = {what: users.submit(_when, clock, ask) for what, ask in answers.items()}
        gates.open("first.1")
        gates.arrived(f"second.{ADOPTED}")
        begun = clock()
        figures = {"next task of its run begins": begun} | {what: seen.result() for what, seen in answered.items()}
    return {f"{fault} -> {what}": seconds for what, seconds in figures.items()}


def _when(clock: Clock, ask: Callable[[], Any]) -> float:
    """When a question is answered."""
    ask()
    return clock()


def _gates(folder: Path) -> Gates:
    return Gates(folder / f"gates-{next(_numbers)}", "first", "second", attempts=(1, ADOPTED))


def _two_steps(site: Site, gates: Gates) -> str:
    """A run of two tasks, one after the other, of which the first stands at its gate; coordinator ``one`` owns it."""
    run = run_of("one")
    first = _worker("first", gates.script, node="near")
    second = _worker("second", gates.script, "first", node="far")  # elsewhere: nobody is told of it ahead of its time
    _submit(site, run, first, second)
    gates.arrived("first.1")
    return run


def _worker(name: str, script: str, *needs: str, node: str | None = None) -> dict[str, Any]:
    return {"name": name, "script": script, "needs": needs, "place": {"node": node}}


def _submit(site: Site, run: str, *workers: dict[str, Any]) -> Events:
    events = Events(site.door, run)
    site.door.get("runs", {"document": {"name": "failover", "workers": workers}, "run": run})
    return events


def _ended(site: Site, run: str, by: str) -> None:
    final = site.door.wait(run)
    assert (final["status"], final["owner"]) == ("succeeded", by), final
