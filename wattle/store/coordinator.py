"""The coordinator's store: workflows, runs, workers, attempts, and how far it has read each runtime's feed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import peewee
from pydantic import TypeAdapter
from pydantic_core import from_json

from wattle.core import effects as do
from wattle.core.effects import CoordinatorEffect
from wattle.core.model import (
    CopiedRun,
    Output,
    RunHead,
    RunRecord,
    RunStatus,
    Snapshot,
    TaskRecord,
    TaskStatus,
    Usage,
    WorkerRecord,
    WorkerStatus,
    Workflow,
)
from wattle.store.base import Insert, Lookup, Migration, Store, Update, Upsert
from wattle.store.coordinator_tables import (
    MODELS,
    Cursors,
    Documents,
    Forgotten,
    Holders,
    Runs,
    Tasks,
    Workers,
    Workflows,
)
from wattle.store.copies import COPY_MODELS, TRIM_MOST, CopyTables
from wattle.store.owned import DEFINITION, Definition, OwnedRuns, definition_copy, text


def _add_copies(database: peewee.SqliteDatabase) -> None:
    """Schema 2: several coordinators."""
    for column in ("retried", "adopted", "number"):
        database.execute_sql(f"ALTER TABLE runs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    database.execute_sql("ALTER TABLE workflows ADD COLUMN number INTEGER NOT NULL DEFAULT 0")
    for table, column in (
        ("runs", "number"),
        ("runs", "completed_at"),
        ("runs", "document"),
        ("workflows", "document"),
    ):
        database.execute_sql(f'CREATE INDEX "{table}_{column}" ON "{table}" ("{column}")')
    database.create_tables([Forgotten, *COPY_MODELS])


MIGRATIONS: tuple[Migration, ...] = (_add_copies,)

_RUN = (
    "id",
    "status",
    "owner",
    "epoch",
    "started_at",
    "completed_at",
    "error_message",
    "cancel_requested",
    "counts",
    "retried",
    "adopted",
)
_WORKER = (
    "status", "error_message", "attempts", "failures", "losses", "reproduced", "not_before", "results", "ready_at", "started_at",
    "completed_at",
)  # fmt: skip
_DEFINITION = (
    "position",
    "workflow_name",
    "command",
    "args",
    "script",
    "working_dir",
    "env_vars",
    "inputs",
    "outputs",
    "needs",
)
_TASK = (
    "run", "worker", "attempt", "node", "status", "assigned_at", "started_at", "completed_at", "exit_code", "signal", "error_message",
    "cpu_seconds", "memory_peak",
)  # fmt: skip

_UPDATE_RUN = Update(Runs, _RUN[1:])
_INSERT_WORKER = Upsert(Workers, ("run", "name", *_DEFINITION, "created_at", *_WORKER))
_UPDATE_WORKER = Update(Workers, _WORKER)
_UPSERT_TASK = Upsert(Tasks, _TASK)
_INSERT_TASK = Upsert(Tasks, _TASK, ())
_TOUCH_RUN = "UPDATE runs SET number = ? WHERE id = ?"
_SAVE_NUMBER = (
    "INSERT INTO meta (key, value) VALUES ('number', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_SAVE_TRIMMED = (
    "INSERT INTO meta (key, value) VALUES ('trimmed', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_DROP_DOCUMENT = (
    "DELETE FROM documents WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.document = digest) "
    "AND NOT EXISTS (SELECT 1 FROM workflows WHERE workflows.document = digest)"
)
_DROP_WORKFLOW = (  # which only its runs have brought here
    "DELETE FROM workflows WHERE name = ? AND number = 0 AND NOT EXISTS (SELECT 1 FROM runs WHERE workflow_name = name)"
)
_PRUNABLE = (
    "SELECT id FROM runs WHERE completed_at < ? AND status IN ('succeeded', 'failed', 'cancelled') AND owner = ? AND number <= ? "
    "ORDER BY completed_at LIMIT ?"
)
_FORGOTTEN = (
    "INSERT INTO forgotten (run, number, at, head) VALUES (?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET number = excluded.number, "
    "at = excluded.at, head = excluded.head"
)
_CLAIM_WORKFLOW = (
    "UPDATE workflows SET latest_run = ? WHERE name = ? AND (latest_run IS NULL OR "
    "coalesce((SELECT created_at FROM runs WHERE id = latest_run), 0) <= ?)"
)
_UPSERT_CURSOR = Upsert(Cursors, ("node", "store", "number"))
_INSERT_HOLDER = Upsert(Holders, ("run", "digest", "node"))
_INSERT_RUN = Insert(Runs, ("id", "workflow_name", "created_at", "params", "document", *_RUN[1:]))
_INSERT_DOCUMENT = Upsert(Documents, ("digest", "body"), ())
_DEFINED = ("working_dir", "updated_at", "workers", "document", "deleted_at")
_UPSERT_WORKFLOW = Upsert(Workflows, ("name", "status", "created_at", *_DEFINED), _DEFINED)
_FIND_RUN, _FIND_WORKER = Lookup(Runs), Lookup(Workers)
_TURN_TO_RUN = Update(Workflows, ("latest_run",))
_FOLLOW_RUN = Update(
    Workflows, ("latest_run", "status", "started_at", "completed_at"), also='("latest_run" IS NULL OR "latest_run" = ?)'
)

_RESULTS = TypeAdapter(dict[str, Output])


def touched_runs(groups: Mapping[type, list[Any]]) -> set[str]:
    """The runs that a batch's effects change something of."""
    touched = {e.run.id for kind in (do.CreateRun, do.SaveRun) for e in groups.get(kind, ())}
    touched |= {e.snapshot.run.id for e in groups.get(do.AdoptRun, ())}
    touched |= {e.worker.run for e in groups.get(do.SaveWorker, ())}
    touched |= {e.task.run for e in groups.get(do.SaveTask, ())}
    touched |= {e.run for e in groups.get(do.SaveHolder, ())}
    return touched | {e.fact.run for e in groups.get(do.SaveLateFact, ())}


class CoordinatorStore(Store):
    """See the module's docstring. Reads give rows; wattle/coordinator/views.py makes them public.

    ``owner`` is the coordinator's name, ``number`` the count of its commits. ``copies`` are those of other owners' runs, ``owned`` its own
    as they travel. ``trimmed`` is the newest commit of which it is not known any more what it removed.
    """

    def __init__(self, path: Path, *, owner: str = "", synchronous: str = "normal") -> None:
        super().__init__(path, MODELS, MIGRATIONS, synchronous=synchronous)
        self.owner = owner
        self.copies = CopyTables(self)
        self.owned = OwnedRuns(self)
        found: dict[str, str] = dict(self.query("SELECT key, value FROM meta WHERE key IN ('number', 'trimmed')"))
        self.number, self.trimmed = int(found.get("number", 0)), int(found.get("trimmed", 0))

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, effects: Iterable[CoordinatorEffect], number: int | None = None) -> None:
        """Write every Save effect, within one transaction of the caller's; others are not looked at.

        ``number`` is this commit's; the caller sets ``self.number`` once the transaction is durable.
        """
        number = self.number + 1 if number is None else number
        groups: dict[type, list[Any]] = defaultdict(list)
        for effect in effects:
            groups[type(effect)].append(effect)
        for adopted in groups[do.AdoptRun]:
            self._adopt(adopted.snapshot)
        for created in groups[do.CreateRun]:
            self._create_run(created)
        for defined in groups[do.SaveDefinition]:
            self._define(defined.definition, number)
        if groups[do.SaveRun]:
            runs = [e.run for e in groups[do.SaveRun]]
            self.write(_UPDATE_RUN, ((*_run_row(run), run.id) for run in runs))
            self._follow(runs)
        if groups[do.SaveWorker]:
            self.write(
                _UPDATE_WORKER, ((*_worker_row(e.worker), e.worker.run, e.worker.name) for e in groups[do.SaveWorker])
            )
        if groups[do.SaveTask]:
            self.write(_UPSERT_TASK, (_task_row(e.task) for e in groups[do.SaveTask]))
        for again in groups[do.ReadAgain]:
            for node in self.cursors().keys() - again.but:
                self.execute("DELETE FROM cursors WHERE node = ?", (node,))
        if groups[do.SaveCursor]:
            self.write(_UPSERT_CURSOR, ((e.node, e.store, e.number) for e in groups[do.SaveCursor]))
        if groups[do.SaveHolder]:
            self.write(_INSERT_HOLDER, ((e.run, e.digest, e.node) for e in groups[do.SaveHolder]))
        for late in groups[do.SaveLateFact]:
            self._save_late(late)
        for kept in groups[do.SaveCopies]:
            self.copies.keep(kept.page)
        for released in groups[do.ReleaseRun]:
            self._release(released.head, number, handing=released.handing)
        for forgotten in groups[do.ForgetRun]:
            self._forget(forgotten.head, number)
        if number > self.number:
            self.execute_many(_TOUCH_RUN, ((number, run) for run in touched_runs(groups)))
            self.execute(_SAVE_NUMBER, (str(number),))

    def _create_run(self, created: do.CreateRun) -> None:
        run, submission = created.run, created.submission
        document = from_json(submission.body)
        self.put_workflow(document, submission.body, submission.digest, run.created_at)
        given = (run.id, run.workflow, run.created_at, text(submission.params), submission.digest)
        self.write(_INSERT_RUN, [(*given, *_run_row(run))])
        self._insert_workers(run, document, {worker.name: worker for worker in created.workers})
        self.write(_TURN_TO_RUN, [(run.id, run.workflow)])
        self._follow([run])

    def _follow(self, runs: Iterable[RunRecord]) -> None:
        """Let each run's workflow show it, unless that shows a later one."""
        self.write(_FOLLOW_RUN, ((r.id, r.status.value, r.started_at, r.completed_at, r.workflow, r.id) for r in runs))

    def _adopt(self, snapshot: Snapshot) -> None:
        """Take another owner's run in as one's own, history and all."""
        run, submission = snapshot.run, snapshot.submission
        known = self.owned.definition(run.workflow)
        document = from_json(submission.body)
        if known is None or known.updated_at < run.created_at:
            self.put_workflow(document, submission.body, submission.digest, run.created_at)
        self.write(_INSERT_DOCUMENT, [(submission.digest, submission.body)])
        given = (run.id, run.workflow, run.created_at, text(submission.params), submission.digest)
        self._remove(run.id)
        self.write(_INSERT_RUN, [(*given, *_run_row(run))])
        self._insert_workers(run, document, snapshot.workers)
        self.write(_UPSERT_TASK, (_task_row(task) for task in snapshot.tasks))
        self.write(_INSERT_HOLDER, ((run.id, d, node) for d, nodes in snapshot.holders.items() for node in nodes))
        self.execute(_CLAIM_WORKFLOW, (run.id, run.workflow, run.created_at))
        self._follow([run])
        self.execute("DELETE FROM forgotten WHERE run = ?", (run.id,))

    def _insert_workers(self, run: RunRecord, document: Mapping[str, Any], workers: Mapping[str, WorkerRecord]) -> None:
        """The rows of a run's workers, in the order of their keys, which SQLite takes in half the time of any other."""
        placed = sorted(((w["name"], n, w) for n, w in enumerate(document["workers"])), key=itemgetter(0))
        unknown = WorkerRecord(run.id, "", WorkerStatus.CREATED)
        self.write(
            _INSERT_WORKER,
            (
                (
                    run.id,
                    name,
                    *_definition_row(n, run.workflow, worker),
                    run.created_at,
                    *_worker_row(workers.get(name, unknown)),
                )
                for name, n, worker in placed
            ),
        )

    def _define(self, definition: Definition, number: int) -> None:
        self.put_workflow(definition.document, text(definition.document), definition.digest, definition.updated_at)
        self.execute(
            "UPDATE workflows SET deleted_at = ?, number = ? WHERE name = ?",
            (definition.deleted_at, number, definition.name),
        )
        self.execute("DELETE FROM forgotten WHERE run = ?", (DEFINITION + definition.name,))

    def _release(self, head: RunHead, number: int, *, handing: bool) -> None:
        """Let another owner have a run or definition; what was one's own stays as a copy until a real one is here.

        While it is being handed over it stays one's own as well, so that whoever keeps copies of it hears of its cancel.
        """
        if head.run.startswith(DEFINITION):
            definition = self.owned.definition(head.run.removeprefix(DEFINITION))
            rows = () if definition is None else definition_copy(definition, head.owner, head.store, 0).rows
            self.execute("DELETE FROM workflows WHERE name = ?", (head.run.removeprefix(DEFINITION),))
        else:
            rows = tuple(self.owned.all(head.run))
            if not handing:
                self._remove(head.run)
        of = (head.owner, head.store)
        known = any(
            h.rank >= head.rank or (h.number and (h.owner, h.store) == of) for h in self.copies.heads_of([head.run])
        )
        if rows and not known:
            copied = CopiedRun(head.run, 0, rows, replace(head, number=0, cancelled=head.cancelled or handing))
            self.copies.put(head.owner, head.store, copied)
        if not handing:
            self.execute(_FORGOTTEN, (head.run, number, time.time(), None))

    def _forget(self, head: RunHead, number: int) -> None:
        """Remove a final run for good, and what only it has brought here."""
        row = self.run(head.run)
        if row is None:
            return  # another owner has it meanwhile
        self._remove(head.run)
        self.copies.forget_run(head.run)
        self.execute(_FORGOTTEN, (head.run, number, head.pruned_at, text(head)))
        self.execute(_DROP_WORKFLOW, (row.workflow_name,))
        self.execute(_DROP_DOCUMENT, (row.document,))

    def trim(self, before: float) -> int:
        """Forget which runs were removed before a time, some of them at once, within a transaction; gives how many they were."""
        found = self.query("SELECT run, number FROM forgotten WHERE at < ? ORDER BY at LIMIT ?", (before, TRIM_MOST))
        if found:
            self.execute_many("DELETE FROM forgotten WHERE run = ?", ((run,) for run, _ in found))
            self.trimmed = max(self.trimmed, *(number for _, number in found))
            self.execute(_SAVE_TRIMMED, (str(self.trimmed),))
        return len(found)

    def _remove(self, run: str) -> None:
        self.execute("DELETE FROM runs WHERE id = ?", (run,))
        for table in ("workers", "tasks", "holders"):
            self.execute(f'DELETE FROM "{table}" WHERE run = ?', (run,))

    def _save_late(self, late: do.SaveLateFact) -> None:
        fact = late.fact
        if self.run(fact.run) is None:
            return  # another owner's
        at = fact.started_at or fact.at
        unended = [status.value for status in TaskStatus if status is TaskStatus.LOST or not status.final]
        unknown = (Tasks.status == TaskStatus.SUPERSEDED) & Tasks.completed_at.is_null()
        record = TaskRecord(*fact.id, late.node, TaskStatus.LOST, at, fact.started_at)
        self.write(_INSERT_TASK, [_task_row(record)])  # should no copy have told of it when the run was adopted
        Tasks.update(
            status=TaskStatus.SUPERSEDED,
            completed_at=fact.at,
            exit_code=fact.exit_code,
            signal=fact.signal,
            error_message=fact.error,
        ).where(
            Tasks.run == fact.run,
            Tasks.worker == fact.worker,
            Tasks.attempt == fact.attempt,
            Tasks.node == late.node,
            Tasks.status.in_(unended) | unknown,
        ).execute()

    def put_workflow(self, document: Mapping[str, Any], body: str, digest: str, now: float) -> None:
        """Create or replace a definition, ``body`` being its document's text; a deleted one is there again."""
        self.write(_INSERT_DOCUMENT, [(digest, body)])
        defined = (document.get("working_dir"), now, len(document["workers"]), digest, None)
        before = self.query("SELECT document FROM workflows WHERE name = ?", (document["name"],))
        self.write(_UPSERT_WORKFLOW, [(document["name"], RunStatus.CREATED.value, now, *defined)])
        if before and before[0][0] != digest:
            self.execute(_DROP_DOCUMENT, before[0])

    # --- reading ------------------------------------------------------------------------------------------------------

    def cursors(self) -> dict[str, tuple[str, int]]:
        """Node -> (identity of its data folder, last entry learned)."""
        return {c.node: (c.store, c.number) for c in Cursors.select()}

    def unfinished(self) -> Iterator[str]:
        """Ids of runs that are not final, oldest first; those of other owners are left out by the caller."""
        final = [s.value for s in RunStatus if s.final]
        for run in Runs.select(Runs.id).where(Runs.status.not_in(final)).order_by(Runs.created_at):
            yield run.id

    def of_others(self) -> dict[str, int]:
        """How many runs here belong to other names: those are former names of the coordinator on this data folder."""
        return dict(self.query("SELECT owner, COUNT(*) FROM runs WHERE owner != ? GROUP BY owner", (self.owner,)))

    @staticmethod
    def record(row: Runs) -> RunRecord:
        """The record in a run's row."""
        return run_record(row)

    def document(self, digest: str) -> dict[str, Any]:
        """A stored document in JSON form."""
        document: dict[str, Any] = from_json(self.document_text(digest))
        return document

    def document_text(self, digest: str) -> str:
        """A stored document as its JSON text."""
        body: str = Documents.get_by_id(digest).body
        return body

    def run(self, run_id: str) -> Runs | None:
        """A run's row."""
        return self.row(_FIND_RUN, run_id)

    def prunable(self, before: float, settled: int, limit: int) -> list[RunHead]:
        """This owner's runs that ended before a time and have not changed since the commit ``settled``, oldest first."""
        found = [self.owned.head(run) for (run,) in self.query(_PRUNABLE, (before, self.owner, settled, limit))]
        return [head for head in found if head is not None]

    def pruned(self, run: str) -> RunHead | None:
        """The last state of a run that is known to have been pruned; None when it is not known, or somebody has gone on with it."""
        return self.gone(run) if self.run(run) is None else None

    def gone(self, run: str) -> RunHead | None:
        """The same for a run that is not here."""
        own = self.owned.pruned(run)
        heads = [*self.copies.heads_of([run]), *([] if own is None else [own])]
        best = max(heads, key=lambda head: head.rank, default=None)
        return best if best is not None and best.pruned_at else None

    def runs(
        self,
        workflow: str | None,
        status: str | None,
        after: tuple[float, str] | None,
        limit: int,
        *,
        owner: str | None = None,
    ) -> list[Runs]:
        """Runs, newest first, from the one ``after`` (created_at, id) on; those of one owner, or of all."""
        query = Runs.select().order_by(Runs.created_at.desc(), Runs.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(Runs.owner == owner)
        if workflow is not None:
            query = query.where(Runs.workflow_name == workflow)
        if status is not None:
            query = query.where(Runs.status == status)
        if after is not None:
            at, run_id = after
            query = query.where((Runs.created_at < at) | ((Runs.created_at == at) & (Runs.id < run_id)))
        return list(query)

    def workers(self, run: str, status: str | None = None, after: int = -1, limit: int = 1000) -> list[Workers]:
        """Workers of a run in the order of its document, from the one after position ``after`` on."""
        query = (
            Workers.select().where(Workers.run == run, Workers.position > after).order_by(Workers.position).limit(limit)
        )
        if status is not None:
            query = query.where(Workers.status == status)
        return list(query)

    def worker(self, run: str, name: str) -> Workers | None:
        """One worker of a run."""
        return self.row(_FIND_WORKER, run, name)

    def tasks(self, run: str, workers: Iterable[str] | None = None) -> dict[str, list[Tasks]]:
        """Attempts of a run's workers, oldest first, by worker."""
        query = Tasks.select().where(Tasks.run == run).order_by(Tasks.worker, Tasks.attempt)
        if workers is not None:
            query = query.where(Tasks.worker.in_(list(workers)))
        found: dict[str, list[Tasks]] = defaultdict(list)
        for task in query:
            found[task.worker].append(task)
        return found

    def workflow(self, name: str) -> Workflows | None:
        """A definition that is not deleted."""
        row: Workflows | None = Workflows.get_or_none(Workflows.name == name, Workflows.deleted_at.is_null())
        return row

    def workflows(self, status: str | None, after: str | None, limit: int) -> list[Workflows]:
        """Definitions by name, from the one after ``after`` on."""
        query = Workflows.select().where(Workflows.deleted_at.is_null()).order_by(Workflows.name).limit(limit)
        if status is not None:
            query = query.where(Workflows.status == status)
        if after is not None:
            query = query.where(Workflows.name > after)
        return list(query)

    def snapshot(self, run_id: str, workflow: Workflow) -> Snapshot:
        """A run for the core to take up again; ``workflow`` is its document, compiled with its parameters."""
        run = Runs.get_by_id(run_id)
        workers = {w.name: _worker_record(w) for w in Workers.select().where(Workers.run == run_id)}
        query = Tasks.select().where(Tasks.run == run_id)
        if not run.adopted:  # else every attempt is told, so that unknown ones can be recognised
            kept = (*(s.value for s in TaskStatus if not s.final), TaskStatus.LOST.value)
            query = query.where(Tasks.status.in_(kept))
        tasks = tuple(_task_record(task) for task in query)
        holders: dict[str, set[str]] = defaultdict(set)
        for holder in Holders.select().where(Holders.run == run_id):
            holders[holder.digest].add(holder.node)
        return Snapshot(
            run_record(run), workflow, workers, tasks, {d: frozenset(nodes) for d, nodes in holders.items()}
        )


# --- rows and records -------------------------------------------------------------------------------------------------


def _run_row(run: RunRecord) -> tuple[Any, ...]:
    return (
        run.status.value, run.owner, run.epoch, run.started_at, run.completed_at, run.error_message, run.cancel_requested,
        text(run.counts), run.retried, run.adopted,
    )  # fmt: skip


def run_record(row: Runs) -> RunRecord:
    """The record in a row."""
    return RunRecord(
        id=row.id,
        workflow=row.workflow_name,
        status=RunStatus(row.status),
        owner=row.owner,
        epoch=row.epoch,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        error_message=row.error_message,
        cancel_requested=row.cancel_requested,
        counts=json.loads(row.counts),
        retried=row.retried,
        adopted=row.adopted,
    )


def _worker_row(worker: WorkerRecord) -> tuple[Any, ...]:
    return (
        worker.status._value_, worker.error_message, worker.attempts, worker.failures, worker.losses, worker.reproduced,
        worker.not_before, text(worker.results) if worker.results else "{}", worker.ready_at, worker.started_at, worker.completed_at,
    )  # fmt: skip


def _worker_record(row: Workers) -> WorkerRecord:
    return WorkerRecord(
        run=row.run,
        name=row.name,
        status=WorkerStatus(row.status),
        error_message=row.error_message,
        attempts=row.attempts,
        failures=row.failures,
        losses=row.losses,
        reproduced=row.reproduced,
        not_before=row.not_before,
        results=_RESULTS.validate_json(row.results),
        ready_at=row.ready_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
    )


def _definition_row(position: int, workflow: str, worker: Mapping[str, Any]) -> tuple[Any, ...]:
    given = worker.get
    command = given("command")
    args, env_vars, inputs, outputs, needs = (given(key) for key in ("args", "env_vars", "inputs", "outputs", "needs"))
    return (
        position, workflow, command if isinstance(command, str) or command is None else text(command),
        text(args) if args else "[]", given("script"), given("working_dir"), text(env_vars) if env_vars else "{}",
        text(inputs) if inputs else "{}", text(outputs) if outputs else "{}", text(needs) if needs else "[]",
    )  # fmt: skip


def _task_row(task: TaskRecord) -> tuple[Any, ...]:
    usage = task.usage
    return (
        task.run, task.worker, task.attempt, task.node, task.status._value_, task.assigned_at, task.started_at, task.completed_at,
        task.exit_code, task.signal, task.error_message, usage.cpu_seconds if usage else None, usage.memory_peak if usage else None,
    )  # fmt: skip


def _task_record(row: Tasks) -> TaskRecord:
    usage = None if row.cpu_seconds is None else Usage(row.cpu_seconds, row.memory_peak or 0)
    return TaskRecord(
        run=row.run,
        worker=row.worker,
        attempt=row.attempt,
        node=row.node,
        status=TaskStatus(row.status),
        assigned_at=row.assigned_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        exit_code=row.exit_code,
        signal=row.signal,
        error_message=row.error_message,
        usage=usage,
    )
