"""Which tasks on a runtime follow which: those that must not start before others have succeeded, and those in lines (core/lineup.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core.lineup import Lineup
from wattle.core.model import Assignment, TaskId
from wattle.core.states import Phase
from wattle.core.task import ENDINGS, Ending, Task

if TYPE_CHECKING:
    from wattle.core.runtime import RuntimeCore


class Following:
    """What follows what, of one runtime core. The lines here are those at the spawner, but for what is on its way between the two."""

    def __init__(self, core: RuntimeCore) -> None:
        self.core = core
        self.lineup = Lineup(core.options.line_seconds)
        self._absent: list[TaskId] = []  # needs of tasks taken in this batch that are not here
        self._followers: dict[TaskId, list[TaskId]] = {}  # open task -> those that wait for its success
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
                if not follower.unmet and follower.held.phase is Phase.QUEUED:
                    self.core.enqueue(follower)
            elif follower.held.phase is Phase.QUEUED:
                self.core.end(follower, *ENDINGS[Ending.UNMET])  # one that is with the spawner is not started by it

    # --- restarts -------------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """After a restart, where the spawner was given tasks: it has gone on by itself, and only it knows who waits there for whom."""
        self.lines_known = not any(task.held.phase is Phase.STARTING for task in self.core.tasks.values())

    def take_lines(self, lines: tuple[tuple[TaskId, ...], ...]) -> None:
        """Take up the lines at the spawner; what else it was given, or has started, has room."""
        if self.lines_known:
            return
        self.lines_known = True
        tasks = self.core.tasks
        for line in lines:
            open_here = [task_id for task_id in line if task_id in tasks]
            for task_id in open_here[1:]:
                self._append(open_here[0], tasks[task_id])
                self.core.clocks.watch(tasks[task_id])
        for task in tasks.values():
            if task.held.phase is not Phase.QUEUED and not task.lined_up and task.id not in self.core.room:
                self.core.room.take(task.id, task.held.assignment.resources)

    # --- lines ----------------------------------------------------------------------------------------------------------

    def line_up(self) -> None:
        """Have short tasks follow each other without waiting for this core; see core/lineup.py.

        Only where nothing is to be decided in between: no files to fetch before or to hash after, and the same room. A slot that would
        idle takes the last of the longest line.
        """
        depth = self.lineup.depth
        for front in self.core.room.holders() if depth and (self.core.queue or self._followers) else ():
            if not self._may_grow(front):
                continue
            while self.lineup.behind(front) < depth:
                last = self.core.tasks[self.lineup.last(front)]
                following = self._next_after(last) or self._next_like(self.core.tasks[front].held.assignment)
                if following is None:
                    break
                self.core.spawn(following, self._append(front, following))
        while len(self.lineup) and not self.core.room.full:
            taken = self.lineup.take_last(self._can_start)
            if taken is None:
                break
            self._turn(taken)
            self.core.acts.append(do.Spawn(self.core.tasks[taken].held.assignment))

    def ended(self, task_id: TaskId) -> None:
        """A task leaves; where it had room, the first behind it has that now."""
        self.core.room.free(task_id)
        self.lineup.remove(task_id)
        heir = self.lineup.succeed(task_id)
        if heir is not None:
            self._turn(heir)

    def _may_grow(self, front: TaskId) -> bool:
        """Whether more may follow. Not one that is told not to start: what followed it would start beside those before it."""
        task = self.core.tasks[front]
        if task.held.assignment.outputs or task.held.phase is Phase.PREPARING or _leaves(task):
            return False
        return not any(_leaves(self.core.tasks[behind]) for behind in self.lineup.line(front))

    def _can_start(self, task_id: TaskId) -> bool:
        task = self.core.tasks[task_id]
        waits = task.held.phase is Phase.STARTING and not task.unmet and not _leaves(task)
        return waits and self.core.room.fits(task.held.assignment.resources)

    def _next_after(self, last: Task) -> Task | None:
        """A task that waits for nothing but the success of the last in a line, if it may follow it there."""
        for task_id in self._followers.get(last.id, ()):
            task = self.core.tasks.get(task_id)
            if task is None or task.held.phase is not Phase.QUEUED or len(task.unmet) > 1:
                continue
            if _may_follow(task.held.assignment, last.held.assignment):
                return task
        return None

    def _next_like(self, front: Assignment) -> Task | None:
        """Take the first task out of the queue, if it may follow ``front`` in a line."""
        task = self.core.queue.first()
        if task is None or not _may_follow(task.held.assignment, front):
            return None
        self.core.queue.pop()
        return task

    def _append(self, front: TaskId, task: Task) -> TaskId:
        task.lined_up = True
        return self.lineup.append(front, task.id)

    def _turn(self, task_id: TaskId) -> None:
        """One that was lined up has room of its own."""
        task = self.core.tasks[task_id]
        task.lined_up = False
        self.core.room.take(task_id, task.held.assignment.resources)


def _leaves(task: Task) -> bool:
    """Whether the spawner is told not to start a task, or to end it."""
    return task.revoked is not None or task.held.ending is not None


def _may_follow(assignment: Assignment, front: Assignment) -> bool:
    """Whether a task can take over the room of another the moment that ends, with nothing to do in between."""
    return not (assignment.inputs or assignment.outputs or front.outputs) and assignment.resources == front.resources
