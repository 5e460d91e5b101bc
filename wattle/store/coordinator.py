"""The coordinator's store: workflows, runs, workers, attempts, and how far it has read each runtime's feed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from wattle.core import effects as do
from wattle.core.effects import CoordinatorEffect
from wattle.core.model import (
    RunRecord,
    RunStatus,
    Snapshot,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    Workflow,
)
from wattle.store.base import Insert, Lookup, Store, Update, Upsert
from wattle.store.coordinator_rows import (
    RUN_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    NewWorkers,
    run_record,
    run_values,
    task_record,
    task_values,
    worker_record,
    worker_values,
)
from wattle.store.coordinator_tables import (
    MIGRATIONS,
    MODELS,
    Cursors,
    Documents,
    Holders,
    Runs,
    Tasks,
    Workers,
    Workflows,
)
from wattle.store.copies import CopyTables
from wattle.store.forgotten import ForgottenRuns
from wattle.store.owned import DEFINITION, Definition, OwnedRuns, text

_UPDATE_RUN = Update(Runs, (*RUN_COLUMNS, "number"))
_UPDATE_WORKER = Update(Workers, WORKER_COLUMNS)
_UPSERT_TASK = Upsert(Tasks, TASK_COLUMNS)
_INSERT_TASK = Upsert(Tasks, TASK_COLUMNS, ())
_TOUCH_RUN = "UPDATE runs SET number = ? WHERE id = ?"
_SAVE_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_DROP_DOCUMENT = (
    "DELETE FROM documents WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.document = digest) "
    "AND NOT EXISTS (SELECT 1 FROM workflows WHERE workflows.document = digest)"
)
_CLAIM_WORKFLOW = (
    "UPDATE workflows SET latest_run = ? WHERE name = ? AND (latest_run IS NULL OR "
    "coalesce((SELECT created_at FROM runs WHERE id = latest_run), 0) <= ?)"
)
_UPSERT_CURSOR = Upsert(Cursors, ("node", "store", "number"))
_INSERT_HOLDER = Upsert(Holders, ("run", "digest", "node"))
_INSERT_RUN = Insert(Runs, ("id", "workflow_name", "created_at", "params", "document", *RUN_COLUMNS))
_INSERT_DOCUMENT = Upsert(Documents, ("digest", "body"), ())
_DEFINED = ("working_dir", "updated_at", "workers", "document", "deleted_at")
_UPSERT_WORKFLOW = Upsert(Workflows, ("name", "status", "created_at", *_DEFINED), _DEFINED)
_FIND_RUN, _FIND_WORKER = Lookup(Runs), Lookup(Workers)
_TURN_TO_RUN = Update(Workflows, ("latest_run",))
_FOLLOW_RUN = Update(
    Workflows, ("latest_run", "status", "started_at", "completed_at"), also='("latest_run" IS NULL OR "latest_run" = ?)'
)


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

    ``owner`` is the coordinator's name, ``number`` the count of its commits, ``settled`` how many of them were known to be settled when it
    was opened. ``copies`` are those of other owners' runs, ``owned`` its own as they travel, ``forgotten`` the runs that it does not have
    any more.
    """

    def __init__(self, path: Path, *, owner: str = "", synchronous: str = "normal") -> None:
        super().__init__(path, MODELS, MIGRATIONS, synchronous=synchronous)
        self.owner = owner
        self.copies = CopyTables(self)
        self.owned = OwnedRuns(self)
        found: dict[str, str] = dict(
            self.query("SELECT key, value FROM meta WHERE key IN ('number', 'settled', 'trimmed')")
        )
        self.number, self.settled = int(found.get("number", 0)), int(found.get("settled", 0))
        self.forgotten = ForgottenRuns(self, int(found.get("trimmed", 0)))

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
        runs = [e.run for e in groups[do.SaveRun]]
        if runs:
            self.write(_UPDATE_RUN, ((*run_values(run), number, run.id) for run in runs))
            self._follow(runs)
        if groups[do.SaveWorker]:
            self.write(
                _UPDATE_WORKER, ((*worker_values(e.worker), e.worker.run, e.worker.name) for e in groups[do.SaveWorker])
            )
        if groups[do.SaveTask]:
            self.write(_UPSERT_TASK, (task_values(e.task) for e in groups[do.SaveTask]))
        for again in groups[do.ReadAgain]:
            for node in self.cursors().keys() - again.but:
                self.execute("DELETE FROM cursors WHERE node = ?", (node,))
        if groups[do.SaveCursor]:
            self.write(_UPSERT_CURSOR, ((e.node, e.store, e.number) for e in groups[do.SaveCursor]))
        for settled in groups[do.SaveSettled]:
            self.execute(_SAVE_META, ("settled", str(settled.number)))
        if groups[do.SaveHolder]:
            self.write(_INSERT_HOLDER, ((e.run, e.digest, e.node) for e in groups[do.SaveHolder]))
        for late in groups[do.SaveLateFact]:
            self._save_late(late)
        for kept in groups[do.SaveCopies]:
            self.copies.keep(kept.page)
        for released in groups[do.ReleaseRun]:
            self.forgotten.release(released.head, number, handing=released.handing)
        for forgotten in groups[do.ForgetRun]:
            self.forgotten.forget(forgotten.head, number)
        if number > self.number:
            touched = touched_runs(groups).difference(run.id for run in runs)
            self.execute_many(_TOUCH_RUN, ((number, run) for run in touched))
            self.execute(_SAVE_META, ("number", str(number)))

    def _create_run(self, created: do.CreateRun) -> None:
        run, submission = created.run, created.submission
        document = from_json(submission.body)
        self.put_workflow(document, submission.body, submission.digest, run.created_at)
        given = (run.id, run.workflow, run.created_at, text(submission.params), submission.digest)
        self.write(_INSERT_RUN, [(*given, *run_values(run))])
        self._insert_workers(run, document, created.moved, created.ready)
        self.write(_TURN_TO_RUN, [(run.id, run.workflow)])
        self._follow([run])

    def _follow(self, runs: Iterable[RunRecord]) -> None:
        """Let each run's workflow show it, unless that shows a later one."""
        self.write(
            _FOLLOW_RUN, ((r.id, r.status._value_, r.started_at, r.completed_at, r.workflow, r.id) for r in runs)
        )

    def _adopt(self, snapshot: Snapshot) -> None:
        """Take another owner's run in as one's own, history and all."""
        run, submission = snapshot.run, snapshot.submission
        known = self.owned.definition(run.workflow)
        document = from_json(submission.body)
        if known is None or known.updated_at < run.created_at:
            self.put_workflow(document, submission.body, submission.digest, run.created_at)
        self.write(_INSERT_DOCUMENT, [(submission.digest, submission.body)])
        given = (run.id, run.workflow, run.created_at, text(submission.params), submission.digest)
        self.remove(run.id)
        self.write(_INSERT_RUN, [(*given, *run_values(run))])
        self._insert_workers(run, document, snapshot.workers.values())
        self.write(_UPSERT_TASK, (task_values(task) for task in snapshot.tasks))
        self.write(_INSERT_HOLDER, ((run.id, d, node) for d, nodes in snapshot.holders.items() for node in nodes))
        self.execute(_CLAIM_WORKFLOW, (run.id, run.workflow, run.created_at))
        self._follow([run])
        self.execute("DELETE FROM forgotten WHERE run = ?", (run.id,))

    def _insert_workers(
        self, run: RunRecord, document: Mapping[str, Any], moved: Iterable[WorkerRecord], ready: Set[str] = frozenset()
    ) -> None:
        """The rows of a run's workers: those that have ``moved`` as they say, the others as new, and some of them ``ready``."""
        new = NewWorkers(document["workers"])
        self.execute_many(new.sql, new.rows(run, ready))
        self.write(_UPDATE_WORKER, ((*worker_values(worker), run.id, worker.name) for worker in moved))

    def _define(self, definition: Definition, number: int) -> None:
        self.put_workflow(definition.document, text(definition.document), definition.digest, definition.updated_at)
        self.execute(
            "UPDATE workflows SET deleted_at = ?, number = ? WHERE name = ?",
            (definition.deleted_at, number, definition.name),
        )
        self.execute("DELETE FROM forgotten WHERE run = ?", (DEFINITION + definition.name,))

    def remove(self, run: str) -> None:
        """Remove a run's rows."""
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
        self.write(_INSERT_TASK, [task_values(record)])  # should no copy have told of it when the run was adopted
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
            self.drop_document(before[0][0])

    def drop_document(self, digest: str) -> None:
        """Remove a document unless a run or definition here still has it."""
        self.execute(_DROP_DOCUMENT, (digest,))

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
        workers = {w.name: worker_record(w) for w in Workers.select().where(Workers.run == run_id)}
        query = Tasks.select().where(Tasks.run == run_id)
        if not run.adopted:  # else every attempt is told, so that unknown ones can be recognised
            kept = (*(s.value for s in TaskStatus if not s.final), TaskStatus.LOST.value)
            query = query.where(Tasks.status.in_(kept))
        tasks = tuple(task_record(task) for task in query)
        holders: dict[str, set[str]] = defaultdict(set)
        for holder in Holders.select().where(Holders.run == run_id):
            holders[holder.digest].add(holder.node)
        return Snapshot(
            run_record(run), workflow, workers, tasks, {d: frozenset(nodes) for d, nodes in holders.items()}
        )
