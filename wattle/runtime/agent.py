"""The runtime agent: trio, bus, store, spawner and files around RuntimeCore.

What happens goes into the loop's mailbox; a batch is handled by the core, committed together with the feed entry it makes, and
only then acted upon: commands answered, facts published, processes started.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager

import trio
from pydantic_core import from_json, to_json

from wattle import __version__
from wattle.bus.base import Bus, Priority, Query
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.effects import RuntimeEffect
from wattle.core.events import RuntimeEvent
from wattle.core.model import Assignment, Fact, FactKind, NodeInfo, TaskId, TaskStatus
from wattle.core.runtime import RuntimeCore, RuntimeOptions
from wattle.core.states import Phase
from wattle.logs import get_logger
from wattle.peer.anew import Anew, tell_anew
from wattle.peer.claiming import keep_name
from wattle.peer.copies import CopyDesk
from wattle.peer.feeds import FeedPublisher
from wattle.peer.loop import LINGER, Loop, wall_clock
from wattle.peer.presence import Presence, new_incarnation
from wattle.peer.probing import probing
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import (
    PROTOCOL,
    TaskAnswer,
    encode,
)
from wattle.protocol.records import timestamp
from wattle.protocol.verbs import OF_RUNTIMES
from wattle.runtime import outcomes
from wattle.runtime.capacity import detect
from wattle.runtime.commands import Commands
from wattle.runtime.confining import Confining
from wattle.runtime.files import Files
from wattle.runtime.launching import Starting
from wattle.runtime.layout import Folders, Layout
from wattle.runtime.output import Logs
from wattle.runtime.processes import (
    Exited,
    Held,
    ProcessEvent,
    Skipped,
    SpawnerLost,
    SpawnFailed,
    Started,
    kill_orphans,
    open_processes,
)
from wattle.runtime.pruning import Pruning
from wattle.runtime.secrets import Secrets
from wattle.runtime.spawning import Spawning
from wattle.runtime.staging import Staging
from wattle.settings import RuntimeSettings
from wattle.store.runtime import RuntimeStore

LINE_SECONDS = 2 * outcomes.LINGER
"""Seconds of short tasks that the spawner is given ahead (core/lineup.py). It tells of them LINGER seconds late, and no slot is to idle
until it is given more."""

LEAVE_LINGER = 0.5
"""Seconds a leaving runtime still answers, so that followers who missed its last facts can ask for them."""

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
        self.core = RuntimeCore(RuntimeOptions(self._slots, resources, settings.queue_patience, LINE_SECONDS))
        self._settings = settings
        self._starting = spawner
        self._folders = Folders(settings.data)
        self._confining = Confining(settings, self._folders)
        self._secrets = Secrets(settings.secrets_file)
        self._loop: Loop[RuntimeEvent] = Loop(self._step, on.Tick, wall_clock)
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
        with self.store.transaction():
            self.core.copies.cursors = self.store.copies.take_up()
        die = self._settings.die_with_runtime
        if self._confining.demanded:
            await trio.to_thread.run_sync(self._confining.examine)
        async with (
            trio.open_nursery() as nursery,
            open_processes(
                self._folders.data, self._process_events, die_with_runtime=die, starting=self._starting
            ) as processes,
        ):
            self._processes = processes
            files = Files(
                self.bus, self.keys, self.name, self._folders, self.store, while_in_sight=self._while_in_sight
            )
            self._staging = Staging(self._folders, files, self._confining, self._loop, nursery)
            self._spawning = Spawning(self._folders, self._confining, self._secrets, self._loop, processes)
            self._logs = Logs(self.bus, self.keys, self._folders, self._running_tasks, self._has_ended, self._secrets)
            self._feed = FeedPublisher(
                self.bus, self.keys, self.name, self.store.id, lambda: self.store.head, self.store.feed
            )
            nursery.start_soon(self._loop.run)
            nursery.start_soon(self._logs.run)
            self._pruning = Pruning(
                self.bus, self.keys, self._folders, self.store, self.core, self._spawning.log_folders.discard
            )
            nursery.start_soon(self._pruning.run)
            self._commands = Commands(
                self.name, self.keys, self.core, self.store, self._desk, self._loop, self._pruning, self.info
            )
            nursery.start_soon(self._anew.run)
            self._act(self.core.resume_collecting())
            declarations = [
                files.serve(),
                self.bus.serve(self.keys.state("runtime", self.name), self._answer_state),
                *(self.bus.serve(self.keys.cmd(self.name, verb), self._commands.take) for verb in OF_RUNTIMES),
            ]
            self._presence = Presence(self.bus, self.keys, self._peer_changed)
            me = Alive("runtime", self.name, self.incarnation)
            await nursery.start(probing, me, self.bus, self.keys, self._presence)
            declarations.append(self.bus.declare_alive(self.keys.alive(*me)))
            nursery.start_soon(keep_name, me, self.bus, self.keys)
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
        spawns = self._spawning.lay_out(e for e in effects if isinstance(e, do.Spawn))
        blobs, self._staging.blobs = self._staging.blobs, []
        with self.store.transaction():
            facts = self.store.save(effects)
            self.store.save_logs(row for spawn, at in spawns for row in _log_rows(spawn.assignment, at, now))
            self.store.save_blobs(blobs)
        if facts:
            self.store.head += 1
            self._feed.publish(self.store.head, facts)
            for fact in facts:
                _log_fact(fact, f"{self.name}#{self.store.head}")
        self._spawning.spawn(spawns)
        self._act(effects)
        for event in events:
            if isinstance(event, on.Assigned | on.CancelAsked):
                self._commands.answer(event.token)
            elif isinstance(event, on.Drain | on.Resume):
                self._commands.answer_order()

    def _act(self, effects: Iterable[RuntimeEffect]) -> None:
        acknowledged: list[TaskId] = []
        for effect in effects:
            match effect:
                case do.Answer(token, task, code, reason, epoch, owner):
                    self._commands.questions[token][1].append(TaskAnswer(*task, code, reason, epoch, owner))
                case do.AnswerClaim(token, refused):
                    self._commands.answer_claim(token, refused)
                case do.AnswerKeep(token, number):
                    self._commands.answer_keep(token, number)
                case do.Acknowledge(task):
                    acknowledged.append(task)
                case do.Prepare(assignment):
                    self._staging.prepare(assignment)
                case do.Collect(assignment):
                    self._staging.collect(assignment)
                case do.Abandon(task):
                    self._staging.abandon(task)
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

    # --- processes ----------------------------------------------------------------------------------------------------

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
                case Exited(id, exit_code, signal, usage, at, signalled=signalled, reason=reason, heir=heir):
                    self._loop.post(on.ProcessExited(id, exit_code, signal, usage, at, signalled, reason, heir))
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
        known.update(held.waiting)
        lost = [
            t.held
            for id, t in self.core.tasks.items()
            if t.held.phase in (Phase.STARTING, Phase.RUNNING) and id not in known
        ]
        if lost:
            log.warning("tasks lost with their spawner", tasks=[str(t.assignment.id) for t in lost])
            kill_orphans([(t.pid, t.started_at) for t in lost if t.pid is not None and t.started_at is not None])
            self._loop.post(on.ProcessesLost(tuple(t.assignment.id for t in lost)))
        self._loop.post(on.StillWaiting(held.waiting))

    def _running_tasks(self) -> list[TaskId]:
        return [id for id, t in self.core.tasks.items() if t.held.phase in (Phase.STARTING, Phase.RUNNING)]

    def _has_ended(self, task: TaskId) -> bool:
        held = self.core.tasks.get(task)
        return held is None or held.held.phase is Phase.COLLECTING

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
