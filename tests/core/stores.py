"""What the stores of peers would hold after each commit: just enough to restart a core from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from wattle.core import effects as do
from wattle.core.effects import CoordinatorEffect, HeldTask, RuntimeEffect
from wattle.core.model import Fact, RunRecord, Snapshot, TaskId, TaskRecord, TaskStatus, WorkerRecord, Workflow
from wattle.core.states import Phase


@dataclass
class CoordinatorStore:
    """A coordinator's tables."""

    runs: dict[str, RunRecord] = field(default_factory=dict)
    workflows: dict[str, Workflow] = field(default_factory=dict)
    workers: dict[str, dict[str, WorkerRecord]] = field(default_factory=dict)
    tasks: dict[TaskId, TaskRecord] = field(default_factory=dict)
    holders: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    cursors: dict[tuple[str, str], int] = field(default_factory=dict)

    def save(self, effects: Iterable[CoordinatorEffect]) -> None:
        """Apply one batch's Save effects."""
        for effect in effects:
            match effect:
                case do.CreateRun():
                    self.runs[effect.run.id] = effect.run
                    self.workflows[effect.run.id] = effect.workflow
                    self.workers[effect.run.id] = {w.name: w for w in effect.records()}
                case do.SaveRun():
                    self.runs[effect.run.id] = effect.run
                case do.SaveWorker():
                    self.workers[effect.worker.run][effect.worker.name] = effect.worker
                case do.SaveTask():
                    self.tasks[effect.task.id] = effect.task
                case do.SaveHolder():
                    held = self.holders.setdefault(effect.run, {})
                    held[effect.digest] = held.get(effect.digest, frozenset()) | {effect.node}
                case do.SaveCursor():
                    assert effect.number <= self.cursors.get((effect.node, effect.store), 0) + 1, effect
                    self.cursors[effect.node, effect.store] = effect.number
                case do.ReadAgain():
                    self.cursors = {key: number for key, number in self.cursors.items() if key[0] in effect.but}
                case do.SaveLateFact():
                    self._late(effect.fact)
                case do.ReleaseRun():
                    head = effect.head
                    self.runs[head.run] = replace(self.runs[head.run], owner=head.owner, epoch=head.epoch)

    def _late(self, fact: Fact) -> None:
        task = self.tasks.get(fact.id)
        if task is None:
            return
        unknown = task.status is TaskStatus.SUPERSEDED and task.completed_at is None
        if not task.status.final or task.status is TaskStatus.LOST or unknown:
            self.tasks[fact.id] = replace(task, status=TaskStatus.SUPERSEDED, completed_at=fact.at)

    def snapshot(self, run: str) -> Snapshot:
        """A run to go on with."""
        tasks = tuple(task for task in self.tasks.values() if task.run == run)
        return Snapshot(self.runs[run], self.workflows[run], dict(self.workers[run]), tasks, self.holders.get(run, {}))


@dataclass
class RuntimeStore:
    """A runtime's tables; ``id`` is the identity of its data folder."""

    id: str
    open: dict[TaskId, HeldTask] = field(default_factory=dict)
    ended: dict[tuple[str, str], int] = field(
        default_factory=dict
    )  # (run, worker) -> the newest attempt that has ended
    fences: dict[str, tuple[int, str]] = field(default_factory=dict)
    feed: list[tuple[Fact, ...]] = field(default_factory=list)

    def past(self, run: str, workers: Iterable[str]) -> tuple[tuple[int, str] | None, dict[str, int]]:
        """What it knows of a run, and of some of its workers."""
        return self.fences.get(run), {name: self.ended[run, name] for name in workers if (run, name) in self.ended}

    def save(self, effects: Iterable[RuntimeEffect]) -> bool:
        """Apply one batch's Save effects; True when the feed has a new entry."""
        facts: list[Fact] = []
        for effect in effects:
            match effect:
                case do.SaveHeldTask() if effect.task.phase is Phase.DONE:
                    self.open.pop(effect.task.assignment.id, None)
                    run, worker, attempt = effect.task.assignment.id
                    self.ended[run, worker] = max(attempt, self.ended.get((run, worker), 0))
                case do.SaveHeldTask():
                    self.open[effect.task.assignment.id] = effect.task
                case do.SaveFence():
                    self.fences[effect.run] = (effect.epoch, effect.owner)
                case do.Append():
                    facts.append(effect.fact)
        if facts:
            self.feed.append(tuple(facts))
        return bool(facts)
