"""What waits at the spawner, against a plain account of what may happen to each task."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wattle.runtime.waiting import Waiting

KINDS = ("", "gpus=1.0")


class Spawner(RuleBasedStateMachine):
    """Runs what may run. Every task is known to wait, to have started, or to be skipped: once."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Waiting[int, int] = Waiting()
        self.rooms = {0: KINDS[0]}  # of every task
        self.needs: dict[int, set[int]] = {0: set()}
        self.running: list[int] = [0]
        self.skipped: set[int] = set()
        self.ends: dict[int, bool] = {}

    def _may_start(self, room: str) -> list[int]:
        return [
            task
            for task in self.waiting.tasks()
            if self.rooms[task] == room and all(self.ends.get(need, False) for need in self.needs[task])
        ]

    def _start(self, task: int) -> None:
        assert task not in self.ends, "started twice"
        assert task not in self.running, "started twice"
        assert task not in self.skipped, "started after it was skipped"
        self.running.append(task)

    def _skip(self, tasks: list[int]) -> None:
        for task in tasks:
            assert task not in self.skipped, "skipped twice"
            assert task not in self.running, "skipped once it runs"
            assert task not in self.ends, "skipped once it ran"
            self.skipped.add(task)

    def _end(self, task: int, *, well: bool) -> None:
        self.running.remove(task)
        self.ends[task] = well
        self._skip(self.waiting.ended(task, well=well))
        may_start = self._may_start(self.rooms[task])
        heir = self.waiting.take(self.rooms[task])
        assert (heir is not None) == bool(may_start), "room was left where somebody could have had it, or given in vain"
        if heir is not None:
            assert heir in may_start, "started before what it needs has succeeded, or in other room"
            self._start(heir)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), room=st.sampled_from(KINDS))
    def add(self, data: st.DataObject, room: str) -> None:
        known = [*self.running, *self.waiting.tasks()]
        task = len(self.rooms)
        needs = data.draw(st.sets(st.sampled_from(known), max_size=3))
        self.rooms[task], self.needs[task] = room, needs
        self.waiting.add(task, task, room, needs)

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        self.waiting.add(task, task, KINDS[0], self.running[:1])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        self._end(data.draw(st.sampled_from(self.running)), well=well)

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        self.waiting.detach(task)
        self._start(task)

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        dropped = self.waiting.drop(task)
        assert dropped[0] == task
        assert all(self.needs[other] & set(dropped) for other in dropped[1:]), "skipped without need"
        self._skip(dropped)

    @rule()
    def start_anew(self) -> None:
        if not self.running:
            task = len(self.rooms)
            self.rooms[task], self.needs[task] = KINDS[0], set()
            self._start(task)

    @invariant()
    def nothing_is_lost(self) -> None:
        waits = self.waiting.tasks()
        assert sorted([*waits, *self.running, *self.ends, *self.skipped]) == list(range(len(self.rooms)))
        assert all(task in self.waiting for task in waits)
        failed = {task for task, well in self.ends.items() if not well} | self.skipped
        assert not any(self.needs[task] & failed for task in waits), "waits in vain"

    def teardown(self) -> None:
        while self.running:
            self._end(self.running[0], well=len(self.running) % 2 == 0)


TestWaiting = Spawner.TestCase
TestWaiting.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_the_first_that_needs_nothing_more_has_the_first_turn() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "", ["a"])
    waiting.add("c", "C", "")
    waiting.add("d", "D", "")
    assert waiting.ended("a", well=True) == []
    assert [waiting.take("") for _ in range(4)] == ["C", "D", "B", None]


def test_a_bad_end_skips_those_that_need_success_and_what_needs_them() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "", ["a"])
    waiting.add("c", "C", "", ["b", "x"])
    waiting.add("d", "D", "", ["x"])
    assert waiting.ended("a", well=False) == ["b", "c"]
    assert waiting.ended("x", well=True) == []
    assert (waiting.take(""), waiting.take("")) == ("D", None)


def test_what_starts_before_its_turn_is_still_waited_for() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "", ["a"])
    waiting.add("c", "C", "", ["b"])
    waiting.detach("b")
    assert waiting.ended("a", well=True) == []
    assert waiting.take("") is None
    assert waiting.ended("b", well=True) == []
    assert waiting.take("") == "C"


def test_a_dropped_one_takes_no_turn_and_may_be_asked_for_anew() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "")
    assert waiting.drop("b") == ["b"]
    assert waiting.drop("b") == []
    waiting.add("b", "B", "", ["a"])
    assert waiting.take("") is None, "its place of before is not its place now"
    waiting.ended("a", well=True)
    assert waiting.take("") == "B"
