"""The coordinator agent: trio, bus and store around CoordinatorCore.

What happens goes into the loop's mailbox as (event, done) pairs; a batch is handled by the core, committed, and only then acted
upon: commands sent, requests answered (``done``), events published.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count

import trio
from pydantic import ValidationError
from pydantic_core import to_json

from wattle import __version__
from wattle.bus.base import Bus, Query, Sample
from wattle.collector import paused
from wattle.coordinator.copying import Copying
from wattle.coordinator.dispatch import Dispatch
from wattle.coordinator.journal import Journal
from wattle.coordinator.neighbours import Neighbours
from wattle.coordinator.requests import Requests
from wattle.coordinator.retention import Retention
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import CoordinatorEffect
from wattle.core.events import CoordinatorEvent
from wattle.core.model import CopyPage, Fact, FactKind, NodeInfo, RunHead, RunRecord, Snapshot
from wattle.core.placement import NodeStatus
from wattle.document.compile import compile_document
from wattle.document.model import Document
from wattle.errors import InvalidRequest, WattleError
from wattle.logs import get_logger
from wattle.peer.asking import refuse
from wattle.peer.claiming import keep_name
from wattle.peer.copies import CopyDesk
from wattle.peer.feeds import FeedFollower
from wattle.peer.loop import Loop, wall_clock
from wattle.peer.presence import new_incarnation
from wattle.peer.probing import Probe
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import PROTOCOL, KeepAnswer, decode, encode
from wattle.protocol.records import RunView, timestamp
from wattle.protocol.verbs import COPIES, KEEP, PROBE, PRUNED
from wattle.settings import CoordinatorSettings
from wattle.store.coordinator import CoordinatorStore

Done = Callable[[], None]
Item = tuple[CoordinatorEvent, Done | None]

FEED_CHECK = 5.0
"""Seconds between questions to nodes with open tasks of which nothing was heard meanwhile, whether their feeds have gone on, should the
last hint have been lost; and to those whose last question had no answer, as long as they are in sight."""

FEED_TURNS = 12
"""After as many of these times every node in sight has been asked once: it may have run what another owner gave out when the run had ended
here, and the hint of how that ended may be lost."""

COLLECTED = 0.02
"""Seconds that the news of a node with enough work before it are collected, so that there are many to a commit."""

WORK_AHEAD = 4 * COLLECTED
"""Seconds of waiting work that are enough."""

log = get_logger("wattle.coordinator")


class CoordinatorAgent:
    """One coordinator; ``run`` is its life."""

    def __init__(
        self,
        name: str,
        settings: CoordinatorSettings,
        bus: Bus,
        store: CoordinatorStore,
        *,
        companions: frozenset[str] = frozenset(),
    ) -> None:
        self.name, self.bus, self.store = name, bus, store
        self.keys = Keys(settings.namespace)
        self._insecure = settings.insecure
        self.incarnation = new_incarnation()
        options = CoordinatorOptions(
            lost_after=settings.lost_after,
            prefetch_window=settings.prefetch_window,
            max_losses=settings.max_losses,
            max_reproduced=settings.max_reproduced,
            adopt_after=settings.adopt_after,
            replicas=settings.replicas,
            quorum=settings.quorum,
            companions=companions,
        )
        self.max_runs = settings.max_runs
        store.owner = name
        self.core = CoordinatorCore(
            name, options, random.random, store=store.id, number=store.number, settled=store.settled
        )
        with store.transaction():
            self.core.copies.cursors = store.copies.take_up()
        self._journal = Journal(store, self.core)
        self._unsettled: deque[tuple[int, Done]] = deque()  # what is to be done once a commit is on other stores
        self._ends: Counter[str] = Counter()  # in the mailbox, by node
        self._pages: dict[int, tuple[Query, CopyPage]] = {}  # copies to be kept
        self._neighbours: Neighbours
        self._timeout, self._keep_for = settings.command_timeout, settings.retention
        self._loop: Loop[Item] = Loop(self._step, lambda: (on.Tick(), None), wall_clock)
        self._events = bus.publisher(self.keys.events)

    def post(self, event: CoordinatorEvent, done: Done | None = None) -> None:
        """Have the core handle an event; ``done`` is called once what follows from it is committed, here and on other stores."""
        within = COLLECTED if isinstance(event, on.Delivered) else 0.0  # nobody waits for what follows from that
        self._loop.post((event, done), within=within)

    def when_settled(self, number: int, done: Done) -> None:
        """Call ``done`` once a commit is on other stores too; at once when it is."""
        if number <= self.core.settled:
            done()
        else:
            self._unsettled.append((self.core.number, done))

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up unfinished runs, then serve until cancelled."""
        try:
            await self._serve(task_status)
        finally:
            self._events.undeclare()  # not before the last batch

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.retention = Retention(
                self.bus,
                self.keys,
                self.core,
                self.store,
                nursery,
                self.post,
                retention=self._keep_for,
                timeout=self._timeout,
            )
            self._requests = Requests(self, nursery)
            cursors = self.store.cursors()
            self._follower = FeedFollower(self.bus, self.keys, nursery, cursors, self._learn, timeout=self._timeout)
            heard = self._follower.check
            self._dispatch = Dispatch(self.bus, self.keys, self.name, nursery, self.post, heard, timeout=self._timeout)
            self._desk = CopyDesk(
                self.store.copies,
                self.store.transaction,
                self._sees,
                self.core.copies,
                self._own_heads,
                lambda owner, store: self.post(on.OwnerInquired(owner, store)),
            )
            self._copying = Copying(
                self.bus,
                self.keys,
                self.name,
                self.store,
                self._journal,
                self._desk,
                nursery,
                self.post,
                timeout=self._timeout,
            )
            self._restore()
            self.core.succession.look(self.name)
            nursery.start_soon(self._loop.run)
            nursery.start_soon(self._check_feeds)
            nursery.start_soon(self.retention.run)
            declarations = [
                self.bus.subscribe(self.keys.state("runtime"), self._node_changed),
                self.bus.serve(self.keys.state("coordinator", self.name), self._answer_state),
                self.bus.serve(self.keys.cmd(self.name, "*"), self._command),
            ]
            self._neighbours = Neighbours(
                self.bus, self.keys, self.core, self.store, self._follower, nursery, self.post, timeout=self._timeout
            )
            me = Alive("coordinator", self.name, self.incarnation)
            self._probe = Probe(me, self.bus, self.keys, self._neighbours.presence)
            declarations.append(self.bus.declare_alive(self.keys.alive(*me)))
            nursery.start_soon(keep_name, me, self.bus, self.keys)
            log.info("coordinator ready", unfinished=len(self.core.runs))
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                for declaration in reversed(declarations):
                    declaration.undeclare()
                self._neighbours.close()
                self._follower.close()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _step(self, items: list[Item], now: float) -> None:
        self._ends.clear()
        self.core.announcing = heard = self._events.matching
        with paused():
            effects = self.core.handle((event for event, _ in items), now)
            number = self.core.number
            if any(isinstance(effect, do.COORDINATOR_SAVES) for effect in effects):
                with self.store.transaction():
                    self.store.save(effects, number)
        if number != self.store.number:
            self.store.number = number
            self._journal.note(number, effects)
        else:  # perhaps a follower has come further
            self._journal.forget()
        self._act(effects, heard)
        self._unsettled += ((number, done) for _, done in items if done is not None)
        settled = self.core.settled
        while self._unsettled and self._unsettled[0][0] <= settled:
            self._unsettled.popleft()[1]()

    def _act(self, effects: Iterable[CoordinatorEffect], heard: bool) -> None:
        for effect in effects:
            match effect:
                case do.Assign():
                    self._dispatch.assign(effect)
                case do.Cancel():
                    self._dispatch.cancel(effect)
                case do.Withdraw():
                    self._dispatch.withdraw(effect)
                case do.SetTimer():
                    self._loop.set_timer(effect.at)
                case do.ReadAgain():
                    self._follower.read_again(effect.but)
                case do.Ship():
                    self._copying.ship(effect)
                case do.Ask():
                    self._copying.ask_follower(effect)
                case do.AnnounceRun() if effect.run.status.final:
                    self._unsettled.append((self.core.number, partial(self._announce_end, effect.run)))
                case do.AnnounceRun():
                    log.debug("run " + effect.run.status, run=effect.run.id, workflow=effect.run.workflow)
                    if heard:
                        self._tell_run(effect.run)
                case do.AnnounceReleased():
                    log.warning("run has another owner", run=effect.run, owner=effect.owner)
                    self._requests.turn_away(effect.run)
                case do.AnswerKeep():
                    self._answer_keep(effect)
                case do.Claim():
                    self._neighbours.claim(effect)
                case do.AskCopies():
                    self._copying.ask(effect)
                case do.Gather():
                    self._copying.gather(effect)
                case do.Forget():
                    self._copying.forget(effect)
                case do.AnnounceWorker() if heard:
                    self._announce_worker(effect)

    def _announce_end(self, run: RunRecord) -> None:
        row = self.store.run(run.id)
        if row is None or (row.status, row.retried) != (run.status, run.retried):
            return  # by the time it may be told it is another owner's, or goes on again
        self._requests.release(row)
        if self._events.matching:
            self._tell_run(run)
        log.info("run " + run.status, run=run.id, workflow=run.workflow, epoch=run.epoch, reason=run.error_message)

    def _tell_run(self, run: RunRecord) -> None:
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
        self.bus.put(self.keys.event_run(run.id), to_json(view))

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
        for owner, runs in self.store.of_others().items():
            fix = f"to have them, start it with the --name it had when they were made: {owner}"
            log.warning("runs here belong to another name, and are not served", owner=owner, runs=runs, fix=fix)
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

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, query: Query) -> None:
        verb = self.keys.cmd_verb(query.key)
        try:
            if verb == KEEP:
                self._keep(query)
            elif verb == PROBE:
                self._nursery.start_soon(self._probe.answer, query)
            elif verb in COPIES:
                self._reply(query, self._desk.answer(verb, query.payload))
            elif verb == PRUNED:
                answer = self.retention.answer(query)
                if answer is None:
                    query.finish()
                else:
                    self._reply(query, answer)
            else:
                self._requests.handle(query)
        except InvalidRequest as error:
            log.warning("command refused", key=query.key, reason=error.message)
            refuse(query, error)

    def _keep(self, query: Query) -> None:
        page = decode(CopyPage, query.payload)
        own = self._own_heads([copied.run for copied in page.runs if copied.head is not None])
        self._pages[id(query)] = query, page
        self.post(on.Keep(id(query), page, tuple(own)))

    def _answer_keep(self, effect: do.AnswerKeep) -> None:
        query, page = self._pages.pop(effect.token)
        self._reply(query, encode(KeepAnswer(effect.number, self.store.id, self._desk.better(page))))

    def _sees(self) -> list[str]:
        return [self.name, *self._neighbours.presence.names("coordinator")]

    def _own_heads(self, runs: Sequence[str]) -> list[RunHead]:
        heads = (self.store.owned.head(run) for run in runs)
        return [head for head in heads if head is not None]

    def _reply(self, query: Query, payload: bytes) -> None:
        query.reply(payload, key=self.keys.cmd(self.name, self.keys.cmd_verb(query.key)))
        query.finish()

    # --- runtimes coming and going --------------------------------------------------------------------------------------

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

    def _learn(self, node: str, store: str, number: int, facts: tuple[Fact, ...], first: bool) -> None:
        self._ends[node] += sum(fact.kind is FactKind.FINISHED for fact in facts)
        within = COLLECTED if self._has_work(node) else 0.0
        self._loop.post((on.FactsLearned(node, store, number, facts, first), None), within=within)

    def _has_work(self, name: str) -> bool:
        """Whether a node has enough waiting that what it has done may wait for company before it gets more."""
        node = self.core.nodes.get(name)
        if node is None or node.mean_seconds is None:
            return False
        ahead = len(node.tasks) - self._ends[name] - node.info.slots
        return ahead * node.mean_seconds > WORK_AHEAD * node.info.slots

    async def _check_feeds(self) -> None:
        for turn in count():
            await trio.sleep(FEED_CHECK)
            for number, (name, node) in enumerate(self.core.nodes.items(), turn):
                if node.tasks or node.ending or self._follower.is_behind(name) or number % FEED_TURNS == 0:
                    self._follower.check_quiet(name)
                if node.status is NodeStatus.DRAINING:  # that it takes work again may have been lost on the way
                    self._nursery.start_soon(self._neighbours.look, name)

    # --- about itself -------------------------------------------------------------------------------------------------

    def _answer_state(self, query: Query) -> None:
        state = {
            "role": "coordinator",
            "name": self.name,
            "incarnation": self.incarnation,
            "namespace": self.keys.namespace,
            "version": __version__,
            "protocol": PROTOCOL,
            "store": self.store.id,
            "commits": self.core.number,
            "settled": self.core.settled,
            "followers": {name: follower.kept for name, follower in self.core.replication.followers.items()},
            "active_runs": len(self.core.runs),
            "nodes": len(self.core.nodes),
            "insecure": self._insecure,
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=self.keys.state("coordinator", self.name))
        query.finish()
