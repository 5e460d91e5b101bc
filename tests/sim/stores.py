"""What the stores of peers hold after each commit, as plain data: a peer is restarted from it, and copies travel from it.

Rows are those of wattle/store: ``run``, ``document``, ``w/<worker>``, ``t/<worker>/<attempt>``, ``h/<digest>/<node>``; their values are the
records themselves, which nobody changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wattle.core import effects as do
from wattle.core.effects import CoordinatorEffect, HeldTask, RuntimeEffect
from wattle.core.model import (
    CopiedRun,
    CopyPage,
    Fact,
    RunHead,
    Snapshot,
    TaskId,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    WorkerStatus,
)
from wattle.core.run import head_of
from wattle.core.states import Phase

Rows = dict[str, Any]
CopyKey = tuple[str, str, str]
"""Owner, identity of its data folder, run."""


@dataclass
class Copy:
    """One owner's state of a run; without a head, its first parts."""

    rows: Rows
    numbers: dict[str, int]
    head: RunHead | None = None

    def put(self, rows: Iterable[tuple[str, Any]], number: int) -> None:
        """Take rows; older ones never replace newer ones."""
        for key, row in rows:
            if number >= self.numbers.get(key, 0):
                self.rows[key], self.numbers[key] = row, number

    def drop(self, before: int) -> None:
        """Drop rows of earlier commits."""
        for key in [key for key, number in self.numbers.items() if number < before]:
            del self.rows[key], self.numbers[key]


class Copies:
    """The copies in one store."""

    def __init__(self) -> None:
        self.cursors: dict[tuple[str, str], int] = {}
        self.kept: dict[CopyKey, Copy] = {}
        self.aside: dict[CopyKey, Copy] = {}  # runs of which the last part is to come

    def take_up(self) -> dict[tuple[str, str], int]:
        """The cursors, as of a peer that starts: what is aside is told anew."""
        self.aside.clear()
        return dict(self.cursors)

    def keep(self, page: CopyPage) -> None:
        """Store a page; older rows never replace newer ones, and other owners' worse states stay."""
        for copied in page.runs:
            if copied.forgotten and copied.head is None:
                self._drop((page.owner, page.store, copied.run))
            else:
                self.put(page.owner, page.store, copied)
        self.cursors[page.owner, page.store] = page.number

    def put(self, owner: str, store: str, copied: CopiedRun) -> None:
        """Store rows of one owner's state of a run, and its head, as in wattle/store/copies.py."""
        state, head = (owner, store, copied.run), copied.head
        if head is None:
            self.aside.setdefault(state, Copy({}, {})).put(copied.rows, copied.number)
            return
        if head.pruned_at:
            self.forget_run(head)
        elif not copied.rows and not self._take_in(state, copied.number, head):
            return
        copy = self.kept.setdefault(state, Copy({}, {}))
        copy.put(copied.rows, copied.number)
        if copied.rows and copied.number and copy.head is not None and not copy.head.number:
            copy.drop(1)  # what stood in for it
        if copy.head is None or head.number >= copy.head.number:
            copy.head = head
        stand_in = self.kept.get((owner, "", head.run)) if store else None
        if stand_in is not None and (stand_in.head is None or head.standing >= stand_in.head.standing):
            del self.kept[owner, "", head.run]

    def _take_in(self, state: CopyKey, number: int, head: RunHead) -> bool:
        """Put what was told of a run up to its head in the place of what was kept; False where its rows are not aside."""
        parts = self.aside.get(state)
        if parts is None or max(parts.numbers.values()) != number:
            return False
        parts.drop(number)
        upto = max(number, head.number)
        copy = self.kept.setdefault(state, Copy({}, {}))
        copy.put(parts.rows.items(), upto)
        copy.drop(upto)
        del self.aside[state]
        return True

    def _drop(self, state: CopyKey) -> None:
        self.kept.pop(state, None)
        self.aside.pop(state, None)

    def forget(self, head: RunHead) -> None:
        """Drop an owner's state of a run, unless another has come since."""
        copy = self.kept.get((head.owner, head.store, head.run))
        if copy is not None and copy.head in (None, head):
            del self.kept[head.owner, head.store, head.run]
        self.aside = {state: parts for state, parts in self.aside.items() if state[:2] != (head.owner, head.store)}
        self.cursors.pop((head.owner, head.store), None)

    def forget_run(self, head: RunHead) -> None:
        """Drop what was before a run was pruned, and what counts no more and is of nobody who goes on telling."""
        me = (head.owner, head.store)
        for other in self.heads_of([head.run]):
            owner = (other.owner, other.store)
            if other.number <= head.number if owner == me else other.rank <= head.rank and owner not in self.cursors:
                self._drop((*owner, other.run))

    def heads(self) -> list[RunHead]:
        """Every state that is kept here."""
        return [copy.head for copy in self.kept.values() if copy.head is not None]

    def heads_of(self, runs: Sequence[str]) -> list[RunHead]:
        """Every state of these runs that is kept here."""
        return [head for head in self.heads() if head.run in runs]

    def tell(self, owner: str, store: str, runs: Sequence[str]) -> list[RunHead]:
        """The answer to AskCopies."""
        if runs:
            return self.heads_of(runs)
        if owner:
            return [head for head in self.heads() if (head.owner, head.store) == (owner, store)]
        return list({(head.owner, head.store): head for head in self.heads()}.values())


class CoordinatorStore:
    """A coordinator's tables; ``id`` is the identity of its data folder, ``number`` the count of its commits."""

    def __init__(self, id: str, owner: str) -> None:
        self.id, self.owner = id, owner
        self.number = self.settled = 0
        self.runs: dict[str, Rows] = {}
        self.touched: dict[str, int] = {}  # run -> the commit that changed it last
        self.forgotten: dict[str, int] = {}
        self.left: dict[str, int] = {}  # run -> the epoch in which it was let go of
        self.cursors: dict[str, tuple[str, int]] = {}
        self.copies = Copies()

    # --- writing ------------------------------------------------------------------------------------------------------

    def commit(self, effects: Iterable[CoordinatorEffect], number: int) -> dict[str, Rows | None]:
        """Apply one batch's Save effects; what it changed, by run: the rows, or None for a run that is to be told of as a whole."""
        changed: dict[str, Rows | None] = {}
        self._number = number

        def put(run: str, key: str, row: Any) -> None:
            if run not in self.runs:
                return  # as an UPDATE of what is not there
            self.runs[run][key] = row
            self.touched[run] = number
            rows = changed.setdefault(run, {})
            if rows is not None:
                rows[key] = row

        for effect in effects:
            match effect:
                case do.SaveWorker():
                    put(effect.worker.run, f"w/{effect.worker.name}", effect.worker)
                case do.SaveTask():
                    put(effect.task.run, f"t/{effect.task.worker}/{effect.task.attempt}", effect.task)
                case do.SaveRun():
                    put(effect.run.id, "run", effect.run)
                case do.CreateRun():
                    run = effect.run.id
                    self.runs[run] = {}
                    self.forgotten.pop(run, None)
                    put(run, "run", effect.run)
                    put(run, "document", effect.submission)
                    for worker in effect.records():
                        put(run, f"w/{worker.name}", worker)
                case do.SaveHolder():
                    put(effect.run, f"h/{effect.digest}/{effect.node}", None)
                case do.SaveCursor():
                    store, last = self.cursors.get(effect.node, (effect.store, 0))
                    last = last if store == effect.store else 0
                    assert effect.number <= last + 1, f"cursor of {effect.node} went from {last} to {effect.number}"
                    self.cursors[effect.node] = (effect.store, effect.number)
                case do.SaveSettled():
                    self.settled = effect.number
                case do.ReadAgain():
                    self.cursors = {node: cursor for node, cursor in self.cursors.items() if node in effect.but}
                case do.SaveLateFact():
                    if effect.fact.run in self.runs:
                        self._late(effect)
                        changed[effect.fact.run] = None
                        self.touched[effect.fact.run] = number
                case do.AdoptRun():
                    run = effect.snapshot.run.id
                    self.runs[run] = _rows_of(effect.snapshot)
                    self.touched[run] = number
                    self.forgotten.pop(run, None)
                    self.left.pop(run, None)
                    changed[run] = None
                case do.SaveCopies():
                    self.copies.keep(effect.page)
                case do.ReleaseRun():
                    self._release(effect.head, number, handing=effect.handing)
                    changed[effect.head.run] = None
        self.number = number
        return changed

    def _late(self, effect: do.SaveLateFact) -> None:
        fact = effect.fact
        key = f"t/{fact.worker}/{fact.attempt}"
        rows = self.runs[fact.run]
        task = rows.get(key)
        if task is None:  # no copy told of it when the run was adopted
            at = fact.started_at or fact.at
            task = TaskRecord(*fact.id, effect.node, TaskStatus.LOST, at, fact.started_at)
        unknown = task.status is TaskStatus.SUPERSEDED and task.completed_at is None
        if task.node == effect.node and (not task.status.final or task.status is TaskStatus.LOST or unknown):
            task = replace(
                task,
                status=TaskStatus.SUPERSEDED,
                completed_at=fact.at,
                exit_code=fact.exit_code,
                signal=fact.signal,
                error_message=fact.error,
            )
        rows[key] = task

    def _release(self, head: RunHead, number: int, *, handing: bool) -> None:
        rows = self.runs.get(head.run)
        of = (head.owner, head.store)
        heads = self.copies.heads_of([head.run])
        known = any(other.rank >= head.rank or (other.number and (other.owner, other.store) == of) for other in heads)
        if rows is not None and not known:
            stands_in = replace(head, number=0, cancelled=head.cancelled or handing)
            copied = CopiedRun(head.run, 0, tuple(rows.items()), stands_in)
            self.copies.put(head.owner, head.store, copied)
        if rows is not None and not handing:
            self.left[head.run] = rows["run"].epoch
        if not handing:
            self.runs.pop(head.run, None)
            self.touched.pop(head.run, None)
            self.forgotten[head.run] = number

    # --- reading ------------------------------------------------------------------------------------------------------

    def head(self, run: str) -> RunHead | None:
        """Which state of a run of its own it has."""
        rows = self.runs.get(run)
        return None if rows is None else head_of(rows["run"], self.id, self.touched[run])

    def unfinished(self) -> list[str]:
        """Its own runs that are not final."""
        return [run for run, rows in self.runs.items() if not rows["run"].status.final]

    def snapshot(self, run: str) -> Snapshot:
        """A run of its own to go on with."""
        return snapshot_of(self.runs[run])

    def changed_after(self, after: int) -> list[tuple[int, str]]:
        """(commit, run) for what was changed or released after a commit and not again later, oldest first."""
        found = [(number, run) for run, number in (*self.touched.items(), *self.forgotten.items()) if number > after]
        return sorted(found)


def _rows_of(snapshot: Snapshot) -> Rows:
    rows: Rows = {"run": snapshot.run, "document": (snapshot.workflow, snapshot.submission)}
    for name in snapshot.workflow.workers:
        rows[f"w/{name}"] = snapshot.workers.get(name) or WorkerRecord(snapshot.run.id, name, WorkerStatus.CREATED)
    rows |= {f"t/{task.worker}/{task.attempt}": task for task in snapshot.tasks}
    rows |= {f"h/{digest}/{node}": None for digest, nodes in snapshot.holders.items() for node in sorted(nodes)}
    return rows


def snapshot_of(rows: Rows) -> Snapshot:
    """The run in a copy's rows; raises KeyError when they make none."""
    workflow, submission = rows["document"]
    holders: dict[str, set[str]] = {}
    for key in rows:
        if key[0] == "h":
            _, digest, node = key.split("/")
            holders.setdefault(digest, set()).add(node)
    workers = {row.name: row for key, row in rows.items() if key[:2] == "w/"}
    tasks = sorted((row for key, row in rows.items() if key[:2] == "t/"), key=lambda task: (task.worker, task.attempt))
    nodes = {digest: frozenset(names) for digest, names in holders.items()}
    return Snapshot(rows["run"], workflow, workers, tuple(tasks), nodes, submission)


class RuntimeStore:
    """A runtime's tables; ``id`` is the identity of its data folder."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.open: dict[TaskId, HeldTask] = {}
        self.ended: dict[str, dict[str, int]] = {}  # run -> worker -> the newest attempt that has ended
        self.fences: dict[str, tuple[int, str]] = {}
        self.feed: list[tuple[Fact, ...]] = []
        self.copies = Copies()

    def past(self, run: str, workers: Iterable[str]) -> tuple[tuple[int, str] | None, dict[str, int]]:
        """What it knows of a run, and of some of its workers."""
        ended = self.ended.get(run, {})
        return self.fences.get(run), {worker: ended[worker] for worker in workers if worker in ended}

    def commit(self, effects: Iterable[RuntimeEffect]) -> tuple[Fact, ...]:
        """Apply one batch's Save effects; the facts of the feed's new entry, if there is one."""
        facts: list[Fact] = []
        for effect in effects:
            match effect:
                case do.SaveHeldTask() if effect.task.phase is Phase.DONE:
                    self.open.pop(effect.task.assignment.id, None)
                    task = effect.task.assignment
                    ended = self.ended.setdefault(task.run, {})
                    ended[task.worker] = max(task.attempt, ended.get(task.worker, 0))
                case do.SaveHeldTask():
                    self.open[effect.task.assignment.id] = effect.task
                case do.SaveFence():
                    pair, before = (effect.epoch, effect.owner), self.fences.get(effect.run, (0, ""))
                    assert pair > before, f"the fence of run {effect.run} went from {before} to {pair}"
                    self.fences[effect.run] = pair
                case do.Append():
                    facts.append(effect.fact)
                case do.SaveCopies():
                    self.copies.keep(effect.page)
        if facts:
            self.feed.append(tuple(facts))
        return tuple(facts)
