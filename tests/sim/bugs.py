"""Bugs that the simulator must find: each is a fault that such a system could have, put in by a patch for the time of a test.

Every one stands with the number of seeds within which it was found when it was written, and some to spare.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.sim import coordinator as shell
from tests.sim import runtime as runtime_shell
from tests.sim.stores import CoordinatorStore
from wattle.core import effects as do
from wattle.core.attempts import Attempts
from wattle.core.following import Following
from wattle.core.model import RunHead, TaskId, TaskRecord, WorkerRecord
from wattle.core.ownership import Ownership
from wattle.core.past import Past
from wattle.core.placing import Placing
from wattle.core.recall import Recall
from wattle.core.replication import Replication
from wattle.core.run import Run, Worker
from wattle.core.succession import Succession
from wattle.runtime.waiting import Waiting


@dataclass(frozen=True)
class Bug:
    """What is put in place of what; ``seeds``: it is found in one of the seeds from 1 on to this one, last seen in ``known``."""

    owner: Any
    name: str
    make: Callable[[Any], Any]
    seeds: int
    known: int

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have it for a while."""
        own = self.name in self.owner.__dict__
        before = inspect.getattr_static(self.owner, self.name)
        setattr(self.owner, self.name, self.make(before))
        try:
            yield
        finally:
            if own:
                setattr(self.owner, self.name, before)
            else:
                delattr(self.owner, self.name)


# --- fences and epochs --------------------------------------------------------------------------------------------------


def _admits_everybody(before: Any) -> Any:
    def admit(self: Past, run: str, epoch: int, owner: str) -> bool | None:
        verdict: bool | None = before(self, run, epoch, owner)
        return False if verdict is None else verdict

    return admit


def _looks_nothing_up(before: Any) -> Any:
    return lambda self, run, fence, ended: before(self, run, fence, {})


def _same_number_again(before: Any) -> Any:
    def assign(self: Placing, run: Run, worker: Worker, node: Any, **how: Any) -> Any:
        if worker.attempts and worker.known is None:
            worker.attempts -= 1
        return before(self, run, worker, node, **how)

    return assign


def _counts_on(before: Any) -> Any:
    return lambda self, run, worker: worker.attempts + 1


def _keeps_all(before: Any) -> Any:
    def let_go(self: Ownership, run: Run, head: Any) -> None:
        pass

    return let_go


# --- commit, then send ----------------------------------------------------------------------------------------------------


def _sends_first(before: Any) -> Any:
    def dies(self: Any, saves: Any, effects: Any) -> bool:
        sent = [effect for effect in effects if isinstance(effect, do.Assign)]
        dead: bool = before(self, saves, effects)
        for effect in sent if dead else []:
            body = (self.name, (effect.assignment,))
            peer = self.world.peers[effect.node]
            self.world.carry(self.name, effect.node, peer.serve, "assign", body, lambda _: None)
        return dead

    return dies


def _cursor_first(before: Any) -> Any:
    def dies(self: Any, saves: Any, effects: Any) -> bool:
        dead: bool = before(self, saves, effects)
        if dead:
            self.store.commit([effect for effect in saves if isinstance(effect, do.SaveCursor)], self.store.number)
        return dead

    return dies


# --- what is stored, and what is not ----------------------------------------------------------------------------------------


def _no_delay(before: Any) -> Any:
    def record(self: Worker, run: str) -> WorkerRecord:
        kept: WorkerRecord = before(self, run)
        return replace(kept, not_before=None)

    return record


def _no_cancel(before: Any) -> Any:
    def adopt(self: Recall, event: Any) -> None:
        run = replace(event.snapshot.run, cancel_requested=False)
        before(self, replace(event, snapshot=replace(event.snapshot, run=run)))

    return adopt


def _hands_no_cancel_over(before: Any) -> Any:
    return lambda self, other: True


def _no_late_facts(before: Any) -> Any:
    return lambda self, effect: None


# --- facts ------------------------------------------------------------------------------------------------------------------


def _leaps(before: Any) -> Any:
    def take(self: shell.Coordinator, node: str, state: shell.Followed, number: int, facts: Any) -> None:
        if number > state.number:
            state.number = number - 1
        before(self, node, state, number, facts)

    return take


def _second_finish(before: Any) -> Any:
    def advance(self: Attempts, worker: Worker, record: TaskRecord, event: Any, **changes: Any) -> Any:
        if event == "superseded":
            event = type(event)("succeeded")
        return before(self, worker, record, event, **changes)

    return advance


def _forgets_processes(before: Any) -> Any:
    def started(self: runtime_shell.Runtime) -> None:
        processes, self.processes = self.processes, {}
        unknown = self.store.open
        self.store.open = {task: held for task, held in unknown.items() if held.phase not in ("starting", "running")}
        before(self)
        self.store.open, self.processes = unknown, processes

    return started


def _starts_early(before: Any) -> Any:
    def unmet(self: Run, worker: Worker) -> int:
        return max(0, int(before(self, worker)) - 1)

    return unmet


# --- copies -----------------------------------------------------------------------------------------------------------------


def _settles_at_once(before: Any) -> Any:
    return property(lambda self: self.core.number)


def _asks_no_node(before: Any) -> Any:
    def adopt(self: Recall, event: Any) -> None:
        members: Any = self.core.members
        members.names_in_sight, members.claim = list, lambda name, run: None
        try:
            before(self, event)
        finally:
            del members.names_in_sight, members.claim

    return adopt


def _adopts_from_the_living(before: Any) -> Any:
    return lambda self, owner, store: owner == self.core.name and store in ("", self.core.store)


def _nobody_adopts(before: Any) -> Any:
    return lambda self, inquiry: None


def _drops_at_once(before: Any) -> Any:
    return lambda self, told, best, peers: True


def _forgets_one_row(before: Any) -> Any:
    def page(self: shell.Coordinator, run: str, after: int) -> Any:
        for made in before(self, run, after):
            runs = tuple(
                replace(copied, rows=tuple(row for row in copied.rows if not row[0].startswith("t/")))
                for copied in made.runs
            )
            yield replace(made, runs=runs)

    return page


# --- what waits at the spawner --------------------------------------------------------------------------------------------


def _needs_nothing(before: Any) -> Any:
    def add(self: Waiting[Any, Any], task: Any, request: Any, room: str, unmet: Any = ()) -> None:
        before(self, task, request, room)

    return add


def _takes_no_room(before: Any) -> Any:
    def turn(self: Following, task_id: TaskId) -> None:
        if self.lineup.remove(task_id):
            self.core.tasks[task_id].lined_up = False

    return turn


BUGS = {
    "the fence is not checked": Bug(Past, "admit", _admits_everybody, 60, 33),
    "what has ended here is not looked up": Bug(Past, "recall", _looks_nothing_up, 400, 271),
    "a worker is given again without a new attempt": Bug(Placing, "assign", _same_number_again, 20, 4),
    "an adopter gives out numbers that its run's former owner may have given out": Bug(
        Placing, "_next_attempt", _counts_on, 200, 130
    ),
    "an owner never lets go": Bug(Ownership, "_let_go", _keeps_all, 60, 16),
    "commands are sent before the commit": Bug(shell.Coordinator, "dies_at_commit", _sends_first, 40, 4),
    "the cursor is saved outside the transaction": Bug(shell.Coordinator, "dies_at_commit", _cursor_first, 60, 4),
    "a retry's delay is not stored": Bug(Worker, "record", _no_delay, 200, 163),
    "a cancel is forgotten on adoption": Bug(Recall, "adopt", _no_cancel, 600, 23),
    "a cancel is not handed over to a later owner": Bug(RunHead, "heeds", _hands_no_cancel_over, 60, 29),
    "late facts are dropped": Bug(CoordinatorStore, "_late", _no_late_facts, 300, 15),
    "a gap in a feed is skipped": Bug(shell.Coordinator, "_take", _leaps, 100, 1),
    "a second finish is accepted": Bug(Attempts, "advance", _second_finish, 150, 6),
    "a restarted runtime does not ask for its processes": Bug(
        runtime_shell.Runtime, "started", _forgets_processes, 100, 78
    ),
    "a worker starts before the last of what it needs": Bug(Run, "unmet", _starts_early, 40, 1),
    "acknowledged before it is replicated": Bug(Replication, "settled", _settles_at_once, 20, 1),
    "an adopter asks no node": Bug(Recall, "adopt", _asks_no_node, 600, 446),
    "runs of the living are adopted": Bug(Succession, "lives", _adopts_from_the_living, 40, 3),
    "nobody adopts": Bug(Succession, "_decide", _nobody_adopts, 60, 2),
    "copies are dropped while the adopter's state has none": Bug(Succession, "_spread", _drops_at_once, 500, 243),
    "copies lack their attempts": Bug(shell.Coordinator, "_whole", _forgets_one_row, 1000, 818),
    "a spawner waits for room alone": Bug(Waiting, "add", _needs_nothing, 40, 1),
    "who takes over room at the spawner has none at the runtime": Bug(Following, "turn", _takes_no_room, 40, 1),
}
