"""Random workflows under random faults, all from one seed: what the property tests and the coverage of the tables are made of."""

from __future__ import annotations

import random
from typing import Any

from tests.core.harness import Cluster, Runtime, worker, workflow
from tests.core.outcomes import Outcome, random_outcome
from wattle.core import events as on
from wattle.core.model import Assignment, Retries, Workflow

LENGTHS = (0.001, 0.01, 0.1, 1.0, 3.0)
"""Seconds that a process may take."""

MODES = ("dependency", "dependency", "levels", "sequential")


def random_workflow(rng: random.Random, size: int, *, quiet: bool = False) -> Workflow:
    """A DAG of up to ``size`` workers; ``quiet`` leaves out all that makes workers fail or wait for the clock."""
    workers = []
    for index in range(rng.randint(1, size)):
        above = [f"w{i}" for i in range(index)]
        chosen = rng.sample(above, min(len(above), rng.randint(0, 3)))
        reads = [name for name in chosen if rng.random() < 0.6]
        keys: dict[str, Any] = {
            "outputs": {"out": f"out{index}"},
            "priority": rng.randint(0, 2),
            "resources": {"cpus": float(rng.randint(0, 2))},
        }
        if not quiet:
            keys |= {
                "retries": Retries(rng.randint(0, 3), delay=rng.choice((0.0, 0.5, 3.0))),
                "timeout": rng.choice((None, None, 2.5)),
                "kill_after": rng.choice((0.0, 1.0)),
                "on_failure": rng.choice(("stop", "continue", "continue")),
                "on_disconnect": rng.choice(("continue", "continue", "stop")),
            }
        workers.append(worker(f"w{index}", *chosen, reads=" ".join(reads), **keys))
    return workflow(*workers, mode=rng.choice(MODES))


class Storm:
    """A cluster with a run on it, to be shaken and then healed."""

    def __init__(self, seed: int, *, faults: bool = True, nodes: int = 3, size: int = 12) -> None:
        self.cluster = cluster = Cluster(seed, lost_after=5.0)
        self.rng = cluster.rng
        failing = self.rng.choice((0.0, 0.1, 0.3)) if faults else 0.0
        outcomes: dict[object, Outcome] = {}

        def outcome(assignment: Assignment) -> Outcome:
            if assignment.id not in outcomes:
                outcomes[assignment.id] = random_outcome(self.rng.randrange(2**32), failing, LENGTHS)
            return outcomes[assignment.id]

        cluster.outcome = outcome
        for index in range(nodes):
            cluster.node(f"n{index}", self.rng.randint(1 if index else 2, 4))
        cluster.disorder = True
        if faults:
            cluster.drop, cluster.repeat = self.rng.choice((0.0, 0.2)), self.rng.choice((0.0, 0.2))
        self.workflow = random_workflow(self.rng, size, quiet=not faults)
        cluster.submit(self.workflow)

    def shake(self, steps: int, rate: float = 0.15) -> None:
        """Let things happen, and faults between them."""
        for _ in range(steps):
            self.cluster.step()
            if self.rng.random() < rate:
                self._fault()

    def _fault(self) -> None:
        cluster, rng = self.cluster, self.rng
        runtime = rng.choice(list(cluster.runtimes.values()))
        match rng.randrange(12):
            case 0 | 1:
                self._crash_or_start(runtime)
            case 2 | 3 | 4:
                (cluster.mend if runtime.cut else cluster.cut)(runtime.name)
            case 5 if rng.random() < 0.5:
                cluster.wipe(runtime.name)
            case 6 | 7 if cluster.coordinator.core is None:
                cluster.start_coordinator()
            case 6:
                cluster.tell(on.Tick(), crash=rng.choice(("before", "after")))
            case 8 if cluster.wire:
                message = cluster.wire.pop(rng.randrange(len(cluster.wire)))
                cluster.deliver(message, crash=rng.choice(("before", "after")) if message.kind != "gone" else "")
            case 9:
                cluster.tell_runtime(runtime.name, rng.choice((on.Drain(), on.Resume(), on.Resume())))
            case 10 if rng.random() < 0.1:
                cluster.cancel()
            case 11 if cluster.coordinator.core is not None and cluster.run().status.final and rng.random() < 0.5:
                cluster.retry()

    def _crash_or_start(self, runtime: Runtime) -> None:
        if runtime.core is None:
            self.cluster.start_runtime(runtime.name)
        elif self.rng.random() < 0.3:
            self.cluster.tell_runtime(runtime.name, on.Tick(), crash=self.rng.choice(("before", "after")))
        else:
            self.cluster.crash_runtime(runtime.name, spawner_too=self.rng.random() < 0.4)

    def heal(self) -> None:
        """Everybody is up and linked, and takes work."""
        cluster = self.cluster
        cluster.drop = cluster.repeat = 0.0
        if cluster.coordinator.core is None:
            cluster.start_coordinator()
        for runtime in cluster.runtimes.values():
            runtime.cut = False
            if runtime.core is None:
                cluster.start_runtime(runtime.name)
            cluster.tell_runtime(runtime.name, on.Resume())
            cluster.meet(runtime.name)
