"""Files that are gone: waited for while somebody may have them, produced again when not, given up in the end."""

from __future__ import annotations

from typing import Any

from tests.core.harness import Cluster, Outcome, statuses, worker, workflow
from wattle.core.files import MISSES_MOST
from wattle.core.model import WorkerSpec
from wattle.core.run import FEW_HOLDERS, Run


def two_nodes(**options: Any) -> Cluster:
    """``p`` runs on n1, whose disk can be lost; ``u`` reads its output on n2."""
    cluster = Cluster(lost_after=options.pop("lost_after", 10.0), **options)
    cluster.node("n1")
    cluster.node("n2")
    return cluster


def chain() -> tuple[WorkerSpec, WorkerSpec, WorkerSpec]:
    return (
        worker("p", node="n1", outputs={"out": "o"}),
        worker("hold", "p", node="n2"),
        worker("u", "hold", reads="p", node="n2"),
    )


def until_done(cluster: Cluster, name: str) -> None:
    cluster.until(lambda: cluster.worker(name).status == "succeeded")


def test_an_input_on_an_unreachable_node_is_waited_for() -> None:
    cluster = two_nodes(lost_after=100.0)
    cluster.submit(workflow(*chain()))
    until_done(cluster, "p")
    cluster.cut("n1")
    cluster.until(lambda: cluster.worker("u").attempts >= 2)
    assert cluster.worker("p").status == "succeeded"
    cluster.mend("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts["r", "p"] == 1
    assert cluster.worker("u").failures == 0


def test_an_input_lost_for_good_is_produced_again() -> None:
    cluster = two_nodes()
    cluster.submit(workflow(*chain()))
    until_done(cluster, "p")
    cluster.wipe("n1")
    cluster.until(lambda: cluster.worker("p").reproduced == 1)
    cluster.start_runtime("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "p"): 2, ("r", "hold"): 1, ("r", "u"): 1}


def test_an_input_that_keeps_getting_lost_fails_its_reader() -> None:
    cluster = two_nodes(max_reproduced=2, lost_after=0.5)
    cluster.fetchable = lambda assignment: False
    cluster.submit(workflow(*chain()))
    assert cluster.finish().status == "failed"
    assert cluster.worker("p").reproduced == 2
    told = str(cluster.worker("u").error_message)
    assert "'p' was run again 2 times and its files were lost each time" in told
    assert cluster.worker("u").attempts == (MISSES_MOST + 1) * 3


def test_a_link_that_is_down_between_two_nodes_in_sight_is_tried_again_before_files_are_given_up() -> None:
    cluster = two_nodes(lost_after=0.5)
    cluster.fetchable = lambda assignment: assignment.attempt > MISSES_MOST
    cluster.submit(workflow(*chain()))
    assert cluster.finish().status == "succeeded"
    assert cluster.worker("u").attempts == MISSES_MOST + 1
    assert cluster.starts["r", "p"] == 1


def test_a_producer_that_fails_when_run_again_skips_its_readers() -> None:
    cluster = two_nodes()
    cluster.outcome = lambda a: Outcome(exit_code=1 if a.worker == "p" and a.attempt > 1 else 0)
    p, hold, use = chain()
    p = worker("p", node="n1", outputs={"out": "o"}, on_failure="continue")
    cluster.submit(workflow(p, hold, use, worker("after", "u")))
    until_done(cluster, "p")
    cluster.wipe("n1")
    cluster.until(lambda: cluster.worker("p").reproduced == 1)
    cluster.start_runtime("n1")
    assert cluster.finish().status == "failed"
    assert statuses(cluster) == {"p": "failed", "hold": "succeeded", "u": "skipped", "after": "skipped"}


def test_content_that_many_nodes_have_draws_nobody_to_them() -> None:
    cluster = two_nodes()
    cluster.submit(workflow(*chain()))
    until_done(cluster, "p")
    run: Run = cluster.core.runs["r"]
    digest = run.workers["p"].results["out"].digest
    assert run.near(run.workers["u"]) == {"n1": 10}
    run.holders[digest] |= {f"m{i}" for i in range(FEW_HOLDERS)}
    assert run.near(run.workers["u"]) == {}
