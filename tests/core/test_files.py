"""Files that are gone: waited for while somebody may have them, produced again when not, given up in the end."""

from __future__ import annotations

from tests.core.harness import Cluster, Outcome, statuses, worker, workflow
from wattle.core.files import MISSES_MOST
from wattle.core.model import Assignment
from wattle.core.run import FEW_HOLDERS, Run


def two_nodes(**options: float) -> Cluster:
    """``p`` runs on n1, whose disk can be lost; ``u`` reads its output on n2."""
    cluster = Cluster(lost_after=options.pop("lost_after", 10.0), **options)
    cluster.node("n1")
    cluster.node("n2")
    return cluster


def chain(**use: object) -> tuple[object, ...]:
    return (
        worker("p", node="n1", outputs={"out": "o"}),
        worker("hold", "p", node="n2"),
        worker("u", "hold", reads="p", node="n2", **use),
    )


def until_done(cluster: Cluster, name: str) -> None:
    cluster.until(lambda: cluster.worker(name).status == "succeeded")


def test_an_input_on_an_unreachable_node_is_waited_for() -> None:
    cluster = two_nodes(lost_after=100.0)
    cluster.submit(workflow(*chain()))  # type: ignore[arg-type]  # worker specs
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
    cluster.submit(workflow(*chain()))  # type: ignore[arg-type]  # worker specs
    until_done(cluster, "p")
    cluster.wipe("n1")
    cluster.until(lambda: cluster.worker("p").reproduced == 1)
    cluster.start_runtime("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "p"): 2, ("r", "hold"): 1, ("r", "u"): 1}


def test_an_input_that_keeps_getting_lost_fails_its_reader() -> None:
    cluster = two_nodes(max_reproduced=2, lost_after=0.5)
    runtime = cluster.runtimes["n1"]

    def forget(assignment: Assignment) -> Outcome:
        if assignment.worker != "p":
            runtime.files.clear()  # the disk loses it again and again
        return Outcome()

    cluster.outcome = forget
    cluster.submit(workflow(*chain()))  # type: ignore[arg-type]  # worker specs
    cluster.hold = lambda message: message.kind == "assign" and runtime.files.clear() is not None
    cluster.until(lambda: cluster.worker("p").status == "succeeded")
    original = cluster._prepare

    def prepare(at: object, assignment: Assignment) -> object:
        runtime.files.clear()
        return original(at, assignment)  # type: ignore[arg-type]  # passed on

    cluster._prepare = prepare  # type: ignore[method-assign,assignment]  # files vanish before each fetch
    assert cluster.finish().status == "failed"
    assert cluster.worker("p").reproduced == 2
    told = str(cluster.worker("u").error_message)
    assert "'p' was run again 2 times and its files were lost each time" in told
    assert cluster.worker("u").attempts == (MISSES_MOST + 1) * 3


def test_a_link_that_is_down_between_two_nodes_in_sight_is_tried_again_before_files_are_given_up() -> None:
    cluster = two_nodes(lost_after=0.5)
    cluster.submit(workflow(*chain()))  # type: ignore[arg-type]  # worker specs
    until_done(cluster, "p")
    files = set(cluster.runtimes["n1"].files)
    cluster.runtimes["n1"].files.clear()
    cluster.until(lambda: cluster.worker("u").attempts == 2)
    cluster.runtimes["n1"].files |= files
    assert cluster.finish().status == "succeeded"
    assert cluster.starts["r", "p"] == 1


def test_a_producer_that_fails_when_run_again_skips_its_readers() -> None:
    cluster = two_nodes()
    cluster.outcome = lambda a: Outcome(exit_code=1 if a.worker == "p" and a.attempt > 1 else 0)
    p, hold, use = chain()
    p = worker("p", node="n1", outputs={"out": "o"}, on_failure="continue")
    cluster.submit(workflow(p, hold, use, worker("after", "u")))  # type: ignore[arg-type]  # worker specs
    until_done(cluster, "p")
    cluster.wipe("n1")
    cluster.until(lambda: cluster.worker("p").reproduced == 1)
    cluster.start_runtime("n1")
    assert cluster.finish().status == "failed"
    assert statuses(cluster) == {"p": "failed", "hold": "succeeded", "u": "skipped", "after": "skipped"}


def test_content_that_many_nodes_have_draws_nobody_to_them() -> None:
    cluster = two_nodes()
    cluster.submit(workflow(*chain()))  # type: ignore[arg-type]  # worker specs
    until_done(cluster, "p")
    run: Run = cluster.core.runs["r"]
    digest = run.workers["p"].results["out"].digest
    assert run.near(run.workers["u"]) == {"n1": 10}
    run.holders[digest] |= {f"m{i}" for i in range(FEW_HOLDERS)}
    assert run.near(run.workers["u"]) == {}
