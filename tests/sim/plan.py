"""What a seed means: which peers there are, what users want, and which faults come when. All of it is decided before the world begins, so
that a fault can be left out and the rest stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.core.outcomes import Outcome, random_outcome
from wattle.core.coordinator import CoordinatorOptions
from wattle.core.hashing import ranked
from wattle.core.model import Assignment, Retries, WorkerSpec, Workflow
from wattle.core.runtime import RuntimeOptions

MODES = ("dependency", "dependency", "levels", "sequential")

KINDS = (
    "crash",
    "crash",
    "spawner",
    "wipe",
    "cut",
    "cut",
    "partition",
    "blink",
    "full",
    "slow",
    "jump",
    "drain",
    "leave",
    "away",
    "away",
    "loss",
    "repeat",
    "lag",
)
"""Kinds of faults; a seed draws its own from a few of them."""


TANGLING = ("away", "away", "away", "away", "wipe", "leave", "spawner", "loss", "slow")
"""What some seeds have much of: nodes that come back when their tasks have been given to others, and files that are gone."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at a time (seconds from the start), for so many seconds where that has a meaning."""

    at: float
    kind: str
    who: tuple[str, ...] = ()
    seconds: float = 0.0
    value: Any = None

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value}"
        return f"{self.at:7.3f}  {self.kind} {' '.join(self.who)}{value} for {self.seconds:.2f} s"


@dataclass(frozen=True)
class Wish:
    """Something that a user wants at a time: to submit, cancel or retry a run."""

    at: float
    client: str
    verb: str
    run: str


@dataclass
class Plan:
    """See the module's docstring. ``end`` is when everything is healed."""

    seed: int
    options: CoordinatorOptions
    coordinators: list[str]
    runtimes: dict[str, RuntimeOptions]
    clients: list[str]
    workflows: dict[str, Workflow]
    wishes: list[Wish]
    faults: list[Fault]
    end: float
    late: dict[str, float]  # runtimes that come only later
    lease: float
    drifts: dict[str, float]
    journal: int
    page_rows: int
    fetching: float  # seconds that inputs take to be fetched, and outputs to be hashed, at most
    leave_down: bool  # coordinators that are down at the end stay so, where their runs have copies
    outcome: Callable[[Assignment], Outcome]
    quiet: bool = False
    story: list[str] = field(default_factory=list)


def make(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(seed)
    kind = rng.random()
    quiet, tangled = kind < 0.1, kind > 0.9
    busy = not quiet and not tangled and Random(f"{seed} busy").random() < 0.35
    coordinators = [f"c{i + 1}" for i in range(rng.choice((1, 2, 2, 3, 3)))]
    runtimes = {}
    for index in range(rng.choice((2, 3, 4) if tangled else (1, 1, 2) if busy else (1, 2, 2, 3, 3, 4, 5))):
        slots = rng.randint(2 if index == 0 else 1, 4)
        runtimes[f"n{index + 1}"] = RuntimeOptions(slots, {"cpus": float(slots)}, line_seconds=5.0 if busy else 0.02)
    clients = ["u1"] if rng.random() < 0.7 else ["u1", "u2"]
    size = 20 if busy else rng.choice((2, 4, 6, 8, 12))
    workflows = {
        f"r{i + 1}": random_workflow(rng, size, quiet=quiet, tangled=tangled, busy=busy)
        for i in range(rng.choice((1, 1, 2, 3)))
    }
    peers = len(coordinators) + len(runtimes)
    options = CoordinatorOptions(
        lost_after=1.0 if tangled else rng.choice((3.0, 5.0, 10.0)),
        adopt_after=rng.choice((0.3, 1.0, 2.0)),
        replicas=rng.choice((0, 1, 2, 2, 2, 3)),
        quorum=peers // 2 + 1 if rng.random() < 0.25 else 0,
        max_losses=rng.choice((2, 10, 10)),
        prefetch_window=2.0 if busy else rng.choice((0.0, 0.25)),
        lost_shown=len(runtimes) % 2,
    )
    length = rng.choice((3.0, 6.0, 12.0))
    wishes = []
    for run in workflows:
        client = rng.choice(clients)
        wishes.append(Wish(0.1 + rng.random() * length * 0.4, client, "submit", run))
        if not quiet and rng.random() < 0.3:
            wishes.append(Wish(wishes[-1].at + rng.random() * length, client, "cancel", run))
        if not quiet and rng.random() < 0.35:
            wishes.append(Wish(length * (0.3 + rng.random()), client, "retry", run))
    failing = 0.0 if quiet else rng.choice((0.3, 0.5) if tangled else (0.0, 0.0, 0.1, 0.3))
    salt = rng.randrange(2**32)
    plan = Plan(
        seed,
        options,
        coordinators,
        runtimes,
        clients,
        workflows,
        wishes,
        [],
        length + 1.0,
        {},
        rng.choice((0.3, 1.0)),
        {},
        rng.choice((0, 5, 1000)),
        rng.choice((3, 10_000)),
        6.0 if tangled else rng.choice((0.05, 0.05, 1.0)),
        rng.random() < 0.4,
        lambda assignment: random_outcome(
            f"{salt}/{assignment.id}", failing, LONG if tangled else SHORT if busy else ANY
        ),
        quiet,
    )
    if not quiet:
        kinds = list(TANGLING) if tangled else rng.sample(KINDS, rng.randint(1, 6))
        _add_faults(plan, rng, length, kinds, 20 if tangled else rng.choice((1, 3, 6, 10, 15)))
        _bear_lost_disks(plan)
        _add_cancel_out_of_sight(plan)
    return plan


def _add_faults(plan: Plan, rng: Random, length: float, kinds: list[str], count: int) -> None:
    names = [*plan.coordinators, *plan.runtimes]
    for _ in range(count):
        at = 0.2 + rng.random() * length
        plan.faults.append(_fault(rng, rng.choice(kinds), at, plan, names))
    plan.faults.sort(key=lambda fault: fault.at)
    for name in names:
        if rng.random() < 0.2:
            plan.drifts[name] = rng.choice((-0.02, 0.02, 0.001))
    if rng.random() < 0.3:
        for name in list(plan.runtimes)[1:]:
            if rng.random() < 0.5:
                plan.late[name] = rng.random() * length


def _bear_lost_disks(plan: Plan) -> None:
    """In half of the seeds with a quorum it is large enough for the disks that are lost, though they were all lost at a time."""
    lost = {fault.who for fault in plan.faults if fault.kind == "wipe"}
    if plan.options.quorum and lost and Random(f"{plan.seed} disks").random() < 0.5:
        peers = len(plan.coordinators) + len(plan.runtimes)
        plan.options = replace(plan.options, quorum=min((peers + len(lost)) // 2 + 1, peers))


def _add_cancel_out_of_sight(plan: Plan) -> None:
    """In some seeds an owner is cut off together with a user, who cancels a run there when another coordinator has taken it over."""
    rng = Random(f"{plan.seed} cancel")
    if len(plan.coordinators) < 2 or rng.random() >= 0.08:
        return
    wish = rng.choice([wish for wish in plan.wishes if wish.verb == "submit"])
    at = wish.at + rng.choice((0.02, 0.2, 0.6))
    adopted = at + 1.2 * plan.lease + plan.options.adopt_after + 0.3
    until = adopted + 1.0 + rng.random()
    owner = ranked(plan.coordinators, wish.run)[0]
    plan.faults.append(Fault(at, "partition", (owner, wish.client), until - at))
    plan.faults.sort(key=lambda fault: fault.at)
    plan.wishes.append(Wish(adopted + rng.random() * 0.8, wish.client, "cancel", wish.run))
    plan.end = max(plan.end, until + 0.1)


def _fault(rng: Random, kind: str, at: float, plan: Plan, names: list[str]) -> Fault:
    seconds = rng.choice((0.001, 0.1, 0.5, 2.0, 6.0)) * (0.5 + rng.random())
    one = rng.choice(names if rng.random() < 0.5 else plan.coordinators)
    nodes = list(plan.runtimes)
    node = rng.choice(nodes[:2] if kind == "away" else nodes)
    match kind:
        case "crash":
            return Fault(at, kind, (one,), seconds, rng.choice(("now", "before", "before", rng.random(), 0.0, 1.0)))
        case "spawner" | "drain":
            return Fault(at, kind, (node,), seconds)
        case "leave":
            return Fault(at, kind, (node,), seconds, rng.choice((0.0, 0.5, 3.0)))
        case "cut":
            others = [name for name in (*names, *plan.clients) if name != one]
            return Fault(at, kind, (one, rng.choice(others)), seconds * 2)
        case "away":  # out of everybody's sight until its tasks have been given to others, or nearly
            return Fault(
                at, kind, (node,), plan.options.lost_after + plan.lease + rng.choice((-0.5, 0.5, 1.0, 2.0, 4.0))
            )
        case "partition":
            group = tuple(name for name in (*names, *plan.clients) if rng.random() < 0.5)
            return Fault(at, kind, group, seconds * 2)
        case "blink":
            others = [name for name in names if name != one]
            return Fault(at, kind, (one, rng.choice(others)), seconds)
        case "slow":
            return Fault(at, kind, (one,), seconds * 2, rng.choice((0.05, 0.5, 1.5)))
        case "jump":
            return Fault(at, kind, (one,), 0.0, rng.choice((-5.0, -0.5, 0.5, 5.0, 20.0)))
        case "loss" | "repeat" | "lag":
            return Fault(at, kind, (), seconds * 2, rng.choice((0.05, 0.2, 0.5)))
        case _:
            return Fault(at, kind, (one,), seconds)


def random_workflow(
    rng: Random, size: int, *, quiet: bool = False, tangled: bool = False, busy: bool = False
) -> Workflow:
    """A DAG of up to ``size`` workers; ``quiet`` leaves out all that makes workers fail or wait for the clock.

    ``tangled`` ones pass many files, ``busy`` ones few: theirs are chains and fans of workers that may follow each other closely.
    """
    workers: list[WorkerSpec] = []
    for index in range(rng.randint(1, size)):
        above = [f"w{i}" for i in range(index)]
        chosen = rng.sample(above, min(len(above), rng.randint(0, 3)))
        if busy and above:
            chosen = above[-1:] if rng.random() < 0.6 else chosen[: rng.randint(0, 2)]
        reads = [name for name in chosen if rng.random() < (0.9 if tangled else 0.6)]
        keys: dict[str, Any] = {
            "outputs": {"out": f"out{index}"} if rng.random() < (0.1 if busy else 0.8) or quiet else {},
            "priority": rng.randint(0, 2),
            "resources": {"cpus": 1.0 if busy else float(rng.randint(0, 2))},
        }
        if not quiet:
            keys |= {
                "retries": Retries(rng.randint(0, 3), delay=rng.choice((0.0, 0.5, 3.0))),
                "timeout": None if tangled else rng.choice((None, None, 2.5)),
                "kill_after": rng.choice((0.0, 1.0)),
                "on_failure": rng.choice(("stop", "continue", "continue")),
                "on_disconnect": rng.choice(("continue", "continue", "stop")),
            }
        reads = [name for name in reads if workers[int(name[1:])].outputs]
        inputs = {producer: (producer, "out") for producer in reads}
        workers.append(WorkerSpec(f"w{index}", ("run",), needs=tuple(chosen), inputs=inputs, **keys))
    return Workflow("w", {spec.name: spec for spec in workers}, rng.choice(MODES))


ANY = (0.001, 0.01, 0.1, 0.1, 1.0, 1.0, 3.0, 8.0)
LONG = (0.01, 0.1, 3.0, 6.0, 9.0)
SHORT = (0.001, 0.01, 0.01, 0.02, 0.05, 0.3)
"""Seconds that processes take."""
