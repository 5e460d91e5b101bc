"""What must hold in the simulated world after every step and at its end (design.md, section 11), over all peers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.sim.ends import Ends
from tests.sim.states import States
from tests.sim.stores import Rows
from tests.sim.unheard import Unheard
from tests.sim.world import World
from wattle.core import effects as do
from wattle.core.coordinator import CoordinatorCore
from wattle.core.invariants import History, InvariantBroken, check_coordinator, check_runtime
from wattle.core.model import FactKind, RunRecord, TaskId, TaskRecord, TaskStatus, WorkerRecord, Workflow
from wattle.core.runtime import RuntimeCore
from wattle.core.states import Phase

if TYPE_CHECKING:
    from tests.sim.coordinator import Coordinator
    from tests.sim.peer import Keeper
    from tests.sim.runtime import Runtime


HEARD = 6.0
"""Seconds after the heal in which every owner has heard of all that others had acknowledged."""

UNNOTICED = 8.0
"""Seconds that a disk may have been replaced without everybody having noticed: a lease, and the time that the slowest peer takes."""


class Checks:
    """See the module's docstring. ``excused`` runs were on disks of which more were lost at once than copies are for.

    Without copies (``replicas`` 0) that takes no more than an owner that is away for a while.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.workflows: dict[str, Workflow] = {}
        self.acked: dict[str, set[str]] = {}
        self.cancels: dict[str, int] = {}  # run -> how often it had been retried when its cancel was acknowledged
        self.too_late: dict[
            tuple[str, int], float
        ] = {}  # runs that ended without a cancel that their owner may not have heard of: when
        self.healed_at = float("inf")
        self.retries: dict[str, int] = {}
        self.ends = Ends(self)
        self.split: set[str] = set()
        self.doubled: set[str] = set()  # created by more than one coordinator
        self.excused: set[str] = set()
        self.quorum = 0
        self.calm = True  # nothing was cut, nobody was wrongly missed
        self.starts: Counter[tuple[str, str]] = Counter()
        self.unheard = Unheard()
        self.states = States()
        self._creators: dict[str, str] = {}
        self._histories: dict[str, History] = {}
        self._given: set[tuple[TaskId, str]] = set()
        self._fences: dict[tuple[str, str], tuple[int, str]] = {}
        self._cursors: dict[tuple[str, str, str], int] = {}
        self._delays: dict[tuple[str, str, str], tuple[int, float | None]] = {}
        self._nodes: dict[TaskId, str] = {}
        self._accepted: set[tuple[TaskId, str]] = set()
        self._started: set[tuple[TaskId, str]] = set()
        self._finished: set[tuple[TaskId, str]] = set()
        self._succeeded: set[tuple[str, str]] = set()

    def require(self, true: bool, *what: object) -> None:
        """Raise InvariantBroken unless it is true."""
        if not true:
            raise InvariantBroken(" ".join(map(str, what)))

    # --- after every step -----------------------------------------------------------------------------------------------

    def coordinator(self, peer: Coordinator, core: CoordinatorCore) -> None:
        """A coordinator has handled a batch."""
        check_coordinator(core, self.doubled)

    def runtime(self, peer: Runtime, core: RuntimeCore) -> None:
        """A runtime has handled a batch."""
        check_runtime(core, peer.name)

    def committed(self, peer: Coordinator, saves: Sequence[Any], changed: dict[str, Rows | None]) -> None:
        """A coordinator has committed."""
        history = self._histories.get(peer.store.id)
        if history is None:
            history = self._histories[peer.store.id] = History()
        history.check(saves)
        self.states.note(peer.store, changed)
        for save in saves:
            match save:
                case do.SaveTask():
                    key = (save.task.id, peer.name)
                    if save.task.status is TaskStatus.ASSIGNED and key not in self._given:
                        self._not_too_early(peer, save.task)
                        self._not_unasked(peer, save.task)
                    self._given.add(key)
                case do.SaveCursor():
                    self._cursors[peer.store.id, save.node, save.store] = save.number
                case do.AdoptRun():
                    self._given |= {(task.id, peer.name) for task in save.snapshot.tasks}
                    self.unheard.taken_over(peer, save.snapshot.run)
                    self.ends.part(peer, save.snapshot.run)
                case do.CreateRun():
                    run = save.run.id
                    if self._creators.setdefault(run, peer.store.id) != peer.store.id:
                        self.doubled.add(run)
        for save in saves:
            if isinstance(save, do.SaveWorker):
                self._note_delay(peer, save.worker)
            elif isinstance(save, do.SaveRun) and save.run.status.final and not save.run.cancel_requested:
                self._ended_uncancelled(peer, save.run, saves)

    def _ended_uncancelled(self, peer: Coordinator, run: RunRecord, saves: Sequence[Any]) -> None:
        """A run ends and no cancel is noted: its owner must not have known of one before."""
        just_now = any(isinstance(save, do.SaveCopies) and run.id in {c.run for c in save.page.runs} for save in saves)
        for head in peer.copies().heads_of([run.id]):
            known = head.cancelled and head.retried == run.retried and not just_now
            self.require(not known, "run", run, "ended as if nobody had cancelled it, and there is", head)
        self.too_late.setdefault((run.id, run.retried), self.world.now)

    def restarted(self, peer: Coordinator) -> None:
        """A coordinator starts from its store: it has learned whatever its cursors say."""
        for node, (store, number) in peer.store.cursors.items():
            learned = self._cursors.get((peer.store.id, node, store), 0)
            self.require(number <= learned, peer.name, "has a cursor of", number, "for", node, "and learned", learned)

    def _note_delay(self, peer: Coordinator, worker: WorkerRecord) -> None:
        run = peer.core.runs.get(worker.run)  # type: ignore[union-attr]
        if run is not None:
            self._delays[peer.store.id, run.id, worker.name] = (run.retried, run.workers[worker.name].not_before)

    def _not_too_early(self, peer: Coordinator, task: TaskRecord) -> None:
        retried, not_before = self._delays.get((peer.store.id, task.run, task.worker), (0, None))
        run = peer.core.runs.get(task.run)  # type: ignore[union-attr]
        if run is None or run.retried != retried or run.adopted or not_before is None:
            return
        again = run.workers[task.worker].not_before  # it may have failed once more in this very batch
        early = task.assigned_at < (not_before if again is None else min(not_before, again))
        self.require(
            not early, "attempt", task.id, "was given at", task.assigned_at, "and was to wait until", not_before
        )

    def _not_unasked(self, peer: Coordinator, task: TaskRecord) -> None:
        """Whoever adopts a run gives out no worker of which a node in its sight holds an attempt that it was not told of.

        Of a later owner's attempts it hears when its own is refused by that node.
        """
        core = peer.core
        assert core is not None
        run = core.runs.get(task.run)
        if run is None or not run.adopted or task.worker not in run.workers:
            return
        known = run.workers[task.worker].known
        for name in core.members.names_in_sight():
            runtime: Any = self.world.peers[name]
            if runtime.store.fences.get(run.id, (0, "")) > (run.epoch, run.owner):
                continue
            for held in runtime.store.open:
                if (held.run, held.worker) == (task.run, task.worker) and held != task.id:
                    self.require(
                        known is None or held.attempt in known, peer.name, "gives", task.id, "and", name, "has", held
                    )

    def ran(self, peer: Runtime, saves: Sequence[Any]) -> None:
        """A runtime has committed."""
        for save in saves:
            match save:
                case do.SaveHeldTask():
                    self._held(peer, save.task)
                case do.Append() if save.fact.kind is FactKind.FINISHED:
                    fact = save.fact
                    key = (fact.id, peer.store.id)
                    self.require(key not in self._finished, "task", fact.id, "finishes twice on", peer.name)
                    self._finished.add(key)
                    if fact.status is TaskStatus.SUCCEEDED:
                        self._succeeded.add((fact.run, fact.worker))

        for save in saves:
            if isinstance(save, do.SaveFence):
                self._fences[peer.store.id, save.run] = (save.epoch, save.owner)

    def _held(self, peer: Runtime, held: do.HeldTask) -> None:
        task = held.assignment.id
        if held.phase is Phase.DONE:
            return  # also of tasks that were cancelled before they came
        if (task, peer.store.id) not in self._accepted:
            self._accepted.add((task, peer.store.id))
            pair = (held.assignment.epoch, held.owner)
            fence = self._fences.get((peer.store.id, task.run), (0, ""))
            self.require(pair >= fence, "task", task, "of", pair, "is accepted past", fence, "on", peer.name)
        self.require((task, held.owner) in self._given, "task", task, "was sent and is not stored at", held.owner)
        if task.run not in self.doubled and task.run not in self.excused:
            node = self._nodes.setdefault(task, peer.name)
            self.require(node == peer.name, "attempt", task, "is on", node, "and on", peer.name)

    def process_succeeds(self, task: TaskId) -> None:
        """A process without files to be hashed has ended well by itself: its runtime can only find that it has succeeded."""
        self._succeeded.add((task.run, task.worker))

    def process_starts(self, peer: Runtime, task: TaskId) -> None:
        """A spawner starts a process."""
        self.starts[task.run, task.worker] += 1
        for other, process in peer.processes.items():
            twin = other[:2] == task[:2] and process.exited is None
            self.require(not twin, "task", task, "starts on", peer.name, "beside", other)
        busy = sum(process.exited is None for process in peer.processes.values())
        self.require(busy < peer.options.slots, "task", task, "starts on", peer.name, "beside", busy, "others")
        key = (task, peer.store.id)
        self.require(key not in self._started, "task", task, "starts twice")
        self._started.add(key)
        needs = self.workflows[task.run].workers[task.worker].needs
        early = [need for need in needs if (task.run, need) not in self._succeeded]
        self.require(not early, "task", task, "did not wait for", early)

    # --- what is said to users --------------------------------------------------------------------------------------------

    def acknowledged(self, peer: Coordinator, run: str, what: str, retried: int | None = None) -> None:
        """A coordinator acknowledges something to a client: it must be on as many other stores as it believes to have followers.

        ``retried`` is which retry of the run it is, or is a cancel of; there may have been another since.
        """
        world = self.world
        world.note(peer.name, "acknowledges", what, run)
        record: RunRecord = peer.store.runs[run]["run"]
        if what == "read" or (what == "cancel" and not record.cancel_requested):
            return  # the answer says how it ended meanwhile
        if run not in self.excused:
            self._replicated(peer, run, what, record.retried if retried is None else retried)
        self.acked.setdefault(run, set()).add(what)
        if what == "cancel":
            self.cancels[run] = max(self.cancels.get(run, 0), record.retried if retried is None else retried)
        elif what == "retry":
            self.retries[run] = max(self.retries.get(run, 0), retried or record.retried)

    def _replicated(self, peer: Coordinator, run: str, what: str, retried: int) -> None:
        core = peer.core
        assert core is not None
        count = 0
        for name in core.replication.followers:
            other: Any = self.world.peers[name]
            if peer.tokens.get(name) != other.life or self.world.now < other.new_since + UNNOTICED:
                count += 1  # it died, and this is not known here yet
                continue
            copies = other.copies().kept.get((peer.name, peer.store.id, run))
            kept: RunRecord | None = None if copies is None or copies.head is None else copies.rows.get("run")
            if kept is not None and (
                what == "submit"
                or (what == "cancel" and (kept.cancel_requested or kept.status.final or kept.retried > retried))
                or (what == "retry" and kept.retried >= retried)
            ):
                count += 1
            elif any(head.rank > peer.store.head(run).rank for head in self.heads(other, run)):  # type: ignore[union-attr]
                count += 1  # another owner's newer state
            elif what == "submit" and self.heads(other, run):
                count += 1  # the state that this owner let go for, and has adopted since: it is the same run
        need = min(core.options.replicas, len(core.replication.followers))
        if core.succession.quorum:  # else it was settled before, also at peers that are out of sight now
            need = max(need, core.options.quorum - 1)
        self.require(count >= need, what, "of", run, "acknowledged by", peer.name, "with", count, "of", need, "copies")

    def told(self, peer: Coordinator, run: RunRecord) -> None:
        """A user learns how a run ended."""
        self.world.note(peer.name, "tells the end of", run.id, run.status, run.completed_at)
        first = self.ends.first(peer, run)
        if first.completed_at != run.completed_at:
            self.world.faults["end told with another time"] += 1
        if first.status == run.status or run.id in self.excused:
            return
        self.split.add(run.id)
        self.require(not self.ends.bound(run), "with a quorum,", first, "was told, and then", run)
        may_differ = self.ends.may_differ(peer, run) or run.id in self.doubled
        self.require(not self.calm or may_differ, first, "was told, and then", run)

    # --- what is kept -----------------------------------------------------------------------------------------------------

    def keepers(self) -> list[Keeper]:
        """The peers that have stores."""
        return [peer for peer in self.world.peers.values() if peer.role != "client"]  # type: ignore[misc]

    def _kept(self, run: str) -> bool:
        """Whether anybody who is up has a state of a run."""
        return any(peer.up and self.heads(peer, run) for peer in self.keepers())

    def heads(self, peer: Any, run: str) -> list[Any]:
        """All states of a run in one peer's store."""
        heads = peer.copies().heads_of([run])
        own = peer.store.head(run) if peer.role == "coordinator" else None
        return heads if own is None else [*heads, own]

    def removed(self, run: str) -> None:
        """A store has dropped a run or a copy of it: another has it, and with it its cancel, unless it has ended or was retried since."""
        if run not in self.acked or run in self.excused:
            return
        heads = [head for peer in self.keepers() for head in self.heads(peer, run)]
        self.require(bool(heads), "nobody has run", run, "any more")
        at = self.cancels.get(run)
        if at is None:
            return
        states = [state for peer in self.keepers() for state in self._states(peer, run)]
        kept = any(
            head.retried > at or (head.retried == at and (head.final or head.cancelled or cancelled))
            for head, cancelled in states
        )
        self.require(kept, "nobody knows any more that run", run, "was cancelled:", heads)

    def dropped(self, peer: Coordinator, effect: do.Forget) -> None:
        """A coordinator has a copy dropped: one that counts as much or more is on as many other stores as an acknowledgement takes."""
        core, run = peer.core, effect.head.run
        owner, data = effect.head.owner, effect.head.store
        keeper: Any = self.world.peers[effect.peer]
        copy = keeper.copies().kept.get((owner, data, run))
        if run not in self.acked or run in self.excused or core is None or copy is None or copy.head is None:
            return
        if copy.head != effect.head:
            return  # it stays: another has come since
        safe = {
            store.name
            for store in self.keepers()
            for head in self.heads(store, run)
            if head.standing >= copy.head.standing and (head.owner, head.store) != (owner, data)
        }
        have = len(safe) - 1  # the owner's own does not count
        others: list[Any] = [self.world.peers[name] for name in core.replication.followers]
        others = [o for o in others if peer.tokens.get(o.name) == o.life and self.world.now >= o.new_since + UNNOTICED]
        excused = run not in peer.store.runs and any(o.role == "runtime" and o.name not in safe for o in others)
        need = min(core.options.replicas, len(others) - excused)  # a runtime on the owner's disk keeps no copy
        self.require(
            have >= need, peer.name, "has", copy.head, "dropped at", effect.peer, "and better is on", have, "of", need
        )

    def at_risk(self, gone: Sequence[str]) -> list[str]:
        """Runs whose newest state nobody but these peers has."""
        risky = []
        for run in self.workflows:
            best = (-1, False, False)
            kept = (-1, False, False)
            for peer in self.keepers():
                for head, cancelled in self._states(peer, run):
                    state = (head.retried, head.final, cancelled)
                    best = max(best, state)
                    if peer.name not in gone:
                        kept = max(kept, state)
            if best > kept:
                risky.append(run)
        return risky

    def _states(self, peer: Any, run: str) -> list[tuple[Any, bool]]:
        found = [
            (copy.head, copy.rows["run"].cancel_requested)
            for key, copy in peer.copies().kept.items()
            if key[2] == run and copy.head is not None
        ]
        if peer.role == "coordinator" and run in peer.store.runs:
            found.append((peer.store.head(run), peer.store.runs[run]["run"].cancel_requested))
        return found

    # --- at the end -------------------------------------------------------------------------------------------------------

    def owners(self, run: str) -> list[Coordinator]:
        """The coordinators that are up and have a run as their own."""
        return [
            peer  # type: ignore[misc]
            for peer in self.world.peers.values()
            if peer.role == "coordinator" and peer.up and run in peer.store.runs  # type: ignore[attr-defined]
        ]

    def finished(self) -> bool:
        """Whether every run that exists has ended, and nothing is held anywhere.

        An excused run may be gone, or be in an older state; whoever still has that goes on with it, and it ends as any other.
        """
        for run in self.workflows:
            if run in self.excused and not self._kept(run):
                continue
            owners = self.owners(run)
            if len(owners) != 1 or not owners[0].store.runs[run]["run"].status.final:
                return False
        return not any(
            peer.up
            and ((peer.wanted or peer.orders) if peer.role == "client" else peer.role == "runtime" and peer.store.open)  # type: ignore[attr-defined]
            for peer in self.world.peers.values()
        )

    def why_unfinished(self) -> str:
        """What ``finished`` still waits for."""
        lines = []
        for run in self.workflows:
            if run in self.excused and not self._kept(run):
                continue
            owners = [(peer.name, peer.store.runs[run]["run"]) for peer in self.owners(run)]
            if len(owners) != 1 or not owners[0][1].status.final:
                heads = [(p.name, p.up, head) for p in self.keepers() for head in self.heads(p, run)]
                lines.append(f"run {run} is owned by {owners}; states: {heads}")
        for peer in self.world.peers.values():
            if peer.role == "client" and peer.wanted:  # type: ignore[attr-defined]
                lines.append(f"{peer.name} waits for {list(peer.wanted)} to be acknowledged")  # type: ignore[attr-defined]
            if peer.role == "client" and peer.orders:  # type: ignore[attr-defined]
                lines.append(f"{peer.name} has {peer.orders} orders under way")  # type: ignore[attr-defined]
            if peer.role == "runtime" and peer.up and peer.store.open:  # type: ignore[attr-defined]
                lines.append(f"{peer.name} holds {list(peer.store.open.values())}")  # type: ignore[attr-defined]
        return "; ".join(lines)

    def end(self, *, faultless: bool) -> None:
        """The world is healed and at rest."""
        for run in self.workflows:
            if run in self.excused:
                continue
            peer = self.owners(run)[0]
            rows = peer.store.runs[run]
            record: RunRecord = rows["run"]
            self._check_run(run, record, rows)
            self._check_attempts(run, rows, peer)
            if faultless:
                more = {w: self.starts[run, w] for w in self.workflows[run].workers if self.starts[run, w] != 1}
                self.require(not more, "without faults, workers of", run, "started", more, "times")
        for other in self.world.peers.values():
            if other.role == "coordinator" and other.up:
                self._check_rest(other)  # type: ignore[arg-type]

    def _check_run(self, run: str, record: RunRecord, rows: Rows) -> None:
        first = self.ends.of(run, record.retried)
        if first is not None and first.status != record.status:
            self.split.add(run)
            self.require(not self.ends.bound(record), "with a quorum,", first, "was told, and in the end it is", record)
            self.require(not self.calm or run in self.doubled, first, "was told, and in the end it is", record)
        workers = [row for key, row in rows.items() if key[:2] == "w/"]
        self.require(
            all(worker.status.final for worker in workers), "run", run, "has ended, not all its workers:", workers
        )
        if run not in self.split and run not in self.doubled:
            told = self.ends.retries_of(run)
            self.require(told <= record.retried, "run", run, "forgot a retry whose end was told")
            self.require(self.retries.get(run, 0) <= record.retried, "run", run, "forgot a retry")
            at = self.cancels.get(run)
            kept = at is None or at < record.retried or record.cancel_requested
            if not kept and self.too_late.get((run, record.retried), float("inf")) < self.healed_at + HEARD:
                self.world.faults["cancel came too late"] += (
                    1  # taken by a former owner while the new one ended the run
                )
                kept = True
            self.require(kept, "run", run, "forgot that it was cancelled:", record)

    def _check_attempts(self, run: str, rows: Rows, owner: Coordinator) -> None:
        if run in self.doubled:
            return
        for runtime in self.world.peers.values():
            if runtime.role != "runtime" or not runtime.up:
                continue
            peer_disk = runtime.store.id  # type: ignore[attr-defined]
            for entry in runtime.store.feed:  # type: ignore[attr-defined]
                for fact in entry:
                    if fact.run != run:
                        continue
                    row: Any = rows.get(f"t/{fact.worker}/{fact.attempt}")
                    excuse = self.unheard.excuse(owner, rows["run"], fact.id)
                    if row is None and excuse:
                        self.world.faults[excuse] += 1
                        continue
                    self.require(row is not None, "attempt", fact.id, "of", runtime.name, "is not in the history")
                    self.require(row.node == runtime.name, "attempt", fact.id, "was on", runtime.name, "not", row.node)
                    if fact.kind is FactKind.FINISHED:
                        same = row.status in (fact.status, TaskStatus.SUPERSEDED)
                        # or it ran there on an earlier disk, and was given once more by an owner that did not know
                        same = same or any(task == fact.id and disk != peer_disk for task, disk in self._finished)
                        self.require(same, "attempt", fact.id, "ended", fact.status, "and the history says", row)
        tasks = [row for key, row in rows.items() if key[:2] == "t/"]
        for name in self.workflows[run].workers:
            worker = rows[f"w/{name}"]
            mine = [task for task in tasks if task.worker == name]
            good = sum(task.status is TaskStatus.SUCCEEDED for task in mine)
            self.require(good <= 1 + worker.reproduced, "worker", name, "succeeded", good, "times:", mine)
            still = [task for task in mine if not task.status.final]
            self.require(not still, "the history of", name, "has not ended:", still)

    def _check_rest(self, peer: Coordinator) -> None:
        core = peer.core
        assert core is not None
        where = f"{peer.name} at rest:"
        self.require(not core.runs, where, "runs", list(core.runs))
        succession: Any = core.succession
        self.require(not succession._inquiries or not succession.quorum, where, "asks about", succession._inquiries)
        about = [owner for owner in succession._tokens.values() if owner is not None]
        looks = len(succession._tokens) - len(about)  # a look around may be under way
        self.require(not about and looks < 2, where, "waits for answers to", succession._tokens)
        for node in core.nodes.values():
            left = (node.tasks, node.used, node.cancels, node.claims)
            seen = node.info.name in peer.tokens
            self.require(not any(left[:2]) and (not seen or not any(left)), where, "node", node.info.name, "has", left)
        for name, follower in core.replication.followers.items():
            good = follower.kept == core.number and not follower.sending
            self.require(good, where, "follower", name, "is at", follower, "of", core.number)
        expected = min(core.options.replicas, len(core.replication.followers))
        self.require(core.settled == core.number or not expected, where, "settled", core.settled, "of", core.number)
