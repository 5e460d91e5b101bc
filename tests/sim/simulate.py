"""One seed from its start to its end: the world is built, shaken, healed and looked at."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.sim import plan as plans
from tests.sim.checks import Checks
from tests.sim.client import Client
from tests.sim.coordinator import Coordinator
from tests.sim.plan import Fault, Plan
from tests.sim.runtime import Runtime
from tests.sim.world import START, World
from wattle.core import events as on

EVENTS_MOST = 60_000
"""What may happen in one seed: ten times what is usual. More is a network that finds no rest."""

HEALED_MOST = 400.0
"""Seconds of simulated time in which a healed network must have ended every run."""

REST = 30.0
"""Seconds after the last run's end in which everything else must have come to rest."""


@dataclass
class Result:
    """How a seed went. ``error``: what was wrong, with its traceback; None when nothing was."""

    seed: int
    error: str | None = None
    events: int = 0
    messages: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    excused: int = 0
    split: int = 0
    doubled: int = 0
    runs: int = 0
    trace: list[str] = field(default_factory=list)
    digest: str = ""


class Simulation:
    """A plan being carried out."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        world = self.world = World(plan.seed, tracing=tracing)
        world.lease = plan.lease
        checks = self.checks = world.checks = Checks(world)
        checks.workflows = plan.workflows
        checks.quorum = plan.options.quorum
        self.coordinators = {
            name: Coordinator(world, name, plan.options, journal=plan.journal) for name in plan.coordinators
        }
        for coordinator in self.coordinators.values():
            coordinator.page_rows = plan.page_rows
        self.runtimes = {name: Runtime(world, name, options, plan.outcome) for name, options in plan.runtimes.items()}
        for runtime in self.runtimes.values():
            runtime.fetching = plan.fetching
        self.clients = {name: Client(world, name) for name in plan.clients}
        self._healed = False
        self._wishes = len(plan.wishes)  # that are still to come
        for name, drift in plan.drifts.items():
            world.peers[name].drift = drift
        for peer in world.peers.values():
            world.later(plan.late.get(peer.name, 0.0), self._start, peer.name)
        for wish in plan.wishes:
            world.later(wish.at, self._wish, wish)
        for fault in plan.faults:
            world.later(fault.at, self._strike, fault)

    def _start(self, name: str) -> None:
        peer = self.world.peers[name]
        if peer.full:
            self.world.later(0.5, self._start, name)
        else:
            peer.start()

    def _wish(self, wish: plans.Wish) -> None:
        self._wishes -= 1
        client = self.clients[wish.client]
        if wish.verb == "submit":
            client.submit(wish.run, self.plan.workflows[wish.run])
        else:
            client.order(wish.verb, wish.run)

    def run(self) -> None:
        """All of it; raises where something is wrong."""
        world = self.world
        world.run(START + self.plan.end, EVENTS_MOST)
        self.heal()
        limit = world.now + HEALED_MOST
        while self._wishes or not self.checks.finished() or not self._all_back():
            if world.now >= limit:
                raise AssertionError(f"not ended {HEALED_MOST:g} s after the heal: {self.checks.why_unfinished()}")
            world.run(world.now + 0.5, EVENTS_MOST)
        world.run(world.now + REST, EVENTS_MOST)
        for client in self.clients.values():
            unaware = (
                {wish.run for wish in self.plan.wishes if wish.client == client.name}
                - client.ended
                - self.checks.excused
            )
            if unaware:
                raise AssertionError(f"{client.name} never learned how {sorted(unaware)} ended")
            client.crash()
        world.run(world.now + 5.0, EVENTS_MOST)
        while any(map(_looks, self.coordinators.values())):
            world.run(world.now + 0.1, EVENTS_MOST)
        before, looks = world.messages, world.looks
        world.run(world.now + 5.0, EVENTS_MOST)
        if (more := world.messages - before - 2 * (world.looks - looks)) > 0:
            raise AssertionError(f"{more} messages in a network at rest")
        for coordinator in self.coordinators.values():
            coordinator.check_all_feeds()
        world.run(world.now + 5.0, EVENTS_MOST)
        if not self.checks.finished():
            raise AssertionError(f"all had ended, and then: {self.checks.why_unfinished()}")
        self.checks.end(faultless=self.plan.quiet)

    # --- faults ---------------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        if self._healed:
            return
        world = self.world
        world.note("", "FAULT", fault)
        if getattr(self, f"_{fault.kind}")(fault) is not False:
            world.faults[fault.kind] += 1

    def _after(self, fault: Fault, what: Callable[..., None], *args: Any) -> None:
        self.world.later(fault.seconds, self._unless_healed, what, args)

    def _unless_healed(self, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self._healed:
            what(*args)

    def _crash(self, fault: Fault) -> None:
        peer = self.world.peers[fault.who[0]]
        if fault.value == "now":
            peer.crash()
        else:
            peer.doom = fault.value
        self._after(fault, self._start_again, peer.name)

    def _start_again(self, name: str) -> None:
        peer = self.world.peers[name]
        peer.doom = None  # it found nothing to do
        self._start(name)

    def _spawner(self, fault: Fault) -> None:
        self.runtimes[fault.who[0]].spawner_dies()

    def _wipe(self, fault: Fault) -> bool:
        """A machine is set up anew: same name, nothing else; not more at once than there are copies."""
        peer: Any = self.world.peers[fault.who[0]]
        risky = self.checks.at_risk([peer.name])
        if risky and fault.seconds < 1.0:
            self.world.note(peer.name, "is not wiped: nobody else has", risky)
            self.world.faults["wipe left out"] += 1
            return False
        self.checks.excused |= set(risky)
        peer.crash()
        peer.new_disk()
        peer.new_since = self.world.now
        self.world.note(peer.name, "is wiped; nobody else had", risky)
        for run in self.plan.workflows:
            self.checks.removed(run)
        self._after(fault, self._start, peer.name)
        return True

    def _cut(self, fault: Fault) -> None:
        self.checks.calm = False
        self.world.cut(fault.who[0], fault.who[1])
        self._after(fault, self.world.mend, *fault.who)

    def _away(self, fault: Fault) -> None:
        self._partition(fault)

    def _partition(self, fault: Fault) -> None:
        self.checks.calm = False
        for one in fault.who:
            for other in self.world.peers:
                if other not in fault.who:
                    self.world.cut(one, other)
                    self._after(fault, self.world.mend, one, other)

    def _blink(self, fault: Fault) -> None:
        self.checks.calm = False
        self.world.blink(fault.who[0], fault.who[1], fault.seconds)

    def _full(self, fault: Fault) -> None:
        peer = self.world.peers[fault.who[0]]
        peer.full = True
        self._after(fault, self._room, peer.name)

    def _room(self, name: str) -> None:
        self.world.peers[name].full = False
        self._start(name)

    def _slow(self, fault: Fault) -> None:
        peer = self.world.peers[fault.who[0]]
        peer.slow = fault.value
        self._after(fault, setattr, peer, "slow", 0.0)

    def _jump(self, fault: Fault) -> None:
        self.world.peers[fault.who[0]].offset += fault.value

    def _drain(self, fault: Fault) -> None:
        runtime = self.runtimes[fault.who[0]]
        if runtime.up:
            runtime.post(on.Drain())
        self._after(fault, self._resume, runtime)

    def _resume(self, runtime: Runtime) -> None:
        if runtime.up:
            runtime.post(on.Resume())

    def _leave(self, fault: Fault) -> None:
        runtime = self.runtimes[fault.who[0]]
        if runtime.up:
            runtime.post(on.Drain(runtime.clock() + fault.value))
        self._after(replace(fault, seconds=fault.seconds + fault.value), self._start, runtime.name)

    def _loss(self, fault: Fault) -> None:
        self.world.drop = fault.value
        self._after(fault, setattr, self.world, "drop", 0.0)

    def _repeat(self, fault: Fault) -> None:
        self.world.repeat = fault.value
        self._after(fault, setattr, self.world, "repeat", 0.0)

    def _lag(self, fault: Fault) -> None:
        self.world.lag = fault.value
        self._after(fault, setattr, self.world, "lag", 0.0)

    # --- the heal -------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everybody is up and linked, has room on its disk and takes work; some coordinators may be gone for good."""
        world = self.world
        world.note("", "HEAL")
        self._healed = True
        self.checks.healed_at = world.now
        world.drop = world.repeat = world.lag = 0.0
        for one, other in list(world.cuts):
            world.mend(one, other)
        gone: list[str] = []
        if self.plan.leave_down and not self.plan.options.quorum:
            for name, coordinator in self.coordinators.items():
                others = [other for other in self.coordinators if other not in (*gone, name)]
                if not coordinator.up and others and not self.checks.at_risk([*gone, name]):
                    gone.append(name)
                    world.faults["coordinator gone for good"] += 1
        for peer in world.peers.values():
            peer.full, peer.slow, peer.doom = False, 0.0, None
            if peer.name in gone:
                continue
            peer.start()
            for other in world.peers:
                world.later(0.5 + world.rng.random(), world.look, peer.name, other) if other != peer.name else None
        for runtime in self.runtimes.values():
            runtime.post(on.Resume())
            world.later(5.0, self._return, runtime)

    def _all_back(self) -> bool:
        """Whether all nodes are there that were still leaving when everything was healed: what only they have a copy of goes on."""
        return all(runtime.up for runtime in self.runtimes.values())

    def _return(self, runtime: Runtime) -> None:
        core = runtime.core
        if core is not None and core.stopping._leave_at is not None:  # and a task takes its time to end
            self.world.later(5.0, self._return, runtime)
            return
        runtime.start()
        runtime.post(on.Resume())


def _looks(coordinator: Coordinator) -> bool:
    """Whether a coordinator waits for a peer to say which copies it has."""
    core = coordinator.core
    return core is not None and None in core.succession._tokens.values()


def simulate(plan: Plan, *, tracing: bool = False) -> Result:
    """Carry out a plan; what is wrong is in the result."""
    result = Result(plan.seed)
    simulation = Simulation(plan, tracing=tracing)
    try:
        simulation.run()
    except Exception as error:  # noqa: BLE001  # whatever breaks is what is looked for
        last = "".join(traceback.format_exception(error)[-4:])
        result.error = f"{type(error).__name__}: {error}\n{last}"
    world, checks = simulation.world, simulation.checks
    result.events, result.messages, result.seconds = world.events, world.messages, world.now - START
    result.faults, result.trace = world.faults, world.trace
    result.excused, result.split, result.doubled = len(checks.excused), len(checks.split), len(checks.doubled)
    result.runs = len(plan.workflows)
    if tracing:
        result.digest = hashlib.sha256("\n".join(world.trace).encode()).hexdigest()
    return result
