"""Runs and workers: what starts when, how runs end, cancelling, stopping and retrying."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.core.harness import Cluster, Message, statuses, worker, workflow
from tests.core.outcomes import Outcome
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core import placing
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.model import Assignment, Fact, FactKind, NodeInfo, Retries, TaskId, TaskStatus
from wattle.core.retry import retry_delay
from wattle.core.states import IllegalTransition, WorkerEvent


def one_node(slots: int = 4) -> Cluster:
    cluster = Cluster()
    cluster.node("n1", slots)
    return cluster


def failing(*names: str) -> Cluster:
    """A cluster on which the workers of these names exit with status 3."""
    cluster = one_node()
    cluster.outcome = lambda assignment: Outcome(exit_code=3 if assignment.worker in names else 0)
    return cluster


def is_running(cluster: Cluster, *names: str) -> bool:
    return all(cluster.worker(name).status == "running" for name in names)


# --- order ------------------------------------------------------------------------------------------------------------


def test_a_worker_starts_once_all_it_needs_have_succeeded() -> None:
    cluster = one_node()
    cluster.outcome = lambda a: Outcome(seconds=5.0 if a.worker == "slow" else 1.0)
    cluster.submit(workflow(worker("slow"), worker("quick"), worker("join", "slow", "quick"), worker("after", "quick")))
    cluster.until(lambda: is_running(cluster, "after"))
    assert cluster.worker("join").status == "created"
    assert cluster.finish().status == "succeeded"
    assert cluster.started() == ["slow", "quick", "after", "join"]
    assert set(cluster.starts.values()) == {1}


def test_levels_mode_waits_for_the_whole_level() -> None:
    cluster = one_node()
    cluster.outcome = lambda a: Outcome(seconds=5.0 if a.worker == "slow" else 1.0)
    cluster.submit(workflow(worker("slow"), worker("quick"), worker("after", "quick"), mode="levels"))
    cluster.finish()
    assert cluster.task("after").assigned_at >= (cluster.task("slow").completed_at or 0.0)


def test_sequential_mode_runs_one_at_a_time_in_document_order() -> None:
    cluster = one_node()
    cluster.submit(workflow(worker("b"), worker("a"), worker("c", "b"), mode="sequential"))
    cluster.until(lambda: is_running(cluster, "b"))
    assert statuses(cluster) == {"b": "running", "a": "created", "c": "created"}
    cluster.finish()
    assert cluster.started() == ["b", "a", "c"]


def test_higher_priority_goes_first_and_older_runs_before_younger() -> None:
    cluster = one_node(slots=1)
    cluster.submit(workflow(worker("first"), worker("low"), worker("high", priority=5)), "r")
    cluster.submit(workflow(worker("young", priority=5)), "s")
    cluster.finish("r")
    cluster.finish("s")
    order = [t.worker for t in sorted(cluster.coordinator.store.tasks.values(), key=lambda t: t.started_at or 0.0)]
    assert order == ["high", "young", "first", "low"]


def test_what_is_too_much_to_be_placed_at_once_is_placed_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "PLACED_MOST", 2)
    core = CoordinatorCore("c1", CoordinatorOptions(), lambda: 0.5)
    given, timers = [], []
    workers = workflow(*(worker(f"w{number}", priority=number) for number in range(5)))
    node = on.NodeSeen(NodeInfo("n1", "1", "s1", slots=9, resources={"cpus": 9.0}))
    for events in ((node, on.Submit("r", workers, None)), (on.Tick(),), (on.Tick(),), (on.Tick(),)):
        effects = core.handle(events, 100.0)
        given.append([effect.assignment.worker for effect in effects if isinstance(effect, do.Assign)])
        timers += [effect.at == 100.0 for effect in effects if isinstance(effect, do.SetTimer)]
    assert given == [["w4", "w3"], ["w2", "w1"], ["w0"], []]
    assert timers == [True, True, False, False]


def test_of_a_new_run_some_are_placed_for_each_node_before_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "PLACED_FIRST", 1)
    core = CoordinatorCore("c1", CoordinatorOptions(), lambda: 0.5)
    workers = workflow(*(worker(f"w{number}", priority=number) for number in range(5)))
    core.handle([on.NodeSeen(NodeInfo(n, "1", f"s{n}", slots=9, resources={"cpus": 9.0})) for n in ("n1", "n2")], 99.0)
    given = [
        [effect.assignment.worker for effect in core.handle([event], 100.0) if isinstance(effect, do.Assign)]
        for event in (on.Submit("r", workers), on.Tick())
    ]
    assert given == [["w4", "w3"], ["w2", "w1", "w0"]]


def test_a_workflow_without_workers_has_succeeded_at_once() -> None:
    cluster = Cluster()
    cluster.submit(workflow())
    assert cluster.run().status == "succeeded"


def test_the_same_submission_twice_is_one_run() -> None:
    cluster = one_node()
    cluster.tell(on.Submit("r", workflow(worker("a"))), on.Submit("r", workflow(worker("a"))))
    cluster.finish()
    assert cluster.starts == {("r", "a"): 1}


# --- failures and retries -----------------------------------------------------------------------------------------------


def test_a_failed_worker_is_tried_again_with_growing_delays_until_its_retries_are_used_up() -> None:
    cluster = failing("a")
    cluster.submit(workflow(worker("a", retries=Retries(3, delay=4.0, backoff=3.0, max_delay=20.0, jitter=0.0))))
    run = cluster.finish()
    assert (run.status, run.error_message) == ("failed", "'a' failed")
    times = [(t.assigned_at, t.completed_at or 0.0) for t in (cluster.task("a", n) for n in (1, 2, 3, 4))]
    waits = [after[0] - before[1] for before, after in pairwise(times)]
    assert waits == pytest.approx([4.0, 12.0, 20.0])
    assert cluster.worker("a").error_message == "exit status 3"
    assert (cluster.worker("a").failures, cluster.worker("a").attempts) == (4, 4)


def test_jitter_stays_within_its_share_of_the_delay() -> None:
    retries = Retries(5, delay=10.0, backoff=2.0, max_delay=100.0, jitter=0.25)
    assert retry_delay(retries, 2, 0.0) == pytest.approx(15.0)
    assert retry_delay(retries, 2, 0.5) == pytest.approx(20.0)
    assert retry_delay(retries, 2, 0.9999) == pytest.approx(25.0, abs=0.01)
    assert retry_delay(retries, 6, 0.5) is None


def test_a_backoff_beyond_all_numbers_is_the_longest_delay() -> None:
    assert retry_delay(Retries(2000, delay=1.0, backoff=10.0, jitter=0.0), 1900, 0.5) == 300.0


def test_a_retry_survives_a_restart_of_the_coordinator() -> None:
    cluster = failing("a")
    cluster.submit(workflow(worker("a", retries=Retries(1, delay=50.0, jitter=0.0))))
    cluster.until(lambda: cluster.worker("a").failures == 1)
    failed_at = cluster.now
    cluster.crash_coordinator()
    cluster.start_coordinator()
    cluster.quiet()
    assert cluster.worker("a").status == "ready"
    cluster.finish()
    assert cluster.task("a", 2).assigned_at == pytest.approx(failed_at + 50.0)


def test_on_failure_stop_skips_what_has_not_started_and_lets_the_running_end() -> None:
    cluster = one_node(slots=2)
    cluster.outcome = lambda a: Outcome(5.0) if a.worker == "long" else Outcome(1.0, exit_code=1)
    cluster.submit(
        workflow(worker("bad"), worker("long"), worker("next", "bad"), worker("other"), worker("last", "long"))
    )
    assert cluster.finish().status == "failed"
    assert statuses(cluster) == {
        "bad": "failed",
        "long": "succeeded",
        "next": "skipped",
        "other": "skipped",
        "last": "skipped",
    }
    assert cluster.worker("next").error_message == "needs 'bad', which failed"
    assert cluster.worker("last").error_message == "not started: 'bad' failed and stops the run (on_failure: stop)"


def test_on_failure_continue_skips_only_what_depends_on_it() -> None:
    cluster = failing("bad")
    cluster.submit(
        workflow(
            worker("bad", on_failure="continue"),
            worker("b", "bad"),
            worker("c", "b"),
            worker("other"),
            worker("last", "other"),
        )
    )
    assert cluster.finish().status == "failed"
    assert statuses(cluster) == {
        "bad": "failed",
        "b": "skipped",
        "c": "skipped",
        "other": "succeeded",
        "last": "succeeded",
    }
    assert cluster.worker("c").error_message == "needs 'bad', which failed"


@pytest.mark.parametrize("mode", ["levels", "sequential"])
def test_stages_go_on_after_a_failure_that_does_not_stop_the_run(mode: str) -> None:
    cluster = failing("bad")
    cluster.submit(
        workflow(worker("bad", on_failure="continue"), worker("ok"), worker("b", "bad"), worker("d", "ok"), mode=mode)
    )
    cluster.finish()
    assert statuses(cluster) == {"bad": "failed", "ok": "succeeded", "b": "skipped", "d": "succeeded"}


def test_stop_takes_back_what_was_sent_ahead() -> None:
    cluster = one_node(slots=1)
    cluster.outcome = lambda a: Outcome(0.01, exit_code=1 if a.worker == "bad" else 0)
    warm = [worker(f"w{i}", priority=9) for i in range(4)]
    cluster.submit(workflow(*warm, worker("bad", priority=5), *(worker(f"x{i}") for i in range(5))))
    cluster.finish()
    left = {name: status for name, status in statuses(cluster).items() if name.startswith("x")}
    assert set(left.values()) == {"skipped"}
    assert any(isinstance(e, do.Cancel) for e in cluster.effects), "nothing had been sent ahead: the test is too slow"


# --- cancelling ---------------------------------------------------------------------------------------------------------


def test_cancel_before_anything_is_placed() -> None:
    cluster = Cluster()
    cluster.submit(workflow(worker("a"), worker("b", "a")))
    cluster.cancel()
    assert (cluster.run().status, cluster.run().error_message) == ("cancelled", "cancelled on request")
    assert statuses(cluster) == {"a": "cancelled", "b": "cancelled"}


def test_cancel_in_the_batch_of_the_submission() -> None:
    cluster = one_node()
    cluster.tell(on.Submit("r", workflow(worker("a"))), on.CancelRun("r"))
    assert cluster.run().status == "cancelled"
    assert cluster.worker("a").status == "cancelled"


@pytest.mark.parametrize("phase", ["queued", "preparing", "starting", "running", "collecting"])
def test_cancel_at_each_phase_on_the_runtime(phase: str) -> None:
    cluster = one_node(slots=1)
    runtime = cluster.runtimes["n1"]
    cluster.submit(workflow(worker("p", outputs={"out": "o"}), worker("a", reads="p", outputs={"out": "o"})))
    if phase == "queued":
        other = Assignment("other", "x", 1, 1, "w", resources={"cpus": 1.0})
        cluster.deliver(Message("n1", "c1", "assign", (other,)))
    name = "p" if phase == "queued" else "a"

    def there() -> bool:
        core = runtime.core
        return core is not None and any(t.id.worker == name and t.held.phase == phase for t in core.tasks.values())

    cluster.until(there)
    cluster.cancel()
    while cluster.wire:
        cluster.deliver(cluster.wire.pop(0))
    assert cluster.finish().status == "cancelled"
    assert statuses(cluster)[name] == "cancelled"
    assert cluster.task(name).status == "cancelled"
    cluster.quiet()
    assert not [task for task in runtime.processes if task.run == "r"]


def test_a_cancel_that_overtakes_its_assignment_wins() -> None:
    cluster = one_node()
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.cancel()
    assert cluster.finish().status == "cancelled"
    cluster.release()
    cluster.quiet()
    assert cluster.starts == {}
    assert cluster.task("a").status == "cancelled"


def test_a_finish_that_meets_the_cancel_counts() -> None:
    cluster = one_node()
    cluster.submit(workflow(worker("a"), worker("b")))
    cluster.until(lambda: is_running(cluster, "a", "b"))
    cluster.hold = lambda message: message.kind == "cancel"
    cluster.cancel()
    assert cluster.finish().status == "succeeded"
    cluster.release()
    cluster.quiet()
    assert statuses(cluster) == {"a": "succeeded", "b": "succeeded"}


def test_a_cancelled_run_stays_cancelled_over_a_restart_between_commit_and_send() -> None:
    cluster = one_node()
    cluster.outcome = lambda a: Outcome(1000.0)
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: is_running(cluster, "a"))
    began = cluster.now
    cluster.tell(on.CancelRun("r"), crash="after")
    cluster.start_coordinator()
    assert cluster.finish().status == "cancelled"
    assert cluster.now < began + 1000.0


def test_cancel_while_assigned_over_a_restart_starts_nothing() -> None:
    cluster = one_node()
    cluster.hold = lambda message: message.kind == "assign"
    cluster.submit(workflow(worker("a")))
    cluster.tell(on.CancelRun("r"), crash="after")
    cluster.held.clear()
    cluster.release()
    cluster.start_coordinator()
    assert cluster.finish().status == "cancelled"
    assert cluster.starts == {}


def test_cancelling_a_run_on_a_lost_node_ends_it() -> None:
    cluster = one_node()
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: is_running(cluster, "a"))
    cluster.cut("n1")
    cluster.cancel()
    assert cluster.finish().status == "cancelled"
    assert cluster.task("a").status == "lost"


# --- retrying a run -------------------------------------------------------------------------------------------------------


def test_retry_keeps_successes_and_raises_the_epoch() -> None:
    cluster = failing("b")
    cluster.submit(workflow(worker("a"), worker("b", "a"), worker("c", "b")))
    assert cluster.finish().status == "failed"
    cluster.outcome = lambda a: Outcome()
    cluster.retry()
    assert (cluster.run().status, cluster.run().epoch, cluster.run().completed_at) == ("running", 2, None)
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1, ("r", "b"): 2, ("r", "c"): 1}
    assert cluster.worker("b").attempts == 2
    assert cluster.worker("b").error_message is None


def test_retry_of_a_cancelled_run_starts_what_was_cancelled() -> None:
    cluster = one_node()
    cluster.submit(workflow(worker("a"), worker("b", "a")))
    cluster.until(lambda: is_running(cluster, "a"))
    cluster.cancel()
    cluster.finish()
    cluster.retry()
    assert not cluster.run().cancel_requested
    assert cluster.finish().status == "succeeded"


def test_retry_told_twice_and_retry_of_a_success_do_nothing() -> None:
    cluster = failing("a")
    cluster.submit(workflow(worker("a")))
    cluster.finish()
    snapshot = cluster.coordinator.store.snapshot("r")
    cluster.outcome = lambda a: Outcome()
    cluster.tell(on.RetryRun(snapshot), on.RetryRun(snapshot))
    assert cluster.run().epoch == 2
    final = cluster.finish()
    cluster.retry()
    assert cluster.run() == final


def test_an_attempt_of_before_the_retry_is_refused_by_its_epoch() -> None:
    cluster = one_node()
    cluster.hold = lambda message: message.kind in ("assign", "cancel")
    cluster.submit(workflow(worker("a")))
    old = cluster.held[0]
    cluster.cancel()
    cluster.cut("n1")
    assert cluster.finish().status == "cancelled"
    cluster.held.clear()
    cluster.release()
    cluster.mend("n1")
    cluster.quiet()
    cluster.retry()
    cluster.until(lambda: is_running(cluster, "a"))
    cluster.effects.clear()
    cluster.deliver(old)
    refused = [e for e in cluster.effects if isinstance(e, do.Answer)]
    assert [(e.code, e.epoch, e.owner) for e in refused] == [("FENCED", 2, "c1")]
    assert cluster.finish().status == "succeeded"
    assert cluster.starts == {("r", "a"): 1}


# --- late and impossible events -------------------------------------------------------------------------------------------


def test_facts_of_a_run_that_is_over_go_to_the_history_alone() -> None:
    cluster = one_node()
    cluster.outcome = lambda a: Outcome(heeds_term=False)
    cluster.submit(workflow(worker("a", kill_after=500.0)))
    cluster.until(lambda: is_running(cluster, "a"))
    cluster.cut("n1")
    cluster.cancel()
    final = cluster.finish()
    cluster.mend("n1")
    cluster.until(lambda: cluster.task("a").status == "superseded")
    assert cluster.run() == final
    assert cluster.worker("a").status == "cancelled"


@pytest.mark.parametrize("delivered", [False, True])
def test_a_finish_without_a_start_counts(delivered: bool) -> None:
    """A process that ended while its runtime was down may have its end told alone."""
    cluster = one_node()
    cluster.hold = lambda message: True
    cluster.submit(workflow(worker("a")))
    task = TaskId("r", "a", 1)
    if delivered:
        cluster.tell(on.Delivered("n1", (task,)))
    done = Fact(FactKind.FINISHED, *task, at=cluster.now, status=TaskStatus.SUCCEEDED, exit_code=0)
    cluster.tell(on.FactsLearned("n1", cluster.runtimes["n1"].store.id, 1, (done,)))
    assert cluster.run().status == "succeeded"
    assert cluster.task("a").status == "succeeded"


def test_an_illegal_transition_tells_what_the_worker_went_through() -> None:
    cluster = one_node()
    cluster.submit(workflow(worker("a")))
    cluster.until(lambda: is_running(cluster, "a"))
    run = cluster.core.runs["r"]
    with pytest.raises(IllegalTransition) as caught:
        cluster.core.move(run, run.workers["a"], WorkerEvent.MET)
    told = str(caught.value)
    assert "run r, worker a: event 'met' in state 'running'" in told
    assert "attempts 1" in told
    assert "node='n1'" in told


def test_an_event_nobody_knows_raises() -> None:
    with pytest.raises(KeyError):
        CoordinatorCore("c", CoordinatorOptions(), lambda: 0.5).handle([object()], 0.0)  # type: ignore[list-item]  # on purpose


def test_announcements_can_be_left_out() -> None:
    cluster = one_node()
    cluster.core.announcing = False
    cluster.submit(workflow(worker("a")))
    assert cluster.finish().status == "succeeded"
    assert not [e for e in cluster.effects if isinstance(e, do.AnnounceWorker)]
    assert cluster.task("a").status is TaskStatus.SUCCEEDED
