"""Which tasks on a runtime follow which: those that must not start before others have succeeded, and those that wait at the spawner
for their turn (core/lineup.py)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core.lineup import Lineup
from wattle.core.model import TaskId
from wattle.core.room import kind_of
from wattle.core.states import Phase
from wattle.core.task import ENDINGS, Ending, Task

if TYPE_CHECKING:
    from wattle.core.runtime import RuntimeCore

NEEDS_MOST = 16
"""Tasks that one may wait for at the spawner, at most: one with more waits here, until so many of them have succeeded."""


class Following:
    """What follows what, of one runtime core. Those lined up here wait at the spawner, but for what is on its way between the two."""

    def __init__(self, core: RuntimeCore) -> None:
        self.core = core
        self.lineup = Lineup(core.options.line_seconds)
        self._absent: list[TaskId] = []  # needs of tasks taken in this batch that are not here
        self._followers: dict[TaskId, list[TaskId]] = {}  # open task -> those that wait for its success
        self._prospects: OrderedDict[TaskId, None] = OrderedDict()  # those that may wait for their needs at the spawner
        self.lines_known = True

    # --- needs ----------------------------------------------------------------------------------------------------------

    def note_needs(self, task: Task) -> None:
        """Note what must succeed here before a task may start; what has ended otherwise, or is not known any more, never will.

        The spawner has seen to what it was given, in an earlier life of this runtime, where what that was to follow has ended.
        """
        run = task.id.run
        with_spawner = task.held.phase is not Phase.QUEUED
        for worker, attempt in task.held.assignment.after:
            need = TaskId(run, worker, attempt)
            if not self.core.past.succeeded(need) and not (with_spawner and need not in self.core.tasks):
                task.unmet.add(need)
                self._followers.setdefault(need, []).append(task.id)
                if need not in self.core.tasks:
                    self._absent.append(need)
        self._consider(task)

    def give_up_absent(self) -> None:
        """End what waits for tasks that are not here."""
        for need in self._absent:
            if need not in self.core.tasks:
                self.release(need, succeeded=False)
        self._absent.clear()

    def release(self, ended: TaskId, *, succeeded: bool) -> None:
        """A task has ended: those that waited for its success have one thing less to wait for, or will not start."""
        for follower_id in self._followers.pop(ended, ()):
            follower = self.core.tasks.get(follower_id)
            if follower is None:
                continue
            if succeeded:
                follower.unmet.discard(ended)
                if follower.unmet:
                    self._consider(follower)
                elif follower.held.phase is Phase.QUEUED:
                    self.core.enqueue(follower)
                elif follower.lined_up:  # it waits for room alone from now on, and has patience for that
                    follower.queued_at = self.core.now
                    self.core.clocks.watch(follower)
            elif follower.held.phase is Phase.QUEUED:
                self.core.end(follower, *ENDINGS[Ending.UNMET])  # one that is with the spawner is not started by it

    # --- restarts -------------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """After a restart, where the spawner was given tasks: it has gone on by itself, and only it knows who waits there for whom."""
        self.lines_known = not any(task.held.phase is Phase.STARTING for task in self.core.tasks.values())

    def take_waiting(self, waiting: tuple[TaskId, ...]) -> None:
        """Take up what waits at the spawner; what else it was given, or has started, has room."""
        if self.lines_known:
            return
        self.lines_known = True
        tasks = self.core.tasks
        for task_id in waiting:
            kind = _waits_for(tasks[task_id]) if task_id in tasks else None
            if kind is not None:
                self._append(tasks[task_id], kind)
                self.core.clocks.watch(tasks[task_id])
        for task in tasks.values():
            if task.held.phase is not Phase.QUEUED and not task.lined_up and task.id not in self.core.room:
                self.core.room.take(task.id, task.held.assignment.resources)
            self._consider(task)

    # --- lines ----------------------------------------------------------------------------------------------------------

    def spawned(self, task_id: TaskId) -> None:
        """A task is with the spawner: what needs its success may be all the spawner has to see to for some that wait for it."""
        for follower_id in self._followers.get(task_id, ()):
            if follower_id in self.core.tasks:
                self._consider(self.core.tasks[follower_id])

    def line_up(self) -> None:
        """Have short tasks follow each other without waiting for this core; see core/lineup.py.

        Only where nothing is to be decided in between: no files to fetch before or to hash after, and the same room. A slot that would
        idle takes one of those that wait for others.
        """
        if self.lineup.depth and (self.core.queue or self._prospects):
            self._fill()
        while len(self.lineup) and not self.core.room.full:
            taken = self.lineup.last(self._can_start)
            if taken is None:
                break
            self.turn(taken)
            self.core.acts.append(do.Spawn(self.core.tasks[taken].held.assignment))

    def _fill(self) -> None:
        """Give the spawner what may wait there: first what may start, then what needs the success of tasks that are there."""
        tasks = self.core.tasks
        rooms = (kind_of(tasks[id].held.assignment) for id in self.core.room.holders() if self._at_spawner(id))
        places = self.lineup.places(kind for kind in rooms if kind is not None)
        while (task := self.core.queue.first()) is not None:
            kind = _waits_for(task)
            if kind is None or places.get(kind, 0) <= 0:
                break
            self.core.queue.pop()
            places[kind] -= 1
            self._hand_over(task, kind)
        while self._prospects:
            task = tasks.get(next(iter(self._prospects)))
            kind = None if task is None or not task.unmet else _waits_for(task)
            if task is not None and task.held.phase is Phase.QUEUED and kind is not None and kind in places:
                if places[kind] <= 0:
                    break
                places[kind] -= 1
                self._hand_over(task, kind)
            self._prospects.popitem(last=False)  # what is passed over has its turn once nothing is unmet

    def _hand_over(self, task: Task, kind: str) -> None:
        self._append(task, kind)
        self.core.spawn(task, tuple(sorted(task.unmet)))

    def ended(self, task_id: TaskId) -> None:
        """A task leaves."""
        self.core.room.free(task_id)
        self.lineup.remove(task_id)
        self._prospects.pop(task_id, None)

    def turn(self, task_id: TaskId) -> None:
        """One that was lined up has room of its own. Does nothing for others: the room it is said to have taken over is free."""
        if self.lineup.remove(task_id):
            task = self.core.tasks[task_id]
            task.lined_up = False
            self.core.room.take(task_id, task.held.assignment.resources)

    def _can_start(self, task_id: TaskId) -> bool:
        task = self.core.tasks[task_id]
        waits = task.held.phase is Phase.STARTING and not task.unmet and not _leaves(task)
        return waits and self.core.room.fits(task.held.assignment.resources)

    def _at_spawner(self, task_id: TaskId) -> bool:
        """Whether the spawner sees how a task ends, and whether it succeeds."""
        task = self.core.tasks.get(task_id)
        if task is None or task.held.phase not in (Phase.STARTING, Phase.RUNNING):
            return False
        return not (task.held.assignment.outputs or _leaves(task))

    def _consider(self, task: Task) -> None:
        """Note a task that waits for nothing but the success of some that are at the spawner, if it may wait for them there."""
        if not task.unmet or len(task.unmet) > NEEDS_MOST or task.held.phase is not Phase.QUEUED:
            return
        kind = _waits_for(task)
        if kind is not None and all(self._leaves_room(need, kind) for need in task.unmet):
            self._prospects[task.id] = None

    def _leaves_room(self, task_id: TaskId, kind: str) -> bool:
        """Whether the spawner sees how a task ends, which leaves such room then.

        Were what others need of another kind, its success might come when nobody has such room any more, and all others would go first.
        """
        return self._at_spawner(task_id) and kind_of(self.core.tasks[task_id].held.assignment) == kind

    def _append(self, task: Task, kind: str) -> None:
        task.lined_up = True
        self.lineup.add(task.id, kind)


def _leaves(task: Task) -> bool:
    """Whether the spawner is told not to start a task, or to end it."""
    return task.revoked is not None or task.held.ending is not None


def _waits_for(task: Task) -> str | None:
    """The kind of room that a task may wait for at the spawner; None where there is something to do before it starts or after it ends."""
    return None if task.held.assignment.inputs else kind_of(task.held.assignment)
