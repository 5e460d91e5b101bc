"""A coordinator's own runs and definitions as rows that travel: to the stores that keep copies, and back when a run is adopted.

The rows are those of wattle/store/copies.py. A definition travels like a run, under the name ``workflow/<name>``, and the newer one counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from wattle.core.model import CopiedRun, RunHead, RunRecord, TaskRecord, Usage, WorkerRecord
from wattle.core.run import head_of
from wattle.errors import InvalidRequest
from wattle.protocol.messages import adapter, decode
from wattle.store.coordinator_tables import Workflows
from wattle.store.copies import ROWS_MOST
from wattle.values import value

if TYPE_CHECKING:
    from wattle.store.coordinator import CoordinatorStore

DEFINITION = "workflow/"
"""What the name of a definition starts with where it travels like a run."""

Rows = list[tuple[str, str]]

# In the order of the records' fields: who is far behind is sent 200,000 rows of a large run, and peewee takes 50 us for each.
_WORKERS = (
    "SELECT run, name, status, error_message, attempts, failures, losses, reproduced, not_before, results, ready_at, started_at, "
    "completed_at FROM workers WHERE run = ? AND name > ? ORDER BY name LIMIT ?"
)
_TASKS = (
    "SELECT run, worker, attempt, node, status, assigned_at, started_at, completed_at, exit_code, signal, error_message, cpu_seconds, "
    "memory_peak FROM tasks WHERE run = ? AND (worker, attempt) > (?, ?) ORDER BY worker, attempt LIMIT ?"
)


@value(frozen=True, slots=True)
class Submission:
    """What a run was submitted with: the JSON text of its document, the digest of that, and the given parameters.

    The document stays a text: one of 100,000 workers is 15 times as large as a tree of values.
    """

    body: str
    digest: str
    params: Mapping[str, Any]


@value(frozen=True, slots=True)
class _Submitted:
    """A Submission as its row tells it."""

    document: Mapping[str, Any]
    digest: str
    params: Mapping[str, Any]


@value(frozen=True, slots=True)
class Definition:
    """A workflow's definition as it was put, or when it was deleted."""

    name: str
    updated_at: float
    document: Mapping[str, Any]
    digest: str
    created_at: float
    deleted_at: float | None = None

    def head(self, owner: str, store: str, number: int = 0) -> RunHead:
        """Which state of the definition this is: the one changed last has the highest rank."""
        version = round(self.updated_at * 1e6)
        return RunHead(DEFINITION + self.name, owner, store, 0, number, retried=version, final=True)


@value(frozen=True, slots=True)
class Recovered:
    """A run as its rows tell it."""

    run: RunRecord
    submission: Submission
    workers: dict[str, WorkerRecord]
    tasks: tuple[TaskRecord, ...]
    holders: dict[str, frozenset[str]]


def run_row(run: RunRecord) -> tuple[str, str]:
    """The row of a run."""
    return "run", record_text(run)


def document_row(submission: Submission) -> tuple[str, str]:
    """The row of what a run was submitted with."""
    rest = text({"digest": submission.digest, "params": submission.params})
    return "document", f'{{"document":{submission.body},{rest[1:]}'


def worker_row(worker: WorkerRecord) -> tuple[str, str]:
    """The row of a worker."""
    return f"w/{worker.name}", record_text(worker)


def task_row(task: TaskRecord) -> tuple[str, str]:
    """The row of an attempt."""
    return f"t/{task.worker}/{task.attempt}", record_text(task)


def holder_row(digest: str, node: str) -> tuple[str, str]:
    """The row that says who has some content."""
    return f"h/{digest}/{node}", ""


def recover(rows: Iterable[tuple[str, str]]) -> Recovered:
    """The run in a copy's rows; raises InvalidRequest when they do not make one: whoever sent them may have sent anything."""
    run: RunRecord | None = None
    submission: Submission | None = None
    workers: dict[str, WorkerRecord] = {}
    tasks: list[TaskRecord] = []
    holders: dict[str, set[str]] = defaultdict(set)
    for key, body in rows:
        kind, _, name = key.partition("/")
        match kind:
            case "run":
                run = decode(RunRecord, body)
            case "document":
                told = decode(_Submitted, body)
                submission = Submission(text(told.document), told.digest, told.params)
            case "w":
                worker = decode(WorkerRecord, body)
                workers[worker.name] = worker
            case "t":
                tasks.append(decode(TaskRecord, body))
            case "h":
                digest, _, node = name.partition("/")
                holders[digest].add(node)
    if run is None or submission is None:
        raise InvalidRequest(f"the copy lacks its {'run' if run is None else 'document'}")
    tasks.sort(key=lambda task: (task.worker, task.attempt))
    return Recovered(run, submission, workers, tuple(tasks), {d: frozenset(nodes) for d, nodes in holders.items()})


def recover_definition(rows: Iterable[tuple[str, str]]) -> Definition:
    """The definition in a copy's rows; raises InvalidRequest when there is none."""
    for key, body in rows:
        if key == "definition":
            return decode(Definition, body)
    raise InvalidRequest("the copy lacks its definition")


def definition_copy(definition: Definition, owner: str, store: str, number: int) -> CopiedRun:
    """A definition as it travels."""
    rows = (("definition", text(definition)),)
    return CopiedRun(DEFINITION + definition.name, number, rows, definition.head(owner, store, number))


def text(value: Any) -> str:
    """The JSON text of a column or row."""
    return to_json(value).decode()


def record_text(record: RunRecord | WorkerRecord | TaskRecord) -> str:
    """The same of a record, without what is as by default, and in a third of the time: its type tells what it consists of."""
    serializer = adapter(type(record)).serializer
    # Read from a store, a status is a text, of which it would warn.
    return str(serializer.to_json(record, exclude_defaults=True, warnings=False), "utf-8")


def _worker(row: Sequence[Any]) -> WorkerRecord:
    values = list(row)
    values[9] = from_json(values[9])
    return WorkerRecord(*values)


def _task(row: Sequence[Any]) -> TaskRecord:
    *values, seconds, memory = row
    values.append(None if seconds is None else Usage(seconds, memory or 0))
    return TaskRecord(*values)


class OwnedRuns:
    """The runs that a coordinator's store has as its own, to be told to those who keep copies."""

    def __init__(self, store: CoordinatorStore) -> None:
        self._store = store

    def head(self, run: str) -> RunHead | None:
        """Which state of a run or definition the store has; None when it has none. Of a run that was pruned it is the last one."""
        if run.startswith(DEFINITION):
            row = Workflows.get_or_none(Workflows.name == run.removeprefix(DEFINITION))
            return None if row is None else self._definition(row).head(self._store.owner, self._store.id, row.number)
        found = self._store.run(run)
        return self.pruned(run) if found is None else head_of(self._store.record(found), self._store.id, found.number)

    def pruned(self, run: str) -> RunHead | None:
        """The last state of a run of one's own that was pruned, as far as that is remembered."""
        last = self.last(run)
        return last if last is not None and last.pruned_at else None

    def last(self, run: str) -> RunHead | None:
        """The last state of a run that was pruned, or let go of for another owner's, as far as that is remembered."""
        sql = "SELECT head, number FROM forgotten WHERE run = ? AND head IS NOT NULL"
        for head, number in self._store.query(sql, (run,)):
            decoded: RunHead = adapter(RunHead).validate_json(head)
            return replace(decoded, number=number)
        return None

    def changed(self, after: int) -> list[tuple[int, str]]:
        """(commit, run or definition) for what was touched or forgotten after a commit and not again later, oldest first."""
        definition = f"'{DEFINITION}' || name"
        sql = (
            "SELECT number, id FROM runs WHERE number > ? UNION ALL SELECT number, run FROM forgotten WHERE number > ? "
            f"UNION ALL SELECT number, {definition} FROM workflows WHERE number > ? ORDER BY 1, 2"
        )
        return [(number, run) for number, run in self._store.query(sql, (after, after, after))]

    def rows(self, run: str, after: str = "") -> Rows:
        """Up to ROWS_MOST rows of a run, from the one after ``after`` on; in the order of their kinds, not of their keys' texts."""
        found: Rows = []
        kinds = {"run": self._run, "document": self._document, "w": self._workers, "t": self._tasks, "h": self._holders}
        at, _, rest = after.partition("/")
        skipping = bool(after)
        for kind, read in kinds.items():
            if skipping and kind != at:
                continue
            if not (skipping and kind in ("run", "document")):
                found += read(run, rest if skipping else "", ROWS_MOST - len(found))
            skipping = False
            if len(found) >= ROWS_MOST:
                break
        return found

    def _run(self, run: str, after: str, limit: int) -> Rows:
        row = self._store.run(run)
        return [] if row is None else [run_row(self._store.record(row))]

    def _document(self, run: str, after: str, limit: int) -> Rows:
        row = self._store.run(run)
        if row is None:
            return []
        body = self._store.document_text(row.document)
        return [document_row(Submission(body, row.document, json.loads(row.params)))]

    def _workers(self, run: str, after: str, limit: int) -> Rows:
        found = self._store.query(_WORKERS, (run, after, limit))
        return [worker_row(_worker(row)) for row in found]

    def _tasks(self, run: str, after: str, limit: int) -> Rows:
        worker, _, attempt = after.rpartition("/")
        found = self._store.query(_TASKS, (run, worker, int(attempt or 0), limit))
        return [task_row(_task(row)) for row in found]

    def _holders(self, run: str, after: str, limit: int) -> Rows:
        digest, _, node = after.partition("/")
        sql = "SELECT digest, node FROM holders WHERE run = ? AND (digest, node) > (?, ?) ORDER BY digest, node LIMIT ?"
        return [holder_row(*found) for found in self._store.query(sql, (run, digest, node, limit))]

    def definition(self, name: str) -> Definition | None:
        """A definition, also a deleted one."""
        row = Workflows.get_or_none(Workflows.name == name)
        return None if row is None else self._definition(row)

    def _definition(self, row: Workflows) -> Definition:
        document = self._store.document(row.document)
        return Definition(row.name, row.updated_at, document, row.document, row.created_at, row.deleted_at)

    def finals(self, runs: Iterable[str]) -> tuple[RunHead, ...]:
        """The heads of those of the given runs and definitions that are final here."""
        heads = (self.head(run) for run in runs)
        return tuple(head for head in heads if head is not None and head.final)

    def all(self, run: str) -> Iterable[tuple[str, str]]:
        """Every row of a run."""
        after = ""
        while rows := self.rows(run, after):
            yield from rows
            after = rows[-1][0]
