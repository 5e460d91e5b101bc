"""What the network is given to do while it suffers, and by whom: clients that submit again under the same id until they are answered."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zenoh

from tests.network.processes import ApiError, stock_client
from tests.torture.site import NODE_VARIABLE, Site

ANSWER = 4.0
"""Seconds that a client waits for an answer: less than a gateway does, so that it also asks again while the first request is on its way."""

LATER = ("NO_COORDINATOR", "OWNER_UNREACHABLE", "NODE_UNREACHABLE", "TIMEOUT", "BUSY")
"""Errors that say: ask again."""

FINAL = ("succeeded", "failed", "cancelled")
SUBMITTERS = 4

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """Documents by run id, and how many seconds after the start each is submitted."""

    documents: dict[str, Document]
    due: dict[str, float]


def work(seed: int, seconds: float, runs: int, workers: int, slots: int, ledger: Path) -> Work:
    """As many runs as asked for, in turn a fan, layers and a chain of short fans, that keep ``slots`` slots busy most of ``seconds``.

    Every task appends a line to the ledger: run, worker, attempt, node, Unix time. It sleeps before and after, so that faults
    meet it waiting to write and having written.
    """
    chance = random.Random(seed)
    mean = 0.6 * seconds * slots / (runs * workers)
    documents, due = {}, {}
    for number in range(runs):
        run = f"run{number + 1:02}"
        width = (workers, 10, 4)[number % 3]  # workers side by side
        names = [f"w{n + 1:03}" for n in range(workers)]
        listed = []
        for n, name in enumerate(names):
            before, after = (round(chance.uniform(0.0, mean), 3) for _ in range(2))
            line = f'"$WATTLE_RUN $WATTLE_WORKER $WATTLE_ATTEMPT ${NODE_VARIABLE} $(date +%s.%N)"'
            script = f"sleep {before}; echo {line} >> {ledger}; sleep {after}"
            first = n // width * width  # of those side by side with it
            listed.append({"name": name, "script": script, "needs": names[max(0, first - width) : first]})
        documents[run] = {"name": "torture", "workers": listed}
        due[run] = 0.6 * seconds * number / runs
    return Work(documents, due)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """When and by which owner a run was acknowledged, after how many submissions."""

    at: float
    owner: str
    submissions: int


class Submitters:
    """Clients that submit all work, each run when it is due. ``refused`` are errors that no client should see."""

    def __init__(self, site: Site, given: Work, seed: int) -> None:
        self._site, self._work, self._seed = site, given, seed
        self._give_up = threading.Event()
        self.acknowledged: dict[str, Acknowledged] = {}
        self.refused: list[str] = []

    def run(self) -> None:
        """Submit everything; returns when all is acknowledged, or refused for good, or ``stop`` was called."""
        began = time.monotonic()
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            for done in [pool.submit(self._submit, run, began) for run in self._work.documents]:
                done.result()

    def stop(self) -> None:
        """Submit no more."""
        self._give_up.set()

    def _submit(self, run: str, began: float) -> None:
        chance = random.Random(f"{self._seed} {run}")
        self._give_up.wait(began + self._work.due[run] - time.monotonic())
        submissions = 0
        while not self._give_up.is_set():
            doors = self._site.doors()
            if not doors or (submissions and self._give_up.wait(0.2)):
                continue
            submissions += 1
            try:
                with stock_client(chance.choice(doors)) as client:
                    view = client.get(f"runs/{run}", self._work.documents[run], timeout=ANSWER)
                self.acknowledged[run] = Acknowledged(time.time(), view["owner"], submissions)
                return
            except ApiError as error:
                if error.code not in LATER and error.code != "Timeout":
                    self.refused.append(f"{run}, submission {submissions}: {error}")
                    return
            except (LookupError, zenoh.ZError):
                continue  # nobody answered in time, or the gateway is gone


class Watcher:
    """A client that looks at the runs again and again, and notes every final result that it was ever told."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self.final: dict[str, dict[str, Any]] = {}
        self.changed: list[str] = []  # final results that did not stay
        self.redated: list[
            str
        ] = []  # those that stayed, but for the time: two owners had ended the run, cut off from each other
        self.answers = 0
        self.behind = 0
        self._owner: dict[str, tuple[int, str]] = {}  # the latest that told of an end

    def run(self) -> None:
        """Look until ``stop``."""
        while not self._stop.wait(0.5):
            for door in self._site.doors():
                try:
                    with stock_client(door) as client:
                        for view in client.get("runs?limit=1000", timeout=ANSWER)["runs"]:
                            self.note(view)
                        self.answers += 1
                except (ApiError, LookupError, zenoh.ZError):
                    continue  # as in Submitters

    def note(self, view: dict[str, Any]) -> None:
        """Compare what is told of a run with what was told before."""
        before = self.final.get(view["id"])
        told = {key: view[key] for key in ("status", "completed_at", "counts")}
        owner = (view["epoch"], view["owner"])
        if view["status"] in FINAL:
            self._owner[view["id"]] = max(owner, self._owner.get(view["id"], owner))
        elif owner < self._owner.get(view["id"], owner):
            # A former owner is back, and has not heard of its successor, which is out of sight: no end is told.
            self.behind += 1
            return
        if before is None and view["status"] in FINAL:
            self.final[view["id"]] = told
        elif before is not None and before != told:
            self.final[view["id"]] = told  # each change is told once
            result_stayed = {**before, "completed_at": None} == {**told, "completed_at": None}
            (self.redated if result_stayed else self.changed).append(
                f"{view['id']} was told to be {before}, and then {told} (owner {view['owner']})"
            )

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
