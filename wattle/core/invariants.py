"""What always holds between two batches of events, as code that tests and the simulator run after every step.

Each check raises InvariantBroken, which says what is wrong and where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from wattle.core import effects as do
from wattle.core.coordinator import CoordinatorCore
from wattle.core.model import RunRecord, RunStatus, TaskStatus, WorkerRecord, WorkerStatus
from wattle.core.placement import Node, NodeStatus
from wattle.core.run import Run, Worker
from wattle.core.runtime import RuntimeCore
from wattle.core.states import Phase


class InvariantBroken(AssertionError):
    """Something that always holds does not: a fault of Wattle's own."""


def _require(true: bool, *what: object) -> None:
    if not true:
        raise InvariantBroken(" ".join(str(part) for part in what))


# --- a coordinator ----------------------------------------------------------------------------------------------------


def check_coordinator(core: CoordinatorCore, doubled: Collection[str] = ()) -> None:
    """The counters agree with the states, nothing that could go on is forgotten, and every open attempt is booked.

    ``doubled`` are runs that were submitted to another coordinator as well.
    """
    waiting = core.placing.waiting()
    for run in core.runs.values():
        _check_counters(run, waits=core.unsettled(run))
        for name, worker in run.workers.items():
            _check_dependencies(run, worker, doubled=run.id in doubled)
            if not worker.status.final and not worker.open:
                _check_progress(run, worker, queued=(run.id, name) in waiting)
            if worker.open or worker.lost:
                _check_attempts(core.nodes, run, worker)
    for node in core.nodes.values():
        _check_node(core, node)


def _where(run: Run, worker: Worker) -> str:
    return f"run {run.id}, worker {worker.spec.name} ({worker.status}):"


def _check_counters(run: Run, *, waits: bool) -> None:
    """``waits``: it does not end before what it began with is settled."""
    where = f"run {run.id}:"
    counts: dict[WorkerStatus, int] = {}
    left: dict[int, int] = {}
    for worker in run.workers.values():
        counts[worker.status] = counts.get(worker.status, 0) + 1
        if not worker.status.final:
            left[worker.stage] = left.get(worker.stage, 0) + 1
    _require(not run.status.final and (run.left > 0 or waits), where, "is over and still in memory")
    _require({s: n for s, n in run.counts.items() if n} == counts, where, "counts", run.counts, "for", counts)
    _require(run.left == sum(left.values()), where, "left", run.left, "for", left)
    stages = {stage: n for stage, n in run.left_in_stage.items() if n}
    _require(stages == left, where, "left in stages", run.left_in_stage, "for", left)
    _require(not left or run.stage <= min(left), where, "is at stage", run.stage, "with all before", left, "ended")


def _check_dependencies(run: Run, worker: Worker, *, doubled: bool) -> None:
    status = worker.status
    if status is WorkerStatus.CREATED:
        unmet = 0
        for name in worker.spec.needs:
            unmet += run.workers[name].status is not WorkerStatus.SUCCEEDED
        if worker.waiting != unmet:
            raise InvariantBroken(f"{_where(run, worker)} waits for {worker.waiting} of {unmet}")
    elif status is WorkerStatus.SUCCEEDED and (run.adopted or doubled):
        pass  # under another owner, who knew; the node that ran what it needs may not have told yet, or the number is passed over here
    elif status in (WorkerStatus.READY, WorkerStatus.RUNNING, WorkerStatus.SUCCEEDED):
        for name in worker.spec.needs:
            need = run.workers[name]
            if need.status is not WorkerStatus.SUCCEEDED and not need.reproduced:
                raise InvariantBroken(f"{_where(run, worker)} did not wait for {name}")


def _check_progress(run: Run, worker: Worker, *, queued: bool) -> None:
    """What has not ended and has no open attempt waits for something that will come."""
    where = _where(run, worker)
    _require(worker.status is not WorkerStatus.RUNNING, where, "has no attempt that runs")
    _require(not run.winding_down, where, "has not ended with its run")
    if worker.status is WorkerStatus.READY:
        awaiting = bool(run.awaiting)  # nodes may yet tell of an attempt
        _require(queued or awaiting, where, "is in no queue")
    else:
        blocked = worker.waiting > 0 or worker.stage > run.stage
        _require(blocked, where, "waits for nothing")
        _require(run.failed_need(worker) is None, where, "waits for", run.failed_need(worker), "which has ended")


def _check_attempts(nodes: Mapping[str, Node], run: Run, worker: Worker) -> None:
    where = _where(run, worker)
    for record in worker.open.values():
        _require(not record.status.final, where, "holds as open", record)
        _require(record.id in nodes[record.node].tasks, where, "has an open attempt not booked on its node", record)
    for record in worker.lost.values():
        _require(record.status is TaskStatus.LOST, where, "holds as lost", record)
    newest = max((*worker.open, *worker.lost), default=0)
    _require(newest <= worker.attempts, where, "has attempt", newest, "of", worker.attempts)


def _check_node(core: CoordinatorCore, node: Node) -> None:
    if not node.tasks and not node.used:
        return
    where = f"node {node.info.name} ({node.status}):"
    _check_sum(where, node.used, (asked for task, asked in node.tasks.items() if task not in node.ahead))
    _require(node.ahead <= node.tasks.keys(), where, "has", node.ahead, "ahead of", node.tasks)
    _require(not (node.status is NodeStatus.LOST and node.tasks), where, "is given up and has tasks", node.tasks)
    for task in node.tasks:
        found = core.attempts.find(task)
        _require(found is None or found[2].status is not TaskStatus.LOST, where, "is booked for lost", task)


def _check_sum(where: str, used: Mapping[str, float], parts: Iterable[Mapping[str, float]]) -> None:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    for name in {*used, *total}:
        difference = abs(used.get(name, 0.0) - total.get(name, 0.0))
        _require(difference <= 1e-6 * max(1.0, total.get(name, 0.0)), where, "uses", used, "for", total)


# --- a runtime --------------------------------------------------------------------------------------------------------


def check_runtime(core: RuntimeCore, name: str = "") -> None:
    """Slots and resources are never exceeded, and no two tasks of one worker are open at once."""
    where = f"runtime {name}:"
    lined_up = [task for task in core.tasks.values() if task.id in core.following.lineup]
    _require(
        len(lined_up) == len(core.following.lineup), where, "has lined up", core.following.lineup, "of", core.tasks
    )
    wrong = [task for task in lined_up if task.held.phase not in (Phase.STARTING, Phase.RUNNING)]
    _require(not wrong, where, "has lined up", wrong)
    twice = [w for w, n in Counter((t.id.run, t.id.worker) for t in core.tasks.values()).items() if n > 1]
    _require(not twice, where, "has two open tasks of", twice)
    for task in core.tasks.values():
        _require(task.held.phase is not Phase.DONE, where, "holds ended", task)
    if not core.following.lines_known:
        return  # nothing is started until they are
    busy = [t for t in core.tasks.values() if t.held.phase is not Phase.QUEUED and t.id not in core.following.lineup]
    _require(core.running == len(busy), where, core.running, "slots taken for", len(busy), "tasks")
    _require(core.running <= core.options.slots, where, core.running, "of", core.options.slots, "slots taken")
    _check_sum(where, core.room.used, (task.held.assignment.resources for task in busy))
    for resource, amount in core.room.used.items():
        have = core.options.resources.get(resource, 0.0)
        _require(-1e-6 <= amount <= have + 1e-6, where, "uses", amount, resource, "of", have)


# --- between them -------------------------------------------------------------------------------------------------------


def check_together(coordinator: CoordinatorCore, runtimes: Iterable[RuntimeCore]) -> None:
    """Every task a runtime holds in a coordinator's current epoch is one that the coordinator has stored."""
    for runtime in runtimes:
        for task in runtime.tasks.values():
            run = coordinator.runs.get(task.id.run)
            if run is not None and run.epoch == task.held.assignment.epoch:
                attempts = run.workers[task.id.worker].attempts
                _require(task.id.attempt <= attempts, "task", task.id, "of", attempts, "attempts")


class History:
    """What was final once: later records of it must say the same, short of a retry or of files that were lost.

    A run that is adopted has the history of its copy: what this store recorded of it under an earlier ownership may not be in it.
    """

    def __init__(self) -> None:
        self._runs: dict[str, RunRecord] = {}
        self._workers: dict[tuple[str, str], WorkerRecord] = {}

    def check(self, effects: Iterable[do.CoordinatorEffect]) -> None:
        """Look at what a coordinator saves."""
        for effect in effects:
            match effect:
                case do.CreateRun():
                    _require(effect.run.id not in self._runs, "run", effect.run.id, "is created twice")
                    self._see_run(effect.run)
                case do.AdoptRun():
                    self._adopted(effect.snapshot.run, effect.snapshot.workers.values())
                case do.SaveRun():
                    self._see_run(effect.run)
                case do.SaveWorker():
                    self._see_worker(effect.worker)

    def _adopted(self, run: RunRecord, workers: Iterable[WorkerRecord]) -> None:
        before = self._runs.get(run.id)
        _require(before is None or run.epoch >= before.epoch, "run", run.id, "was adopted in epoch", run.epoch)
        self._runs[run.id] = run
        for key in [key for key in self._workers if key[0] == run.id]:
            del self._workers[key]
        for worker in workers:
            self._workers[worker.run, worker.name] = worker

    def _see_run(self, run: RunRecord) -> None:
        before = self._runs.get(run.id)
        if before is not None:
            _require(run.epoch >= before.epoch, "run", run.id, "went back to epoch", run.epoch)
            kept = (before.status, before.completed_at) == (run.status, run.completed_at)
            _require(kept or not before.status.final or run.retried > before.retried, before, "became", run)
            _require(kept or before.status is not RunStatus.SUCCEEDED, before, "became", run)
        self._runs[run.id] = run

    def _see_worker(self, worker: WorkerRecord) -> None:
        before = self._workers.get((worker.run, worker.name))
        if before is not None and before.status is WorkerStatus.SUCCEEDED and worker.reproduced == before.reproduced:
            _require((worker.status, worker.results) == (before.status, before.results), before, "became", worker)
        self._workers[worker.run, worker.name] = worker
