"""The runtime agent: trio, bus, store, spawner and files around RuntimeCore.

What happens goes into the loop's mailbox; a batch is handled by the core, committed together with the feed entry it makes, and
only then acted upon: commands answered, facts published, processes started.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

import trio
from pydantic_core import from_json, to_json

from wattle import __version__
from wattle.bus.base import Bus, Priority, Query
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.effects import RuntimeEffect
from wattle.core.events import RuntimeEvent
from wattle.core.model import Assignment, CopyPage, Fact, FactKind, NodeInfo, Output, TaskId, TaskStatus
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.core.states import Phase
from wattle.errors import InvalidRequest, WattleError
from wattle.logs import get_logger
from wattle.peer.anew import Anew, tell_anew
from wattle.peer.asking import refuse
from wattle.peer.copies import CopyDesk
from wattle.peer.feeds import PAGE, FeedPublisher
from wattle.peer.loop import LINGER, Loop, wall_clock
from wattle.peer.presence import Presence, new_incarnation
from wattle.peer.probing import probing
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import (
    PROTOCOL,
    AssignBatch,
    CancelBatch,
    FactsAnswer,
    FactsQuestion,
    HeldQuestion,
    HeldTasks,
    KeepAnswer,
    TaskAnswer,
    TaskAnswers,
    TaskRef,
    check_assignments,
    decode,
    encode,
)
from wattle.protocol.records import node_view, timestamp
from wattle.protocol.verbs import COPIES, OF_RUNTIMES
from wattle.runtime.capacity import detect
from wattle.runtime.confining import Confining
from wattle.runtime.files import Blob, Files, InputsMissing, OutputMissing
from wattle.runtime.launch import disk_full
from wattle.runtime.launching import Starting
from wattle.runtime.layout import Folders, Layout, declared_outputs, layout, make_folder
from wattle.runtime.output import Logs
from wattle.runtime.processes import (
    Exited,
    Held,
    ProcessEvent,
    Skipped,
    SpawnerLost,
    SpawnFailed,
    SpawnRequest,
    Started,
    kill_orphans,
    open_processes,
)
from wattle.runtime.pruning import Pruning
from wattle.runtime.secrets import Secrets
from wattle.settings import RuntimeSettings
from wattle.store.runtime import BlobRow, RuntimeStore

LEAVE_LINGER = 0.5
"""Seconds a leaving runtime still answers, so that followers who missed its last facts can ask for them."""

LOG_FOLDERS = 1_000
"""Log folders, one per run, that are remembered to be there."""

log = get_logger("wattle.runtime")


class RuntimeAgent:
    """One runtime; ``run`` is its life."""

    def __init__(
        self,
        name: str,
        settings: RuntimeSettings,
        bus: Bus,
        store: RuntimeStore,
        *,
        at_rest: bool = False,
        spawner: Starting | None = None,
    ) -> None:
        self.name, self.bus, self.store = name, bus, store
        self.keys = Keys(settings.namespace)
        self.incarnation = new_incarnation()
        resources = {**detect(), **settings.resources}
        self._slots, self._resources, self._labels = settings.slots, resources, settings.labels
        self.core = RuntimeCore(RuntimeOptions(self._slots, resources, settings.queue_patience))
        self._settings = settings
        self._starting = spawner
        self._folders = Folders(settings.data)
        self._confining = Confining(settings, self._folders)
        self._secrets = Secrets(settings.secrets_file)
        self._loop: Loop[RuntimeEvent] = Loop(self._step, on.Tick, wall_clock)
        self._questions: dict[int, tuple[Query, list[TaskAnswer]]] = {}  # commands being handled
        self._claims: dict[int, tuple[Query, str]] = {}  # and by whom
        self._pages: dict[int, tuple[Query, CopyPage]] = {}  # copies to be kept
        self._orders: deque[Query] = deque()  # drain and resume, answered after the commit
        self._blobs: list[tuple[str, BlobRow]] = []  # to be saved with the events that tell of them
        self._work: dict[TaskId, trio.CancelScope] = {}  # preparing or collecting
        self._not_started: dict[TaskId, TaskId | None] = {}  # in the step at hand, with what they were to follow
        self._log_folders: set[str] = set()  # of these runs
        self._desk = CopyDesk(
            store.copies, store.transaction, lambda: self._presence.names("coordinator"), self.core.copies
        )
        self._held_once = False
        self._left = trio.Event()
        self._anew = Anew(self._tell_anew)
        if at_rest:
            self._loop.post(on.Drain())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up what was running, then serve until cancelled or told to leave."""
        held = self.store.open_tasks()
        self.core.restore(held, self.store.fences({task.assignment.run for task in held}), time.time())
        self.core.copies.cursors = self.store.copies.cursors()
        die = self._settings.die_with_runtime
        if self._confining.demanded:
            await trio.to_thread.run_sync(self._confining.examine)
        async with (
            trio.open_nursery() as nursery,
            open_processes(
                self._folders.data, self._process_events, die_with_runtime=die, starting=self._starting
            ) as processes,
        ):
            self._nursery, self._processes = nursery, processes
            self._files = Files(
                self.bus, self.keys, self.name, self._folders, self.store, while_in_sight=self._while_in_sight
            )
            self._logs = Logs(self.bus, self.keys, self._folders, self._running_tasks, self._has_ended, self._secrets)
            self._feed = FeedPublisher(
                self.bus, self.keys, self.name, self.store.id, lambda: self.store.head, self.store.feed
            )
            nursery.start_soon(self._loop.run)
            nursery.start_soon(self._logs.run)
            self._pruning = Pruning(
                self.bus, self.keys, self._folders, self.store, self.core, self._log_folders.discard
            )
            nursery.start_soon(self._pruning.run)
            nursery.start_soon(self._anew.run)
            self._act(self.core.resume_collecting())
            declarations = [
                self._files.serve(),
                self.bus.serve(self.keys.state("runtime", self.name), self._answer_state),
                *(self.bus.serve(self.keys.cmd(self.name, verb), self._command) for verb in OF_RUNTIMES),
            ]
            self._presence = Presence(self.bus, self.keys, self._peer_changed)
            me = Alive("runtime", self.name, self.incarnation)
            await nursery.start(probing, me, self.bus, self.keys, self._presence)
            declarations.append(self.bus.declare_alive(self.keys.alive(*me)))
            log.info("runtime ready", slots=self._slots, resources=self._resources, held=len(self.core.tasks))
            task_status.started()
            if not die:  # an embedded network finds out when it has to
                nursery.start_soon(self._examine)
            try:
                await self._left.wait()
                with trio.move_on_after(LEAVE_LINGER):
                    await processes.stop()  # no task is left, so nothing is to outlive this process
                    if not self._settings.die_with_runtime:  # an embedded network has no followers but its own
                        await trio.sleep_forever()
                log.info("runtime left")
            finally:
                for declaration in reversed(declarations):
                    declaration.undeclare()
                self._presence.close()
                self._feed.close()
                self._loop.stop()
                nursery.cancel_scope.cancel()

    async def _examine(self) -> None:
        await trio.to_thread.run_sync(self._confining.examine)
        self._tell_state()

    def leave(self) -> None:
        """Take nothing new, give what runs ``stop_timeout`` seconds, hand back the rest; ``run`` returns when that is done."""
        seconds = self._settings.stop_timeout
        if self.core.running:
            log.info(f"what runs gets {seconds:g} s; told to stop again, it is killed", running=self.core.running)
        self._loop.post(on.Drain(leave_at=time.time() + seconds))

    def leave_at_once(self) -> None:
        """The same without the time: what runs is killed, and handed back."""
        log.warning("what runs is killed", running=self.core.running)
        self._loop.post(on.Drain(leave_at=0.0, kill=True))

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _step(self, events: list[RuntimeEvent], now: float) -> None:
        for run, workers in self.core.past.lacks(events).items():
            self.core.past.recall(run, *self.store.past(run, workers))
        effects = _without_starts_of_finished(self.core.handle(events, now))
        spawns = self._lay_out(e for e in effects if isinstance(e, do.Spawn))
        blobs, self._blobs = self._blobs, []
        with self.store.transaction():
            facts = self.store.save(effects)
            self.store.save_logs(row for spawn, at in spawns for row in _log_rows(spawn.assignment, at, now))
            self.store.save_blobs(blobs)
        if facts:
            self.store.head += 1
            self._feed.publish(self.store.head, facts)
            for fact in facts:
                _log_fact(fact, f"{self.name}#{self.store.head}")
        self._spawn(spawns)
        self._act(effects)
        for event in events:
            if isinstance(event, on.Assigned | on.CancelAsked):
                self._answer_command(event.token)
            elif isinstance(event, on.Drain | on.Resume):
                self._answer_order()

    def _act(self, effects: Iterable[RuntimeEffect]) -> None:
        acknowledged: list[TaskId] = []
        for effect in effects:
            match effect:
                case do.Answer(token, task, code, reason, epoch, owner):
                    self._questions[token][1].append(TaskAnswer(*task, code, reason, epoch, owner))
                case do.AnswerClaim(token, refused):
                    query, owner = self._claims.pop(token)
                    self._reply(query, encode(self._held(owner, refused)))
                case do.AnswerKeep(token, number):
                    query, page = self._pages.pop(token)
                    self._reply(query, encode(KeepAnswer(number, self.store.id, self._desk.better(page))))
                case do.Acknowledge(task):
                    acknowledged.append(task)
                case do.Prepare(assignment):
                    self._start_work(assignment.id, self._prepare, assignment)
                case do.Collect(assignment):
                    self._start_work(assignment.id, self._collect, assignment)
                case do.Abandon(task):
                    self._work[task].cancel()
                case do.Revoke(task):
                    self._processes.revoke([task])
                case do.Kill(task, signal):
                    self._processes.kill([(task, signal)])
                case do.SetTimer(at):
                    self._loop.set_timer(at)
                case do.NodeUpdate():
                    self._tell_state()
                case do.Left():
                    self._left.set()
        if acknowledged:
            self._processes.acknowledge(acknowledged)

    def _answer_command(self, token: int) -> None:
        query, answers = self._questions.pop(token)
        self._reply(query, encode(TaskAnswers(tuple(answers))))

    def _answer_order(self) -> None:
        """Answer the oldest drain or resume, if it came from somebody who waits."""
        if self._orders:
            view = node_view(self.info(), "draining" if self.core.draining else "ready")
            self._reply(self._orders.popleft(), to_json(view))

    def _reply(self, query: Query, payload: bytes) -> None:
        """Answer a command on this peer's own key: whoever asked may have asked all peers at once."""
        query.reply(payload, key=self.keys.cmd(self.name, self.keys.cmd_verb(query.key)))
        query.finish()

    # --- processes ----------------------------------------------------------------------------------------------------

    def _lay_out(self, spawns: Iterable[do.Spawn]) -> list[tuple[do.Spawn, Layout]]:
        laid_out = []
        for spawn in spawns:
            try:
                at = layout(spawn.assignment, self._folders)
                at.env.update(self._secrets.environment(spawn.assignment.secrets))
                laid_out.append((spawn, at))
            except InvalidRequest as error:
                self._do_not_start(spawn, error.message)
        return laid_out

    def _do_not_start(self, spawn: do.Spawn, problem: str, disk_full: bool = False) -> None:
        """Have it told that a task cannot be started.

        One whose turn comes with the success of another has not failed before that, which may yet put right what is wrong: it is
        handed back, and given anew when its turn has come.
        """
        id = spawn.assignment.id
        if spawn.on_success:
            log.info("a task cannot be started ahead", task=str(id), reason=problem)
            self._loop.post(on.Skipped(id))
        else:
            self._loop.post(on.SpawnFailed(id, problem, disk_full))
        self._not_started[id] = spawn.after

    def _spawn(self, spawns: list[tuple[do.Spawn, Layout]]) -> None:
        for spawn, at in spawns:
            id = spawn.assignment.id
            after = spawn.after
            if spawn.on_success and after in self._not_started:
                self._do_not_start(spawn, f"{after} is not started")
                continue
            while after in self._not_started:
                after = self._not_started[after]
            try:
                confined = self._confining.confine(spawn.assignment, at)
                self._make_folders(spawn.assignment.run, at)
                request = SpawnRequest(id, at.argv, at.env, at.cwd, at.stdout, at.stderr, after, spawn.on_success)
                if confined is not None:
                    self._confining.give_folders(spawn.assignment, at, confined)
                    request = replace(request, env={**confined.env, **at.env}, confined=confined.request)
                self._processes.spawn([request])
            except InvalidRequest as error:
                self._do_not_start(spawn, error.message)
            except (OSError, ValueError) as error:
                full = disk_full(error)
                fix = "free some space on this node" if full else "correct working_dir or outputs"
                self._do_not_start(spawn, f"cannot make its folders: {error}; {fix}", full)
        self._not_started.clear()

    def _make_folders(self, run: str, at: Layout) -> None:
        if run not in self._log_folders:
            make_folder(os.path.dirname(at.stdout))
            if len(self._log_folders) >= LOG_FOLDERS:
                self._log_folders.clear()
            self._log_folders.add(run)
        make_folder(at.cwd)
        for path in at.outputs.values():
            make_folder(path.parent)

    def _process_events(self, events: list[ProcessEvent]) -> None:
        for event in events:
            match event:
                case Started(id, pid, at):
                    self._loop.post(on.ProcessStarted(id, pid, at), within=LINGER)
                case Skipped(id):
                    self._loop.post(on.Skipped(id))
                case SpawnFailed(id, error, full):
                    self._loop.post(on.SpawnFailed(id, self._secrets.mask.text(error), full))
                case Exited(id, stopped=True):
                    # The spawner ended it of its own accord, on nobody's order: how it would have ended is unknown.
                    self._processes.acknowledge([id])
                    self._loop.post(on.ProcessesLost((id,)))
                case Exited(id, exit_code, signal, usage, at, signalled=signalled, reason=reason):
                    self._loop.post(on.ProcessExited(id, exit_code, signal, usage, at, signalled, reason))
                case SpawnerLost(tasks):
                    log.error("spawner lost", tasks=len(tasks))
                    self._loop.post(on.ProcessesLost(tasks))
                case Held():
                    self._take_up(event)

    def _take_up(self, held: Held) -> None:
        """Match what the spawner holds with what the store remembers; at the start, what it does not know is lost."""
        unseen = [
            Started(e.id, e.pid, e.started_at) for e in held.exited if e.pid is not None and e.started_at is not None
        ]
        self._process_events([*held.running, *unseen, *held.exited, *held.unfulfilled])
        if self._held_once:
            return
        self._held_once = True
        known = {e.id for e in (*held.running, *held.exited, *held.unfulfilled)}
        known.update(*held.lines)
        lost = [
            t.held
            for id, t in self.core.tasks.items()
            if t.held.phase in (Phase.STARTING, Phase.RUNNING) and id not in known
        ]
        if lost:
            log.warning("tasks lost with their spawner", tasks=[str(t.assignment.id) for t in lost])
            kill_orphans([(t.pid, t.started_at) for t in lost if t.pid is not None and t.started_at is not None])
            self._loop.post(on.ProcessesLost(tuple(t.assignment.id for t in lost)))
        self._loop.post(on.StillWaiting(held.lines))

    def _running_tasks(self) -> list[TaskId]:
        return [id for id, t in self.core.tasks.items() if t.held.phase in (Phase.STARTING, Phase.RUNNING)]

    def _has_ended(self, task: TaskId) -> bool:
        held = self.core.tasks.get(task)
        return held is None or held.held.phase is Phase.COLLECTING

    # --- files --------------------------------------------------------------------------------------------------------

    def _start_work(self, task: TaskId, work: Callable[[Assignment], Awaitable[None]], assignment: Assignment) -> None:
        scope = self._work[task] = trio.CancelScope()

        async def until_done() -> None:
            with scope:
                await work(assignment)
            if self._work.get(task) is scope:
                del self._work[task]

        self._nursery.start_soon(until_done)

    async def _prepare(self, assignment: Assignment) -> None:
        try:
            at = layout(assignment, self._folders)
            self._confining.confine(assignment, at)  # what is not to be had here is refused before anything is made
            make_folder(at.cwd)
            fetched = await self._files.place(assignment, at)
        except InputsMissing as error:
            self._loop.post(on.PrepareFailed(assignment.id, str(error), tuple(error.keys)))
        except (WattleError, OSError) as error:
            problem = f"its inputs cannot be put in place: {error}"
            self._loop.post(on.PrepareFailed(assignment.id, problem, disk_full=disk_full(error)))
        else:
            self._blobs.extend((assignment.run, _row(blob)) for blob in fetched)
            self._loop.post(on.Prepared(assignment.id, tuple(b.digest for b in fetched)))

    async def _collect(self, assignment: Assignment) -> None:
        at = layout(assignment, self._folders)
        written = declared_outputs(assignment)
        try:
            self._confining.check_outputs(assignment, at)
            blobs = await self._files.collect(at.outputs)
        except (OutputMissing, InvalidRequest, OSError) as error:
            self._loop.post(on.CollectFailed(assignment.id, str(error)))
            return
        self._blobs.extend((assignment.run, _row(blob)) for blob in blobs.values())
        outputs = {name: Output(written[name], blob.digest, blob.size) for name, blob in blobs.items()}
        self._loop.post(on.Collected(assignment.id, outputs))

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, query: Query) -> None:
        try:
            self._take_command(self.keys.cmd_verb(query.key), query)
        except InvalidRequest as error:
            log.warning("command refused", key=query.key, reason=error.message)
            refuse(query, error)

    def _take_command(self, verb: str, query: Query) -> None:
        token = id(query)
        match verb:
            case "assign":
                batch = decode(AssignBatch, query.payload)
                check_assignments(batch)
                self._questions[token] = (query, [])
                self._loop.post(on.Assigned(token, batch.owner, batch.tasks))
                for task in batch.tasks:
                    log.debug("task assigned", run=task.run, worker=task.worker, attempt=task.attempt, cause=task.cause)
            case "cancel":
                orders = decode(CancelBatch, query.payload)
                self._questions[token] = (query, [])
                self._loop.post(on.CancelAsked(token, orders.owner, tuple((ref.id, ref.epoch) for ref in orders.tasks)))
            case "held":
                question = decode(HeldQuestion, query.payload)
                self._claims[token] = query, question.owner
                self._loop.post(on.ClaimAsked(token, question.owner, question.claims))
            case "facts":
                asked = decode(FactsQuestion, query.payload)
                entries = self.store.facts_of(asked.run, asked.after, PAGE)
                facts = tuple(fact for _, of_entry in entries for fact in of_entry)
                after = entries[-1][0] if len(entries) == PAGE else None
                self._reply(query, encode(FactsAnswer(facts, after)))
            case "keep":
                page = decode(CopyPage, query.payload)
                self._pages[token] = query, page
                self._loop.post(on.Keep(token, page))
            case "discard":
                self._pruning.order(query.payload)
                query.finish()
            case "drain" | "resume":
                self._orders.append(query)
                self._loop.post(on.Drain() if verb == "drain" else on.Resume())
            case verb if verb in COPIES:
                self._reply(query, self._desk.answer(verb, query.payload))
            case _:  # asked with a key wider than any command's
                query.finish()

    def _held(self, owner: str, refused: tuple[tuple[str, int, str], ...]) -> HeldTasks:
        mine = {t.assignment.id for t in self.core.held_by(owner)}
        refs = [TaskRef(*id, task.held.assignment.epoch) for id, task in self.core.tasks.items()]
        return HeldTasks(
            tuple(ref for ref in refs if ref.id in mine), tuple(ref for ref in refs if ref.id not in mine), refused
        )

    # --- about itself -------------------------------------------------------------------------------------------------

    def _while_in_sight(self, node: str | None) -> AbstractContextManager[None]:
        return self._presence.while_in_sight(self._presence.newest("runtime", node))

    def _peer_changed(self, peer: Alive, alive: bool) -> None:
        if peer.role == "runtime" and not alive:
            self._anew.needed()
        if peer.role == "coordinator":
            self._loop.post(on.CoordinatorsInSight(frozenset(self._presence.names("coordinator"))))
            if alive:
                self._pruning.look()

    def _tell_anew(self) -> None:
        for key in (self.keys.blob(), self.keys.logs):
            tell_anew(self.bus, key)

    def info(self) -> NodeInfo:
        """What this node says of itself."""
        return NodeInfo(
            name=self.name,
            incarnation=self.incarnation,
            store=self.store.id,
            feed=self.store.head,
            slots=self._slots,
            resources=self._resources,
            labels=self._labels,
            confines=self._confining.confines,
            draining=self.core.draining,
            queued=self.core.queued,
            running=self.core.running,
            version=__version__,
            protocol=PROTOCOL,
        )

    def _tell_state(self) -> None:
        self.bus.put(self.keys.state("runtime", self.name), encode(self.info()), priority=Priority.CONTROL)

    def _answer_state(self, query: Query) -> None:
        state = from_json(encode(self.info())) | {
            "role": "runtime",
            "insecure": self._settings.insecure,
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=self.keys.state("runtime", self.name))
        query.finish()


def _without_starts_of_finished(effects: list[RuntimeEffect]) -> list[RuntimeEffect]:
    """Leave out the fact that a task has started where the same commit has its finish, which says when it started."""
    finished = {e.fact.id for e in effects if isinstance(e, do.Append) and e.fact.kind is FactKind.FINISHED}
    if not finished:
        return effects
    return [
        e
        for e in effects
        if not (isinstance(e, do.Append) and e.fact.kind is FactKind.STARTED and e.fact.id in finished)
    ]


def _log_fact(fact: Fact, cause: str) -> None:
    """Say what became of a task: at debug, so that thousands of short ones cost nothing; at info when it did not succeed."""
    if fact.kind is FactKind.STARTED:
        log.debug("task started", run=fact.run, worker=fact.worker, attempt=fact.attempt, cause=cause, pid=fact.pid)
        return
    say = log.debug if fact.status is TaskStatus.SUCCEEDED else log.info
    say(f"task {fact.status}", run=fact.run, worker=fact.worker, attempt=fact.attempt, cause=cause, reason=fact.error)


def _log_rows(assignment: Assignment, at: Layout, now: float) -> Iterable[tuple[str, str, str, int, str, str, float]]:
    for stream, path in (("stdout", at.stdout), ("stderr", at.stderr)):
        yield assignment.workflow, assignment.worker, assignment.run, assignment.attempt, stream, path, now


def _row(blob: Blob) -> BlobRow:
    return BlobRow(blob.digest, str(blob.path), blob.size, blob.mtime_ns)
