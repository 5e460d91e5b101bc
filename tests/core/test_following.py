"""Tasks that follow others on a runtime: in lines at the spawner, and once what they need has succeeded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.core.test_runtime_core import INPUT, Driver, end, ends, exited, of, task
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.effects import HeldTask, RuntimeEffect
from wattle.core.following import NEEDS_MOST
from wattle.core.lineup import LINE_MOST, Lineup
from wattle.core.model import Assignment, TaskId, TaskStatus
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.core.states import Phase


def short(slots: int = 1, *, took: float = 0.01, **options: Any) -> Driver:
    """A driver that has seen tasks take ``took`` seconds."""
    driver = Driver(slots, **options)
    driver.start(task("seen"))
    driver(exited(of_task=task("seen").id, at=took))
    return driver


def named(names: str, **keys: Any) -> list[Assignment]:
    return [task(name, **keys) for name in names.split()]


NOW = None
TURN = ""
"""In what ``spawns`` gives: starts now, or when its turn comes; else the names of the workers that have to succeed before that."""


def spawns(effects: Iterable[RuntimeEffect]) -> list[tuple[str, str | None]]:
    return [
        (s.assignment.worker, NOW if s.needs is None else " ".join(need.worker for need in s.needs))
        for s in of(do.Spawn, effects)
    ]


def started(name: str, at: float = 1.0) -> on.ProcessStarted:
    return on.ProcessStarted(task(name).id, 7, at)


def ended(name: str, code: int = 0, at: float = 1.01, heir: str | None = None) -> on.ProcessExited:
    """``heir`` has started in its room."""
    return replace(exited(code, at=at, of_task=task(name).id), heir=None if heir is None else task(heir).id)


def lost(name: str) -> on.ProcessesLost:
    return on.ProcessesLost((task(name).id,))


# --- lines ------------------------------------------------------------------------------------------------------------


def test_short_tasks_form_a_line_and_each_takes_the_room_of_the_one_before() -> None:
    driver = short(took=0.0099)
    assert spawns(driver.assign(*named("a b c d e"))) == [
        ("a", NOW),
        ("b", TURN),
        ("c", TURN),
        ("d", TURN),
    ], "as many as 0.03 s of work at 0.0099 s each"
    assert (driver.core.running, driver.core.queued) == (1, 4)
    effects = driver(started("a"), started("b"), ended("a", at=1.0099, heir="b"), at=1.01)
    assert spawns(effects) == [("e", TURN)], "the line is filled up"
    assert ends(effects)[0].status is TaskStatus.SUCCEEDED
    assert driver.core.running == 1


@pytest.mark.parametrize(
    ("took", "depth"), [(0.0, LINE_MOST), (0.001, 29), (0.01, 2), (0.02, 1), (0.04, 0), (10.0, 0), (-5.0, LINE_MOST)]
)
def test_a_line_is_as_long_as_a_moment_of_work(took: float, depth: int) -> None:
    lineup = Lineup(0.0299)
    assert lineup.depth == 0, "nothing is known of how long tasks take"
    lineup.learn(took)
    assert lineup.depth == depth


def test_the_mean_follows_what_tasks_take() -> None:
    lineup = Lineup(0.03)
    lineup.learn(0.01)
    lineup.learn(0.04)
    assert lineup.depth == 1, "0.016 s: the last counts a fifth"


@pytest.mark.parametrize(
    ("front", "following"),
    [
        ({"resources": {"cpus": 1.0}}, {"resources": {"cpus": 2.0}}),
        ({"outputs": {"out": "x"}}, {}),
        ({}, {"outputs": {"out": "x"}}),
        ({}, {"inputs": INPUT}),
        ({"inputs": INPUT}, {}),
    ],
    ids=["other resources", "outputs to hash before", "outputs", "inputs", "a front whose inputs are fetched"],
)
def test_only_what_leaves_nothing_to_decide_is_lined_up(front: dict[str, Any], following: dict[str, Any]) -> None:
    driver = short(resources={"cpus": 2.0})
    effects = driver.assign(task("a", **front), task("b", **following))
    assert [name for name, _ in spawns(effects)] == ([] if front.get("inputs") else ["a"])


def test_a_front_whose_inputs_are_there_may_be_followed() -> None:
    driver = short()
    driver.assign(task("a", inputs=INPUT), task("b"))
    assert spawns(driver(on.Prepared(task("a").id))) == [("a", NOW), ("b", TURN)]


def test_a_slot_that_would_idle_takes_the_last_that_waits() -> None:
    driver = short(2)
    driver.assign(*named("x y a b c d e f"))
    assert spawns(driver(*map(started, "xy"), started("a"), ended("y", heir="a"), at=1.0)) == []
    driver = short(2)
    driver.assign(task("x"), task("y", outputs={"out": "o"}), *named("a b"))
    assert spawns(driver(started("x"), started("y"), ended("y", 1), at=1.0)) == [("b", NOW)]
    assert driver.core.running == 2


def test_the_room_of_one_that_ended_is_free_where_its_heir_had_been_given_another() -> None:
    driver = short(2)
    driver.assign(task("x"), task("y", outputs={"out": "o"}), *named("a b c"))
    assert spawns(driver(started("x"), started("y"), ended("y", 1), at=1.0)) == [("c", NOW)]
    effects = driver(started("c"), ended("x", heir="c"), at=1.01)
    assert spawns(effects) == [("b", NOW)], "the spawner had passed x's room on to c before it was told to start it"
    assert driver.core.running == 2


def test_one_that_waits_for_other_room_than_there_is_at_the_spawner_starts_when_it_may() -> None:
    driver = short(2, resources={"cpus": 2.0})
    driver.assign(task("x"), task("y", outputs={"out": "o"}), task("big", resources={"cpus": 2.0}), task("a"))
    effects = driver(started("x"), started("y"), ended("y", 1), at=1.0)
    assert spawns(effects) == [("big", NOW), ("a", TURN)]


def test_what_waits_for_the_success_of_one_taken_goes_with_it() -> None:
    driver = short(2)
    driver.assign(task("x"), task("y", outputs={"out": "o"}), task("a"), task("b", after=(("a", 1),)))
    assert spawns(driver(started("x"), started("y"), ended("y", 1))) == [("a", NOW)]
    assert spawns(driver(started("a"))) == []
    driver(started("b"), ended("a", heir="b"))
    assert end(driver(ended("b"))) == ("succeeded", None)


def test_a_line_whose_front_turns_out_long_is_handed_back() -> None:
    driver = short(queue_patience=2.0)
    driver.assign(*named("a b"), at=10.0)
    driver(started("a", 10.0), at=10.0)
    assert of(do.SetTimer, driver(on.Tick(), at=10.1)) == [do.SetTimer(12.0)]
    effects = driver(on.Tick(), at=12.0)
    assert (of(do.Revoke, effects), ends(effects)) == ([do.Revoke(task("b").id)], []), "it may have started meanwhile"
    assert of(do.Revoke, driver(on.Tick(), at=20.0)) == [], "once is enough"
    effects = driver(on.Skipped(task("b").id), at=20.0)
    assert end(effects) == ("returned", "no room on the node for longer than its queue_patience")
    assert of(do.Acknowledge, effects) == [do.Acknowledge(task("b").id)]


def test_patience_at_the_spawner_begins_once_nothing_is_needed_any_more() -> None:
    driver = short(queue_patience=2.0)
    driver.assign(*named("a c"), follower("b", "a"), at=10.0)
    driver(started("a", 10.0), at=10.0)
    driver(started("c", 15.0), ended("a", at=15.0, heir="c"), at=15.0)
    assert of(do.Revoke, driver(on.Tick(), at=16.9)) == []
    assert of(do.Revoke, driver(on.Tick(), at=17.0)) == [do.Revoke(task("b").id)], "c turns out long"


def test_one_that_started_before_it_could_be_revoked_just_runs() -> None:
    driver = short()
    driver.assign(*named("a b"), at=10.0)
    driver(started("a", 10.0), at=10.0)
    driver(on.Tick(), at=12.0)
    driver(started("b", 12.0), ended("a", at=12.0, heir="b"), at=12.1)
    assert end(driver(ended("b", at=12.2), at=12.2)) == ("succeeded", None)


@pytest.mark.parametrize("how", ["revoked", "cancelled"])
def test_what_is_told_not_to_start_is_not_taken(how: str) -> None:
    """Taken, it would start after the spawner has dropped it, beside the attempt that follows its hand-back."""
    driver = short(2)
    driver.assign(task("x"), task("y", outputs={"out": "o"}), task("b"), at=10.0)
    driver(started("x", 10.0), started("y", 10.0), at=10.0)
    order = on.Tick() if how == "revoked" else on.CancelAsked(2, "c1", ((task("b").id, 1),))
    effects = driver(order, at=12.0)
    assert of(do.Revoke, effects) or of(do.Kill, effects) == [do.Kill(task("b").id, SIGTERM)]
    assert spawns(driver.assign(task("c"), at=12.0)) == [("c", TURN)]
    assert spawns(driver.assign(follower("d", "b"), at=12.0)) == [], "b will hardly succeed"
    assert spawns(driver(ended("y", 1, at=12.1), at=12.1)) == [("c", NOW)]
    (fact,) = (fact for fact in ends(driver(on.Skipped(task("b").id), at=12.2)) if fact.worker == "b")
    assert fact.status == ("returned" if how == "revoked" else "cancelled")


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (on.CancelAsked(2, "c1", ((task("b").id, 1),)), "cancelled"),
        (on.Drain(leave_at=0.0), "returned"),
        (on.Drain(kill=True), "returned"),
    ],
)
def test_ending_one_that_waits(order: on.RuntimeEvent, status: str) -> None:
    driver = short()
    driver.assign(*named("a b"), at=10.0)
    effects = driver(order, at=10.0)
    assert do.Kill(task("b").id, SIGTERM) in of(do.Kill, effects)
    (fact,) = ends(driver(on.Skipped(task("b").id), at=10.0))
    assert fact.status == status


def test_one_that_waits_and_is_told_to_end_is_killed_when_it_started_all_the_same() -> None:
    driver = short()
    driver.assign(*named("a b"), at=10.0)
    driver(on.CancelAsked(2, "c1", ((task("b").id, 1),)), at=10.0)
    assert of(do.Kill, driver(started("b", 10.0), at=10.0)) == [do.Kill(task("b").id, SIGTERM)]
    assert do.Kill(task("b").id, SIGKILL) in of(do.Kill, driver(on.Tick(), at=100.0))


def test_a_drained_node_hands_back_what_waits_in_its_lines_too() -> None:
    driver = short()
    driver.assign(*named("a b c d e f"))
    drained = driver(on.Drain())
    assert [(fact.worker, fact.status) for fact in ends(drained)] == [
        ("e", TaskStatus.RETURNED),
        ("f", TaskStatus.RETURNED),
    ]
    assert of(do.Revoke, drained) == [do.Revoke(task(name).id) for name in "bcd"]
    assert end(driver(on.Skipped(task("b").id))) == ("returned", "the node takes no new work")
    driver(started("c"))  # it was on its way
    assert end(driver(ended("c"))) == ("succeeded", None)


# --- needs --------------------------------------------------------------------------------------------------------------


def follower(name: str, *needs: str, **keys: Any) -> Assignment:
    return task(name, after=tuple((need, 1) for need in needs), **keys)


def test_one_that_needs_an_open_one_starts_once_that_has_succeeded() -> None:
    driver = Driver(2)
    assert spawns(driver.assign(task("a"), follower("b", "a"))) == [("a", NOW)]
    assert driver(on.Tick(), at=1000.0)[0] == do.SetTimer(None), "patience for room does not run while it waits"
    driver(started("a"))
    assert spawns(driver(ended("a"))) == [("b", NOW)]


def test_one_that_needs_several_waits_for_the_last() -> None:
    driver = Driver(3)
    driver.start(task("a"), task("b"))
    driver.assign(follower("c", "a", "b"))
    assert spawns(driver(ended("a"))) == []
    assert spawns(driver(ended("b"))) == [("c", NOW)]


def test_one_whose_need_has_succeeded_here_before_starts() -> None:
    driver = Driver(2)
    driver.start(task("a"))
    driver(ended("a"))
    assert spawns(driver.assign(follower("b", "a"))) == [("b", NOW)]


@pytest.mark.parametrize("how", ["failed", "unknown", "another attempt"])
def test_one_whose_need_is_not_to_succeed_here_is_handed_back_at_once(how: str) -> None:
    driver = Driver(2)
    if how == "failed":
        driver.start(task("a"))
        driver(ended("a", 1))
    elif how == "another attempt":
        driver.start(task("a", 2))
    effects = driver.assign(follower("b", "a"))
    assert spawns(effects) == []
    assert end(effects) == ("returned", "what it was to follow here did not succeed")


@pytest.mark.parametrize("event", [ended("a", 1), lost("a"), on.SpawnFailed(task("a").id, "no such command")])
def test_all_that_need_one_which_does_not_succeed_are_handed_back(event: on.RuntimeEvent) -> None:
    driver = Driver(2)
    driver.assign(task("a"), follower("b", "a"), follower("c", "b"), follower("d", "b", "a"))
    facts = {fact.worker: fact.status for fact in ends(driver(event)) if fact.worker != "a"}
    assert facts == dict.fromkeys("bcd", TaskStatus.RETURNED)
    assert not driver.core.tasks


def test_needs_may_come_in_any_order_of_one_batch() -> None:
    driver = Driver(1)
    effects = driver.assign(follower("c", "b"), follower("b", "a"), task("a"))
    assert (ends(effects), spawns(effects)) == ([], [("a", NOW)])


def test_what_needs_several_waits_at_the_spawner_once_all_of_them_are_there() -> None:
    driver = short(took=0.005)
    tasks = [follower("d", "a", "b", "c"), task("a"), task("b"), follower("c", "a"), follower("e", "d", "b")]
    assert spawns(driver.assign(*tasks)) == [("a", NOW), ("b", TURN), ("c", "a"), ("d", "a b c"), ("e", "b d")]
    effects = driver(started("a"), started("b"), started("c"), ended("a", heir="b"), ended("b", heir="c"))
    assert (spawns(effects), driver.core.running) == ([], 1)
    effects = driver(ended("c", 1), on.Skipped(task("d").id), on.Skipped(task("e").id))
    assert [(f.worker, f.status) for f in ends(effects)] == [
        ("c", TaskStatus.FAILED),
        ("d", TaskStatus.RETURNED),
        ("e", TaskStatus.RETURNED),
    ]


def test_what_the_spawner_cannot_see_the_success_of_is_waited_for_here() -> None:
    driver = short(2)
    driver.assign(task("a", outputs={"out": "o"}), task("b"))
    assert spawns(driver.assign(follower("c", "a"), follower("d", "a", "b"))) == []
    assert spawns(driver(started("a"), ended("a"))) == []
    assert spawns(driver(on.Collected(task("a").id, {}))) == [("c", NOW), ("d", "b")]


def test_one_that_needs_what_leaves_other_room_waits_here_as_long() -> None:
    """Else it might be ready when nobody has its kind of room any more, and all that is of another kind would go first."""
    driver = short(2, resources={"cpus": 2.0})
    driver.assign(task("a", resources={"cpus": 1.0}), task("b"))
    assert spawns(driver.assign(follower("c", "a", "b", resources={"cpus": 1.0}))) == []
    assert spawns(driver(started("a"), started("b"), ended("b"))) == [("c", "a")]


def test_one_with_very_many_needs_waits_here_until_few_are_left() -> None:
    driver = short(took=0.0)
    names = [f"w{i:02}" for i in range(NEEDS_MOST + 1)]
    effects = driver.assign(*map(task, names), follower("last", *names))
    assert [name for name, _ in spawns(effects)] == names
    assert spawns(driver(started("w00"), ended("w00", at=1.0, heir="w01"))) == [("last", " ".join(names[1:]))]


def test_a_chain_of_short_ones_is_a_line_in_which_each_needs_the_one_before() -> None:
    driver = short()
    assert spawns(driver.assign(task("a"), follower("b", "a"), follower("c", "b"))) == [
        ("a", NOW),
        ("b", "a"),
        ("c", "b"),
    ]
    effects = driver(started("a"), ended("a", 1), on.Skipped(task("b").id), on.Skipped(task("c").id))
    assert [(f.worker, f.status) for f in ends(effects)] == [
        ("a", TaskStatus.FAILED),
        ("b", TaskStatus.RETURNED),
        ("c", TaskStatus.RETURNED),
    ]


# --- restarts ---------------------------------------------------------------------------------------------------------


class Restarting:
    """A runtime core, and what its store has."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.store: dict[TaskId, HeldTask] = {}
        self.driver = short(slots)

    def __call__(self, *events: on.RuntimeEvent, at: float = 0.0) -> list[RuntimeEffect]:
        effects = self.driver(*events, at=at)
        for saved in of(do.SaveHeldTask, effects):
            self.store[saved.task.assignment.id] = saved.task
        return effects

    def restart(self) -> None:
        held = self.store.values()
        self.driver = Driver(self.slots)
        open_, done = ([t for t in held if (t.phase is Phase.DONE) is over] for over in (False, True))
        self.driver.core.restore(open_, {"r": (1, "c1")}, 0.0)
        self.driver.core.past.recall("r", (1, "c1"), {t.assignment.worker: t.assignment.attempt for t in done})


def waiting(names: str = "") -> on.StillWaiting:
    return on.StillWaiting(tuple(t.id for t in named(names)))


def test_after_a_restart_the_room_goes_to_what_the_spawner_has_started() -> None:
    runtime = Restarting(2)
    runtime(on.Assigned(1, "c1", tuple(named("x y a b c d"))))
    runtime.restart()
    effects = runtime(started("x"), started("d"), started("y"), ended("y", heir="d"), waiting("a b c"))
    assert runtime.driver.core.running == 2
    assert spawns(effects) == [], "both slots are taken"
    runtime(ended("x", heir="a"), started("a"), ended("a", heir="b"), ended("d"))
    assert (runtime.driver.core.running, runtime.driver.core.queued) == (2, 0), "b, and c which the free slot took"


def test_after_a_restart_nothing_starts_until_the_lines_are_known() -> None:
    runtime = Restarting(2)
    runtime(on.Assigned(1, "c1", tuple(named("x y a"))))
    runtime.restart()
    assert spawns(runtime(started("x"), on.Assigned(2, "c1", (task("new"),)))) == []
    assert spawns(runtime(started("y"), waiting("a"))) == []
    assert runtime.driver.core.running == 2
    runtime.restart()
    assert spawns(runtime(on.ProcessesLost(tuple(t.id for t in named("x y a"))), waiting())) == [("new", NOW)]


def test_after_a_restart_one_that_waits_takes_a_slot_that_is_free() -> None:
    runtime = Restarting(2)
    runtime(on.Assigned(1, "c1", (task("x"), task("y", outputs={"out": "o"}), task("a"))))
    runtime(started("x"), started("y"))
    runtime.store[task("y").id] = replace(runtime.store[task("y").id], phase=Phase.DONE)
    runtime.restart()
    assert spawns(runtime(waiting("a"))) == [("a", NOW)]


def test_after_a_restart_what_waits_for_the_room_of_one_that_is_not_known_here_starts() -> None:
    runtime = Restarting(1)
    runtime(on.Assigned(1, "c1", tuple(named("x a b"))))
    del runtime.store[task("x").id]
    runtime.restart()
    assert spawns(runtime(waiting("a b"))) == [("b", NOW)]
    runtime(started("b"), ended("b", heir="a"), started("a"))
    assert (runtime.driver.core.running, runtime.driver.core.queued) == (1, 0)


def test_after_a_restart_what_waits_for_others_at_the_spawner_may_be_joined_there() -> None:
    runtime = Restarting(1)
    runtime(on.Assigned(1, "c1", (*named("x a b c"), follower("d", "c"))))
    runtime.restart()
    runtime.driver.core.following.lineup.learn(0.001)
    assert spawns(runtime(started("x"), waiting("a b c"))) == [("d", "c")]


def test_after_a_restart_what_waits_in_a_line_has_patience_again() -> None:
    runtime = Restarting()
    runtime(on.Assigned(1, "c1", tuple(named("a b"))))
    runtime.restart()
    runtime(started("a"), waiting("b"))
    assert of(do.Revoke, runtime(on.Tick(), at=2.0)) == [do.Revoke(task("b").id)]


def test_after_a_restart_one_that_waits_here_for_an_open_one_goes_on_waiting() -> None:
    runtime = Restarting(2)
    runtime(on.Assigned(1, "c1", (task("a", outputs={"out": "o"}), follower("b", "a"))))
    runtime.restart()
    assert ends(runtime(started("a"), waiting())) == []
    runtime(ended("a"))
    assert spawns(runtime(on.Collected(task("a").id, {}))) == [("b", NOW)]


def test_after_a_restart_a_success_of_before_is_not_known_and_what_needs_it_is_handed_back() -> None:
    runtime = Restarting(1)
    runtime(on.Assigned(1, "c1", (task("a", outputs={"out": "o"}), follower("b", "a"))))
    runtime(started("a"))
    runtime(ended("a"))
    runtime(on.Assigned(1, "c1", (task("c", priority=9, outputs={"out": "o"}),)), on.Collected(task("a").id, {}))
    runtime.restart()
    (fact,) = ends(runtime(started("c"), waiting()))
    assert (fact.worker, fact.status) == ("b", TaskStatus.RETURNED)


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_the_timeouts_of_ended_tasks_are_forgotten() -> None:
    core = RuntimeCore(RuntimeOptions(1))
    for attempt in range(1, 1000):
        assignment = task(attempt=attempt, timeout=3600.0)
        core.handle([on.Assigned(1, "c1", (assignment,))], float(attempt))
        core.handle([on.ProcessStarted(assignment.id, 7, float(attempt))], float(attempt))
        core.handle([exited(of_task=assignment.id)], float(attempt))
    assert len(core.clocks) < 200


def test_a_timeout_counts_from_the_start_and_not_from_the_line() -> None:
    driver = short()
    driver.assign(task("a"), task("b", timeout=1.0), at=10.0)
    driver(started("a", 10.0), at=10.0)
    assert of(do.Kill, driver(on.Tick(), at=11.5)) == []
    driver(started("b", 11.5), ended("a", at=11.5, heir="b"), at=11.5)
    assert of(do.Kill, driver(on.Tick(), at=12.4)) == []
    assert of(do.Kill, driver(on.Tick(), at=12.5)) == [do.Kill(task("b").id, SIGTERM)]
