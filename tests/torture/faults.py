"""What is done to the network, and when: a schedule from a seed, carried out with a log of what really happened."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from tests.torture.site import Site

KINDS = {  # what can be done to whom, and how often in relation to the others
    "kill": (("coordinator", "runtime", "gateway"), 4),
    "stop": (("coordinator", "runtime", "gateway"), 3),
    "restart": (("coordinator", "runtime", "gateway"), 2),
    "isolate": (("coordinator", "runtime", "gateway"), 3),
    "part": (("coordinator", "runtime"), 2),
    "power": (("runtime",), 2),
    "spawner": (("runtime",), 1),
    "wipe": (("coordinator",), 1),
    "down": (("coordinator",), 0),
}
SHORTEST, LONGEST = (
    0.2,
    7.0,
)  # seconds that a fault lasts: some shorter, some longer than leases, adopt_after and lost_after
PAUSE = 1.0, 2.0  # seconds from one fault to the next
RECOVERY = 2.0  # seconds that an agent is left alone after a fault, most of which a process takes to start


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing done: ``at`` seconds after the start, for ``lasting`` seconds. ``peer`` is the other end of a parted cable."""

    at: float
    kind: str
    agent: str
    lasting: float
    peer: str | None = None

    def __str__(self) -> str:
        with_peer = f" from {self.peer}" if self.peer else ""
        return f"{self.kind} {self.agent}{with_peer} for {self.lasting:.1f} s"


def schedule(seed: int, seconds: float, names: list[str], *, wipe: bool = False, down: bool = False) -> list[Fault]:
    """Faults for so many seconds, the same for the same seed. An agent suffers one at a time.

    ``wipe`` also has coordinators lose their disks; ``down`` has one leave for good at half time.
    """
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS if kind != "down" and (wipe or kind != "wipe")]
    weights = [KINDS[kind][1] for kind in kinds]
    busy = dict.fromkeys(names, 0.0)  # until when each is left alone
    faults: list[Fault] = []
    at = chance.uniform(*PAUSE)
    while at < seconds:
        kind = chance.choices(kinds, weights)[0]
        if down and at >= seconds / 2:
            kind, down = "down", False
        if kind in ("wipe", "down"):  # what was acknowledged while others were away may be on this disk alone
            at = max(at, *(until for until in busy.values() if until < math.inf))
        free = [name for name in names if busy[name] <= at and name.rstrip("0123456789") in KINDS[kind][0]]
        lasting = round(min(SHORTEST * (LONGEST / SHORTEST) ** chance.random(), max(seconds - at, SHORTEST)), 2)
        if kind == "down":
            lasting = math.inf
        if len(free) >= (2 if kind == "part" else 1):
            agent = chance.choice(free)
            peer = chance.choice([name for name in free if name != agent]) if kind == "part" else None
            faults.append(Fault(round(at, 2), kind, agent, lasting, peer))
            for name in (agent, peer):
                if name is not None:
                    busy[name] = at + lasting + RECOVERY
        at += chance.uniform(*PAUSE)
    return faults


class Tormentor:
    """Carries a schedule out. ``log`` tells what happened: (Unix time, what); so does ``faults.log`` in the site's folder."""

    def __init__(self, site: Site, faults: list[Fault]) -> None:
        self._site, self._faults = site, faults
        self._locks = {name: threading.Lock() for name in site.names}
        self.log: list[tuple[float, str]] = []

    def run(self) -> None:
        """Do everything, and heal; returns when every agent is up and every cable whole. Raises what went wrong in doing so."""
        began = time.monotonic()
        with ThreadPoolExecutor(len(self._site.names) * 2) as pool:
            doing: list[Future[None]] = []
            for fault in self._faults:
                threading.Event().wait(max(0.0, began + fault.at - time.monotonic()))
                doing.append(pool.submit(self._suffer, fault))
            for done in doing:
                done.result()
        self._say("healed")

    def _say(self, what: str) -> None:
        self.log.append((time.time(), what))
        with (self._site.folder / "faults.log").open("a") as log:
            log.write(f"{self.log[-1][0]:.3f} {what}\n")

    def _suffer(self, fault: Fault) -> None:
        with self._alone(fault) as alone:
            if not alone:
                self._say(f"not done, the agent is not up yet: {fault}")
                return
            self._say(f"begin: {fault}")
            self._begin(fault)
            if fault.kind == "down":
                return
            threading.Event().wait(fault.lasting)
            self._say(f"end: {fault}")
            self._end(fault)
            self._say(f"over: {fault}")

    @contextmanager
    def _alone(self, fault: Fault) -> Iterator[bool]:
        """Whether none of a fault's agents suffers another still; on a slow machine a start takes longer than planned."""
        locks = [self._locks[name] for name in sorted({fault.agent, fault.peer or fault.agent})]
        taken = [lock for lock in locks if lock.acquire(blocking=False)]
        try:
            yield len(taken) == len(locks)
        finally:
            for lock in taken:
                lock.release()

    def _begin(self, fault: Fault) -> None:
        site, agent = self._site, fault.agent
        match fault.kind:
            case "kill" | "down":
                site.kill(agent)
            case "stop":
                site.stop(agent)
            case "restart":
                status = site.terminate(agent)
                if status != 0:
                    raise AssertionError(
                        f"{agent} ended with status {status} at SIGTERM\n{site.agents[agent].log[-3000:]}"
                    )
            case "isolate":
                site.links.cut(agent)
            case "part":
                site.links.cut(agent, str(fault.peer))
            case "power":
                site.power_off(agent)
            case "spawner":
                site.kill_spawner(agent)
            case "wipe":
                site.kill(agent)
                site.wipe(agent)

    def _end(self, fault: Fault) -> None:
        site, agent = self._site, fault.agent
        match fault.kind:
            case "kill" | "restart" | "power" | "wipe":
                site.start(agent)
            case "stop":
                site.resume(agent)
            case "isolate":
                site.links.heal(agent)
            case "part":
                site.links.heal(agent, str(fault.peer))
