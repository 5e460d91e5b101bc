"""The runtime's mind: takes assignments, decides when each task starts and how it ends, and says so in facts. Pure: no I/O, no clock.

``handle(events, now)`` is the whole interface: what happened goes in, what is to be done comes out (core/effects.py). The shell
saves the Save and Append effects in one transaction before it does anything else, so a crash between any two lines repeats messages and
loses nothing. Before it, the shell tells what the store knows of the past that the events are about (core/past.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from signal import SIGTERM
from typing import Any

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.clocks import Clocks
from wattle.core.copies import Copies
from wattle.core.effects import HeldTask, RuntimeEffect
from wattle.core.following import Following
from wattle.core.model import Assignment, Fact, FactKind, Output, TaskId, TaskStatus
from wattle.core.past import Past
from wattle.core.queue import Queue
from wattle.core.room import Room
from wattle.core.states import PHASE_TABLE, Phase, PhaseEvent, next_state
from wattle.core.stopping import Stopping
from wattle.core.task import ENDINGS, Ending, Task, finish, verdict


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
        self.tasks: dict[TaskId, Task] = {}
        self.room = Room(options.slots, options.resources)
        self.past = Past()
        self.copies = Copies()
        self.queue = Queue(self.tasks)
        self.following = Following(self)
        self.clocks = Clocks(self.tasks, options.queue_patience)
        self.stopping = Stopping(self)
        self.acts: list[RuntimeEffect] = []
        self._workers: dict[tuple[str, str], int] = {}  # (run, worker) -> the attempt that is open here
        self._accepted = 0
        self.now = 0.0
        self._dirty: dict[TaskId, HeldTask] = {}
        self._saves: list[RuntimeEffect] = []
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
            on.StillWaiting: lambda event: self.following.take_waiting(event.tasks),
            on.ProcessExited: self._exited,
            on.ProcessesLost: self._processes_lost,
            on.Collected: self._collected,
            on.CollectFailed: self._collect_failed,
            on.Drain: self.stopping.drain,
            on.Resume: self.stopping.resume,
            on.CoordinatorsInSight: self.stopping.coordinators_in_sight,
            on.Tick: lambda _: None,  # the clocks are looked at after every batch anyway
        }

    @property
    def draining(self) -> bool:
        """Whether it takes no new tasks."""
        return self.stopping.draining

    @property
    def running(self) -> int:
        """Tasks that hold a slot."""
        return len(self.room)

    @property
    def queued(self) -> int:
        """Tasks that wait for a slot."""
        return len(self.tasks) - len(self.room)

    # --- in and out ---------------------------------------------------------------------------------------------------

    def restore(self, tasks: Iterable[HeldTask], fences: dict[str, tuple[int, str]], now: float) -> None:
        """Take up what the store remembers, before the first ``handle``: open tasks, and the fences of their runs.

        Tasks that were with the spawner stay so: its word on them comes in as events. Preparing and collecting start over.
        """
        for run, fence in fences.items():
            self.past.recall(run, fence, {})
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
        for task in self.tasks.values():
            self.following.note_needs(task)
            if task.held.phase is Phase.QUEUED and not task.unmet:
                self.queue.push(task)
        self.following.restore()
        for task in self.tasks.values():
            self.clocks.watch(task)

    def resume_collecting(self) -> list[RuntimeEffect]:
        """What to do once after ``restore``: collect for commands that had succeeded, signal again those that are to stop."""
        collect = [do.Collect(t.held.assignment) for t in self.tasks.values() if t.held.phase is Phase.COLLECTING]
        stopping = [t.id for t in self.tasks.values() if t.held.phase is Phase.RUNNING and t.held.ending is not None]
        return [*collect, *(do.Kill(task_id, SIGTERM) for task_id in stopping)]

    def handle(self, events: Iterable[on.RuntimeEvent], now: float) -> list[RuntimeEffect]:
        """Everything that follows from ``events``, in order: first what to save, then what to do."""
        self.now = now
        self._dirty, self._saves, self.acts = {}, [], []
        for event in events:
            self._handlers[type(event)](event)
        self.following.give_up_absent()
        self.stopping.check_clocks()
        if self.following.lines_known:
            self._start_what_fits()
            self.following.line_up()
        self.stopping.hand_back_impatient()
        self.stopping.leave_if_done()
        self.acts.append(do.SetTimer(self.stopping.next_moment()))
        return [*(do.SaveHeldTask(held) for held in self._dirty.values()), *self._saves, *self.acts]

    # --- commands -------------------------------------------------------------------------------------------------------

    def _assigned(self, event: on.Assigned) -> None:
        for assignment in event.tasks:
            task_id = assignment.id
            self._answer(event.token, task_id, self._accept(assignment, task_id, event.owner))

    def _accept(self, assignment: Assignment, task_id: TaskId, owner: str) -> tuple[str, str]:
        fenced = self._fence(assignment.run, assignment.epoch, owner)
        if fenced is not None:
            return fenced
        if task_id in self.tasks:
            return "OK", ""  # told twice
        over = self.past.over(task_id)
        if over is not None:
            return over
        refusal = self._refusal(assignment)
        if refusal is not None:
            self._never_start(task_id, assignment.epoch, owner, TaskStatus.RETURNED, refusal[1])
            return refusal
        self._accepted += 1
        held = HeldTask(assignment, owner, Phase.QUEUED, self._accepted)
        task = Task(held, queued_at=self.now)
        self._hold(task)
        self._dirty[task_id] = held
        self.following.note_needs(task)
        if not task.unmet:
            self.enqueue(task)
        return "OK", ""

    def enqueue(self, task: Task) -> None:
        """Have a task wait for room from now on."""
        task.queued_at = self.now
        self.queue.push(task)
        self.clocks.watch(task)

    def _refusal(self, assignment: Assignment) -> tuple[str, str] | None:
        """Why a task is not taken; None when it is."""
        if self.draining:
            return "DRAINING", ENDINGS[Ending.DRAINING][1]
        open_attempt = self._workers.get((assignment.run, assignment.worker))
        if open_attempt is not None:  # design.md, invariant 4: one runtime never runs two tasks of one worker at once
            return "UNFIT", f"attempt {open_attempt} of this worker has not ended here yet"
        lacking = self.room.lacks(assignment.resources)
        return ("UNFIT", lacking) if lacking else None

    def _fence(self, run: str, epoch: int, owner: str) -> tuple[str, str] | None:
        """None when (epoch, owner) may command the run; else the refusal. Keeps the highest pair."""
        new = self.past.admit(run, epoch, owner)
        if new is None:
            current = self.past.fence(run)
            assert current is not None, f"nothing fences {owner} off from run {run}"
            return "FENCED", f"run {run} belongs to {current[1]} in epoch {current[0]}"
        if new:
            self._saves.append(do.SaveFence(run, epoch, owner))
        return None

    def _cancel_asked(self, event: on.CancelAsked) -> None:
        for task_id, epoch in event.tasks:
            refusal = self._fence(task_id.run, epoch, event.owner)
            self._answer(event.token, task_id, refusal or self._stop(task_id, epoch, event.owner))

    def _stop(self, task_id: TaskId, epoch: int, owner: str) -> tuple[str, str]:
        if task_id in self.tasks:
            self.stopping.stop(self.tasks[task_id], Ending.CANCELLED)
            return "OK", ""
        over = self.past.over(task_id)
        if over is None:
            self._never_start(task_id, epoch, owner, *ENDINGS[Ending.CANCELLED])
        return over or ("OK", "")

    def _never_start(self, task_id: TaskId, epoch: int, owner: str, status: TaskStatus, error: str) -> None:
        """A task is over before it was here: it is not taken, or an order to end it has overtaken its assignment.

        Its owner goes by that, so an assignment that was sent before and comes later must not start it.
        """
        self._accepted += 1
        assignment = Assignment(*task_id, epoch=epoch, workflow="")
        self._dirty[task_id] = HeldTask(assignment, owner, Phase.DONE, self._accepted)
        self._saves.append(do.Append(Fact(FactKind.FINISHED, *task_id, at=self.now, status=status, error=error)))
        self.past.note_ended(task_id)

    def _claim_asked(self, event: on.ClaimAsked) -> None:
        refused = []
        for run, epoch in event.runs:
            if self._fence(run, epoch, event.owner) is not None:
                refused.append((run, *(self.past.fence(run) or (0, ""))))
        self.acts.append(do.AnswerClaim(event.token, tuple(refused)))

    def held_by(self, owner: str) -> dict[TaskId, int]:
        """The open tasks of runs that an owner has, and of runs nobody has claimed since it gave them, with its epochs of these runs.

        A task may have been given in an earlier epoch, in which nothing is taken any more: no order to end it either.
        """
        held: dict[TaskId, int] = {}
        for id, task in self.tasks.items():
            epoch, current = self.past.fence(id.run) or (task.held.assignment.epoch, task.held.owner)
            if current == owner:
                held[id] = epoch
        return held

    def _keep(self, event: on.Keep) -> None:
        save, number = self.copies.keep(event.page)
        if save:
            self._saves.append(do.SaveCopies(event.page))
        self.acts.append(do.AnswerKeep(event.token, number))

    def _answer(self, token: int, task: TaskId, verdict: tuple[str, str]) -> None:
        epoch, owner = self.past.fence(task.run) or (0, "")
        self.acts.append(do.Answer(token, task, *verdict, epoch, owner))

    # --- a task's way ---------------------------------------------------------------------------------------------------

    def _start_what_fits(self) -> None:
        """Give room to waiting tasks by priority, then by age; one that does not fit now lets smaller ones pass."""
        passed_over: list[Task] = []
        while not self.room.full and (task := self.queue.pop()) is not None:
            if not self.room.fits(task.held.assignment.resources):
                passed_over.append(task)
                continue
            self.room.take(task.id, task.held.assignment.resources)
            if task.held.assignment.inputs:
                self._move(task, PhaseEvent.PREPARE)
                self.acts.append(do.Prepare(task.held.assignment))
            else:
                self.spawn(task)
        self.queue.put_back(passed_over)

    def spawn(self, task: Task, needs: tuple[TaskId, ...] | None = None) -> None:
        """Give a task to the spawner, to be started now, or when it has room there and ``needs`` have succeeded."""
        self._move(task, PhaseEvent.SPAWN)
        self.acts.append(do.Spawn(task.held.assignment, needs))
        self.following.spawned(task.id)

    def _prepared(self, event: on.Prepared) -> None:
        task = self.tasks.get(event.task)
        if task is None or task.held.phase is not Phase.PREPARING:
            return  # cancelled meanwhile
        self.spawn(task)

    def _prepare_failed(self, event: on.PrepareFailed) -> None:
        task = self.tasks.get(event.task)
        if task is None or task.held.phase is not Phase.PREPARING:
            return
        status = TaskStatus.RETURNED if event.missing or event.disk_full else TaskStatus.FAILED
        self.end(task, status, error=event.error, missing=event.missing, disk_full=event.disk_full)

    def _started(self, event: on.ProcessStarted) -> None:
        task = self.tasks.get(event.task)
        if task is None or not self._move(task, PhaseEvent.STARTED, pid=event.pid, started_at=event.at):
            return
        self._saves.append(do.Append(Fact(FactKind.STARTED, *task.id, at=event.at, pid=event.pid)))
        self.clocks.watch(task)
        if task.held.ending is not None:  # asked to stop while the spawner was at it
            self.acts.append(do.Kill(task.id, SIGTERM))

    def _spawn_failed(self, event: on.SpawnFailed) -> None:
        task = self.tasks.get(event.task)
        self.acts.append(do.Acknowledge(event.task))
        if task is not None and task.held.phase is Phase.STARTING:
            status = TaskStatus.RETURNED if event.disk_full else TaskStatus.FAILED
            self.end(task, status, error=event.error, disk_full=event.disk_full)

    def _skipped(self, event: on.Skipped) -> None:
        self.acts.append(do.Acknowledge(event.task))
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.STARTING:
            ending = task.held.ending or task.revoked or Ending.UNMET
            self.end(task, *ENDINGS[Ending(ending)])

    def _exited(self, event: on.ProcessExited) -> None:
        self.acts.append(do.Acknowledge(event.task))
        if event.heir is not None:
            self.following.turn(event.heir)
        task = self.tasks.get(event.task)
        if task is None or task.held.phase not in (Phase.STARTING, Phase.RUNNING):
            return  # told twice
        by_itself = event.exit_code == 0 and not event.signalled and not task.held.assignment.outputs
        held = self.change(
            task,
            ending=None if by_itself else task.held.ending,  # the order to end it came too late
            exit_code=event.exit_code,
            signal=event.signal,
            cpu_seconds=event.usage.cpu_seconds,
            memory_peak=event.usage.memory_peak,
        )
        if held.started_at is not None:
            self.following.lineup.learn(event.at - held.started_at)
        if event.exit_code == 0 and held.ending is None and held.assignment.outputs:
            self._move(task, PhaseEvent.COLLECT)
            self.acts.append(do.Collect(held.assignment))
            return
        self.end(task, *verdict(held, event.reason), at=event.at)

    def _collected(self, event: on.Collected) -> None:
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.COLLECTING:
            self.end(task, TaskStatus.SUCCEEDED, outputs=dict(event.outputs))

    def _collect_failed(self, event: on.CollectFailed) -> None:
        task = self.tasks.get(event.task)
        if task is not None and task.held.phase is Phase.COLLECTING:
            self.end(task, TaskStatus.FAILED, error=event.error)

    def _processes_lost(self, event: on.ProcessesLost) -> None:
        for task_id in event.tasks:
            task = self.tasks.get(task_id)
            if task is None:
                continue
            if task.held.phase is Phase.RUNNING:
                error = "the spawner that held its process ended; how the process ended is unknown"
                self.end(task, TaskStatus.LOST, error=error)
            elif task.held.phase is Phase.STARTING:
                error = (
                    "the spawner does not hold it and nobody saw it start; whether it ran, and how it ended, is unknown"
                )
                self.end(task, TaskStatus.LOST, error=error)

    def end(
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
        fact = finish(held, status, error, self.now if at is None else at, outputs or {}, missing, disk_full)
        self._saves.append(do.Append(fact))
        self.following.ended(task.id)
        del self.tasks[task.id]
        del self._workers[task.id.run, task.id.worker]
        self.past.note_closed(task.id, well=status is TaskStatus.SUCCEEDED)
        self.following.release(task.id, succeeded=status is TaskStatus.SUCCEEDED)

    def change(self, task: Task, **changes: Any) -> HeldTask:
        """Change what is stored of a task, with this batch."""
        held = task.held
        if self._dirty.get(task.id) is held:  # made in this batch: nobody else has it yet
            for name, new in changes.items():
                setattr(held, name, new)
        else:
            held = task.held = self._dirty[task.id] = replace(held, **changes)
        return held

    def _hold(self, task: Task) -> None:
        self.tasks[task.id] = task
        self._workers[task.id.run, task.id.worker] = task.id.attempt
        self.past.note_open(task.id)

    def _move(self, task: Task, event: PhaseEvent, **started: Any) -> bool:
        """Advance a task's phase by the table, with what ``started`` says of its process; False when the event is late."""
        held = task.held
        phase = next_state(PHASE_TABLE, held.phase, event, lambda: (f"task {task.id}", f"held: {held}"))
        if phase is None:
            return False
        self.change(task, phase=phase, **started)
        return True
