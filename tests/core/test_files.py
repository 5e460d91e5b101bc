"""Files that are gone: waited for while somebody may have them, produced again when not, given up in the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import Cluster, statuses, worker, workflow
from tests.core.outcomes import Outcome
from wattle.core.files import MISSES_MOST
from wattle.core.model import Retries, TaskId, WorkerSpec
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


@pytest.mark.parametrize("direct", [False, True], ids=["by its input", "by itself"])
def test_a_reader_does_not_wait_for_what_failed_meanwhile(direct: bool) -> None:
    """``x`` fails when it is run again, while ``u`` is on its way to a node that cannot get its input ``p`` any more.

    Either ``p`` needs ``x`` and so cannot be run again, and stays as it was; or ``u`` itself needs ``x``.
    """
    cluster = two_nodes()
    cluster.node("n3")
    cluster.outcome = lambda a: Outcome(exit_code=1 if a.worker == "x" and a.attempt > 1 else 0)
    cluster.hold = lambda message: message.kind == "assign" and message.to == "n3"
    x = worker("x", node="n1", outputs={"out": "o"}, on_failure="continue")
    p = worker("p", *([] if direct else ["x"]), node="n1", outputs={"out": "o"})
    use = worker("u", *(["x"] if direct else []), reads="p", node="n3")
    cluster.submit(workflow(x, p, worker("v", "p", reads="x", node="n2"), use))
    cluster.until(lambda: cluster.worker("x").status == cluster.worker("p").status == "succeeded")
    cluster.wipe("n1")
    cluster.start_runtime("n1")
    cluster.until(lambda: cluster.worker("v").status == "skipped")
    assert (cluster.worker("u").status, cluster.task("u").status) == ("ready", "assigned")
    cluster.release()
    assert cluster.finish().status == "failed"
    found = statuses(cluster)
    assert (found["x"], found["u"]) == ("failed", "skipped")
    assert direct or found["p"] == "succeeded"
    assert cluster.worker("u").error_message == "needs 'x', which failed"


def test_content_that_many_nodes_have_draws_nobody_to_them() -> None:
    cluster = two_nodes()
    cluster.submit(workflow(*chain()))
    until_done(cluster, "p")
    run: Run = cluster.core.runs["r"]
    digest = run.workers["p"].results["out"].digest
    assert run.near(run.workers["u"]) == {"n1": 10}
    run.holders[digest] |= {f"m{i}" for i in range(FEW_HOLDERS)}
    assert run.near(run.workers["u"]) == {}


@pytest.mark.parametrize(
    ("exit_code", "retries", "ends"),
    [(0, 0, "succeeded"), (1, 0, "failed"), (1, 1, "created")],
    ids=["succeeds", "fails", "is tried again"],
)
def test_an_attempt_that_comes_back_while_its_worker_waits_for_files(exit_code: int, retries: int, ends: str) -> None:
    """Given up on n2, not to be had on n3, its input in the making on n1: and then n2 is back and ends the first attempt."""
    cluster = Cluster(lost_after=10.0)
    first, slow = TaskId("r", "u", 1), {TaskId("r", "u", 1), TaskId("r", "p", 2)}
    cluster.outcome = lambda a: Outcome(5000.0 if a.id in slow else 1.0, exit_code if a.id == first else 0)
    cluster.node("n1")
    n2 = cluster.node("n2", labels={"for": "u"})
    use = worker("u", reads="p", labels={"for": "u"}, retries=Retries(retries))
    cluster.submit(workflow(worker("p", node="n1", outputs={"out": "o"}), use))
    cluster.until(lambda: cluster.worker("u").status == "running")
    cluster.cut("n2")
    cluster.wipe("n1")
    cluster.start_runtime("n1")
    cluster.node("n3", labels={"for": "u"})
    cluster.until(lambda: cluster.worker("p").status == "running")
    assert cluster.worker("u").status == "created"
    cluster.mend("n2")
    cluster.quiet()
    assert (cluster.worker("u").status, cluster.task("u").status) == ("created", "running")
    n2.processes[first].ends_at = cluster.now + 1.0
    cluster.until(lambda: cluster.task("u").status.final)
    assert cluster.worker("u").status == ends
    assert cluster.finish().status == ("failed" if ends == "failed" else "succeeded")
    assert cluster.worker("p").reproduced == 1


def test_an_attempt_that_came_back_counts_as_running_once_its_worker_may_run_again() -> None:
    cluster = Cluster(lost_after=10.0)
    long = {TaskId("r", "u", 1)}
    cluster.outcome = lambda a: Outcome(5000.0 if a.id in long else 1.0)
    cluster.node("n1")
    cluster.node("n2", labels={"for": "u"})
    use = worker("u", reads="p", labels={"for": "u"})
    cluster.submit(workflow(worker("p", node="n1", outputs={"out": "o"}), use))
    cluster.until(lambda: cluster.worker("u").status == "running")
    cluster.cut("n2")
    cluster.wipe("n1")
    cluster.start_runtime("n1")
    cluster.node("n3", labels={"for": "u"})
    cluster.until(lambda: cluster.worker("p").reproduced == 1)
    cluster.mend("n2")
    cluster.until(lambda: cluster.worker("p").status == "succeeded")
    cluster.quiet()
    assert cluster.worker("u").status == "running"
    assert cluster.finish().status == "succeeded"
    assert cluster.starts["r", "u"] == 1
