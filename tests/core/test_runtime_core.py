"""The runtime's core by itself: accepting, room, endings, clocks, and coming back from its store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from signal import SIGKILL, SIGTERM
from typing import Any, TypeVar

import pytest

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.effects import HeldTask, RuntimeEffect
from wattle.core.invariants import InvariantBroken, check_runtime
from wattle.core.model import Assignment, Fact, FactKind, Input, Output, TaskId, TaskStatus, Usage
from wattle.core.past import Past
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.core.states import IllegalTransition, Phase

E = TypeVar("E")
USAGE = Usage(0.5, 4096)


def task(name: str = "a", attempt: int = 1, epoch: int = 1, **keys: Any) -> Assignment:
    return Assignment("r", name, attempt, epoch, "w", **keys)


A = task().id
INPUT = {"data": Input("p", "out", "/o", "d1", 10)}


class Driver:
    """A runtime core with its invariants checked after every batch."""

    def __init__(self, slots: int = 1, **options: Any) -> None:
        self.core = RuntimeCore(RuntimeOptions(slots, **options))

    def __call__(self, *events: on.RuntimeEvent, at: float = 0.0) -> list[RuntimeEffect]:
        effects = self.core.handle(events, at)
        check_runtime(self.core)
        return effects

    def assign(self, *tasks: Assignment, owner: str = "c1", at: float = 0.0) -> list[RuntimeEffect]:
        return self(on.Assigned(1, owner, tasks), at=at)

    def start(self, *tasks: Assignment, at: float = 0.0) -> None:
        self.assign(*tasks, at=at)
        self(*(on.ProcessStarted(t.id, 7, at) for t in tasks), at=at)


def of(kind: type[E], effects: Iterable[RuntimeEffect]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def codes(effects: Iterable[RuntimeEffect]) -> list[str]:
    return [answer.code for answer in of(do.Answer, effects)]


def ends(effects: Iterable[RuntimeEffect]) -> list[Fact]:
    return [e.fact for e in of(do.Append, effects) if e.fact.kind is FactKind.FINISHED]


def end(effects: Iterable[RuntimeEffect]) -> tuple[str | None, str | None]:
    (fact,) = ends(effects)
    return fact.status and fact.status.value, fact.error


def exited(code: int | None = 0, signal: int | None = None, at: float = 1.0, of_task: TaskId = A) -> on.ProcessExited:
    return on.ProcessExited(of_task, code, signal, USAGE, at)


# --- a task's way -----------------------------------------------------------------------------------------------------


def test_saves_come_before_all_else() -> None:
    effects = Driver().assign(task(), task("b"))
    saving = [isinstance(e, do.SaveHeldTask | do.SaveFence | do.Append) for e in effects]
    assert saving == sorted(saving, reverse=True)
    assert of(do.Spawn, effects) == [do.Spawn(task())]


def test_the_whole_way_with_inputs_and_outputs() -> None:
    driver = Driver()
    full = task(inputs=INPUT, outputs={"out": "x"})
    assert of(do.Prepare, driver.assign(full)) == [do.Prepare(full)]
    assert of(do.Spawn, driver(on.Prepared(A))) == [do.Spawn(full)]
    assert of(do.Append, driver(on.ProcessStarted(A, 7, 2.0))) == [do.Append(Fact(FactKind.STARTED, *A, at=2.0, pid=7))]
    effects = driver(exited(at=9.0))
    assert of(do.Collect, effects) == [do.Collect(full)]
    assert of(do.Acknowledge, effects) == [do.Acknowledge(A)]
    out = Output("x", "d2", 3)
    (fact,) = ends(driver(on.Collected(A, {"out": out}), at=9.5))
    assert (fact.status, fact.exit_code, fact.pid, fact.started_at, fact.at) == (TaskStatus.SUCCEEDED, 0, 7, 2.0, 9.5)
    assert (fact.outputs, fact.fetched, fact.usage) == ({"out": out}, ("d1",), USAGE)
    assert (driver.core.running, driver.core.queued, driver.core.room.used) == (0, 0, {})


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (exited(3), ("failed", "exit status 3")),
        (exited(None, SIGKILL), ("failed", "killed by signal SIGKILL")),
        (exited(None, 60), ("failed", "killed by signal 60")),
        (exited(0), ("succeeded", None)),
        (on.ProcessesLost((A,)), ("lost", "the spawner that held its process ended; how the process ended is unknown")),
    ],
    ids=["exit", "signal", "nameless signal", "success", "lost"],
)
def test_what_an_end_means(event: on.RuntimeEvent, told: tuple[str, str | None]) -> None:
    driver = Driver()
    driver.start(task())
    assert end(driver(event)) == told


def test_a_task_lost_before_it_was_seen_to_start_says_so() -> None:
    driver = Driver()
    driver.assign(task())
    status, error = end(driver(on.ProcessesLost((A,))))
    assert status == "lost"
    assert error is not None
    assert "nobody saw it start" in error


def test_what_goes_wrong_before_and_after_the_command() -> None:
    driver = Driver()
    driver.assign(task())
    effects = driver(on.SpawnFailed(A, "no such command"))
    assert end(effects) == ("failed", "no such command")
    assert of(do.Acknowledge, effects) == [do.Acknowledge(A)]
    driver.start(task("b", outputs={"out": "x"}))
    driver(exited(of_task=task("b").id))
    assert end(driver(on.CollectFailed(task("b").id, "no file x"))) == ("failed", "no file x")
    driver.assign(task("c", inputs=INPUT))
    (fact,) = ends(driver(on.PrepareFailed(task("c").id, "nobody has it", ("data",))))
    assert (fact.status, fact.missing) == (TaskStatus.RETURNED, ("data",))
    driver.assign(task("d", inputs=INPUT))
    assert end(driver(on.PrepareFailed(task("d").id, "no such folder"))) == ("failed", "no such folder")


def test_a_task_that_finds_no_room_on_the_disk_is_handed_back() -> None:
    driver = Driver()
    driver.assign(task())
    effects = driver(on.SpawnFailed(A, "no space left", disk_full=True))
    assert end(effects) == ("returned", "no space left")
    assert of(do.Acknowledge, effects) == [do.Acknowledge(A)]
    driver.assign(task("b", inputs=INPUT))
    (fact,) = ends(driver(on.PrepareFailed(task("b").id, "no space left", disk_full=True)))
    assert (fact.status, fact.error, fact.disk_full) == (TaskStatus.RETURNED, "no space left", True)


def test_an_exit_that_is_told_before_its_start() -> None:
    driver = Driver()
    driver.assign(task())
    assert end(driver(exited(0))) == ("succeeded", None)
    assert of(do.Append, driver(on.ProcessStarted(A, 7, 0.5))) == []


def test_a_start_that_is_told_after_its_exit_or_twice() -> None:
    driver = Driver()
    driver.assign(task(outputs={"out": "x"}))
    assert of(do.Collect, driver(exited(0))) == [do.Collect(task(outputs={"out": "x"}))]
    assert of(do.Append, driver(on.ProcessStarted(A, 7, 0.5))) == []
    assert of(do.Collect, driver(exited(0))) == []
    assert end(driver(on.Collected(A, {}))) == ("succeeded", None)


def test_late_words_about_ended_tasks_change_nothing() -> None:
    driver = Driver()
    driver.start(task())
    driver(exited(0))
    late = (on.Prepared(A), on.PrepareFailed(A, "x"), on.ProcessStarted(A, 8, 3.0), on.ProcessesLost((A,)))
    assert ends(driver(*late, on.Collected(A, {}), on.CollectFailed(A, "x"))) == []
    effects = driver(exited(1), on.SpawnFailed(A, "x"))
    assert of(do.Acknowledge, effects) == [do.Acknowledge(A)] * 2, "or the spawner would keep it for ever"
    assert of(do.Append, effects) == []


def test_a_process_of_a_task_that_was_never_started_is_a_fault_and_tells_the_story() -> None:
    driver = Driver()
    driver.assign(task(inputs=INPUT))
    with pytest.raises(IllegalTransition, match=r"task r/a/1: event 'started' in state 'preparing'\n  held: HeldTask"):
        driver(on.ProcessStarted(A, 7, 0.0))


# --- accepting ----------------------------------------------------------------------------------------------------------


def test_an_assignment_told_twice_is_stored_once_and_never_run_again() -> None:
    driver = Driver()
    driver.start(task())
    again = driver.assign(task())
    assert (codes(again), of(do.SaveHeldTask, again), of(do.Spawn, again)) == (["OK"], [], [])
    driver(exited(0))
    again = driver.assign(task())
    assert (codes(again), of(do.Spawn, again)) == (["OVER"], [])


def test_what_is_refused() -> None:
    driver = Driver(resources={"cpus": 2.0})
    assert codes(driver.assign(task(resources={"cpus": 3.0}))) == ["UNFIT"]
    driver.start(task(attempt=2))
    assert codes(driver.assign(task(attempt=3))) == ["UNFIT"], "two attempts of one worker never run at once"
    driver(exited(0, of_task=task(attempt=2).id))
    driver.assign(task("b", attempt=5))
    driver(on.ProcessStarted(task("b", 5).id, 7, 0.0), exited(0, of_task=task("b", 5).id))
    assert codes(driver.assign(task("b", attempt=4))) == ["PASSED"], "an older attempt must not be waited for"
    cancelled = driver(on.CancelAsked(1, "c1", tuple((task("b", attempt).id, 1) for attempt in (4, 5, 6))))
    assert codes(cancelled) == ["PASSED", "OVER", "OK"], "of which the last is never to start"
    assert [save.fact.attempt for save in of(do.Append, cancelled)] == [6]
    driver(on.Drain())
    assert codes(driver.assign(task("c"))) == ["DRAINING"]
    assert codes(driver.assign(task("b", attempt=6))) == ["OVER"], "it is known"


def test_what_was_refused_is_handed_back_and_not_taken_when_its_assignment_comes_once_more_and_late() -> None:
    driver = Driver(resources={"cpus": 2.0})
    driver.start(task())
    driver(on.Drain())
    draining = driver.assign(task("b"))
    driver(on.Resume())
    unfit = driver.assign(task("c", resources={"cpus": 3.0}))
    running = driver.assign(task(attempt=2))
    assert [*codes(draining), *codes(unfit), *codes(running)] == ["DRAINING", "UNFIT", "UNFIT"]
    for refused, error in (
        (draining, "the node takes no new work"),
        (unfit, "the task needs 3 cpus, the node has 2"),
        (running, "attempt 1 of this worker has not ended here yet"),
    ):
        (save,) = of(do.SaveHeldTask, refused)
        assert (save.task.phase, end(refused)) == (Phase.DONE, ("returned", error)), "it is stored before it is said"
    driver(exited(0))
    late = driver.assign(task("b"), task("c"), task(attempt=2))
    assert (codes(late), of(do.Spawn, late), ends(late)) == (["OVER"] * 3, [], [])
    cancelled = driver(on.CancelAsked(1, "c1", ((task("b").id, 1),)))
    assert (codes(cancelled), ends(cancelled)) == (["OVER"], []), "its end is told, and stands"


def test_a_lower_epoch_or_owner_is_fenced_and_told_the_current_one() -> None:
    driver = Driver(slots=2)
    saved = of(do.SaveFence, driver.assign(task(epoch=3), owner="c2"))
    assert saved == [do.SaveFence("r", 3, "c2")]
    for epoch, owner in ((2, "c9"), (3, "c1")):
        (answer,) = of(do.Answer, driver.assign(task("b", epoch=epoch), owner=owner))
        assert (answer.code, answer.epoch, answer.owner) == ("FENCED", 3, "c2")
        (answer,) = of(do.Answer, driver(on.CancelAsked(2, owner, ((A, epoch),))))
        assert answer.code == "FENCED"
    assert A in driver.core.tasks
    assert codes(driver.assign(task("b", epoch=4), owner="c1")) == ["OK"]


def test_an_owner_is_told_what_is_held_with_the_epoch_in_which_it_may_end_it() -> None:
    driver = Driver()
    driver.assign(task(), owner="c2")
    assert (driver.core.held_by("c1"), driver.core.held_by("c2")) == ({}, {A: 1})
    driver(on.ClaimAsked(1, "c1", (("r", 2),)))
    held = driver.core.held_by("c1")
    assert (held, driver.core.held_by("c2")) == ({A: 2}, {})
    (answer,) = of(do.Answer, driver(on.CancelAsked(2, "c1", tuple(held.items()))))
    assert answer.code == "OK"


def test_ended_runs_are_let_go_of_and_looked_up_in_the_store_when_heard_of_again() -> None:
    driver = Driver()
    past = driver.core.past = Past(most=10)
    kept = on.Assigned(1, "c1", (Assignment("kept", "a", 1, 1, "w"),))
    driver(kept)
    for i in range(30):
        driver(on.CancelAsked(1, "c1", ((TaskId(f"r{i}", "a", 1), 1),)))
        past.lacks([on.Tick()])
    assert [i for i in range(30) if past.fence(f"r{i}") is not None] == [*range(25, 30)], "a run and a worker each"
    assert past.fence("kept") == (1, "c1"), "it has an open task"
    late = on.Assigned(1, "c1", (Assignment("r3", "a", 1, 1, "w"), Assignment("r29", "a", 1, 1, "w")))
    assert past.lacks([kept, late]) == {"r3": {"a"}}
    past.recall("r3", (1, "c1"), {"a": 1})
    assert codes(driver(late)) == ["OVER", "OVER"]
    claim = on.ClaimAsked(1, "c0", (("r4", 1), ("r29", 1)))
    assert past.lacks([claim]) == {"r4": set()}
    past.recall("r4", (1, "c1"), {})
    (answer,) = of(do.AnswerClaim, driver(claim))
    assert answer.refused == (("r4", 1, "c1"), ("r29", 1, "c1"))


def test_of_a_run_that_was_looked_up_the_store_is_asked_about_other_workers_too() -> None:
    past = Past(most=4)
    past.recall("old", (1, "c1"), {"a": 2})
    past.recall("new", None, {})
    asked = [on.CancelAsked(1, "c1", tuple((TaskId(run, worker, 1), 1) for run in ("old", "new") for worker in "ab"))]
    assert past.lacks(asked) == {"old": {"b"}}
    past.note_open(TaskId("old", "b", 1))
    past.recall("old", (9, "c9"), {})
    assert past.fence("old") == (1, "c1"), "what is here is newer than what is stored"
    past.note_closed(TaskId("old", "b", 1), well=True)
    over = [past.over(TaskId("old", worker, 1)) for worker in "abc"]
    assert [answer and answer[0] for answer in over] == ["PASSED", "OVER", None]
    assert past.succeeded(TaskId("old", "b", 1))
    assert not past.succeeded(TaskId("old", "a", 2)), "it has ended, nobody knows how"
    assert not past.succeeded(TaskId("old", "b", 2))
    assert past.lacks(asked) == {}
    past.recall("newest", None, {})
    assert past.lacks(asked) == {"new": {"a", "b"}}, "it was heard of least recently"
    past.forget(["newest", "unknown"])
    assert past.fence("newest") is None


# --- room -------------------------------------------------------------------------------------------------------------


def test_priority_then_age_and_smaller_ones_may_pass() -> None:
    driver = Driver(slots=2, resources={"gpus": 1.0})
    gpu = {"gpus": 1.0}
    driver.start(task("first", resources=gpu))
    driver.assign(task("big", resources=gpu, priority=9))
    assert of(do.Spawn, driver.assign(task("small"), task("high", priority=5))) == [do.Spawn(task("high", priority=5))]
    assert of(do.Spawn, driver(exited(of_task=task("first").id))) == [do.Spawn(task("big", resources=gpu, priority=9))]


def test_a_task_without_room_is_handed_back_after_its_patience() -> None:
    driver = Driver(queue_patience=2.0)
    driver.start(task(), at=10.0)
    effects = driver.assign(task("b"), at=10.0)
    assert of(do.SetTimer, effects) == [do.SetTimer(12.0)]
    assert ends(driver(on.Tick(), at=11.9)) == []
    assert end(driver(on.Tick(), at=12.0)) == ("returned", "no room on the node for longer than its queue_patience")


def test_room_that_becomes_free_at_the_last_moment_is_used() -> None:
    driver = Driver(queue_patience=2.0)
    driver.start(task())
    driver.assign(task("b"))
    effects = driver(exited(0, at=5.0), at=5.0)
    assert of(do.Spawn, effects) == [do.Spawn(task("b"))]


def test_entries_of_tasks_that_ended_while_they_waited_do_not_pile_up() -> None:
    driver = Driver()
    driver.start(task())
    for attempt in range(1, 1000):
        waiting = task("b", attempt)
        driver.assign(waiting)
        driver(on.CancelAsked(1, "c1", ((waiting.id, 1),)))
    assert len(driver.core.queue) < 200


# --- endings ------------------------------------------------------------------------------------------------------------


def test_timeout_then_kill_after_then_kill() -> None:
    driver = Driver()
    driver.start(task(timeout=30.0, kill_after=5.0), at=100.0)
    effects = driver(on.Tick(), at=129.9)
    assert (of(do.Kill, effects), of(do.SetTimer, effects)) == ([], [do.SetTimer(130.0)])
    effects = driver(on.Tick(), at=130.0)
    assert (of(do.Kill, effects), of(do.SetTimer, effects)) == ([do.Kill(A, SIGTERM)], [do.SetTimer(135.0)])
    assert of(do.Kill, driver(on.Tick(), at=134.0)) == []
    assert of(do.Kill, driver(on.Tick(), at=135.0)) == [do.Kill(A, SIGKILL)]
    assert of(do.Kill, driver(on.Tick(), at=136.0)) == []
    assert of(do.Kill, driver(on.Tick(), at=140.0)) == [do.Kill(A, SIGKILL)], "and again should it not go"
    ended = replace(exited(0, at=141.0), signalled=True)
    assert end(driver(ended)) == ("failed", "timed out after 30 s"), "even with exit status 0"


def test_an_order_to_end_that_came_too_late_changes_nothing() -> None:
    driver = Driver()
    driver.start(task(timeout=30.0), at=100.0)
    assert of(do.Kill, driver(on.Tick(), at=130.0)) == [do.Kill(A, SIGTERM)]
    assert end(driver(exited(0, at=130.0))) == ("succeeded", None)


def test_kill_after_zero_kills_at_once() -> None:
    driver = Driver()
    driver.start(task(kill_after=0.0))
    effects = driver(on.CancelAsked(1, "c1", ((A, 1),)))
    assert of(do.Kill, effects) == [do.Kill(A, SIGTERM), do.Kill(A, SIGKILL)]
    assert (of(do.SetTimer, effects)[0].at or 0.0) > 0.0, "no busy loop"


def test_a_cancel_while_the_spawner_is_at_it_reaches_the_process_once_it_is_there() -> None:
    driver = Driver()
    driver.assign(task())
    driver(on.CancelAsked(1, "c1", ((A, 1),)))
    assert of(do.Kill, driver(on.ProcessStarted(A, 7, 0.0))) == [do.Kill(A, SIGTERM)]
    assert end(driver(exited(None, SIGTERM))) == ("cancelled", "cancelled")


def test_a_cancel_for_an_unknown_attempt_beside_an_open_one_leaves_that_alone() -> None:
    driver = Driver()
    driver.start(task(attempt=2))
    older, newer = task(attempt=1).id, task(attempt=3).id
    assert [f.attempt for f in ends(driver(on.CancelAsked(1, "c1", ((older, 1), (newer, 1)))))] == [1, 3]
    assert of(do.Kill, driver(on.CancelAsked(1, "c1", ((task(attempt=2).id, 1),)))) == [
        do.Kill(task(attempt=2).id, SIGTERM)
    ]
    assert end(driver(exited(None, SIGTERM, of_task=task(attempt=2).id))) == ("cancelled", "cancelled")
    assert codes(driver.assign(task(attempt=3))) == ["OVER"]
    assert not driver.core.tasks


def test_a_cancel_told_twice_answers_and_does_nothing() -> None:
    driver = Driver()
    driver.start(task())
    order = on.CancelAsked(1, "c1", ((A, 1),))
    assert of(do.Kill, driver(order)) == [do.Kill(A, SIGTERM)]
    again = driver(order)
    assert (codes(again), of(do.Kill, again)) == (["OK"], [])
    driver(exited(None, SIGTERM))
    again = driver(order)
    assert (codes(again), of(do.Append, again)) == (["OVER"], [])


def test_leaving_hands_back_what_waits_and_stops_what_runs_at_its_time() -> None:
    driver = Driver()
    driver.start(task())
    driver.assign(task("b"))
    effects = driver(on.Drain(leave_at=50.0))
    assert [(f.worker, f.status) for f in ends(effects)] == [("b", TaskStatus.RETURNED)]
    assert of(do.NodeUpdate, effects) == [do.NodeUpdate()]
    assert of(do.SetTimer, effects) == [do.SetTimer(50.0)]
    assert of(do.NodeUpdate, driver(on.Resume())) == [], "it is on its way out"
    assert of(do.Kill, driver(on.Tick(), at=50.0)) == [do.Kill(A, SIGTERM)]
    effects = driver(exited(None, SIGTERM, at=51.0), at=51.0)
    assert end(effects) == ("returned", "its node was told to leave")
    assert of(do.Left, effects) == [do.Left()]
    assert of(do.Left, driver(on.Tick(), at=52.0)) == [], "said once"


def test_told_to_leave_at_once_it_kills_also_what_is_being_stopped_already() -> None:
    driver = Driver(slots=2)
    driver.start(task(kill_after=60.0), task("b", kill_after=60.0))
    b = task("b").id
    driver(on.CancelAsked(1, "c1", ((b, 1),)))
    driver(on.Drain(leave_at=50.0), at=1.0)
    effects = driver(on.Drain(leave_at=0.0, kill=True), at=2.0)
    assert of(do.Kill, effects) == [do.Kill(A, SIGTERM), do.Kill(A, SIGKILL), do.Kill(b, SIGKILL)]
    assert end(driver(exited(None, SIGKILL), at=3.0)) == ("returned", "its node was told to leave")


def test_a_task_that_is_collecting_when_the_node_leaves_keeps_its_result() -> None:
    driver = Driver()
    driver.start(task(outputs={"out": "x"}))
    driver(exited(0), on.Drain(leave_at=0.0))
    assert end(driver(on.Collected(A, {}))) == ("succeeded", None)


def test_on_disconnect_stop_ends_with_the_last_coordinator_in_sight() -> None:
    driver = Driver(slots=2)
    driver.start(task(on_disconnect="stop"), task("b"))
    driver(on.CoordinatorsInSight(frozenset()))
    driver(on.CoordinatorsInSight(frozenset({"c1", "c2"})))
    assert of(do.Kill, driver(on.CoordinatorsInSight(frozenset({"c2"})))) == []
    assert of(do.Kill, driver(on.CoordinatorsInSight(frozenset()))) == [do.Kill(A, SIGTERM)]
    status, error = end(driver(exited(None, SIGTERM)))
    assert status == "returned"
    assert "on_disconnect: stop" in str(error)


# --- coming back --------------------------------------------------------------------------------------------------------


def held(name: str, phase: Phase, accepted: int, **keys: Any) -> HeldTask:
    return HeldTask(task(name, resources={"cpus": 1.0}), "c1", phase, accepted, **keys)


def test_restore_goes_on_with_each_task_where_it_was() -> None:
    core = RuntimeCore(RuntimeOptions(4, {"cpus": 4.0}))
    tasks = [
        held("queued", Phase.QUEUED, 4),
        held("fetching", Phase.PREPARING, 3),
        held("stopping", Phase.RUNNING, 2, pid=7, started_at=1.0, ending="cancelled"),
        held("hashing", Phase.COLLECTING, 1, exit_code=0, started_at=1.0),
    ]
    core.restore(tasks, {"r": (2, "c1")}, 100.0)
    check_runtime(core)
    assert (core.running, core.queued) == (2, 2)
    assert core.resume_collecting() == [do.Collect(tasks[3].assignment), do.Kill(task("stopping").id, SIGTERM)]
    assigned = on.Assigned(1, "c1", (task("old", 3, epoch=2), task("old", 2, epoch=2)))
    assert core.past.lacks([assigned]) == {"r": {"old"}}
    core.past.recall("r", (2, "c1"), {"old": 3})
    effects = core.handle([assigned], 100.0)
    assert codes(effects) == ["OVER", "PASSED"]
    assert [s.assignment.worker for s in of(do.Spawn, effects)] == ["fetching", "queued"]
    assert of(do.Kill, core.handle([on.Tick()], 110.0)) == [do.Kill(task("stopping").id, SIGKILL)]
    assert codes(core.handle([on.Assigned(1, "c0", (task("x", epoch=1),))], 110.0)) == ["FENCED"]


def test_the_invariants_notice_what_is_wrong() -> None:
    driver = Driver(resources={"cpus": 1.0})
    driver.start(task(resources={"cpus": 1.0}))
    driver.core.room.used["cpus"] = 0.0
    with pytest.raises(InvariantBroken, match="uses"):
        check_runtime(driver.core)
