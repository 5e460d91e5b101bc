"""What waits at the spawner, against a plain account of what may happen to each task."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wattle.runtime.waiting import Waiting


class Spawner(RuleBasedStateMachine):
    """Runs what may run. Every task is known to wait, to have started, or to be skipped: once."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Waiting[int, int] = Waiting()
        self.running: list[int] = [0]
        self.started = {0}
        self.skipped: set[int] = set()
        self.ends: dict[int, bool] = {}
        self.needs: dict[int, int] = {}  # on_success: what a task needs
        self.known = 1

    def _start(self, task: int, *, early: bool = False) -> None:
        assert task not in self.started, "started twice"
        assert task not in self.skipped, "started after it was skipped"
        assert early or self.ends.get(self.needs.get(task, task), task not in self.needs), "started after a bad end"
        self.started.add(task)
        self.running.append(task)

    def _skip(self, tasks: list[int]) -> None:
        assert len(set(tasks)) == len(tasks)
        assert not (self.skipped | self.started) & set(tasks), "skipped twice, or once started"
        self.skipped |= set(tasks)

    def _end(self, task: int, *, well: bool) -> None:
        self.running.remove(task)
        self.ends[task] = well
        lines = {front: behind for front, *behind in self.waiting.lines()}
        following, skipped = self.waiting.ended(task, well=well)
        left = [other for other in lines.get(task, []) if other not in skipped]
        assert following == (left[0] if left else None), "not the first in line"
        assert not left[1:] or left in self.waiting.lines(), "the others have changed places"
        for other in skipped:
            need = self.needs[other]
            assert not self.ends.get(need, False), "skipped though what it needs succeeded"
        self._skip(skipped)
        if following is not None:
            self._start(following)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), on_success=st.booleans())
    def add(self, data: st.DataObject, on_success: bool) -> None:
        before = data.draw(st.sampled_from([*self.running, *self.waiting.tasks()]))
        self.waiting.add(self.known, self.known, before, on_success=on_success)
        if on_success:
            self.needs[self.known] = before
        self.known += 1

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data(), on_success=st.booleans())
    def add_again(self, data: st.DataObject, on_success: bool) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        self.waiting.add(task, task, data.draw(st.sampled_from(self.running)), on_success=on_success)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        self._end(data.draw(st.sampled_from(self.running)), well=well)

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        self.waiting.detach(task)
        self._start(task, early=True)

    @precondition(lambda self: self.waiting.tasks())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting.tasks()))
        dropped = self.waiting.drop(task)
        assert dropped[0] == task
        assert all(self.needs[other] in dropped for other in dropped[1:]), "skipped without need"
        self._skip(dropped)

    @rule()
    def start_anew(self) -> None:
        if not self.running:
            self._start(self.known)
            self.known += 1

    @invariant()
    def nothing_is_lost(self) -> None:
        waits = self.waiting.tasks()
        assert len(waits) + len(self.started) + len(self.skipped) == self.known
        assert not waits or self.running, "waits for nothing"
        assert all(task in self.waiting for task in waits)
        lines = self.waiting.lines()
        assert sorted(task for line in lines for task in line[1:]) == sorted(waits)
        assert {line[0] for line in lines} <= set(self.running)

    def teardown(self) -> None:
        while self.running:
            self._end(self.running[0], well=len(self.running) % 2 == 0)
        assert not self.waiting.tasks()


TestWaiting = Spawner.TestCase
TestWaiting.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_of_several_that_wait_for_one_each_waits_for_the_one_before() -> None:
    waiting: Waiting[str, str] = Waiting()
    for task in "bcd":
        waiting.add(task, task.upper(), "a", on_success=True)
    assert waiting.ended("a", well=True) == ("B", [])
    assert waiting.ended("b", well=False) == ("C", []), "what it needed has succeeded"
    assert waiting.ended("c", well=True) == ("D", [])


def test_a_bad_end_skips_those_that_need_success_and_what_needs_them_and_starts_the_next() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "a", on_success=True)
    waiting.add("c", "C", "b", on_success=True)
    waiting.add("d", "D", "c")
    waiting.add("e", "E", "d")
    assert waiting.ended("a", well=False) == ("D", ["b", "c"])
    assert waiting.tasks() == ["e"]


def test_what_follows_a_dropped_one_waits_for_what_that_waited_for() -> None:
    waiting: Waiting[str, str] = Waiting()
    waiting.add("b", "B", "a")
    waiting.add("c", "C", "b")
    assert waiting.drop("b") == ["b"]
    assert waiting.drop("b") == []
    assert waiting.ended("b", well=True) == (None, [])
    assert waiting.ended("a", well=False) == ("C", [])
