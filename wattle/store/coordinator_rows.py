"""The records of runs, workers and attempts as rows of the coordinator's tables, and back.

Each tuple of columns says in which order the function below it gives their values: one call makes what SQLite is handed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import islice
from operator import itemgetter
from typing import Any

from wattle.core.model import Output, RunRecord, RunStatus, TaskRecord, TaskStatus, Usage, WorkerRecord, WorkerStatus
from wattle.protocol.messages import adapter
from wattle.store.coordinator_tables import Runs, Tasks, Workers
from wattle.store.owned import text

RUN_COLUMNS = (
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


def run_values(run: RunRecord) -> tuple[Any, ...]:
    """The values of RUN_COLUMNS for a run."""
    return (
        run.status._value_, run.owner, run.epoch, run.started_at, run.completed_at, run.error_message, run.cancel_requested,
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


WORKER_COLUMNS = (
    "status", "error_message", "attempts", "failures", "losses", "reproduced", "not_before", "results", "ready_at", "started_at",
    "completed_at",
)  # fmt: skip


def worker_values(worker: WorkerRecord) -> tuple[Any, ...]:
    """The values of WORKER_COLUMNS for a worker."""
    return (
        worker.status._value_, worker.error_message, worker.attempts, worker.failures, worker.losses, worker.reproduced,
        worker.not_before, text(worker.results) if worker.results else "{}", worker.ready_at, worker.started_at, worker.completed_at,
    )  # fmt: skip


def worker_record(row: Workers) -> WorkerRecord:
    """The record in a row."""
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
        results=adapter(dict[str, Output]).validate_json(row.results),
        ready_at=row.ready_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
    )


_DEFINED = {
    "command": None, "args": "[]", "script": None, "working_dir": None, "env_vars": "{}", "inputs": "{}", "outputs": "{}", "needs": "[]",
}  # fmt: skip
"""The columns that a worker's definition gives, and what is in them where it gives nothing."""

_CHUNK = 1000
"""Workers in one text for SQLite: about 50 kB."""


class NewWorkers:
    """The rows of a run's workers of which nothing has happened yet but that some are ready.

    SQLite makes them itself, of JSON texts with many workers each: handed over row by row they take three times as long where all are
    alike, and not less where none are. What is the same in all is handed over once to each text. ``rows`` give the values for ``sql``.
    """

    def __init__(self, workers: Sequence[Mapping[str, Any]]) -> None:
        first, given = workers[0].get, set().union(*workers)
        self._own = [c for c in _DEFINED if c in given and any(w.get(c) != first(c) for w in workers)]
        shared = [c for c in _DEFINED if c not in self._own]
        self._shared = [_stored(first(c), _DEFINED[c]) for c in shared]
        self._workers = workers
        self.sql = _new_workers(tuple(shared), tuple(self._own))

    def rows(self, run: RunRecord, ready: Set[str]) -> Iterator[tuple[Any, ...]]:
        """The values for all workers of a run, ``ready`` being the names of those that may start.

        They go in in the order of their keys, which SQLite takes in half the time of any other.
        """
        placed = sorted(((w["name"], n, w) for n, w in enumerate(self._workers)), key=itemgetter(0))
        for state, those in (
            ((WorkerStatus.READY.value, run.created_at), (one for one in placed if one[0] in ready)),
            ((WorkerStatus.CREATED.value, None), (one for one in placed if one[0] not in ready)),
        ):
            while chunk := self._told(islice(those, _CHUNK)):
                yield (run.id, run.workflow, run.created_at, *state, *self._shared, text(chunk))

    def _told(self, placed: Iterable[tuple[str, int, Mapping[str, Any]]]) -> dict[str, Any]:
        if not self._own:
            return {name: position for name, position, _ in placed}
        return {name: [position, *map(worker.get, self._own)] for name, position, worker in placed}


@cache
def _new_workers(shared: Sequence[str], own: Sequence[str]) -> str:
    columns = ("run", "workflow_name", "created_at", "status", "ready_at", *shared)
    same = {"attempts": "0", "failures": "0", "losses": "0", "reproduced": "0", "results": "'{}'"}
    told = {"name": "key", "position": "json_extract(value, '$[0]')" if own else "value"}
    for number, column in enumerate(own, 1):
        told[column] = f"coalesce(json_extract(value, '$[{number}]'), {_literal(_DEFINED[column])})"
    names = ", ".join((*columns, *same, *told))
    values = ", ".join(("?",) * len(columns) + (*same.values(), *told.values()))
    return f"INSERT INTO workers ({names}) SELECT {values} FROM json_each(?)"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else f"'{value}'"


def _stored(given: Any, default: str | None) -> str | None:
    """What a column has of what a definition gives: texts as they are, all else as JSON text."""
    return default if given is None else given if isinstance(given, str) else text(given)


TASK_COLUMNS = (
    "run", "worker", "attempt", "node", "status", "assigned_at", "started_at", "completed_at", "exit_code", "signal", "error_message",
    "cpu_seconds", "memory_peak",
)  # fmt: skip


def task_values(task: TaskRecord) -> tuple[Any, ...]:
    """The values of TASK_COLUMNS for an attempt."""
    usage = task.usage
    return (
        task.run, task.worker, task.attempt, task.node, task.status._value_, task.assigned_at, task.started_at, task.completed_at,
        task.exit_code, task.signal, task.error_message, usage.cpu_seconds if usage else None, usage.memory_peak if usage else None,
    )  # fmt: skip


def task_record(row: Tasks) -> TaskRecord:
    """The record in a row."""
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
