"""What ends tasks on a runtime before their own end: orders, timeouts, patience for room, draining and leaving."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.model import TaskStatus
from wattle.core.states import Phase
from wattle.core.task import ENDINGS, Ending, Task, deadline_of

if TYPE_CHECKING:
    from wattle.core.runtime import RuntimeCore

KILL_AGAIN_LEAST = 1.0
"""Seconds between two SIGKILLs to one task, at least."""


class Stopping:
    """See the module's docstring; of one runtime core."""

    def __init__(self, core: RuntimeCore) -> None:
        self.core = core
        self.draining = False
        self._impatient: list[Task] = []  # whose patience for room ends with this batch
        self._leave_at: float | None = None
        self._left = False
        self._coordinators: frozenset[str] | None = None

    def stop(self, task: Task, ending: Ending) -> None:
        """End a task that has not ended by itself: at once where no process runs, else TERM and after ``kill_after`` KILL."""
        if task.id not in self.core.tasks:
            return  # with one that it was to follow
        phase = task.held.phase
        if phase is Phase.COLLECTING:
            if ending is not Ending.CANCELLED:
                return  # its command has succeeded: let it have its result
            self.core.acts.append(do.Abandon(task.id))
            self.core.end(task, TaskStatus.CANCELLED, "cancelled")
        elif phase in (Phase.QUEUED, Phase.PREPARING):
            if phase is Phase.PREPARING:
                self.core.acts.append(do.Abandon(task.id))
            self.core.end(task, *ENDINGS[ending])
        elif task.held.ending is None:
            self.core.change(task, ending=ending)
            task.kill_at = self.core.now + task.held.assignment.kill_after
            self.core.clocks.watch(task)
            self.core.acts.append(do.Kill(task.id, SIGTERM))

    def drain(self, event: on.Drain) -> None:
        """Take nothing new, and hand back what has no room; perhaps end it all at some time, or kill it now."""
        if event.leave_at is not None:
            self._leave_at = event.leave_at if self._leave_at is None else min(self._leave_at, event.leave_at)
        if not self.draining:
            self.draining = True
            self.core.acts.append(do.NodeUpdate())
        for task in list(self.core.tasks.values()):
            self._hand_back(task, Ending.DRAINING)
        if event.kill:
            for task in list(self.core.tasks.values()):
                self.stop(task, Ending.LEAVING)
                if task.kill_at is not None:
                    task.kill_at = self.core.now
                    self.core.clocks.watch(task)

    def resume(self, event: on.Resume) -> None:
        """Take new tasks again, unless told to leave."""
        if self.draining and self._leave_at is None:
            self.draining = False
            self.core.acts.append(do.NodeUpdate())

    def coordinators_in_sight(self, event: on.CoordinatorsInSight) -> None:
        """End what is not to go on without coordinators, when the last is gone."""
        lost_sight = bool(self._coordinators) and not event.names
        self._coordinators = event.names
        if lost_sight:
            for task in list(self.core.tasks.values()):
                if task.held.assignment.on_disconnect == "stop":
                    self.stop(task, Ending.DISCONNECTED)

    # --- time ---------------------------------------------------------------------------------------------------------

    def check_clocks(self) -> None:
        """Stop what is over its time, and kill what was told to stop and has not."""
        now = self.core.now
        if self._leave_at is not None and now >= self._leave_at:
            for task in list(self.core.tasks.values()):
                self.stop(task, Ending.LEAVING)
        for task in self.core.clocks.due(now):
            if task.held.phase is Phase.QUEUED or task.lined_up:
                self._impatient.append(task)  # it may still find room in this batch
            if task.held.phase is Phase.QUEUED:
                continue
            deadline = deadline_of(task)
            if deadline is not None and now >= deadline:
                self.stop(task, Ending.TIMEOUT)
            if task.kill_at is not None and now >= task.kill_at and task.id in self.core.tasks:
                # and once more after that, should it sit in an uninterruptible wait
                task.kill_at = now + max(task.held.assignment.kill_after, KILL_AGAIN_LEAST)
                self.core.acts.append(do.Kill(task.id, SIGKILL))
            self.core.clocks.watch(task)

    def leave_if_done(self) -> None:
        """Say that nothing is left, once, when told to leave."""
        if self._leave_at is not None and not self.core.tasks and not self._left:
            self._left = True
            self.core.acts.append(do.Left())

    def hand_back_impatient(self) -> None:
        """Hand back what has waited too long for room and found none in this batch."""
        for task in self._impatient:
            self._hand_back(task, Ending.IMPATIENT)
        self._impatient.clear()

    def _hand_back(self, task: Task, why: Ending) -> None:
        """Give up waiting for room; does nothing for a task that has it, or has ended, perhaps with one that it was to follow."""
        if task.id not in self.core.tasks or task.revoked is not None:
            return
        if task.held.phase is Phase.QUEUED:
            self.core.end(task, *ENDINGS[why])
        elif task.lined_up and task.held.phase is Phase.STARTING:
            task.revoked = why
            self.core.acts.append(do.Revoke(task.id))

    def next_moment(self) -> float | None:
        """When there is something to do if nothing happens before."""
        next_one = self.core.clocks.next()
        if self._leave_at is None or self._left or self._leave_at <= self.core.now:
            return next_one
        return self._leave_at if next_one is None else min(next_one, self._leave_at)
