"""A simulated runtime: what the shell around the core does (wattle/runtime), with the spawner, its processes and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from signal import SIGKILL
from typing import Any

from tests.core.outcomes import Outcome
from tests.sim.coordinator import Coordinator
from tests.sim.peer import Item, Keeper, Peer
from tests.sim.stores import Copies, RuntimeStore
from tests.sim.world import Answer, World
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.model import Assignment, CopyPage, Fact, NodeInfo, Output, TaskId, Usage
from wattle.core.room import kind_of
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.runtime.waiting import Waiting

FEW = 3
"""Runs without open tasks, and workers of theirs, that a simulated runtime keeps in memory: so few that it often has to look them up."""

SAVES = (do.SaveHeldTask, do.SaveFence, do.Append, do.SaveCopies)


@dataclass
class Process:
    """A simulated process, kept by the spawner until its end is acknowledged."""

    pid: int
    started_at: float
    outcome: Outcome
    exited: on.ProcessExited | None = None
    signalled: bool = False
    files: bool = False  # to be hashed once it has ended well
    room: str | None = None  # the kind that it leaves


class Runtime(Keeper):
    """See the module's docstring. ``outcome`` says how the process of an assignment goes."""

    role = "runtime"

    def __init__(
        self, world: World, name: str, options: RuntimeOptions, outcome: Callable[[Assignment], Outcome]
    ) -> None:
        super().__init__(world, name)
        self.options, self.outcome = options, outcome
        self.fetching = 0.05
        self.disks = 0
        self.core: RuntimeCore | None = None
        self.new_disk()

    def new_disk(self) -> None:
        """Put an empty disk in."""
        self.disks += 1
        self.store = RuntimeStore(f"{self.name}#{self.disks}")
        self.files: set[str] = set()
        self.processes: dict[TaskId, Process] = {}
        self.waiting: Waiting[TaskId, Assignment] = Waiting()
        self.unfulfilled: dict[TaskId, on.SpawnFailed | on.Skipped] = {}  # not acknowledged yet

    def copies(self) -> Copies:
        return self.store.copies

    # --- life -----------------------------------------------------------------------------------------------------------

    def started(self) -> None:
        store = self.store
        core = self.core = RuntimeCore(self.options)
        self._token = 0
        self._answers: dict[int, tuple[Answer, list[do.Answer]]] = {}
        self._claims: dict[int, tuple[Answer, str]] = {}
        self._keeping = {}
        core.past.most = FEW
        core.restore(store.open.values(), dict(store.fences), self.clock())
        core.copies.cursors = store.copies.take_up()
        for act in core.resume_collecting():
            self._act(act)
        known = self.processes
        unknown = tuple(
            task
            for task, held in store.open.items()
            if held.phase in ("starting", "running")
            and task not in known
            and task not in self.waiting
            and task not in self.unfulfilled
        )
        if unknown:
            self.post(on.ProcessesLost(unknown))
        for task, process in known.items():
            self.post(on.ProcessStarted(task, process.pid, process.started_at))
        for process in known.values():
            if process.exited is not None:
                self.post(process.exited)
        for event in self.unfulfilled.values():
            self.post(event)
        self.post(on.StillWaiting(tuple(self.waiting.tasks())))
        self.post(on.Tick())

    def died(self) -> None:
        self.core = None

    def spawner_dies(self) -> None:
        """The spawner is gone, and with it its processes and any knowledge of them."""
        lost = (*self.processes, *self.waiting.tasks())
        self.processes.clear()
        self.unfulfilled.clear()
        self.waiting.clear()
        self.world.note(self.name, "loses its spawner")
        if self.up and lost:
            self.post(on.ProcessesLost(lost))

    def info(self) -> NodeInfo:
        """What it says of itself."""
        core = self.core
        assert core is not None
        return NodeInfo(
            self.name,
            str(self.life),
            self.store.id,
            len(self.store.feed),
            self.options.slots,
            dict(self.options.resources),
            draining=core.draining,
        )

    # --- batches --------------------------------------------------------------------------------------------------------

    def batch(self, items: list[Item]) -> None:
        core, world = self.core, self.world
        assert core is not None
        events = [event for event, _ in items]
        if world.tracing:
            for event in events:
                world.note(self.name, "<-", event)
        for run, workers in core.past.lacks(events).items():
            core.past.recall(run, *self.store.past(run, workers))
        effects = core.handle(events, self.clock())
        saves = [effect for effect in effects if isinstance(effect, SAVES)]
        if self.dies_at_commit(saves, effects):
            return
        facts: tuple[Fact, ...] = ()
        if saves:
            facts = self.store.commit(saves)
            world.checks.ran(self, saves)
        world.checks.runtime(self, core)
        if world.tracing:
            for effect in effects:
                if not isinstance(effect, do.SetTimer):
                    world.note(self.name, "->", effect)
        acts, crash = self.sent([effect for effect in effects if not isinstance(effect, SAVES)])
        if facts and (not crash or self.world.rng.random() < 0.5):
            for other in world.peers.values():
                if isinstance(other, Coordinator):
                    world.carry(
                        self.name, other.name, other.hint, self.name, self.store.id, len(self.store.feed), facts
                    )
        for act in acts:
            self._act(act)
        if crash:
            self.crash()
            return
        for token in [token for token, (_, answers) in self._answers.items() if answers]:
            reply, answers = self._answers.pop(token)
            reply(answers)

    def _act(self, act: Any) -> None:
        world = self.world
        match act:
            case do.Answer():
                self._answers[act.token][1].append(act)
            case do.AnswerClaim():
                reply, owner = self._claims.pop(act.token)
                reply(self._held(owner, act.refused))
            case do.AnswerKeep():
                self.answer_keep(act.token, act.number)
            case do.Prepare():
                world.later(0.001 + self.fetching * world.rng.random() ** 3, self._prepare, self.life, act.assignment)
            case do.Spawn():
                self._spawn(act.assignment, act.needs)
            case do.Kill():
                self._kill(act.task, act.signal)
            case do.Revoke():
                self._skip(self.waiting.drop(act.task))
            case do.Acknowledge():
                self.processes.pop(act.task, None)
                self.unfulfilled.pop(act.task, None)
            case do.Collect():
                world.later(0.001 + self.fetching * world.rng.random() ** 3, self._collect, self.life, act.assignment)
            case do.SetTimer():
                self.set_timer(act.at)
            case do.NodeUpdate():
                for other in world.peers.values():
                    if isinstance(other, Coordinator):
                        world.carry(self.name, other.name, other.post, on.NodeChanged(self.info()))
            case do.Left():
                world.later(0.001, self._leave, self.life)
            case do.Abandon():
                pass
            case _:
                raise AssertionError(act)

    def _leave(self, life: int) -> None:
        if life == self.life:
            self.crash()

    # --- processes and files ----------------------------------------------------------------------------------------------

    def _tell(self, life: int, event: Any) -> None:
        if self.up and self.life == life:
            self.post(event)

    def _prepare(self, life: int, assignment: Assignment) -> None:
        if not self.up or self.life != life:
            return
        missing = []
        for key, file in assignment.inputs.items():
            if not any(
                file.digest in peer.files and (peer is self or (peer.up and self.world.linked(self.name, peer.name)))
                for peer in self.world.peers.values()
                if isinstance(peer, Runtime)
            ):
                missing.append(key)
        if missing:
            text = f"no node in reach has {', '.join(missing)}"
            self.post(on.PrepareFailed(assignment.id, text, tuple(missing)))
            return
        self.files |= {file.digest for file in assignment.inputs.values()}
        self.post(on.Prepared(assignment.id))

    def _spawn(self, assignment: Assignment, needs: tuple[TaskId, ...] | None = None) -> None:
        task = assignment.id
        if task in self.processes:
            return  # a spawner knows what it was told twice
        if task in self.unfulfilled:
            self._tell(self.life, self.unfulfilled[task])
            return
        room = kind_of(assignment)
        if needs is not None:
            assert room is not None, f"{task} waits for room that nobody leaves"
            unmet = [need for need in needs if not self._ended_well(need)]
            if task in self.waiting or all(need in self.waiting or self._runs(need) for need in unmet):
                self.waiting.add(task, assignment, room, unmet)
            else:
                self._skip([task])
            return
        self.waiting.detach(task)
        outcome = self.outcome(assignment)
        world = self.world
        if outcome.spawn_error is not None:
            failed = on.SpawnFailed(task, outcome.spawn_error, outcome.disk_full)
            self.unfulfilled[task] = failed
            world.later(0.001, self._tell, self.life, failed)
            self._skip(self.waiting.ended(task, well=False))
            return
        world.checks.process_starts(self, task)
        pid = world.rng.randrange(1, 99999)
        process = Process(pid, self.clock(), outcome, files=bool(assignment.outputs), room=room)
        self.processes[task] = process
        told = 0.0005 + 0.002 * world.rng.random()  # perhaps after its end
        world.later(told, self._tell, self.life, on.ProcessStarted(task, process.pid, process.started_at))
        world.later(outcome.seconds, self._exit, task, process, outcome.exit_code, None)

    def _runs(self, task: TaskId) -> bool:
        process = self.processes.get(task)
        return process is not None and process.exited is None

    def _ended_well(self, task: TaskId) -> bool:
        process = self.processes.get(task)
        return process is not None and process.exited is not None and _well(process.exited)

    def _pass_on(self, room: str | None) -> TaskId | None:
        """Start the first that waits for such room; which it is."""
        while room is not None and (assignment := self.waiting.take(room)) is not None:
            self._spawn(assignment)
            if assignment.id in self.processes:
                return assignment.id
        return None

    def _skip(self, tasks: list[TaskId]) -> None:
        for task in tasks:
            self.unfulfilled[task] = on.Skipped(task)
            self.world.later(0.001, self._tell, self.life, on.Skipped(task))

    def _kill(self, task: TaskId, signal: int) -> None:
        self._skip(self.waiting.drop(task))
        process = self.processes.get(task)
        if process is not None:
            process.signalled = True
        if process is not None and (signal == SIGKILL or process.outcome.heeds_term):
            self.world.later(0.002, self._exit, task, process, None, signal)

    def _exit(self, task: TaskId, process: Process, code: int | None, signal: int | None) -> None:
        if process.exited is None and self.processes.get(task) is process:
            ended = on.ProcessExited(task, code, signal, Usage(0.1, 1 << 20), self.clock(), process.signalled)
            process.exited = ended
            if _well(ended) and not process.files:
                self.world.checks.process_succeeds(task)
            self._skip(self.waiting.ended(task, well=_well(ended)))
            process.exited = replace(ended, heir=self._pass_on(process.room))
            if self.up:
                self.post(process.exited)

    def _collect(self, life: int, assignment: Assignment) -> None:
        if not self.up or self.life != life:
            return
        if self.outcome(assignment).output_lost:
            self.post(on.CollectFailed(assignment.id, "output 'out' is not there"))
            return
        outputs = {
            name: Output(path, f"{assignment.id}:{name}".replace("/", "."), 10)
            for name, path in assignment.outputs.items()
        }
        self.files |= {output.digest for output in outputs.values()}
        self.post(on.Collected(assignment.id, outputs))

    # --- commands -------------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._token += 1
        return self._token

    def on_assign(self, body: tuple[str, tuple[Assignment, ...]], reply: Answer) -> None:
        """Take tasks."""
        token = self._number()
        self._answers[token] = (reply, [])
        self.post(on.Assigned(token, *body))

    def on_cancel(self, body: tuple[str, tuple[tuple[TaskId, int], ...]], reply: Answer) -> None:
        """End tasks."""
        token = self._number()
        self._answers[token] = (reply, [])
        self.post(on.CancelAsked(token, *body))

    def on_held(self, body: tuple[str, tuple[tuple[str, int], ...]], reply: Answer) -> None:
        """Learn who owns runs, and tell what is open here."""
        token = self._number()
        self._claims[token] = (reply, body[0])
        self.post(on.ClaimAsked(token, *body))

    def _held(self, owner: str, refused: tuple[tuple[str, int, str], ...]) -> tuple[Any, ...]:
        core = self.core
        assert core is not None
        mine = core.held_by(owner)
        others = [(id, task.held.assignment.epoch) for id, task in core.tasks.items() if id not in mine]
        return mine, tuple(others), refused

    def on_facts(self, runs: tuple[str, ...], reply: Answer) -> None:
        """All that was ever said of some runs."""
        reply(tuple(fact for entry in self.store.feed for fact in entry if fact.run in runs))

    def on_feed(self, after: int, reply: Answer) -> None:
        """The feed from the entry after ``after`` on."""
        reply((self.store.id, after, tuple(self.store.feed[after:])))

    def on_keep(self, page: CopyPage, reply: Answer) -> None:
        """Keep a page of an owner's."""
        token = self._number()
        self._keeping[token] = reply, page
        self.post(on.Keep(token, page))

    def on_state(self, _: None, reply: Answer) -> None:
        """Who this is."""
        reply(self.info())

    def token_changed(self, other: Peer, before: int, life: int) -> None:
        if other.role == "coordinator":
            self.post(on.CoordinatorsInSight(self.sees()))


def _well(exited: on.ProcessExited) -> bool:
    return exited.exit_code == 0 and not exited.signalled
