"""The runtime's mind: takes assignments, decides when each task starts and how it ends, and says so in facts. Pure: no I/O, no clock.

``handle(events, now)`` is the whole interface: what happened goes in, what is to be done comes out (core/effects.py). The shell
saves the Save and Append effects in one transaction before it does anything else, so a crash between any two lines repeats messages and
loses nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from signal import SIGKILL, SIGTERM
from typing import Any

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.copies import Copies
from wattle.core.effects import HeldTask, RuntimeEffect
from wattle.core.lineup import Lineup
from wattle.core.model import Assignment, Fact, FactKind, Output, TaskId, TaskStatus
from wattle.core.past import Past
from wattle.core.room import Room
from wattle.core.states import PHASE_TABLE, Phase, PhaseEvent, next_state
from wattle.core.task import ENDINGS, Ending, Task, deadline_of, finish, next_moment, verdict

KILL_AGAIN_LEAST = 1.0
"""Seconds between two SIGKILLs to one task, at least."""


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """``slots`` tasks at once, sharing ``resources``; a task that has waited ``queue_patience`` seconds here for room is handed back."""

    slots: int
    resources: dict[str, float] = field(default_factory=dict)
    queue_patience: float = 2.0
    line_seconds: float = 0.03  # of short tasks that follow each other without being started one by one; 0: none do


class RuntimeCore:
    """See the module's docstring. ``running`` and ``queued`` count tasks for what the node says of itself."""

    def __init__(self, options: RuntimeOptions) -> None:
        self.options = options
        self.draining = False
        self.tasks: dict[TaskId, Task] = {}
        self.room = Room(options.slots, options.resources)
        self.lineup = Lineup(options.line_seconds)
        self.past = Past()
        self.copies = Copies()
        self._queue: list[tuple[int, int, TaskId]] = []  # heap of (-priority, accepted, id); ended ones are skipped
        self._moments: list[tuple[float, TaskId]] = []  # heap of when to look at tasks; out of date where they went on
        self._unmet: list[TaskId] = []  # needs of tasks taken in this batch that are not here
        self._impatient: list[Task] = []  # whose patience for room ends with this batch
        self._followers: dict[TaskId, list[TaskId]] = {}  # open task -> those that wait for its success
        self._workers: dict[tuple[str, str], int] = {}  # (run, worker) -> the attempt that is open here
        self._accepted = 0
        self._leave_at: float | None = None
        self._left = False
        self._coordinators: frozenset[str] | None = None
        self._now = 0.0
        self._dirty: dict[TaskId, HeldTask] = {}
        self._saves: list[RuntimeEffect] = []
        self._acts: list[RuntimeEffect] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            on.Assigned: self._assigned,
            on.CancelAsked: self._cancel_asked,
            on.ClaimAsked: self._claim_asked,
            on.Keep: self._keep,
            on.Prepared: self._prepared,
            on.PrepareFailed: self._prepare_failed,
            on.ProcessStarted: self._started,
            on.SpawnFailed: self._spawn_failed,
            on.Skipped: self._skipped,
            on.ProcessExited: self._exited,
            on.ProcessesLost: self._processes_lost,
            on.Collected: self._collected,
            on.CollectFailed: self._collect_failed,
            on.Drain: self._drain,
            on.Resume: self._resume,
            on.CoordinatorsInSight: self._coordinators_in_sight,
            on.Tick: lambda _: None,  # the clocks are looked at after every batch anyway
        }

    @property
    def running(self) -> int:
        """Tasks that hold a slot."""
        return len(self.room)

    @property
    def queued(self) -> int:
        """Tasks that wait for a slot."""
        return len(self.tasks) - len(self.room)

    # --- in and out ---------------------------------------------------------------------------------------------------

    def restore(
        self, tasks: Iterable[HeldTask], done: Iterable[TaskId], fences: dict[str, tuple[int, str]], now: float
    ) -> None:
        """Take up what the store remembers, before the first ``handle``.

        Tasks that were with the spawner stay so: its word on them comes in as events. Preparing and collecting start over.
        """
        for run, fence in fences.items():
            self.past.set_fence(run, *fence)
        for task_id in done:
            self.past.note_ended(task_id)
        for held in sorted(tasks, key=lambda t: t.accepted):
            if held.phase is Phase.PREPARING:
                held = replace(held, phase=Phase.QUEUED)
            task = Task(held, queued_at=now)
            if held.ending is not None and held.phase is not Phase.QUEUED:
                task.kill_at = now + held.assignment.kill_after
            self._hold(task)
            self._accepted = max(self._accepted, held.accepted)
            if held.phase not in (Phase.QUEUED, Phase.STARTING):
                self.room.take(task.id, held.assignment.resources)
        for task in list(self.tasks.values()):
            self._wait_for_needs(task)
            if task.held.phase is Phase.QUEUED and not task.unmet:
                heapq.heappush(self._queue, (-task.held.assignment.priority, task.held.accepted, task.id))
            self._watch(task)
        self._restore_starting()

    def _restore_starting(self) -> None:
        """Of the tasks that the spawner was given, those there is room for have it; the others are in lines, it does not matter which."""
        for task in self.tasks.values():
            if task.held.phase is Phase.STARTING:
                asked = task.held.assignment.resources
                front = None if not self.room.full and self.room.fits(asked) else self.room.any_holder()
                if front is None:
                    self.room.take(task.id, asked)
                else:
                    self._append(front, task)

    def resume_collecting(self) -> list[RuntimeEffect]:
        """What to do once after ``restore``: collect for commands that had succeeded, signal again those that are to stop."""
        collect = [do.Collect(t.held.assignment) for t in self.tasks.values() if t.held.phase is Phase.COLLECTING]
        stopping = [t.id for t in self.tasks.values() if t.held.phase is Phase.RUNNING and t.held.ending is not None]
        return [*collect, *(do.Kill(task_id, SIGTERM) for task_id in stopping)]

    def handle(self, events: Iterable[on.RuntimeEvent], now: float) -> list[RuntimeEffect]:
        """Everything that follows from ``events``, in order: first what to save, then what to do."""
        self._now = now
        self._dirty, self._saves, self._acts = {}, [], []
        for event in events:
            self._handlers[type(event)](event)
        self._give_up_unmet()
        self._check_clocks()
        self._start_what_fits()
        self._line_up()
        self._hand_back_impatient()
        if self._leave_at is not None and not self.tasks and not self._left:
            self._left = True
            self._acts.append(do.Left())
        self._acts.append(do.SetTimer(self._next_moment()))
        return [*(do.SaveHeldTask(held) for held in self._dirty.values()), *self._saves, *self._acts]

    # --- commands -------------------------------------------------------------------------------------------------------

    def _assigned(self, event: on.Assigned) -> None:
        for assignment in event.tasks:
            self._answer(event.token, assignment.id, self._accept(assignment, event.owner))

    def _accept(self, assignment: Assignment, owner: str) -> tuple[str, str]:
        refusal = self._fence(assignment.run, assignment.epoch, owner)
        if refusal is not None:
            return refusal
        newest_ended = self.past.newest_ended(assignment.id)
        if assignment.id in self.tasks:
            return "OK", ""  # told twice
        if assignment.attempt == newest_ended:
            return "OVER", "it has ended here already"
        if (
            assignment.attempt < newest_ended
        ):  # never to be started: one that was given up must not wait for it for ever
            return "PASSED", f"attempt {newest_ended} of this worker has ended here already"
        if self.draining:
            return "DRAINING", "the node takes no new work"
        unfit = self._unfit(assignment)
        if unfit:
            return "UNFIT", unfit
        self._accepted += 1
        held = HeldTask(assignment, owner, Phase.QUEUED, self._accepted)
        task = Task(held, queued_at=self._now)
        self._hold(task)
        self._dirty[assignment.id] = held
        self._wait_for_needs(task)
        if not task.unmet:
            self._enqueue(task)
        return "OK", ""

    def _enqueue(self, task: Task) -> None:
        task.queued_at = self._now
        heapq.heappush(self._queue, (-task.held.assignment.priority, task.held.accepted, task.id))
        self._watch(task)

    def _wait_for_needs(self, task: Task) -> None:
        """Note what must succeed here before a task may start; what has ended otherwise, or is not known any more, never will."""
        run = task.id.run
        for worker, attempt in task.held.assignment.after:
            need = TaskId(run, worker, attempt)
            if not self.past.succeeded(need):
                task.unmet.add(need)
                self._followers.setdefault(need, []).append(task.id)
                if need not in self.tasks:
                    self._unmet.append(need)

    def _give_up_unmet(self) -> None:
        """End what waits for tasks that are not here."""
        for need in self._unmet:
            if need not in self.tasks:
                self._release(need, succeeded=False)
        self._unmet.clear()

    def _release(self, ended: TaskId, *, succeeded: bool) -> None:
        """A task has ended: those that waited for its success have one thing less to wait for, or will not start."""
        for follower_id in self._followers.pop(ended, ()):
            follower = self.tasks.get(follower_id)
            if follower is None:
                continue
            if succeeded:
                follower.unmet.discard(ended)
                if not follower.unmet and follower.held.phase is Phase.QUEUED:
                    self._enqueue(follower)
            elif follower.held.phase is Phase.QUEUED:
                self._end(follower, *ENDINGS[Ending.UNMET])  # one that is with the spawner is not started by it

    def _unfit(self, assignment: Assignment) -> str:
        lacking = self.room.lacks(assignment.resources)
        if lacking:
            return lacking
        open_attempt = self._workers.get((assignment.run, assignment.worker))
        if open_attempt is not None:  # design.md, invariant 4: one runtime never runs two tasks of one worker at once
            return f"attempt {open_attempt} of this worker has not ended here yet"
        return ""

    def _fence(self, run: str, epoch: int, owner: str) -> tuple[str, str] | None:
        """None when (epoch, owner) may command the run; else the refusal. Keeps the highest pair."""
        new = self.past.admit(run, epoch, owner)
        if new is None:
            current = self.past.fences[run]
            return "FENCED", f"run {run} belongs to {current[1]} in epoch {current[0]}"
        if new:
            self._saves.append(do.SaveFence(run, epoch, owner))
        return None

    def _cancel_asked(self, event: on.CancelAsked) -> None:
        for task_id, epoch in event.tasks:
            refusal = self._fence(task_id.run, epoch, event.owner)
            if refusal is None and task_id in self.tasks:
                self._stop(self.tasks[task_id], Ending.CANCELLED)
            elif refusal is None and task_id.attempt > self.past.newest_ended(task_id):
                self._never_start(task_id, epoch, event.owner)
            self._answer(event.token, task_id, refusal or ("OK", ""))

    def _never_start(self, task_id: TaskId, epoch: int, owner: str) -> None:
        """An order to end a task has overtaken its assignment: the task is over before it is known."""
        self._accepted += 1
        assignment = Assignment(*task_id, epoch=epoch, workflow="")
        self._dirty[task_id] = HeldTask(assignment, owner, Phase.DONE, self._accepted)
        status, error = ENDINGS[Ending.CANCELLED]
        self._saves.append(do.Append(Fact(FactKind.FINISHED, *task_id, at=self._now, status=status, error=error)))
        self.past.note_ended(task_id)

    def _claim_asked(self, event: on.ClaimAsked) -> None:
        refused = []
        for run, epoch in event.runs:
            if self._fence(run, epoch, event.owner) is not None:
                refused.append((run, *self.past.fences[run]))
        self._acts.append(do.AnswerClaim(event.token, tuple(refused)))

    def held_by(self, owner: str) -> list[HeldTask]:
        """The open tasks of runs that an owner has, and of runs nobody has claimed since it gave them."""
        return [
            task.held
            for task in self.tasks.values()
            if self.past.fences.get(task.id.run, (0, task.held.owner))[1] == owner
        ]

    def _keep(self, event: on.Keep) -> None:
        save, number = self.copies.keep(event.page)
        if save:
            self._saves.append(do.SaveCopies(event.page))
        self._acts.append(do.AnswerKeep(event.token, number))

    def _answer(self, token: int, task: TaskId, verdict: tuple[str, str]) -> None:
        epoch, owner = self.past.fences.get(task.run, (0, ""))
        self._acts.append(do.Answer(token, task, *verdict, epoch, owner))

    # --- a task's way ---------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        """Give room to waiting tasks by priority, then by age; one that does not fit now lets smaller ones pass."""
        if len(self._queue) > 2 * len(self.tasks) + 100:  # mostly entries of tasks that ended while they waited
            self._queue = [entry for entry in self._queue if entry[2] in self.tasks]
            heapq.heapify(self._queue)
        waiting: list[tuple[int, int, TaskId]] = []
        while self._queue and not self.room.full:
            entry = heapq.heappop(self._queue)
            task = self.tasks.get(entry[2])
            if task is None or task.held.phase is not Phase.QUEUED:
                continue
            if not self.room.fits(task.held.assignment.resources):
                waiting.append(entry)
                continue
            self.room.take(task.id, task.held.assignment.resources)
            if task.held.assignment.inputs:
                self._move(task, PhaseEvent.PREPARE)
                self._acts.append(do.Prepare(task.held.assignment))
            else:
                self._spawn(task)
        for entry in waiting:
            heapq.heappush(self._queue, entry)

    def _spawn(self, task: Task, after: TaskId | None = None) -> None:
        self._move(task, PhaseEvent.SPAWN)
        self._acts.append(do.Spawn(task.held.assignment, after, on_success=bool(task.unmet)))

    def _line_up(self) -> None:
        """Have short tasks follow each other without waiting for this core; see core/lineup.py.

        Only where nothing is to be decided in between: no files to fetch before or to hash after, and the same room. A slot that would
        idle takes the last of the longest line.
        """
        depth = self.lineup.depth
        for front in self.room.holders() if depth and (self._queue or self._followers) else ():
            task = self.tasks[front]
            if task.held.assignment.outputs or task.held.ending is not None or task.held.phase is Phase.PREPARING:
                continue
            while self.lineup.behind(front) < depth:
                last = self.tasks[self.lineup.last(front)]
                following = self._next_after(last) or self._next_like(task.held.assignment)
                if following is None:
                    break
                self._spawn(following, self._append(front, following))
        while len(self.lineup) and not self.room.full:
            taken = self.lineup.take_last(self._can_start)
            if taken is None:
                break
            self._turn(taken)
            self._acts.append(do.Spawn(self.tasks[taken].held.assignment))

    def _can_start(self, task_id: TaskId) -> bool:
        task = self.tasks[task_id]
        return not task.unmet and self.room.fits(task.held.assignment.resources)

    def _next_after(self, last: Task) -> Task | None:
        """A task that waits for nothing but the success of the last in a line, if it may follow it there."""
        for task_id in self._followers.get(last.id, ()):
            task = self.tasks.get(task_id)
            if task is None or task.held.phase is not Phase.QUEUED or len(task.unmet) > 1:
                continue
            if _may_follow(task.held.assignment, last.held.assignment):
                return task
        return None

    def _append(self, front: TaskId, task: Task) -> TaskId:
        task.lined_up = True
        return self.lineup.append(front, task.id)

    def _turn(self, task_id: TaskId) -> None:
        """One that was lined up has room of its own."""
        task = self.tasks[task_id]
        task.lined_up = False
        self.room.take(task_id, task.held.assignment.resources)

    def _next_like(self, front: Assignment) -> Task | None:
        """Take the first task out of the queue, if it may follow ``front`` in a line."""
        while self._queue:
            task = self.tasks.get(self._queue[0][2])
            if task is not None and task.held.phase is Phase.QUEUED:
                if not _may_follow(task.held.assignment, front):
                    return None
                heapq.heappop(self._queue)
                return task
            heapq.heappop(self._queue)  # ended while it waited
        return None

    def _prepared(self, event: on.Prepared) -> None:
        task = self.tasks.get(event.task)
        if task is None or task.held.phase is not Phase.PREPARING:
            return  # cancelled meanwhile
        self._spawn(task)

    def _prepare_failed(self, event: on.PrepareFailed) -> None:
        task = self.tasks.get(event.task)
        if task is None or task.held.phase is not Phase.PREPARING:
            return
        status = TaskStatus.RETURNED if event.missing or event.disk_full else TaskStatus.FAILED
        self._end(task, status, error=event.error, missing=event.missing, disk_full=event.disk_full)

    def _started(self, event: on.ProcessStarted) -> None:
        task = self.tasks.get(event.task)
        if task is None or not self._move(task, PhaseEvent.STARTED, pid=event.pid, started_at=event.at):
            return
        self._saves.append(do.Append(Fact(FactKind.STARTED, *task.id, at=event.at, pid=event.pid)))
        self._watch(task)
        if task.held.ending is not None:  # asked to stop while the spawner was at it
            self._acts.append(do.Kill(task.id, SIGTERM))

    def _spawn_failed(self, event: on.SpawnFailed) -> None:
        task = self.tasks.get(event.task)
        self._acts.append(do.Acknowledge(event.task))
        if task is not None and task.held.phase is Phase.STARTING:
            status = TaskStatus.RETURNED if event.disk_full else TaskStatus.FAILED
            self._end(task, status, error=event.error, disk_full=event.disk_full)

    def _skipped(self, event: on.Skipped) -> None:
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.STARTING:
            ending = task.held.ending or (Ending.IMPATIENT if task.revoked else Ending.UNMET)
            self._end(task, *ENDINGS[Ending(ending)])

    def _exited(self, event: on.ProcessExited) -> None:
        self._acts.append(do.Acknowledge(event.task))
        task = self.tasks.get(event.task)
        if task is None or task.held.phase not in (Phase.STARTING, Phase.RUNNING):
            return  # told twice
        by_itself = event.exit_code == 0 and not event.signalled and not task.held.assignment.outputs
        held = replace(
            task.held,
            ending=None if by_itself else task.held.ending,  # the order to end it came too late
            exit_code=event.exit_code,
            signal=event.signal,
            cpu_seconds=event.usage.cpu_seconds,
            memory_peak=event.usage.memory_peak,
        )
        task.held = held
        if held.started_at is not None:
            self.lineup.learn(event.at - held.started_at)
        if event.exit_code == 0 and held.ending is None and held.assignment.outputs:
            self._move(task, PhaseEvent.COLLECT)
            self._acts.append(do.Collect(held.assignment))
            return
        self._end(task, *verdict(held), at=event.at)

    def _collected(self, event: on.Collected) -> None:
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.COLLECTING:
            self._end(task, TaskStatus.SUCCEEDED, outputs=dict(event.outputs))

    def _collect_failed(self, event: on.CollectFailed) -> None:
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.COLLECTING:
            self._end(task, TaskStatus.FAILED, error=event.error)

    def _processes_lost(self, event: on.ProcessesLost) -> None:
        for task_id in event.tasks:
            task = self.tasks.get(task_id)
            if task is None:
                continue
            if task.held.phase is Phase.RUNNING:
                error = "the spawner that held its process ended; how the process ended is unknown"
                self._end(task, TaskStatus.LOST, error=error)
            elif task.held.phase is Phase.STARTING:
                error = (
                    "the spawner does not hold it and nobody saw it start; whether it ran, and how it ended, is unknown"
                )
                self._end(task, TaskStatus.LOST, error=error)

    def _end(
        self,
        task: Task,
        status: TaskStatus,
        error: str | None = None,
        *,
        at: float | None = None,
        outputs: dict[str, Output] | None = None,
        missing: tuple[str, ...] = (),
        disk_full: bool = False,
    ) -> None:
        """Finish a task: the fact, the room it held, the memory of it."""
        held = task.held
        self._move(task, PhaseEvent.END)
        fact = finish(held, status, error, self._now if at is None else at, outputs or {}, missing, disk_full)
        self._saves.append(do.Append(fact))
        self.room.free(task.id)
        self.lineup.remove(task.id)
        heir = self.lineup.succeed(task.id)
        if heir is not None:
            self._turn(heir)
        del self.tasks[task.id]
        del self._workers[task.id.run, task.id.worker]
        self.past.note_ended(task.id, well=status is TaskStatus.SUCCEEDED)
        self._release(task.id, succeeded=status is TaskStatus.SUCCEEDED)

    def _hold(self, task: Task) -> None:
        self.tasks[task.id] = task
        self._workers[task.id.run, task.id.worker] = task.id.attempt

    # --- stopping -------------------------------------------------------------------------------------------------------

    def _stop(self, task: Task, ending: Ending) -> None:
        """End a task that has not ended by itself: at once where no process runs, else TERM and after ``kill_after`` KILL."""
        if task.id not in self.tasks:
            return  # with one that it was to follow
        phase = task.held.phase
        if phase is Phase.COLLECTING:
            if ending is not Ending.CANCELLED:
                return  # its command has succeeded: let it have its result
            self._acts.append(do.Abandon(task.id))
            self._end(task, TaskStatus.CANCELLED, "cancelled")
        elif phase in (Phase.QUEUED, Phase.PREPARING):
            if phase is Phase.PREPARING:
                self._acts.append(do.Abandon(task.id))
            self._end(task, *ENDINGS[ending])
        elif task.held.ending is None:
            task.held = replace(task.held, ending=ending)
            self._dirty[task.id] = task.held
            task.kill_at = self._now + task.held.assignment.kill_after
            self._watch(task)
            self._acts.append(do.Kill(task.id, SIGTERM))

    def _drain(self, event: on.Drain) -> None:
        if event.leave_at is not None:
            self._leave_at = event.leave_at if self._leave_at is None else min(self._leave_at, event.leave_at)
        if not self.draining:
            self.draining = True
            self._acts.append(do.NodeUpdate())
        for task in [t for t in self.tasks.values() if t.held.phase is Phase.QUEUED]:
            if task.id in self.tasks:  # one that follows another has ended with that
                self._end(task, TaskStatus.RETURNED, "the node takes no new work")
        if event.kill:
            for task in list(self.tasks.values()):
                self._stop(task, Ending.LEAVING)
                if task.kill_at is not None:
                    task.kill_at = self._now
                    self._watch(task)

    def _resume(self, event: on.Resume) -> None:
        if self.draining and self._leave_at is None:
            self.draining = False
            self._acts.append(do.NodeUpdate())

    def _coordinators_in_sight(self, event: on.CoordinatorsInSight) -> None:
        lost_sight = bool(self._coordinators) and not event.names
        self._coordinators = event.names
        if lost_sight:
            for task in list(self.tasks.values()):
                if task.held.assignment.on_disconnect == "stop":
                    self._stop(task, Ending.DISCONNECTED)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _watch(self, task: Task) -> None:
        """Have a task looked at when there is something to do about it, should nothing happen to it before."""
        moment = next_moment(task, self.options.queue_patience)
        if moment is not None:
            heapq.heappush(self._moments, (moment, task.id))

    def _due(self) -> list[Task]:
        """The tasks whose moment has come, each once."""
        due: dict[TaskId, Task] = {}
        while self._moments and self._moments[0][0] <= self._now:
            moment, task_id = heapq.heappop(self._moments)
            if self._stands(moment, task_id):
                due[task_id] = self.tasks[task_id]
        return list(due.values())

    def _stands(self, moment: float, task_id: TaskId) -> bool:
        """Whether a task is still to be looked at then."""
        task = self.tasks.get(task_id)
        return task is not None and next_moment(task, self.options.queue_patience) == moment

    def _check_clocks(self) -> None:
        """Stop what is over its time, and kill what was told to stop and has not."""
        now = self._now
        if self._leave_at is not None and now >= self._leave_at:
            for task in list(self.tasks.values()):
                self._stop(task, Ending.LEAVING)
        for task in self._due():
            if task.held.phase is Phase.QUEUED or task.lined_up:
                self._impatient.append(task)  # it may still find room in this batch
            if task.held.phase is Phase.QUEUED:
                continue
            deadline = deadline_of(task)
            if deadline is not None and now >= deadline:
                self._stop(task, Ending.TIMEOUT)
            if task.kill_at is not None and now >= task.kill_at and task.id in self.tasks:
                # and once more after that, should it sit in an uninterruptible wait
                task.kill_at = now + max(task.held.assignment.kill_after, KILL_AGAIN_LEAST)
                self._acts.append(do.Kill(task.id, SIGKILL))
            self._watch(task)

    def _hand_back_impatient(self) -> None:
        for task in self._impatient:
            if task.id in self.tasks and task.held.phase is Phase.QUEUED:
                self._end(task, *ENDINGS[Ending.IMPATIENT])
            elif task.lined_up and task.held.phase is Phase.STARTING:
                task.revoked = True
                self._acts.append(do.Revoke(task.id))
        self._impatient.clear()

    def _next_moment(self) -> float | None:
        moments = self._moments
        while moments and not self._stands(*moments[0]):
            heapq.heappop(moments)
        next_one = moments[0][0] if moments else None
        if self._leave_at is None or self._left or self._leave_at <= self._now:
            return next_one
        return self._leave_at if next_one is None else min(next_one, self._leave_at)

    def _move(self, task: Task, event: PhaseEvent, **started: Any) -> bool:
        """Advance a task's phase by the table, with what ``started`` says of its process; False when the event is late."""
        held = task.held
        phase = next_state(PHASE_TABLE, held.phase, event, lambda: (f"task {task.id}", f"held: {held}"))
        if phase is None:
            return False
        held = replace(held, phase=phase, **started)
        task.held = held
        self._dirty[task.id] = held
        return True


def _may_follow(assignment: Assignment, front: Assignment) -> bool:
    """Whether a task can take over the room of another the moment that ends, with nothing to do in between."""
    return not (assignment.inputs or assignment.outputs or front.outputs) and assignment.resources == front.resources
