"""Nodes: who gets what, coming and going, fencing, handing back, and why a worker waits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import Cluster, worker, workflow
from tests.core.outcomes import Outcome
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.membership import HOLD_FIRST
from wattle.core.model import Fact, FactKind, NodeInfo, TaskId, TaskStatus
from wattle.core.placement import Node, NodeStatus, Pool, Requirement, has_room
from wattle.core.runtime import RuntimeOptions
from wattle.core.waiting import why_waiting


def long(cluster: Cluster, seconds: float = 100.0) -> Cluster:
    cluster.outcome = lambda a: Outcome(seconds)
    return cluster


def running(cluster: Cluster, name: str = "a", attempt: int = 1) -> bool:
    task = cluster.coordinator.store.tasks.get(TaskId("r", name, attempt))
    return task is not None and task.status is TaskStatus.RUNNING


def why(cluster: Cluster, name: str = "a") -> str | None:
    run = cluster.core.runs["r"]
    return why_waiting(cluster.core, run, run.workers[name])


# --- placing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asks",
    [{"labels": {"lab": "3"}}, {"node": "good"}, {"resources": {"gpus": 1.0}}],
    ids=["labels", "node", "resources"],
)
def test_a_worker_goes_only_where_it_fits(asks: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.node("bad", 8, labels={"lab": "2"})
    cluster.submit(workflow(worker("a", **asks)))
    cluster.quiet()
    assert cluster.worker("a").status == "ready"
    cluster.node("good", 1, labels={"lab": "3"}, gpus=1.0)
    cluster.finish()
    assert cluster.task("a").node == "good"


def test_resources_are_shared_and_never_oversold() -> None:
    cluster = long(Cluster(), 1.0)
    cluster.node("n1", 4, gpus=2.0)
    cluster.submit(workflow(*(worker(f"g{i}", resources={"gpus": 1.0}) for i in range(4)), worker("plain")))
    cluster.until(lambda: running(cluster, "plain"))
    assert [name for name in ("g0", "g1", "g2", "g3") if running(cluster, name)] == ["g0", "g1"]
    assert cluster.finish().status == "succeeded"


def test_a_zero_of_something_the_node_does_not_have_fits() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(workflow(worker("a", resources={"tapes": 0.0})))
    assert cluster.finish().status == "succeeded"


def test_work_spreads_over_the_least_loaded_nodes() -> None:
    cluster = long(Cluster())
    for name in ("n1", "n2", "n3"):
        cluster.node(name, 2)
    cluster.submit(workflow(*(worker(f"w{i}") for i in range(3))))
    cluster.quiet()
    assert {cluster.task(f"w{i}").node for i in range(3)} == {"n1", "n2", "n3"}


def test_a_consumer_goes_where_most_of_its_input_is() -> None:
    cluster = Cluster()
    cluster.node("n1", 4)
    cluster.node("n2", 4)
    cluster.submit(
        workflow(
            worker("p", node="n2", outputs={"out": "o"}),
            *(worker(f"busy{i}", node="n2") for i in range(2)),
            worker("use", reads="p"),
        )
    )
    cluster.finish()
    assert cluster.task("use").node == "n2"


def test_candidates_follow_what_changes() -> None:
    pool = Pool()
    for name in ("n1", "n2"):
        pool.nodes[name] = Node(NodeInfo(name, "1", "s", slots=1), NodeStatus.READY, pool.changed)
    anything = Requirement()

    def take() -> str | None:
        node = pool.best(anything, {}, 0.25)
        if node is not None:
            node.take(TaskId("r", node.info.name, 1), {})
        return None if node is None else node.info.name

    assert [take(), take(), take()] == ["n1", "n2", None]
    pool.nodes["n2"].release(TaskId("r", "n2", 1))
    assert [take(), take()] == ["n2", None]
    for _ in range(5000):  # the list of changes and the heaps stay small
        pool.nodes["n1"].release(TaskId("r", "n1", 1))
        assert take() == "n1"
    assert len(pool.changed) < 2000


# --- sending ahead ------------------------------------------------------------------------------------------------------


def test_short_tasks_are_sent_ahead_and_long_ones_are_not() -> None:
    node = Node(NodeInfo("n", "1", "s", slots=2), NodeStatus.READY, [])
    assert node.prefetch(0.25) == 0
    node.learn_duration(0.01)
    assert node.prefetch(0.25) == 50
    node.learn_duration(10.0)
    assert node.prefetch(0.25) == 0
    node.mean_seconds = 0.0
    assert node.prefetch(0.25) == 256
    for i in range(2 + 256):
        assert has_room(node, Requirement(), 0.25)
        node.take(TaskId("r", str(i), 1), {})
    assert not has_room(node, Requirement(), 0.25)


def test_what_waits_too_long_on_a_node_is_handed_back_and_the_node_given_time() -> None:
    cluster = Cluster()
    cluster.node("n1", 1)
    cluster.outcome = lambda a: Outcome(60.0 if a.worker == "long" else 0.01)
    warm = [worker(f"w{i}", priority=9) for i in range(3)]
    cluster.submit(workflow(*warm, worker("long", priority=5), worker("x"), worker("y")))
    cluster.until(lambda: cluster.core.nodes["n1"].hold_until is not None)
    assert cluster.task("x").status == "returned"
    assert cluster.core.nodes["n1"].hold_until == pytest.approx(cluster.now + HOLD_FIRST)
    assert cluster.worker("x").status == "ready"
    assert cluster.finish().status == "succeeded"
    assert cluster.worker("x").failures == 0
    assert cluster.starts["r", "x"] == 1


FULL = Outcome(spawn_error="no space left", disk_full=True)


def test_a_node_whose_disk_is_full_hands_back_at_no_cost_to_retries_and_is_given_time() -> None:
    cluster = Cluster(lost_after=300.0)
    cluster.node("full", 4)
    cluster.outcome = lambda a: FULL
    cluster.submit(workflow(worker("a"), worker("b")))
    cluster.until(lambda: cluster.core.nodes["full"].hold_until is not None)
    assert (cluster.task("a").status, cluster.task("a").error_message) == ("returned", "no space left")
    assert (cluster.worker("a").status, cluster.worker("a").error_message) == ("ready", "no space left")
    cluster.until(lambda: cluster.core.nodes["full"].hold_delay > 8 * HOLD_FIRST)  # longer each time
    cluster.outcome = lambda a: Outcome()
    assert cluster.finish().status == "succeeded"
    assert [cluster.worker(name).failures for name in "ab"] == [0, 0]


def test_a_task_for_which_no_disk_ever_has_room_fails_in_the_end() -> None:
    cluster = Cluster(max_losses=3)
    cluster.node("full")
    cluster.outcome = lambda a: FULL
    cluster.submit(workflow(worker("a")))
    assert cluster.finish().status == "failed"
    assert cluster.worker("a").error_message == "no space left (handed back or lost 4 times)"
    assert (cluster.worker("a").attempts, cluster.worker("a").failures) == (4, 0)


# --- commands without answers ---------------------------------------------------------------------------------------------


def test_an_assignment_without_an_answer_is_sent_again_and_starts_once() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.drop = 1.0
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: not cluster.wire)
    assert cluster.core.nodes["n1"].resend_at == pytest.approx(cluster.now + 0.5)
    cluster.step()
    cluster.until(lambda: not cluster.wire)
    assert cluster.core.nodes["n1"].resend_at == pytest.approx(cluster.now + 1.0)
    cluster.drop = 0.0
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1}
    assert cluster.core.nodes["n1"].resend_delay == 0.0


def test_a_lost_answer_and_repeated_messages_change_nothing() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.repeat = 0.6
    cluster.submit(workflow(worker("a"), worker("b", "a")))
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1, ("r", "b"): 1}


# --- lost and found -------------------------------------------------------------------------------------------------------


def test_a_node_out_of_sight_is_suspected_then_given_up() -> None:
    cluster = long(Cluster(lost_after=30.0))
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.node("n2")
    cluster.cut("n1")
    cluster.quiet()
    shown = [e for e in cluster.effects if isinstance(e, do.AnnounceWorker) and e.unreachable]
    assert [(e.worker.name, e.node) for e in shown] == [("a", "n1")]
    assert cluster.task("a").status == "running"
    gone_at = cluster.now + 30.0
    cluster.until(lambda: running(cluster, "a", 2))
    assert cluster.now == pytest.approx(gone_at)
    assert (cluster.task("a").status, cluster.task("a", 2).node) == ("lost", "n2")
    assert cluster.worker("a").losses == 1


def test_of_many_lost_nodes_the_first_are_forgotten_and_are_new_when_they_come_back() -> None:
    cluster = Cluster(lost_after=10.0, lost_shown=2)
    for n in range(1, 6):
        cluster.node(f"n{n}")
    cluster.submit(workflow(*(worker(f"w{n}") for n in range(5))))
    assert cluster.finish().status == "succeeded"
    for n in (3, 1, 4, 2):
        cluster.cut(f"n{n}")
        cluster.quiet()
        cluster.until(lambda n=n: _status(cluster, f"n{n}") is NodeStatus.LOST)  # type: ignore[misc]  # bound per turn
    assert sorted(cluster.core.nodes) == ["n2", "n4", "n5"]
    cluster.mend("n3")
    cluster.quiet()
    assert _status(cluster, "n3") is NodeStatus.READY
    cluster.submit(workflow(worker("a", node="n3")), run="again")
    assert cluster.finish("again").status == "succeeded"


def _status(cluster: Cluster, name: str) -> NodeStatus | None:
    node = cluster.core.nodes.get(name)
    return None if node is None else node.status


def test_a_node_back_in_time_goes_on_as_if_nothing_had_been() -> None:
    cluster = long(Cluster(lost_after=30.0))
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.cut("n1")
    cluster.quiet()
    cluster.mend("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1}
    assert cluster.worker("a").attempts == 1


def test_a_finish_on_a_node_that_was_out_of_sight_is_caught_up_with() -> None:
    cluster = long(Cluster(lost_after=300.0))
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.cut("n1")
    cluster.until(lambda: not cluster.runtimes["n1"].store.open)
    assert cluster.worker("a").status == "running"
    cluster.mend("n1")
    assert cluster.finish().status == "succeeded"


@pytest.mark.parametrize("shown", [1000, 0])
@pytest.mark.parametrize("first", ["n1", "n2"])
def test_of_two_attempts_the_first_finish_wins(first: str, shown: int) -> None:
    """A node that was given up returns while the second attempt runs: both go on, one wins, the other is cancelled."""
    cluster = Cluster(lost_after=10.0, lost_shown=shown)
    cluster.outcome = lambda a: Outcome(
        {"n1": 40.0, "n2": 60.0}[f"n{a.attempt}"] if first == "n1" else 60.0 - 20 * a.attempt
    )
    cluster.node("n1")
    cluster.submit(workflow(worker("a"), worker("b", "a")))
    cluster.until(lambda: running(cluster))
    cluster.cut("n1")
    cluster.node("n2")
    cluster.until(lambda: running(cluster, "a", 2))
    cluster.mend("n1")
    cluster.quiet()
    assert cluster.task("a").status == "running", "it was found again"
    if first == "n2":
        cluster.runtimes["n1"].processes[TaskId("r", "a", 1)].ends_at = 10_000.0
    assert cluster.finish().status == "succeeded"
    won, other = (1, 2) if first == "n1" else (2, 1)
    assert cluster.task("a", won).status == "succeeded"
    cluster.quiet()
    assert cluster.task("a", other).status == "superseded"
    assert cluster.task("a", other).node != first


def test_a_result_that_comes_back_before_the_second_attempt_starts_spares_it() -> None:
    cluster = long(Cluster(lost_after=10.0), 15.0)
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.cut("n1")
    cluster.until(lambda: not cluster.runtimes["n1"].store.open)
    assert cluster.task("a").status == "lost"
    assert cluster.worker("a").status == "ready"
    cluster.mend("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1}


def test_a_failure_of_an_attempt_that_was_given_up_uses_up_no_retry() -> None:
    cluster = Cluster(lost_after=10.0)
    cluster.outcome = lambda a: Outcome(15.0, exit_code=1 if a.attempt == 1 else 0)
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.cut("n1")
    cluster.until(lambda: not cluster.runtimes["n1"].store.open)
    cluster.mend("n1")
    assert cluster.finish().status == "succeeded"
    assert (cluster.task("a").status, cluster.worker("a").failures) == ("failed", 0)


def test_a_worker_whose_nodes_keep_vanishing_is_taken_for_the_cause() -> None:
    cluster = long(Cluster(lost_after=1.0, max_losses=2))
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    for attempt in (1, 2, 3):
        cluster.until(lambda attempt=attempt: running(cluster, "a", attempt))  # type: ignore[misc]  # bound per turn
        cluster.crash_runtime("n1", spawner_too=True)
        cluster.start_runtime("n1")
        cluster.quiet()
    assert cluster.finish().status == "failed"
    assert "lost 3 times" in str(cluster.worker("a").error_message)


def test_a_wiped_node_loses_its_tasks_at_once() -> None:
    cluster = long(Cluster(lost_after=1000.0))
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    at = cluster.now
    cluster.wipe("n1")
    cluster.start_runtime("n1")
    cluster.until(lambda: running(cluster, "a", 2))
    assert cluster.now == at
    assert cluster.task("a").error_message == "its node came back with an empty data folder"


@pytest.mark.parametrize("kind", ["assign", "cancel"])
def test_a_wiped_node_is_not_sent_what_waited_for_it(kind: str) -> None:
    cluster = long(Cluster(lost_after=1000.0))
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == kind
    cluster.submit(workflow(worker("a")))
    cluster.quiet()
    if kind == "cancel":
        cluster.cancel()
    assert [message.kind for message in cluster.held] == [kind]
    cluster.wipe("n1")
    cluster.start_runtime("n1")
    cluster.quiet()
    cluster.release()
    cluster.quiet()
    cluster.finish()
    lost = cluster.task("a")
    assert (lost.status, lost.error_message) == ("lost", "its node came back with an empty data folder")
    facts = [fact for entry in cluster.runtimes["n1"].store.feed for fact in entry]
    assert lost.id not in [fact.id for fact in facts], "the node carried out what was given up"


def test_an_order_of_the_batch_in_which_its_node_is_given_up_is_withdrawn() -> None:
    cluster = long(Cluster())
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    anew = NodeInfo("n1", "2", "another", slots=1, resources={"cpus": 1.0})
    effects = cluster.core.handle([on.CancelRun("r"), on.NodeSeen(anew, {})], cluster.now)
    order, withdrawn = do.Cancel("n1", TaskId("r", "a", 1), 1), do.Withdraw("n1")
    assert [effect for effect in effects if effect in (order, withdrawn)] == [order, withdrawn]


def test_a_token_of_an_earlier_life_is_no_suspicion() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.tell(on.NodeUnreachable("n1", "0"), on.NodeUnreachable("never seen", "0"))
    assert cluster.core.nodes["n1"].status is NodeStatus.READY


def test_a_restarted_coordinator_finds_what_runs() -> None:
    cluster = long(Cluster())
    cluster.node("n1", 2)
    cluster.submit(workflow(worker("a"), worker("b"), worker("c", "a", "b")))
    cluster.until(lambda: running(cluster, "a") and running(cluster, "b"))
    cluster.crash_coordinator()
    cluster.until(lambda: not cluster.runtimes["n1"].store.open)
    cluster.start_coordinator()
    assert cluster.finish().status == "succeeded"
    assert set(cluster.starts.values()) == {1}


def test_a_restarted_runtime_records_the_true_result() -> None:
    cluster = long(Cluster())
    cluster.node("n1")
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: running(cluster))
    cluster.crash_runtime("n1")
    cluster.until(lambda: all(p.exited for p in cluster.runtimes["n1"].processes.values()), 5)
    cluster.start_runtime("n1")
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1}


# --- fencing, draining ----------------------------------------------------------------------------------------------------


def test_a_coordinator_refused_by_a_higher_epoch_steps_down_for_that_run() -> None:
    cluster = long(Cluster())
    cluster.node("n1", 2)
    cluster.runtimes["n1"].store.fences["r"] = (7, "c2")
    cluster.crash_runtime("n1")
    cluster.start_runtime("n1")
    cluster.quiet()
    cluster.submit(workflow(worker("a")), "r")
    cluster.submit(workflow(worker("a")), "s")
    cluster.quiet()
    assert list(cluster.core.runs) == ["s"]
    assert (cluster.run("r").owner, cluster.run("r").epoch) == ("c2", 7)
    assert cluster.starts == {("s", "a"): 1}
    assert list(cluster.core.nodes["n1"].tasks) == [TaskId("s", "a", 1)]


def test_a_refusal_that_names_ourselves_is_no_reason_to_step_down() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: True
    cluster.submit(workflow(worker("a")))
    cluster.tell(on.Refused("n1", TaskId("r", "a", 1), "FENCED", "", 1, "c1"))
    assert "r" in cluster.core.runs
    cluster.held.clear()
    cluster.release()
    assert cluster.finish().status == "succeeded", "it is sent again"


def test_a_drained_node_hands_back_what_waits_finishes_what_runs_and_takes_nothing() -> None:
    cluster = long(Cluster(), 5.0)
    cluster.node("n1", 1)
    cluster.submit(workflow(worker("a"), worker("b")))
    cluster.until(lambda: running(cluster))
    cluster.tell_runtime("n1", on.Drain())
    assert cluster.core.nodes["n1"].status is NodeStatus.DRAINING
    cluster.until(lambda: cluster.worker("a").status == "succeeded")
    cluster.quiet()
    assert cluster.worker("b").attempts == 0
    assert why(cluster, "b") == "waits for room on 1 node, 1 of them draining"
    cluster.tell_runtime("n1", on.Resume())
    assert cluster.finish().status == "succeeded"


def test_an_assignment_that_meets_a_drain_goes_elsewhere() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.tell_runtime("n1", on.Drain())
    cluster.release()
    cluster.node("n2")
    assert cluster.finish().status == "succeeded"
    assert (cluster.task("a").status, cluster.task("a", 2).node) == ("returned", "n2")


def test_an_assignment_that_was_handed_back_and_comes_once_more_after_the_drain_starts_nothing() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    (late,) = cluster.held
    cluster.tell_runtime("n1", on.Drain())
    cluster.hold = lambda message: False
    cluster.deliver(late)
    cluster.until(lambda: cluster.task("a").status == "returned")
    cluster.tell_runtime("n1", on.Resume())
    cluster.deliver(late)
    assert cluster.finish().status == "succeeded"
    assert (cluster.started(), cluster.task("a", 2).status) == (["a"], "succeeded"), "it ran once"


def test_a_node_that_refused_is_asked_again_after_a_while() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.tell(on.Refused("n1", TaskId("r", "a", 1), "UNFIT", "an earlier attempt has not ended here yet"))
    refused_at = cluster.now
    cluster.held.clear()
    cluster.release()
    assert cluster.finish().status == "succeeded"
    assert cluster.task("a", 2).assigned_at == pytest.approx(refused_at + HOLD_FIRST)


def test_a_node_on_which_a_later_attempt_has_ended_is_asked_what_it_knows_and_gets_a_higher_number() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.tell(on.Refused("n1", TaskId("r", "a", 1), "PASSED", "attempt 7 of this worker has ended here already"))
    assert cluster.task("a").status == "assigned", "whether it has ended there is not known yet"
    ended = Fact(FactKind.FINISHED, "r", "a", 7, at=1.0, status=TaskStatus.CANCELLED)
    cluster.tell(on.RunsClaimed("n1", {"r": 1}, {}, (ended,)))
    cluster.held.clear()
    cluster.release()
    assert cluster.finish().status == "succeeded"
    assert [cluster.task("a", attempt).status for attempt in (1, 8)] == ["returned", "succeeded"]


def test_the_end_of_an_attempt_that_its_node_has_passed_is_what_the_node_says() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.tell(on.Refused("n1", TaskId("r", "a", 1), "PASSED", "attempt 2 of this worker has ended here already"))
    ends = tuple(Fact(FactKind.FINISHED, "r", "a", n, at=n, status=TaskStatus.FAILED, exit_code=n) for n in (1, 2))
    cluster.tell(on.RunsClaimed("n1", {"r": 1}, {}, ends))
    assert cluster.task("a").exit_code == 1
    assert cluster.run().status == "failed"


def test_a_late_refusal_of_a_lost_attempt_leaves_the_new_one_alone() -> None:
    cluster = long(Cluster(lost_after=1.0))
    cluster.node("n1")
    cluster.hold = lambda message: message.kind == "assign" and message.to == "n1"
    cluster.submit(workflow(worker("a")))
    cluster.cut("n1")
    cluster.node("n2")
    cluster.until(lambda: running(cluster, "a", 2))
    cluster.tell(on.Refused("n1", TaskId("r", "a", 1), "UNFIT", "no"))
    assert cluster.worker("a").status == "running"
    assert cluster.task("a").status == "returned"
    assert cluster.finish().status == "succeeded"


# --- why a worker waits -----------------------------------------------------------------------------------------------------


def test_why_a_worker_waits() -> None:
    cluster = long(Cluster())
    cluster.submit(workflow(worker("a", resources={"gpus": 1.0}, labels={"lab": "3"}), worker("b", "a")))
    assert why(cluster) == "no node is in sight"
    assert why(cluster, "b") is None, "it is not ready"
    cluster.node("n1", labels={"lab": "3"})
    cluster.node("n2", labels={"lab": "2"}, gpus=1.0)
    cluster.node("n3", gpus=1.0)
    assert why(cluster) == "no node fits: n1 has 0 gpus, not 1; n2 has label lab=2, not 3; n3 has no label lab=3"
    for i in range(5):
        cluster.node(f"m{i}")
    assert str(why(cluster)).endswith("; and 3 more")
    cluster.node("good", labels={"lab": "3"}, gpus=1.0)
    assert why(cluster) is None, "it has been placed"


def test_why_a_worker_waits_for_room_a_node_or_its_time() -> None:
    cluster = long(Cluster())
    cluster.node("n1")
    cluster.submit(workflow(worker("a"), worker("b"), worker("c", node="lab-3")))
    assert why(cluster, "b") == "waits for room on 1 node"
    assert why(cluster, "c") == "no node fits: n1 is not lab-3"
    cluster.core.runs["r"].workers["b"].not_before = cluster.now + 2.5
    assert why(cluster, "b") == "tried again in 2.5 s"


def test_a_node_that_says_it_grew_is_given_more() -> None:
    cluster = long(Cluster())
    runtime = cluster.node("n1", 1)
    cluster.submit(workflow(worker("a", resources={"gpus": 1.0})))
    cluster.quiet()
    cluster.crash_runtime("n1")
    runtime.options = RuntimeOptions(2, {"cpus": 2.0, "gpus": 1.0})
    cluster.start_runtime("n1")
    cluster.until(lambda: running(cluster))
    assert cluster.task("a").node == "n1"


def test_without_a_quorum_a_worker_waits_for_it() -> None:
    cluster = Cluster(quorum=3)
    cluster.node("n1", 1)
    cluster.submit(workflow(worker("a")))
    cluster.quiet()
    assert why(cluster) == "waits for a quorum: 2 of 3 peers are in sight"
    cluster.node("n2", 1)
    assert cluster.finish().status == "succeeded"
