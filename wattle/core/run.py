"""A run in the coordinator's memory: its workers, how many of what each waits for, and the counters that make every step O(1).

Two invariants hold between events (core/invariants.py checks them): a worker in ``created`` has ``waiting`` equal to the number of
workers it needs that have not succeeded; ``counts`` and ``left_in_stage`` agree with the workers' states.

Modes are one mechanism: every worker has a stage, and may start only once all workers of earlier stages have ended. In mode
``dependency`` all share stage 0, in ``levels`` the stage is the level of the graph, in ``sequential`` each worker has a stage of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from wattle.core.graph import dependents, levels, topological_order
from wattle.core.model import (
    Assignment,
    Input,
    Output,
    RunHead,
    RunRecord,
    RunStatus,
    TaskRecord,
    WorkerRecord,
    WorkerSpec,
    WorkerStatus,
    Workflow,
)
from wattle.core.placement import ANYTHING, Entry, Requirement

_NO_RESULTS: Mapping[str, Output] = {}
"""The results of a worker that has none: one mapping for all, and never changed."""

_NO_INPUTS: dict[str, Input] = {}

FEW_HOLDERS = 32
"""Copies of some content beyond which it draws no worker to a node any more: fetching is cheap then, and ranking all of them is not."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker of a run. ``open`` attempts may still end; ``lost`` ones were given up, and may yet come back."""

    spec: WorkerSpec
    index: int
    stage: int
    requirement: Requirement
    dependents: tuple[str, ...]
    waiting: int
    status: WorkerStatus = WorkerStatus.CREATED
    error: str | None = None
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    reproduced: int = 0
    known: set[int] | None = (
        None  # of a run that was adopted: the attempts in its history; None: all up to ``attempts``
    )
    misses: int = 0  # attempts in a row whose inputs could not be fetched; not stored
    not_before: float | None = None
    results: Mapping[str, Output] = field(default_factory=lambda: _NO_RESULTS)
    open: dict[int, TaskRecord] = field(default_factory=dict)
    lost: dict[int, TaskRecord] = field(default_factory=dict)
    ahead: int = 0  # the newest attempt that was given to a node before the worker was ready; not stored
    ready_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None
    cause: str = ""  # what made it ready
    node: str | None = None  # where its newest attempt is or was

    def record(self, run: str) -> WorkerRecord:
        """What the store keeps of it."""
        return WorkerRecord(
            run=run,
            name=self.spec.name,
            status=self.status,
            error_message=self.error,
            attempts=self.attempts,
            failures=self.failures,
            losses=self.losses,
            reproduced=self.reproduced,
            not_before=self.not_before,
            results=self.results,
            ready_at=self.ready_at,
            started_at=self.started_at,
            completed_at=self.completed_at,
        )

    def recall(self, record: WorkerRecord) -> None:
        """Take on what the store kept of it."""
        self.status, self.error = record.status, record.error_message
        self.attempts, self.failures, self.losses = record.attempts, record.failures, record.losses
        self.reproduced, self.not_before, self.results = record.reproduced, record.not_before, dict(record.results)
        self.ready_at, self.started_at, self.completed_at = record.ready_at, record.started_at, record.completed_at

    def story(self, run: str) -> tuple[str, ...]:
        """What it is and went through, for the message of an illegal transition."""
        counts = f"waiting {self.waiting}, attempts {self.attempts}, failures {self.failures}, losses {self.losses}"
        return (
            f"run {run}, worker {self.spec.name}",
            f"status {self.status}, {counts}, reproduced {self.reproduced}",
            *(f"open: {record}" for record in self.open.values()),
            *(f"lost: {record}" for record in self.lost.values()),
        )


class Run:
    """One run; see the module's docstring."""

    def __init__(self, id: str, workflow: Workflow, owner: str, epoch: int, created_at: float, order: int) -> None:
        self.id, self.workflow, self.owner, self.epoch = id, workflow, owner, epoch
        self.order = order
        self.status = RunStatus.CREATED
        self.error: str | None = None
        self.created_at = created_at
        self.started_at: float | None = None
        self.completed_at: float | None = None
        self.cancel_requested = False
        self.retried = self.adopted = 0  # as in RunRecord
        self.taken_up = False  # from a store or a copy: nodes are asked what they know of it
        self.begun = 0  # the commit with which it came to this owner, was retried or was taken up again
        self.awaiting: set[str] = set()  # nodes in sight that have not yet said what they know of it
        self.stopped_by: str | None = None  # the failed worker because of which nothing new starts
        self.holders: dict[str, set[str]] = {}  # digest -> nodes that have it
        self.workers = _workers(workflow)
        self.stage = 0
        self.left_in_stage = Counter(w.stage for w in self.workers.values())
        self.by_stage: dict[int, list[Worker]] = {}
        if workflow.mode != "dependency":
            for worker in self.workers.values():
                self.by_stage.setdefault(worker.stage, []).append(worker)
        self.counts: dict[WorkerStatus, int] = dict.fromkeys(WorkerStatus, 0)
        self.counts[WorkerStatus.CREATED] = self.left = len(self.workers)

    def record(self) -> RunRecord:
        """What the store keeps of it."""
        return RunRecord(
            id=self.id,
            workflow=self.workflow.name,
            status=self.status,
            owner=self.owner,
            epoch=self.epoch,
            created_at=self.created_at,
            started_at=self.started_at,
            completed_at=self.completed_at,
            error_message=self.error,
            cancel_requested=self.cancel_requested,
            counts={status.value: n for status, n in self.counts.items() if n},
            retried=self.retried,
            adopted=self.adopted,
        )

    def new_workers(self) -> tuple[set[str], tuple[WorkerRecord, ...]]:
        """Of a run that is stored for the first time: the workers that may start, and the records of those that are further already."""
        ready, moved = set(), []
        for name, worker in self.workers.items():
            if worker.attempts or worker.status.final:
                moved.append(worker.record(self.id))
            elif worker.status is WorkerStatus.READY:
                ready.add(name)
        return ready, tuple(moved)

    def head(self, store: str, number: int = 0) -> RunHead:
        """Which state of the run this is, in the data folder ``store`` after its commit ``number``."""
        return head_of(self.record(), store, number)

    def recall(self, record: RunRecord, workers: Mapping[str, WorkerRecord]) -> None:
        """Take on what the store kept, and derive everything that is not stored."""
        self.status, self.error = record.status, record.error_message
        self.started_at, self.completed_at = record.started_at, record.completed_at
        self.cancel_requested = record.cancel_requested
        self.retried, self.adopted = record.retried, record.adopted
        for name, kept in workers.items():
            self.workers[name].recall(kept)
        self.recount()

    def recount(self) -> None:
        """Derive the counters from the workers' states."""
        self.counts = dict.fromkeys(WorkerStatus, 0)
        self.left_in_stage = Counter()
        self.stopped_by = None
        for worker in self.workers.values():
            self.counts[worker.status] += 1
            self.left_in_stage[worker.stage] += not worker.status.final
            worker.waiting = self.unmet(worker)
            if worker.status is WorkerStatus.FAILED and worker.spec.on_failure == "stop" and self.stopped_by is None:
                self.stopped_by = worker.spec.name
        self.left = sum(self.left_in_stage.values())
        self.stage = min((stage for stage, left in self.left_in_stage.items() if left), default=0)

    def unmet(self, worker: Worker) -> int:
        """How many of the workers it needs have not succeeded."""
        return sum(self.workers[need].status is not WorkerStatus.SUCCEEDED for need in worker.spec.needs)

    def failed_need(self, worker: Worker) -> str | None:
        """One of the workers it needs that will not succeed any more, if there is one."""
        ended = (need for need in worker.spec.needs if self.workers[need].status.final)
        return next((need for need in ended if self.workers[need].status is not WorkerStatus.SUCCEEDED), None)

    def change(self, worker: Worker, status: WorkerStatus) -> None:
        """Set a worker's state and keep the counters right."""
        self.counts[worker.status] -= 1
        self.counts[status] += 1
        ended = int(status.final) - int(worker.status.final)
        self.left -= ended
        self.left_in_stage[worker.stage] -= ended
        worker.status = status

    def open_stages(self) -> Iterator[Worker]:
        """Advance past stages that have ended; yields the workers of each stage that opens."""
        while self.by_stage and self.left and not self.left_in_stage[self.stage]:
            self.stage += 1
            yield from self.by_stage.get(self.stage, ())

    def entry(self, worker: Worker) -> Entry:
        """Its place in the queue of ready workers."""
        return (-worker.spec.priority, self.order, worker.index, self.id, worker.spec.name)

    @property
    def winding_down(self) -> bool:
        """Whether nothing new starts any more."""
        return self.cancel_requested or self.stopped_by is not None

    @property
    def not_started(self) -> str:
        """Why workers are skipped once a failure stops the run."""
        return f"not started: {self.stopped_by!r} failed and stops the run (on_failure: stop)"

    def outcome(self) -> tuple[RunStatus, str | None]:
        """How a run ended all of whose workers have, and why."""
        if self.counts[WorkerStatus.SUCCEEDED] == len(self.workers):
            return RunStatus.SUCCEEDED, None
        if self.cancel_requested:
            return RunStatus.CANCELLED, "cancelled on request"
        failed = [name for name, worker in self.workers.items() if worker.status is WorkerStatus.FAILED]
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return RunStatus.FAILED, ", ".join(repr(name) for name in failed[:3]) + f"{more} failed"

    def near(self, worker: Worker) -> dict[str, int]:
        """Bytes of its inputs by node that has them; content that many nodes have counts for none."""
        near: dict[str, int] = {}
        for producer, output in worker.spec.inputs.values():
            file = self.workers[producer].results[output]
            holders = self.holders.get(file.digest, ())
            for node in holders if len(holders) <= FEW_HOLDERS else ():
                near[node] = near.get(node, 0) + file.size
        return near

    def unmet_needs(self, worker: Worker) -> list[Worker]:
        """The workers it needs that have not succeeded."""
        needs = (self.workers[need] for need in worker.spec.needs) if worker.waiting else ()
        return [need for need in needs if need.status is not WorkerStatus.SUCCEEDED]

    def assignment(self, worker: Worker, attempt: int) -> Assignment:
        """What a runtime is told to execute this attempt: once the newest attempts of what it waits for have succeeded there."""
        spec = worker.spec
        inputs = {} if spec.inputs else _NO_INPUTS
        for key, (producer, output) in spec.inputs.items():
            file = self.workers[producer].results[output]
            inputs[key] = Input(producer, output, file.path, file.digest, file.size)
        return Assignment(
            run=self.id,
            worker=spec.name,
            attempt=attempt,
            epoch=self.epoch,
            workflow=self.workflow.name,
            argv=spec.argv,
            script=spec.script,
            env=spec.env,
            secrets=spec.secrets,
            working_dir=spec.working_dir,
            inputs=inputs,
            outputs=spec.outputs,
            params=spec.params,
            timeout=spec.timeout,
            kill_after=spec.kill_after,
            resources=spec.resources,
            limits=spec.limits,
            sandbox=spec.sandbox,
            run_as=spec.run_as,
            priority=spec.priority,
            on_disconnect=spec.on_disconnect,
            cause=worker.cause,
            after=self._after(worker) if worker.waiting else (),
        )

    def _after(self, worker: Worker) -> tuple[tuple[str, int], ...]:
        """What must have succeeded first: the newest attempts of what it still waits for."""
        return tuple((need.spec.name, max(need.open, default=need.attempts)) for need in self.unmet_needs(worker))


def head_of(record: RunRecord, store: str, number: int = 0) -> RunHead:
    """Which state of a run a record says, in the data folder ``store`` after its commit ``number``."""
    final = record.status.final
    at = record.completed_at if final and record.completed_at is not None else 0.0
    cancelled = record.cancel_requested
    return RunHead(record.id, record.owner, store, record.epoch, number, record.retried, final, at, cancelled=cancelled)


def _workers(workflow: Workflow) -> dict[str, Worker]:
    needs = {name: spec.needs for name, spec in workflow.workers.items()}
    stages = _stages(workflow.mode, needs)
    after = dependents(needs)
    shared: dict[Requirement, Requirement] = {}
    workers = {}
    for index, (name, spec) in enumerate(workflow.workers.items()):
        requirement = Requirement.of(spec) if spec.resources or spec.labels or spec.node else ANYTHING
        requirement = shared.setdefault(requirement, requirement)
        workers[name] = Worker(spec, index, stages.get(name, 0), requirement, tuple(after[name]), len(spec.needs))
    return workers


def _stages(mode: str, needs: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    if mode == "levels":
        return {name: number for number, level in enumerate(levels(needs)) for name in level}
    if mode == "sequential":
        return {name: number for number, name in enumerate(topological_order(needs))}
    return {}
