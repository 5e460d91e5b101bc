"""The coordinator agent: trio, bus and store around CoordinatorCore.

What happens goes into the loop's mailbox as (event, done) pairs; a batch is handled by the core, committed, and only then acted
upon: commands sent, requests answered (``done``), events published.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable

import trio
from pydantic import ValidationError
from pydantic_core import to_json

from wattle import __version__
from wattle.bus.base import Bus, Query, Sample
from wattle.coordinator.dispatch import Dispatch
from wattle.coordinator.requests import Requests
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import CoordinatorEffect
from wattle.core.events import CoordinatorEvent
from wattle.core.model import Fact, NodeInfo, Snapshot
from wattle.document.compile import compile_document
from wattle.document.model import Document
from wattle.errors import InvalidRequest, Unavailable, WattleError
from wattle.logs import get_logger
from wattle.peer.asking import ask
from wattle.peer.feeds import FeedFollower
from wattle.peer.loop import LINGER, Loop, wall_clock
from wattle.peer.presence import Presence, new_incarnation
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import PROTOCOL, HeldQuestion, HeldTasks, decode, encode
from wattle.protocol.records import RunView, as_json, timestamp
from wattle.settings import CoordinatorSettings
from wattle.store.coordinator import CoordinatorStore

Done = Callable[[], None]
Item = tuple[CoordinatorEvent, Done | None]

FEED_CHECK = 5.0
"""Seconds between questions to nodes with open tasks whether their feeds have gone on, should the last hint have been lost."""

WORK_AHEAD = 4 * LINGER
"""Seconds of waiting work that make a node's news less than urgent: they are then handled some at a time."""

JOIN_RETRY = 2.0
"""Seconds between attempts to join a runtime that is in sight and does not answer."""

log = get_logger("wattle.coordinator")


class CoordinatorAgent:
    """One coordinator; ``run`` is its life."""

    def __init__(self, name: str, settings: CoordinatorSettings, bus: Bus, store: CoordinatorStore) -> None:
        self.name, self.bus, self.store = name, bus, store
        self.keys = Keys(settings.namespace)
        self.incarnation = new_incarnation()
        options = CoordinatorOptions(
            lost_after=settings.lost_after,
            prefetch_window=settings.prefetch_window,
            max_losses=settings.max_losses,
            max_reproduced=settings.max_reproduced,
        )
        self.max_runs = settings.max_runs
        self.core = CoordinatorCore(name, options, random.random)
        self._timeout = settings.command_timeout
        self._loop: Loop[Item] = Loop(self._step, lambda: (on.Tick(), None), wall_clock)
        self._events = bus.publisher(self.keys.events)

    def post(self, event: CoordinatorEvent, done: Done | None = None) -> None:
        """Have the core handle an event; ``done`` is called once what follows from it is committed."""
        urgent = not isinstance(event, on.Delivered)  # nobody waits for what follows from that
        self._loop.post((event, done), urgent=urgent)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up unfinished runs, then serve until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._requests = Requests(self, nursery)
            self._dispatch = Dispatch(self.bus, self.keys, self.name, nursery, self.post, timeout=self._timeout)
            cursors = self.store.cursors()
            self._follower = FeedFollower(self.bus, self.keys, nursery, cursors, self._learn, timeout=self._timeout)
            self._restore()
            nursery.start_soon(self._loop.run)
            nursery.start_soon(self._check_feeds)
            declarations = [
                self.bus.subscribe(self.keys.state("runtime"), self._node_changed),
                self.bus.serve(self.keys.state("coordinator", self.name), self._answer_state),
                self.bus.serve(self.keys.cmd(self.name, "*"), self._requests.handle),
            ]
            self._presence = Presence(self.bus, self.keys, self._peer_changed)
            declarations.append(self.bus.declare_alive(self.keys.alive("coordinator", self.name, self.incarnation)))
            log.info("coordinator ready", unfinished=len(self.core.runs))
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for declaration in reversed(declarations):
                    declaration.undeclare()
                self._presence.close()
                self._follower.close()
                self._events.undeclare()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _step(self, items: list[Item], now: float) -> None:
        self.core.announcing = heard = self._events.matching
        effects = self.core.handle((event for event, _ in items), now)
        with self.store.transaction():
            self.store.save(effects)
        self._act(effects, heard)
        for _, done in items:
            if done is not None:
                done()

    def _act(self, effects: Iterable[CoordinatorEffect], heard: bool) -> None:
        for effect in effects:
            match effect:
                case do.Assign():
                    self._dispatch.assign(effect)
                case do.Cancel():
                    self._dispatch.cancel(effect)
                case do.SetTimer():
                    self._loop.set_timer(effect.at)
                case do.AnnounceRun():
                    self._announce_run(effect, heard)
                case do.AnnounceWorker() if heard:
                    self._announce_worker(effect)

    def _announce_run(self, effect: do.AnnounceRun, heard: bool) -> None:
        run = effect.run
        log.info("run " + run.status, run=run.id, workflow=run.workflow, epoch=run.epoch, reason=run.error_message)
        if run.status.final:
            self._requests.release(run.id)
        if heard:
            view = RunView(
                id=run.id,
                workflow=run.workflow,
                status=run.status,
                created_at=timestamp(run.created_at) or "",
                started_at=timestamp(run.started_at),
                completed_at=timestamp(run.completed_at),
                owner=run.owner,
                epoch=run.epoch,
                counts=run.counts,
                error_message=run.error_message,
            )
            self.bus.put(self.keys.event_run(run.id), to_json(as_json(view)))

    def _announce_worker(self, effect: do.AnnounceWorker) -> None:
        worker = effect.worker
        event = {
            "run": worker.run,
            "name": worker.name,
            "status": worker.status,
            "node": effect.node,
            "attempt": worker.attempts,
            "error_message": worker.error_message,
            "unreachable": effect.unreachable,
            "at": timestamp(self.core.now),
        }
        self.bus.put(self.keys.event_worker(worker.run, worker.name), to_json(event))

    def _restore(self) -> None:
        for run_id in self.store.unfinished():
            row = self.store.run(run_id)
            if row is None or row.owner != self.name:
                continue
            try:
                snapshot = self.snapshot(run_id, row.document, row.params)
            except (
                WattleError,
                ValidationError,
            ) as error:  # stored by an older version that took what this one does not
                log.error("run cannot be taken up; it stays as it is", run=run_id, reason=str(error))
                continue
            self.post(on.Restore(snapshot))

    def snapshot(self, run_id: str, digest: str, params: str) -> Snapshot:
        """A stored run for the core to take up."""
        workflow = compile_document(Document.model_validate(self.store.document(digest)), json.loads(params))
        return self.store.snapshot(run_id, workflow)

    # --- runtimes coming and going --------------------------------------------------------------------------------------

    def _peer_changed(self, peer: Alive, alive: bool) -> None:
        if peer.role != "runtime":
            return
        if alive:
            self._nursery.start_soon(self._join, peer)
        elif self._presence.incarnation("runtime", peer.peer) is None:
            log.warning("node unreachable", node=peer.peer)
            self._follower.leave(peer.peer)
            self.post(on.NodeUnreachable(peer.peer, peer.incarnation))

    async def _join(self, peer: Alive) -> None:
        """Get to know a runtime in sight: who it is, what it holds, what its feed tells; again until it answers or is gone."""
        while self._presence.incarnation("runtime", peer.peer) == peer.incarnation:
            try:
                if await self._meet(peer):
                    return
            except WattleError as error:
                log.warning("node in sight does not answer", node=peer.peer, reason=error.message)
            await trio.sleep(JOIN_RETRY)

    async def _meet(self, peer: Alive) -> bool:
        reply = await ask(self.bus, self.keys.state("runtime", peer.peer), timeout=self._timeout)
        info = decode(NodeInfo, reply.payload)
        if info.protocol != PROTOCOL:
            raise Unavailable(
                f"it speaks protocol {info.protocol} (Wattle {info.version}), this coordinator {PROTOCOL} ({__version__})"
            )
        question = encode(HeldQuestion(self.name))
        reply = await ask(self.bus, self.keys.cmd(peer.peer, "held"), question, timeout=self._timeout)
        held = {ref.id: ref.epoch for ref in decode(HeldTasks, reply.payload).tasks}
        if not await self._follower.join(peer.peer, info.store):
            return False
        log.info("node joined", node=info.name, slots=info.slots, held=len(held))
        self.post(on.NodeSeen(info, held))
        return True

    def _node_changed(self, sample: Sample) -> None:
        if sample.payload is None:
            return
        try:
            info = decode(NodeInfo, sample.payload)
        except InvalidRequest as error:
            log.warning("state not understood", key=sample.key, reason=error.message)
            return
        if sample.key == self.keys.state("runtime", info.name):  # a peer speaks for itself only
            self.post(on.NodeChanged(info))

    def _learn(self, node: str, store: str, number: int, facts: tuple[Fact, ...]) -> None:
        self._loop.post((on.FactsLearned(node, store, number, facts), None), urgent=not self._has_work(node))

    def _has_work(self, name: str) -> bool:
        """Whether a node has enough waiting that what it has done may wait for company before it gets more."""
        node = self.core.nodes.get(name)
        if node is None or node.mean_seconds is None:
            return False
        ahead = len(node.tasks) - node.info.slots
        return ahead * node.mean_seconds > WORK_AHEAD * node.info.slots

    async def _check_feeds(self) -> None:
        while True:
            await trio.sleep(FEED_CHECK)
            for name, node in self.core.nodes.items():
                if node.tasks:
                    self._follower.check(name)

    # --- about itself -------------------------------------------------------------------------------------------------

    def _answer_state(self, query: Query) -> None:
        state = {
            "role": "coordinator",
            "name": self.name,
            "incarnation": self.incarnation,
            "namespace": self.keys.namespace,
            "version": __version__,
            "protocol": PROTOCOL,
            "active_runs": len(self.core.runs),
            "nodes": len(self.core.nodes),
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=self.keys.state("coordinator", self.name))
        query.finish()
