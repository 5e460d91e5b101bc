"""A simulated coordinator: what the shell around the core does (wattle/coordinator), with plain calls for the network and plain data for
the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from tests.sim.peer import Item, Keeper, Peer
from tests.sim.stores import CoordinatorStore, Copies, Rows, snapshot_of
from tests.sim.world import Answer, World
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import CoordinatorEffect
from wattle.core.model import CopiedRun, CopyPage, Fact, NodeInfo, RunHead, RunRecord, TaskId, Workflow
from wattle.core.placement import NodeStatus

JOIN_RETRY = 2.0
FEED_CHECK = 5.0

SAVES = (
    do.CreateRun,
    do.SaveRun,
    do.SaveWorker,
    do.SaveTask,
    do.SaveCursor,
    do.SaveSettled,
    do.ReadAgain,
    do.SaveHolder,
    do.SaveLateFact,
    do.AdoptRun,
    do.ReleaseRun,
    do.SaveCopies,
)


Change = tuple[Rows | None, RunHead | None]
"""What a commit changed of a run: its rows (None: tell it whole), and the state that it then had."""


@dataclass(frozen=True)
class Located:
    """What a coordinator says of a run. ``peer`` is itself (name and data folder) where it has no state of it; ``others`` may have one."""

    here: bool
    end: RunRecord | None = None
    peer: tuple[str, str] | None = None
    others: frozenset[tuple[str, str]] = frozenset()


@dataclass
class Followed:
    """How far a node's feed has been read."""

    store: str
    number: int
    joined: bool = False
    behind: bool = False
    reading: bool = False


class Coordinator(Keeper):
    """See the module's docstring."""

    role = "coordinator"

    def __init__(self, world: World, name: str, options: CoordinatorOptions, *, journal: int = 1000) -> None:
        super().__init__(world, name)
        self.options = options
        self.disks = 0
        self.journal_length = journal
        self.page_rows = 10_000
        self.core: CoordinatorCore | None = None
        self.new_disk()

    def new_disk(self) -> None:
        """Put an empty disk in."""
        self.disks += 1
        self.store = CoordinatorStore(f"{self.name}#{self.disks}", self.name)

    def copies(self) -> Copies:
        return self.store.copies

    # --- life -----------------------------------------------------------------------------------------------------------

    def started(self) -> None:
        store = self.store
        self.world.checks.restarted(self)
        core = self.core = CoordinatorCore(
            self.name, self.options, self.world.rng.random, store=store.id, number=store.number, settled=store.settled
        )
        core.copies.cursors = store.copies.take_up()
        self._followed = {node: Followed(*cursor) for node, cursor in store.cursors.items()}
        self._journal: deque[tuple[int, dict[str, Change]]] = deque()
        self._journal_start = store.number
        self._anew: dict[str, int] = {}  # run -> the newest commit that adopted it or let it go
        self._unsettled: deque[tuple[int, Callable[[], None]]] = deque()
        self._keeping = {}
        self._telling: dict[str, object] = {}  # a follower -> the order to tell or ask it something that counts
        self._submitting: dict[str, list[Answer]] = {}
        self._commands: dict[str, list[CoordinatorEffect]] = {}
        self._sending: set[str] = set()
        self._token = 0
        for run in store.unfinished():
            self.post(on.Restore(store.snapshot(run)))
        core.succession.look(self.name)
        self.post(on.Tick())
        self.world.later(FEED_CHECK, self._check_feeds, self.life)

    def died(self) -> None:
        assert self.core is not None
        if (
            not self.core.options.replicas
        ):  # nobody waited for copies: what only it has told may be taken over from before
            self.world.checks.excused |= set(self.world.checks.at_risk([self.name]))
        self.core = None

    # --- batches --------------------------------------------------------------------------------------------------------

    def batch(self, items: list[Item]) -> None:
        core, world = self.core, self.world
        assert core is not None
        events = [event for event, _ in items]
        if world.tracing:
            for event in events:
                world.note(self.name, "<-", event)
        effects = core.handle(events, self.clock())
        saves = [effect for effect in effects if isinstance(effect, SAVES)]
        if self.dies_at_commit(saves, effects):
            return
        number = core.number
        if saves:
            before = {e.head.run for e in saves if isinstance(e, do.ReleaseRun)}
            before |= {c.run for e in saves if isinstance(e, do.SaveCopies) for c in e.page.runs}
            changed = self.store.commit(saves, number)
            world.checks.committed(self, saves, changed)
            for save in saves:
                if isinstance(save, do.ReadAgain):
                    for node, state in self._followed.items():
                        if node not in save.but:
                            again = self._followed[node] = Followed(state.store, 0, joined=state.joined)
                            if again.joined:
                                self._read(node, again, lambda _: None)
            for run in sorted(before):
                world.checks.removed(run)
            for save in saves:
                match save:
                    case do.CreateRun() if save.run.id in self._anew:
                        changed[save.run.id], self._anew[save.run.id] = None, number
                    case do.AdoptRun():
                        self._anew[save.snapshot.run.id] = number
                    case do.ReleaseRun(handing=False):
                        self._anew[save.head.run] = number
            self._journal.append((number, {run: (rows, self.store.head(run)) for run, rows in changed.items()}))
            while len(self._journal) > self.journal_length:
                self._journal_start = self._journal.popleft()[0]
        world.checks.coordinator(self, core)
        if world.tracing:
            for effect in effects:
                if not isinstance(effect, do.AnnounceWorker | do.SetTimer):
                    world.note(self.name, "->", effect)
        acts, crash = self.sent(effects[len(saves) :])
        for act in acts:
            self._act(act)
        if crash:
            self.crash()
            return
        self._unsettled += ((number, done) for _, done in items if done is not None)
        self._settle()

    def _settle(self) -> None:
        assert self.core is not None
        settled = self.core.settled
        while self._unsettled and self._unsettled[0][0] <= settled:
            self._unsettled.popleft()[1]()

    def _act(self, act: Any) -> None:
        match act:
            case do.SetTimer():
                self.set_timer(act.at)
            case do.AnnounceWorker():
                pass
            case do.Assign() | do.Cancel():
                self._command(act)
            case do.Withdraw():
                self._commands.pop(act.node, None)
            case do.Ship():
                self._ship(act)
            case do.Ask():
                self._ask_follower(act)
            case do.AnswerKeep():
                self.answer_keep(act.token, act.number)
            case do.AskCopies():
                self.world.looks += not act.owner
                self._ask_copies(act)
            case do.Gather():
                self._gather(act)
            case do.Forget():
                self.world.checks.dropped(self, act)
                if act.peer == self.name:
                    self.on_forget(act, lambda _: None)
                else:
                    self.ask(act.peer, "forget", act, lambda _: None)
            case do.Claim():
                self._claim(act)
            case do.AnnounceRun():
                if act.run.status.final:
                    core = self.core
                    assert core is not None
                    self._unsettled.append((core.number, lambda: self._tell_end(act.run)))
            case do.AnnounceReleased():
                pass
            case _:
                raise AssertionError(act)

    def _tell_end(self, run: RunRecord) -> None:
        """Publish how a run ended, unless another owner has it since."""
        rows = self.store.runs.get(run.id)
        if rows is not None and rows["run"] == run:
            self.world.checks.told(self, run)

    # --- requests of clients --------------------------------------------------------------------------------------------

    def on_locate(self, run: str, reply: Answer) -> None:
        """Whether the run is here, and how it ended once that is settled; else who may know it, as wattle/coordinator/requests.py says."""
        rows = self.store.runs.get(run)
        core = self.core
        assert core is not None
        if rows is None or run in core.ownership.handing:
            known = bool(self.store.copies.heads_of([run]))
            others = {*core.succession.coordinators.items(), *core.succession.may_own(run)}
            reply(Located(False, None, None if known else (self.name, self.store.id), frozenset(others)))
            return
        final = rows["run"].status.final and core.settled >= self.store.touched[run]
        if final:
            self.world.checks.told(self, rows["run"])
        reply(Located(True, rows["run"] if final else None))

    def on_submit(self, body: tuple[str, Workflow], reply: Answer) -> None:
        """Take a run, once."""
        run, workflow = body
        waiting = self._submitting.get(run)
        if waiting is not None:
            waiting.append(reply)
        elif run in self.store.runs:
            self._when_settled(run, "submit", reply)
        elif self.store.copies.heads_of([run]) or self.core.succession.fetching(run):  # type: ignore[union-attr]
            reply(False)
        else:
            self._submitting[run] = [reply]
            to_its_end = crc32(run.encode()) % 2 == 0
            self.post(on.Submit(run, workflow, (workflow, run), to_its_end), lambda: self._submitted(run))

    def _submitted(self, run: str) -> None:
        for reply in self._submitting.pop(run):
            self._answer(run, "submit", reply)

    def _when_settled(self, run: str, what: str, reply: Answer) -> None:
        assert self.core is not None
        self._unsettled.append((self.core.number, lambda: self._answer(run, what, reply)))
        self._settle()

    def _answer(self, run: str, what: str, reply: Answer, retried: int | None = None) -> None:
        if run not in self.store.runs:
            reply(False)  # another owner has got it meanwhile
            return
        core = self.core
        assert core is not None
        if what in ("cancel", "retry") and core.begun(run) > core.settled:
            self._unsettled.append((core.number, lambda: self._answer(run, what, reply, retried)))
            return
        self.world.checks.acknowledged(self, run, what, retried)
        reply(True)

    def on_cancel(self, run: str, reply: Answer) -> None:
        """Cancel a run of one's own."""
        rows = self.store.runs.get(run)
        if rows is None or run in self.core.ownership.handing:  # type: ignore[union-attr]
            reply(False)
        elif rows["run"].status.final:
            self._when_settled(run, "read", reply)
        else:
            retried = rows["run"].retried
            self.post(on.CancelRun(run), lambda: self._answer(run, "cancel", reply, retried))

    def on_retry(self, run: str, reply: Answer) -> None:
        """Retry a final run of one's own."""
        rows = self.store.runs.get(run)
        if rows is None or run in self.core.ownership.handing:  # type: ignore[union-attr]
            reply(False)
        elif not rows["run"].status.final or rows["run"].status == "succeeded":
            self._when_settled(run, "read", reply)
        else:
            retried = rows["run"].retried + 1
            self.post(on.RetryRun(self.store.snapshot(run)), lambda: self._answer(run, "retry", reply, retried))

    # --- commands -------------------------------------------------------------------------------------------------------

    def _command(self, effect: do.Assign | do.Cancel) -> None:
        self._commands.setdefault(effect.node, []).append(effect)
        if effect.node not in self._sending:
            self._sending.add(effect.node)
            self.world.later(1e-6, self._send, effect.node, self.life)

    def _send(self, node: str, life: int) -> None:
        if life != self.life or not self.up:
            return
        box = self._commands.pop(node, [])
        assigns = tuple(effect.assignment for effect in box if isinstance(effect, do.Assign))
        cancels = tuple((effect.task, effect.epoch) for effect in box if isinstance(effect, do.Cancel))
        if assigns:
            if cancels:
                self._commands[node] = [effect for effect in box if isinstance(effect, do.Cancel)]
            self.ask(node, "assign", (self.name, assigns), lambda answers: self._assigned(node, answers))
        elif cancels:
            self.ask(node, "cancel", (self.name, cancels), lambda answers: self._cancelled(node, answers))
        else:
            self._sending.discard(node)

    def _assigned(self, node: str, answers: list[do.Answer] | None) -> None:
        if answers is None:
            self.post(on.Undelivered(node))
        else:
            self.post(on.Delivered(node, tuple(a.task for a in answers if a.code == "OK")))
            for a in answers:
                if a.code != "OK":
                    self.post(on.Refused(node, a.task, a.code, a.reason, a.epoch, a.owner))
        self._send(node, self.life)

    def _cancelled(self, node: str, answers: list[do.Answer] | None) -> None:
        if answers is None:
            self.post(on.Undelivered(node))
        else:
            self.post(on.CancelAnswered(node, tuple(a.task for a in answers if a.code == "OK")))
            for a in answers:
                if a.code != "OK":
                    self.post(on.Refused(node, a.task, a.code, a.reason, a.epoch, a.owner))
            self._check_feed(node)
        self._send(node, self.life)

    # --- feeds ----------------------------------------------------------------------------------------------------------

    def hint(self, node: str, store: str, head: int, facts: tuple[Fact, ...]) -> None:
        """A node says that its feed has a new entry."""
        state = self._followed.get(node)
        if state is None or not state.joined or state.store != store:
            return
        if not state.reading:
            self._take(node, state, head, facts)
        state.behind = state.behind or head > state.number
        if state.behind and not state.reading:
            self._read(node, state, lambda _: None)

    def _take(self, node: str, state: Followed, number: int, facts: tuple[Fact, ...]) -> None:
        if number == state.number + 1:
            state.number = number
            self.post(on.FactsLearned(node, state.store, number, facts))

    def _read(self, node: str, state: Followed, done: Callable[[bool], None]) -> None:
        state.reading, state.behind = True, False
        store = state.store

        def answered(page: tuple[str, int, tuple[tuple[Fact, ...], ...]] | None) -> None:
            if page is None or page[0] != store or self._followed.get(node) is not state:
                state.reading, state.behind = False, True
                done(False)
                return
            _, after, entries = page
            for offset, facts in enumerate(entries):
                self._take(node, state, after + offset + 1, facts)
            if state.behind and state.joined:
                self._read(node, state, done)
                return
            state.reading = False
            done(True)

        self.ask(node, "feed", state.number, answered)

    def _check_feeds(self, life: int) -> None:
        core = self.core
        if life != self.life or core is None:
            return
        for name, node in core.nodes.items():
            if node.status is NodeStatus.DRAINING:
                self.ask(name, "state", None, self._still_draining)
            state = self._followed.get(name)
            if node.tasks or node.ending or (state is not None and state.behind):
                self._check_feed(name)
        self.world.later(FEED_CHECK, self._check_feeds, life)

    def check_all_feeds(self) -> None:
        """Ask every node whether its feed has gone on, as an agent does within a minute, by turns."""
        for name in self.core.nodes if self.core is not None else ():
            self._check_feed(name)

    def _check_feed(self, name: str) -> None:
        state = self._followed.get(name)
        if state is None or not state.joined:
            return
        if state.reading:
            state.behind = True
        else:
            self._read(name, state, lambda _: None)

    def _still_draining(self, info: NodeInfo | None) -> None:
        if info is not None:
            self.post(on.NodeChanged(info))

    # --- neighbours -----------------------------------------------------------------------------------------------------

    def token_changed(self, other: Peer, before: int, life: int) -> None:
        if other.role not in ("runtime", "coordinator"):
            return
        if before and other.role == "coordinator":
            self.post(on.CoordinatorGone(other.name, str(before)))
        elif before:
            if other.name in self._followed:
                self._followed[other.name].joined = False
            self.post(on.NodeUnreachable(other.name, str(before)))
        if life:
            self.post(on.TokenSeen(other.name, str(life)))
            self._join(other.name, life)

    def _join(self, name: str, life: int, again_in: int = 0) -> None:
        if again_in and again_in != self.life:
            return
        if not self.up or self.tokens.get(name) != life:
            return

        def failed() -> None:
            self.world.later(JOIN_RETRY, self._join, name, life, self.life)

        meet = self._meet_coordinator if self.world.peers[name].role == "coordinator" else self._meet_runtime
        meet(name, life, failed)

    def _meet_coordinator(self, name: str, life: int, failed: Callable[[], None]) -> None:
        def met(store: str | None) -> None:
            if store is None:
                failed()
            elif self.tokens.get(name) == life:
                self.post(on.CoordinatorSeen(name, str(life), store))

        self.ask(name, "state", None, met)

    def on_state(self, _: None, reply: Answer) -> None:
        """Which data folder this is."""
        reply(self.store.id)

    def _meet_runtime(self, name: str, life: int, failed: Callable[[], None]) -> None:
        """Who it is, what it holds, what its feed tells, and what it knows of runs that were taken up."""

        def told(info: NodeInfo | None) -> None:
            if info is None:
                failed()
                return
            claims = self.core.recall.claims()  # type: ignore[union-attr]

            def held(answer: tuple[Any, ...] | None) -> None:
                if answer is None:
                    failed()
                    return
                if answer[2]:
                    self.post(
                        on.RunsClaimed(name, {}, None, (), answer[2])
                    )  # before the facts of runs that others have now
                if self.tokens.get(name) != life:
                    failed()
                    return
                mine = self._held(answer)
                state = self._followed.get(name)
                if state is None or state.store != info.store:
                    state = self._followed[name] = Followed(info.store, 0)
                state.joined = True

                def read(good: bool) -> None:
                    if good:
                        self._learn_claimed(name, claims, answer, claimed)
                    else:
                        failed()

                def claimed(event: on.RunsClaimed | None) -> None:
                    if event is None or self.tokens.get(name) != life:
                        failed()
                        return
                    if claims:
                        self.post(on.RunsClaimed(name, event.runs, None, event.facts, event.refused))
                    self.post(on.NodeSeen(info, mine, event.runs))

                self._read(name, state, read)

            self.ask(name, "held", (self.name, claims), held)

        self.ask(name, "state", None, told)

    def _claim(self, effect: do.Claim) -> None:
        life = self.tokens.get(effect.node)

        def held(answer: tuple[Any, ...] | None) -> None:
            if answer is None:
                self.post(on.Undelivered(effect.node))
            else:
                self._learn_claimed(effect.node, effect.runs, answer, claimed)

        def claimed(event: on.RunsClaimed | None) -> None:
            if event is None or self.tokens.get(effect.node) != life:  # perhaps of a disk that is gone
                self.post(on.Undelivered(effect.node))
            else:
                self.post(event)

        self.ask(effect.node, "held", (self.name, effect.runs), held)

    def _learn_claimed(
        self,
        node: str,
        runs: tuple[tuple[str, int], ...],
        answer: tuple[Any, ...],
        done: Callable[[on.RunsClaimed | None], None],
    ) -> None:
        epochs = dict(runs)
        refused = answer[2]
        asked = tuple(sorted(epochs.keys() - {run for run, _, _ in refused}))
        held = {task: epoch for task, epoch in self._held(answer).items() if task.run in epochs}

        def told(facts: tuple[Fact, ...] | None) -> None:
            done(None if facts is None else on.RunsClaimed(node, epochs, held, facts, refused))

        if asked:
            self.ask(node, "facts", asked, told)
        else:
            told(())

    def _held(self, answer: tuple[Any, ...]) -> dict[TaskId, int]:
        """The open tasks that concern this coordinator, as in wattle/coordinator/neighbours.py."""
        mine, others, _ = answer
        held = dict(mine)
        for task, epoch in others:
            rows = self.store.runs.get(task.run)
            if rows is not None and task.run not in self.core.runs and epoch <= rows["run"].epoch:  # type: ignore[union-attr]
                held[task] = rows["run"].epoch
        return held

    # --- copies ---------------------------------------------------------------------------------------------------------

    def on_keep(self, page: CopyPage, reply: Answer) -> None:
        """Keep a page of another owner's."""
        self._token += 1
        self._keeping[self._token] = reply, page
        own = self._own_heads(copied.run for copied in page.runs if copied.head is not None)
        self.post(on.Keep(self._token, page, tuple(own)))

    def heads(self, effect: do.AskCopies) -> list[RunHead]:
        return [*super().heads(effect), *self._own_heads(effect.runs)]

    def on_copies(self, effect: do.AskCopies, reply: Answer) -> None:
        if effect.runs and effect.owner:
            self.post(on.OwnerInquired(effect.owner, effect.store))
        super().on_copies(effect, reply)

    def known(self, runs: list[str]) -> list[RunHead]:
        return [*super().known(runs), *self._own_heads(runs)]

    def _own_heads(self, runs: Iterable[str]) -> list[RunHead]:
        heads = (self.store.head(run) for run in runs)
        return [head for head in heads if head is not None]

    def sees(self) -> frozenset[str]:
        return super().sees() | {self.name}

    def on_copy(self, key: tuple[str, str, str], reply: Answer) -> None:
        if key[:2] == (self.name, self.store.id):
            rows = self.store.runs.get(key[2])
            reply(None if rows is None else dict(rows))
        else:
            super().on_copy(key, reply)

    def _ask_copies(self, effect: do.AskCopies) -> None:
        def told(answer: tuple[tuple[RunHead, ...], frozenset[str]] | None) -> None:
            if answer is None:
                self.post(on.CopiesUntold(effect.peer, effect.token))
            else:
                self.post(on.CopiesTold(effect.peer, effect.token, *answer))

        if effect.peer == self.name:
            super().on_copies(effect, told)  # as in wattle/coordinator/copying.py
        else:
            self.ask(effect.peer, "copies", effect, told)

    def _gather(self, effect: do.Gather) -> None:
        head = effect.head

        def told(rows: Rows | None) -> None:
            try:
                snapshot = None if rows is None else snapshot_of(rows)
            except KeyError:
                snapshot = None
            if snapshot is None:
                self.post(on.NotGathered(head))
            else:
                self.world.faults["adoption"] += 1
                left, own = self.store.left.get(head.run, 0), self.store.head(head.run)
                self.post(on.Gathered(head, effect.epoch, snapshot, left, own))

        key = (head.owner, head.store, head.run)
        if effect.peer == self.name:
            self.on_copy(key, told)
        else:
            self.ask(effect.peer, "copy", key, told)

    def _ship(self, effect: do.Ship) -> None:
        peer, after = effect.peer, effect.after
        pages = iter(self.pages(after))
        life = self.tokens.get(peer)
        heads: list[RunHead] = []
        self._telling[peer] = effect

        def send(kept: int, heard: int) -> None:
            if self.tokens.get(peer) != life:
                self.post(on.NotKept(peer))  # the parts before went to another life of it, perhaps on another disk
                return
            page = next(pages, None)
            if page is None:
                self._kept(peer, kept, heads, after, heard)
                return

            def answered(answer: tuple[int, tuple[RunHead, ...]] | None) -> None:
                if self._telling.get(peer) is not effect:
                    return  # it is told all anew
                if answer is None:
                    self.post(on.NotKept(peer))
                    return
                number, better = answer
                heads.extend(better)
                if number != page.number:
                    self._kept(peer, number, heads, after, heard)  # it is not where it was thought to be
                else:
                    send(number, page.number)

            self.ask(peer, "keep", page, answered)

        send(after, after)

    def _ask_follower(self, effect: do.Ask) -> None:
        since, heard = effect.since, self.store.number
        runs = () if since is None else [run for _, run in self.store.changed_after(since)]
        asked = tuple(CopiedRun(head.run, head.number, (), head) for head in self._own_heads(runs))
        self._telling[effect.peer] = effect

        def answered(answer: tuple[int, tuple[RunHead, ...]] | None) -> None:
            if self._telling.get(effect.peer) is not effect:
                return  # it has been told something since
            if answer is None:
                self.post(on.NotKept(effect.peer))
            else:
                self._kept(effect.peer, answer[0], answer[1], since or 0, heard)

        self.ask(effect.peer, "keep", CopyPage(self.name, self.store.id, -1, -1, asked), answered)

    def _kept(self, peer: str, number: int, heads: Sequence[RunHead], since: int, heard: int) -> None:
        own = self._own_heads(head.run for head in heads)
        self.post(on.Kept(peer, number, tuple(heads), tuple(own), since, heard))

    def pages(self, after: int) -> Iterable[CopyPage]:
        """Pages that bring a follower from ``after`` to what is committed now: from memory for those who are close, else from the store."""
        begun = self.store.number
        for part, page in enumerate(self._pages(after)):
            yield replace(page, part=part, begun=begun)

    def _pages(self, after: int) -> Iterable[CopyPage]:
        if after < self._journal_start:
            yield from self._from_store(after)
            return
        merged: dict[str, Change] = {}
        count, number = 0, after
        for commit, changes in self._journal:
            if commit <= after:
                continue
            if count >= self.page_rows:
                break
            for run, (rows, head) in changes.items():
                if self._anew.get(run, 0) > commit:
                    continue  # counts no more
                before = merged.get(run, ({}, None))[0]
                merged[run] = (None if rows is None or before is None else {**before, **rows}, head)
                count += 1 if rows is None else len(rows)
            number = commit
        runs = []
        for run, (rows, head) in merged.items():
            if rows is None or head is None or run not in self.store.runs:
                yield from self._whole(run, after)
            else:
                runs.append(CopiedRun(run, number, tuple(rows.items()), head))
        yield CopyPage(self.name, self.store.id, after, number, tuple(runs))

    def _from_store(self, after: int) -> Iterable[CopyPage]:
        upto = self.store.number
        for _, run in self.store.changed_after(after):
            yield from self._whole(run, after)
        yield CopyPage(self.name, self.store.id, after, max(upto, after))

    def _whole(self, run: str, after: int) -> Iterable[CopyPage]:
        number, head = self.store.number, self.store.head(run)
        if head is None:
            yield CopyPage(self.name, self.store.id, after, after, (CopiedRun(run, number, forgotten=True),))
            return
        rows = list(self.store.runs[run].items())
        for start in range(0, len(rows), self.page_rows):
            part = tuple(rows[start : start + self.page_rows])
            yield CopyPage(self.name, self.store.id, after, after, (CopiedRun(run, number, part),))
        yield CopyPage(self.name, self.store.id, after, after, (CopiedRun(run, number, (), head),))
