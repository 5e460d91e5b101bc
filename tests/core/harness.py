"""A network in memory: one coordinator core and any number of runtime cores, with stores, messages, processes and time as plain data.

Everything is seeded and nothing is real: time is a number, a process an entry in a table, a message waits in ``Cluster.wire`` until it
is delivered, held back, repeated or dropped. After every batch that a core handles the invariants are checked. A crashed peer loses all
but its store; one may crash between its commit and its sends, which is where crashes hurt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from signal import SIGKILL
from typing import Any

from tests.core.outcomes import Outcome
from tests.core.stores import CoordinatorStore, RuntimeStore
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import CoordinatorEffect, RuntimeEffect
from wattle.core.events import CoordinatorEvent, RuntimeEvent
from wattle.core.invariants import History, check_coordinator, check_runtime, check_together
from wattle.core.model import (
    Assignment,
    FactKind,
    NodeInfo,
    Output,
    RunRecord,
    TaskId,
    TaskRecord,
    Usage,
    WorkerRecord,
    WorkerSpec,
    Workflow,
)
from wattle.core.room import kind_of
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.runtime.waiting import Waiting


def workflow(*workers: WorkerSpec, mode: str = "dependency") -> Workflow:
    """A compiled workflow of these workers."""
    return Workflow("w", {spec.name: spec for spec in workers}, mode)


def worker(name: str, *needs: str, reads: str = "", **keys: Any) -> WorkerSpec:
    """A worker that needs others; ``reads`` names those whose output ``out`` it reads (each then needs ``outputs``)."""
    inputs = {producer: (producer, "out") for producer in reads.split()}
    every = tuple(dict.fromkeys((*inputs, *needs)))
    return WorkerSpec(name, ("run", name), needs=every, inputs=inputs, **keys)


@dataclass
class Process:
    """A simulated process, kept by the spawner until its end is acknowledged."""

    pid: int
    started_at: float
    ends_at: float
    outcome: Outcome
    room: str | None  # the kind that it leaves
    exited: on.ProcessExited | None = None
    signalled: bool = False


@dataclass(frozen=True)
class Message:
    """Something on its way between two peers. ``kind``: assign, cancel, answers, feed, met, gone."""

    to: str
    sender: str
    kind: str
    body: Any


@dataclass
class Coordinator:
    """A coordinator's process: ``core`` is None while it is down."""

    name: str
    options: CoordinatorOptions
    store: CoordinatorStore = field(default_factory=CoordinatorStore)
    core: CoordinatorCore | None = None
    timer: float | None = None


@dataclass
class Runtime:
    """A runtime's process, with the spawner and the files that outlive it."""

    name: str
    options: RuntimeOptions
    labels: Mapping[str, str]
    store: RuntimeStore
    core: RuntimeCore | None = None
    incarnation: int = 0
    timer: float | None = None
    cut: bool = False
    processes: dict[TaskId, Process] = field(default_factory=dict)
    waiting: Waiting[TaskId, Assignment] = field(default_factory=Waiting)  # at the spawner
    files: set[str] = field(default_factory=set)
    inbox: list[RuntimeEvent] = field(default_factory=list)
    commands: dict[int, Message] = field(default_factory=dict)
    left: bool = False

    def info(self) -> NodeInfo:
        """What it says of itself."""
        assert self.core is not None
        return NodeInfo(
            self.name,
            str(self.incarnation),
            self.store.id,
            len(self.store.feed),
            self.options.slots,
            dict(self.options.resources),
            dict(self.labels),
            draining=self.core.draining,
        )


class Cluster:
    """The network; see the module's docstring. ``starts`` counts the processes that were started for each worker."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.wire: list[Message] = []
        self.held: list[Message] = []
        self.hold: Callable[[Message], bool] = lambda message: False
        self.outcome: Callable[[Assignment], Outcome] = lambda assignment: Outcome()
        self.fetchable: Callable[[Assignment], bool] = lambda assignment: True
        self.coordinator = Coordinator("c1", CoordinatorOptions(**options))
        self.runtimes: dict[str, Runtime] = {}
        self.history = History()
        self.starts: dict[tuple[str, str], int] = {}
        self.effects: list[CoordinatorEffect | RuntimeEffect] = []
        self.repeat = self.drop = 0.0  # shares of messages
        self.disorder = False
        self._numbers = 0
        self.start_coordinator()

    # --- what a test does -----------------------------------------------------------------------------------------------

    def node(
        self, name: str = "n1", slots: int = 1, labels: Mapping[str, str] | None = None, **resources: float
    ) -> Runtime:
        """Add a runtime and let it be met."""
        options = RuntimeOptions(slots, {"cpus": float(slots), **resources})
        runtime = Runtime(name, options, labels or {}, RuntimeStore(f"{name}-{self._number()}"))
        self.runtimes[name] = runtime
        self.start_runtime(name)
        self.quiet()
        return runtime

    def submit(self, spec: Workflow, run: str = "r") -> None:
        """Start a run unless it is known, as a coordinator's shell does."""
        if run not in self.coordinator.store.runs:
            self.tell(on.Submit(run, spec))

    def cancel(self, run: str = "r") -> None:
        """Cancel a run."""
        self.tell(on.CancelRun(run))

    def retry(self, run: str = "r") -> None:
        """Retry a final run."""
        self.tell(on.RetryRun(self.coordinator.store.snapshot(run)))

    def tell(self, *events: CoordinatorEvent, crash: str = "") -> None:
        """Have the coordinator handle one batch; ``crash``: it dies "before" or "after" the commit."""
        core = self.coordinator.core
        if core is None:
            return
        effects = core.handle(events, self.now)
        if crash == "before":
            self.crash_coordinator()
            return
        self.history.check(effects)
        self.coordinator.store.save(effects)
        check_coordinator(core)
        check_together(core, [r.core for r in self.runtimes.values() if r.core is not None])
        self.effects += effects
        if crash == "after":
            self.crash_coordinator()
            return
        for effect in effects:
            match effect:
                case do.Assign():
                    self.send(effect.node, "c1", "assign", (effect.assignment,))
                case do.Cancel():
                    self.send(effect.node, "c1", "cancel", ((effect.task, effect.epoch),))
                case do.Withdraw():
                    self.withdraw(effect.node)
                case do.Claim():
                    self.send(effect.node, "c1", "claim", effect.runs)
                case do.Ship() | do.Ask() if core.options.quorum:  # else nobody waits for copies here
                    self.send("c1", effect.peer, "kept", core.number)
                case do.SetTimer():
                    self.coordinator.timer = effect.at

    def tell_runtime(self, name: str, *events: RuntimeEvent, crash: str = "") -> None:
        """Have a runtime handle one batch; ``crash``: it dies "before" or "after" the commit."""
        runtime = self.runtimes[name]
        if runtime.core is None:
            return
        for run, workers in runtime.core.past.lacks(events).items():
            runtime.core.past.recall(run, *runtime.store.past(run, workers))
        effects = runtime.core.handle(events, self.now)
        if crash == "before":
            self.crash_runtime(name)
            return
        news = runtime.store.save(effects)
        check_runtime(runtime.core, name)
        self.effects += effects
        if crash == "after":
            self.crash_runtime(name)
            return
        if news:
            self.send("c1", name, "feed", (runtime.store.id, len(runtime.store.feed)))
        self._act(runtime, effects)
        self._reply(runtime, effects)

    # --- messages -------------------------------------------------------------------------------------------------------

    def send(self, to: str, sender: str, kind: str, body: Any) -> None:
        """Put a message on the wire, or aside when the test holds its kind back."""
        message = Message(to, sender, kind, body)
        (self.held if self.hold(message) else self.wire).append(message)

    def withdraw(self, node: str) -> None:
        """Carry no command to a node that has not been carried yet."""
        for messages in (self.wire, self.held):
            messages[:] = [m for m in messages if m.to != node or m.kind not in ("assign", "cancel")]

    def release(self) -> None:
        """Let go of what was held back, and hold nothing back any more."""
        self.hold = lambda message: False
        self.wire += self.held
        self.held = []

    def deliver(self, message: Message, crash: str = "") -> None:
        """Carry a message to its end, or lose it when a link or peer is down."""
        runtime = self.runtimes[message.to if message.to in self.runtimes else message.sender]
        down = runtime.cut or (runtime.core is None and message.to == runtime.name) or self.coordinator.core is None
        if down and message.kind != "gone":
            if message.kind in ("assign", "cancel", "claim", "answers"):
                self.tell(on.Undelivered(runtime.name))
            return
        if message.kind in ("assign", "cancel"):
            token = self._number()
            runtime.commands[token] = message
            command = on.Assigned if message.kind == "assign" else on.CancelAsked
            self.tell_runtime(runtime.name, command(token, message.sender, message.body), crash=crash)
        elif message.kind == "claim":
            self.tell_runtime(runtime.name, on.ClaimAsked(self._number(), message.sender, message.body))
            self.send("c1", runtime.name, "answers", ("claim", dict(message.body)))
        else:
            self.tell(*self._heard(message, runtime), crash=crash)

    def _heard(self, message: Message, runtime: Runtime) -> list[CoordinatorEvent]:
        match message.kind, message.body:
            case "feed", (store, _):
                return self._news(runtime) if store == runtime.store.id else []
            case "met", (info, held):
                assert isinstance(info, NodeInfo)
                if info.incarnation != str(runtime.incarnation) or info.store != runtime.store.id:
                    return []
                return [*self._news(runtime), on.NodeSeen(info, held)]
            case "gone", incarnation:
                return [on.NodeUnreachable(runtime.name, str(incarnation))]
            case "kept", number:
                return [on.Kept(runtime.name, number, heard=number)]
            case "answers", (kind, answers):
                return self._answered(runtime, kind, answers)
        raise AssertionError(message)

    def _answered(self, runtime: Runtime, kind: str, answers: Any) -> list[CoordinatorEvent]:
        if kind == "claim":
            held = {t.id: t.held.assignment.epoch for t in runtime.core.tasks.values()} if runtime.core else {}
            facts = tuple(fact for entry in runtime.store.feed for fact in entry if fact.run in answers)
            return [on.RunsClaimed(runtime.name, answers, {t: e for t, e in held.items() if t.run in answers}, facts)]
        taken = tuple(a.task for a in answers if a.code == "OK")
        refused = [a for a in answers if a.code != "OK"]
        return [
            on.Delivered(runtime.name, taken) if kind == "assign" else on.CancelAnswered(runtime.name, taken),
            *(on.Refused(runtime.name, a.task, a.code, a.reason, a.epoch, a.owner) for a in refused),
        ]

    def _news(self, runtime: Runtime) -> list[CoordinatorEvent]:
        """What the coordinator has not learned of a runtime's feed yet: a gap is filled by asking."""
        store = runtime.store
        known = self.coordinator.store.cursors.get((runtime.name, store.id), 0)
        return [
            on.FactsLearned(runtime.name, store.id, number, store.feed[number - 1])
            for number in range(known + 1, len(store.feed) + 1)
        ]

    def _reply(self, runtime: Runtime, effects: Iterable[RuntimeEffect]) -> None:
        by_token: dict[int, list[do.Answer]] = {}
        for effect in effects:
            if isinstance(effect, do.Answer):
                by_token.setdefault(effect.token, []).append(effect)
        for token, answers in by_token.items():
            kind = runtime.commands.pop(token).kind
            self.send("c1", runtime.name, "answers", (kind, tuple(answers)))

    def meet(self, name: str) -> None:
        """The coordinator asks a runtime in sight who it is and what it holds."""
        runtime = self.runtimes[name]
        if runtime.core is None or runtime.cut or self.coordinator.core is None:
            return
        held = {t.id: t.held.assignment.epoch for t in runtime.core.tasks.values()}
        self.send("c1", name, "met", (runtime.info(), held))
        self.tell_runtime(name, on.CoordinatorsInSight(frozenset({"c1"})))

    # --- processes and files ----------------------------------------------------------------------------------------------

    def _act(self, runtime: Runtime, effects: Iterable[RuntimeEffect]) -> None:
        for effect in effects:
            match effect:
                case do.Prepare():
                    runtime.inbox.append(self._prepare(runtime, effect.assignment))
                case do.Spawn():
                    self._spawn(runtime, effect.assignment, effect.needs)
                case do.Revoke():
                    self._skip(runtime, runtime.waiting.drop(effect.task))
                case do.Kill():
                    self._kill(runtime, effect.task, effect.signal)
                case do.Acknowledge():
                    runtime.processes.pop(effect.task, None)
                case do.Collect():
                    runtime.inbox.append(self._collect(runtime, effect.assignment))
                case do.SetTimer():
                    runtime.timer = effect.at
                case do.NodeUpdate() if self.coordinator.core is not None and not runtime.cut:
                    self.tell(on.NodeChanged(runtime.info()))
                case do.Left():
                    runtime.left = True

    def _prepare(self, runtime: Runtime, assignment: Assignment) -> RuntimeEvent:
        reach = [r for r in self.runtimes.values() if r is runtime or not (r.core is None or r.cut or runtime.cut)]
        digests = {digest for r in reach for digest in r.files}
        lost = [key for key, file in assignment.inputs.items() if file.digest not in digests]
        missing = tuple(lost if self.fetchable(assignment) else assignment.inputs)
        if missing:
            return on.PrepareFailed(assignment.id, f"no node in reach has {', '.join(missing)}", missing)
        runtime.files |= {file.digest for file in assignment.inputs.values()}
        return on.Prepared(assignment.id)

    def _spawn(self, runtime: Runtime, assignment: Assignment, needs: tuple[TaskId, ...] | None = None) -> None:
        if assignment.id in runtime.processes:
            return  # a spawner knows what it was told twice
        if needs is not None:
            self._line_up(runtime, assignment, needs)
            return
        runtime.waiting.detach(assignment.id)
        outcome = self.outcome(assignment)
        if outcome.spawn_error is not None:
            runtime.inbox.append(on.SpawnFailed(assignment.id, outcome.spawn_error, outcome.disk_full))
            self._skip(runtime, runtime.waiting.ended(assignment.id, well=False))
            return
        key = (assignment.run, assignment.worker)
        self.starts[key] = self.starts.get(key, 0) + 1
        process = Process(self._number(), self.now, self.now + outcome.seconds, outcome, kind_of(assignment))
        runtime.processes[assignment.id] = process
        runtime.inbox.append(on.ProcessStarted(assignment.id, process.pid, self.now))

    def _line_up(self, runtime: Runtime, assignment: Assignment, needs: tuple[TaskId, ...]) -> None:
        room, processes = kind_of(assignment), runtime.processes
        assert room is not None
        running = {task for task, process in processes.items() if process.exited is None}
        ended_well = {task for task, process in processes.items() if process.exited and _well(process.exited)}
        unmet = [need for need in needs if need not in ended_well]
        if assignment.id in runtime.waiting or all(need in running or need in runtime.waiting for need in unmet):
            runtime.waiting.add(assignment.id, assignment, room, unmet)
        else:
            self._skip(runtime, [assignment.id])

    def _pass_on(self, runtime: Runtime, room: str | None) -> TaskId | None:
        while room is not None and (assignment := runtime.waiting.take(room)) is not None:
            self._spawn(runtime, assignment)
            if assignment.id in runtime.processes:
                return assignment.id
        return None

    def _skip(self, runtime: Runtime, tasks: list[TaskId]) -> None:
        runtime.inbox.extend(on.Skipped(task) for task in tasks)

    def _kill(self, runtime: Runtime, task: TaskId, signal: int) -> None:
        self._skip(runtime, runtime.waiting.drop(task))
        process = runtime.processes.get(task)
        if process is not None:
            process.signalled = True
        if process is not None and process.exited is None and (signal == SIGKILL or process.outcome.heeds_term):
            self._exit(runtime, task, process, None, signal)

    def _exit(self, runtime: Runtime, task: TaskId, process: Process, code: int | None, signal: int | None) -> None:
        ended = on.ProcessExited(task, code, signal, Usage(0.1, 1 << 20), self.now, process.signalled)
        process.exited, told = ended, len(runtime.inbox)
        self._skip(runtime, runtime.waiting.ended(task, well=_well(ended)))
        process.exited = replace(ended, heir=self._pass_on(runtime, process.room))
        if runtime.core is not None:
            runtime.inbox.insert(told, process.exited)  # before what it brought about

    def _collect(self, runtime: Runtime, assignment: Assignment) -> RuntimeEvent:
        if self.outcome(assignment).output_lost:
            return on.CollectFailed(assignment.id, "output 'out' is not there")
        outputs = {name: Output(path, f"{assignment.id}:{name}", 10) for name, path in assignment.outputs.items()}
        runtime.files |= {output.digest for output in outputs.values()}
        return on.Collected(assignment.id, outputs)

    # --- faults -----------------------------------------------------------------------------------------------------------

    def start_coordinator(self) -> None:
        """Start it from its store; it meets every runtime in sight."""
        coordinator = self.coordinator
        coordinator.core = CoordinatorCore(coordinator.name, coordinator.options, self.rng.random)
        unfinished = [run.id for run in coordinator.store.runs.values() if not run.status.final]
        self.tell(*(on.Restore(coordinator.store.snapshot(run)) for run in unfinished))
        for name in self.runtimes:
            self.meet(name)

    def crash_coordinator(self) -> None:
        """It is gone, and with it all that was not committed."""
        self.coordinator.core, self.coordinator.timer = None, None
        for runtime in self.runtimes.values():
            if runtime.core is not None:
                self.tell_runtime(runtime.name, on.CoordinatorsInSight(frozenset()))

    def start_runtime(self, name: str) -> None:
        """Start it from its store; the spawner, if it lives, tells what it has."""
        runtime = self.runtimes[name]
        runtime.core, runtime.incarnation = RuntimeCore(runtime.options), runtime.incarnation + 1
        runtime.inbox, runtime.commands, runtime.left = [], {}, False
        store = runtime.store
        runtime.core.restore(store.open.values(), dict(store.fences), self.now)
        self._act(runtime, runtime.core.resume_collecting())
        unknown = tuple(
            t
            for t, held in store.open.items()
            if held.phase in ("starting", "running") and t not in runtime.processes and t not in runtime.waiting
        )
        events: list[RuntimeEvent] = [on.ProcessesLost(unknown)] if unknown else []
        for task, process in runtime.processes.items():
            events.append(on.ProcessStarted(task, process.pid, process.started_at))
            events += [process.exited] if process.exited is not None else []
        events.append(on.StillWaiting(tuple(runtime.waiting.tasks())))
        self.tell_runtime(name, *events)
        self.meet(name)

    def crash_runtime(self, name: str, *, spawner_too: bool = False) -> None:
        """It is gone; its processes live on unless the spawner goes too."""
        runtime = self.runtimes[name]
        runtime.core, runtime.timer, runtime.inbox = None, None, []
        if spawner_too:
            runtime.processes.clear()
            runtime.waiting.clear()
        self.send("c1", name, "gone", runtime.incarnation)

    def wipe(self, name: str) -> None:
        """Its machine is set up anew: same name, nothing else."""
        self.crash_runtime(name, spawner_too=True)
        self.runtimes[name].store = RuntimeStore(f"{name}-{self._number()}")
        self.runtimes[name].files.clear()

    def cut(self, name: str) -> None:
        """Nothing passes between it and the rest."""
        runtime = self.runtimes[name]
        if not runtime.cut:
            runtime.cut = True
            self.send("c1", name, "gone", runtime.incarnation)
            self.tell_runtime(name, on.CoordinatorsInSight(frozenset()))

    def mend(self, name: str) -> None:
        """The link works again, and the coordinator meets the runtime."""
        self.runtimes[name].cut = False
        self.meet(name)

    # --- time -----------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """One thing happens: a local event, a message, or the next moment in time; False when nothing ever will."""
        for runtime in self.runtimes.values():
            if runtime.core is not None and runtime.inbox:
                events, runtime.inbox = runtime.inbox, []
                self.tell_runtime(runtime.name, *events)
                return True
        if self.wire:
            self._carry()
            return True
        return self._pass_time()

    def _carry(self) -> None:
        index = self.rng.randrange(len(self.wire)) if self.disorder else 0
        message = self.wire[index]
        if self.rng.random() >= self.repeat or message.kind == "gone":
            del self.wire[index]
        if self.rng.random() < self.drop and message.kind not in ("gone", "met"):
            if message.kind != "feed":
                self.tell(on.Undelivered(message.to if message.to in self.runtimes else message.sender))
            return
        self.deliver(message)

    def _pass_time(self) -> bool:
        moments = [self.coordinator.timer] + [runtime.timer for runtime in self.runtimes.values()]
        moments += [p.ends_at for r in self.runtimes.values() for p in r.processes.values() if p.exited is None]
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is None:
            return False
        self.now = max(self.now, due)
        for runtime in self.runtimes.values():
            for task, process in list(runtime.processes.items()):
                if process.exited is None and process.ends_at <= self.now:
                    self._exit(runtime, task, process, process.outcome.exit_code, None)
            if runtime.timer is not None and runtime.timer <= self.now:
                runtime.timer = None
                self.tell_runtime(runtime.name, on.Tick())
        if self.coordinator.timer is not None and self.coordinator.timer <= self.now:
            self.coordinator.timer = None
            self.tell(on.Tick())
        return True

    def until(self, true: Callable[[], bool], most: int = 20_000) -> None:
        """Step until something is true."""
        for _ in range(most):
            if true():
                return
            if not self.step():
                break
        assert true(), f"never came true; at {self.now}, {self.coordinator.store.runs}, {self.wire[:5]}"

    def finish(self, run: str = "r") -> RunRecord:
        """Step until a run is final."""
        self.until(lambda: self.run(run).status.final)
        return self.run(run)

    def quiet(self) -> None:
        """Step until no message or local event is left, without letting time pass."""
        while self.wire or any(r.inbox for r in self.runtimes.values() if r.core is not None):
            self.step()

    # --- what a test looks at -------------------------------------------------------------------------------------------

    @property
    def core(self) -> CoordinatorCore:
        """The coordinator's core, which must be up."""
        assert self.coordinator.core is not None
        return self.coordinator.core

    def run(self, run: str = "r") -> RunRecord:
        """A run as stored."""
        return self.coordinator.store.runs[run]

    def worker(self, name: str, run: str = "r") -> WorkerRecord:
        """A worker as stored."""
        return self.coordinator.store.workers[run][name]

    def task(self, worker: str, attempt: int = 1, run: str = "r") -> TaskRecord:
        """An attempt as stored."""
        return self.coordinator.store.tasks[TaskId(run, worker, attempt)]

    def started(self, run: str = "r") -> list[str]:
        """Workers in the order in which their processes were started."""
        found: dict[TaskId, None] = {}
        for effect in self.effects:
            if isinstance(effect, do.Append) and effect.fact.kind is FactKind.STARTED and effect.fact.run == run:
                found[effect.fact.id] = None
        return [task.worker for task in found]

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def statuses(cluster: Cluster, run: str = "r") -> dict[str, str]:
    """Every worker's status."""
    return {name: record.status.value for name, record in cluster.coordinator.store.workers[run].items()}


def _well(exited: on.ProcessExited) -> bool:
    return exited.exit_code == 0 and not exited.signalled
