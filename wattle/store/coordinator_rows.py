"""The records of runs, workers and attempts as rows of the coordinator's tables, and back.

Each tuple of columns says in which order the function below it gives their values: one call makes what SQLite is handed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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


WORKER_COLUMNS = (
    "status", "error_message", "attempts", "failures", "losses", "reproduced", "not_before", "results", "ready_at", "started_at",
    "completed_at",
)  # fmt: skip

NEW_WORKER = {"attempts": "0", "failures": "0", "losses": "0", "reproduced": "0", "results": "'{}'"}
"""The columns of a worker of which nothing is to be told but when it became ready, in SQL."""


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


DEFINITION_COLUMNS = (
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


def definition_values(position: int, workflow: str, worker: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of DEFINITION_COLUMNS for a worker's definition in its document."""
    given = worker.get
    command = given("command")
    args, env_vars, inputs, outputs, needs = (given(key) for key in ("args", "env_vars", "inputs", "outputs", "needs"))
    return (
        position, workflow, command if isinstance(command, str) or command is None else text(command),
        text(args) if args else "[]", given("script"), given("working_dir"), text(env_vars) if env_vars else "{}",
        text(inputs) if inputs else "{}", text(outputs) if outputs else "{}", text(needs) if needs else "[]",
    )  # fmt: skip


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
