"""Random workflows under random faults; the harness checks the invariants after every batch that a core handles.

WATTLE_STORMS is how many of each to try (default 60); a failing seed is printed by hypothesis and replays.
"""

from __future__ import annotations

import os
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.harness import Cluster
from tests.core.storms import Storm
from wattle.core import placing
from wattle.core.model import RunStatus, WorkerStatus

MANY = settings(
    max_examples=int(os.environ.get("WATTLE_STORMS", "60")),
    deadline=None,
    derandomize="WATTLE_STORMS" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**32 - 1)


@MANY
@given(seed=SEEDS, placed_most=st.sampled_from((1, placing.PLACED_MOST)))
def test_after_any_faults_a_healed_network_ends_every_run(seed: int, placed_most: int) -> None:
    storm = Storm(seed)
    with patch.object(placing, "PLACED_MOST", placed_most):
        storm.shake(250)
        storm.heal()
        final = storm.cluster.finish()
        _check_end(storm.cluster)
        storm.cluster.until(lambda: not any(runtime.store.open for runtime in storm.cluster.runtimes.values()))
        storm.cluster.quiet()
    assert storm.cluster.run() == final
    _check_nothing_left(storm.cluster)


@MANY
@given(seed=SEEDS)
def test_without_faults_each_worker_runs_exactly_once(seed: int) -> None:
    storm = Storm(seed, faults=False)
    assert storm.cluster.finish().status is RunStatus.SUCCEEDED
    assert storm.cluster.starts == dict.fromkeys((("r", name) for name in storm.workflow.workers), 1)
    _check_order(storm)
    storm.cluster.quiet()
    _check_nothing_left(storm.cluster)


@MANY
@given(seed=SEEDS, crashes=st.integers(1, 6))
def test_crashes_of_the_coordinator_alone_start_nothing_twice(seed: int, crashes: int) -> None:
    storm = Storm(seed, faults=False)
    cluster = storm.cluster
    for _ in range(crashes):
        for _ in range(storm.rng.randrange(30)):
            cluster.step()
        cluster.crash_coordinator()
        for _ in range(storm.rng.randrange(5)):
            cluster.step()
        cluster.start_coordinator()
    assert cluster.finish().status is RunStatus.SUCCEEDED
    assert set(cluster.starts.values()) == {1}
    _check_order(storm)


def _check_order(storm: Storm) -> None:
    records = storm.cluster.coordinator.store.workers["r"]
    for name, spec in storm.workflow.workers.items():
        for need in spec.needs:
            assert (records[name].started_at or 0.0) >= (records[need].completed_at or 0.0), (name, need)


def _check_end(cluster: Cluster) -> None:
    """A final run has final workers, and says how many of each."""
    run, workers = cluster.run(), cluster.coordinator.store.workers["r"]
    assert all(worker.status.final for worker in workers.values())
    succeeded = sum(worker.status is WorkerStatus.SUCCEEDED for worker in workers.values())
    assert run.counts.get("succeeded", 0) == succeeded
    assert (run.status is RunStatus.SUCCEEDED) == (succeeded == len(workers))


def _check_nothing_left(cluster: Cluster) -> None:
    """Nothing of an ended run stays in anybody's memory, and every attempt on any runtime is in the history."""
    assert not cluster.core.runs
    for node in cluster.core.nodes.values():
        assert (node.tasks, node.used, node.cancels) == ({}, {}, {}), node
    known = cluster.coordinator.store.tasks
    for runtime in cluster.runtimes.values():
        assert {fact.id for entry in runtime.store.feed for fact in entry} <= known.keys()
