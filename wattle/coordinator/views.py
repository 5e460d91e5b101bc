"""The coordinator's rows as the public shapes of wattle/protocol/records.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from wattle.core.model import TaskStatus
from wattle.protocol.records import (
    AttemptView,
    ResultView,
    RunView,
    UsageView,
    WorkerView,
    WorkflowView,
    timestamp,
)
from wattle.store.coordinator_tables import Runs, Tasks, Workers, Workflows

_OPEN = {s.value for s in TaskStatus if not s.final}


def run_view(row: Runs) -> RunView:
    """A run."""
    created = timestamp(row.created_at)
    assert created is not None
    return RunView(
        id=row.id,
        workflow=row.workflow_name,
        status=row.status,
        created_at=created,
        started_at=timestamp(row.started_at),
        completed_at=timestamp(row.completed_at),
        owner=row.owner,
        epoch=row.epoch,
        counts=json.loads(row.counts),
        error_message=row.error_message,
        params=json.loads(row.params),
    )


def worker_view(
    row: Workers, tasks: Iterable[Tasks], out_of_sight: Callable[[str], bool], why_waiting: Callable[[str], str | None]
) -> WorkerView:
    """A worker with its attempts."""
    attempts = [attempt_view(task) for task in tasks]
    newest = attempts[-1] if attempts else None
    created = timestamp(row.created_at)
    assert created is not None
    return WorkerView(
        run=row.run,
        workflow_name=row.workflow_name,
        name=row.name,
        status=row.status,
        command=row.command,
        args=json.loads(row.args),
        script=row.script,
        working_dir=row.working_dir,
        env_vars=json.loads(row.env_vars),
        inputs=json.loads(row.inputs),
        outputs=json.loads(row.outputs),
        needs=json.loads(row.needs),
        unreachable=newest is not None and newest.status in _OPEN and out_of_sight(newest.node),
        node=newest.node if newest else None,
        error_message=row.error_message,
        waiting_for=why_waiting(row.name) if row.status == "ready" else None,
        results={name: ResultView(**result) for name, result in json.loads(row.results).items()},
        attempts=attempts,
        created_at=created,
        ready_at=timestamp(row.ready_at),
        started_at=timestamp(row.started_at),
        completed_at=timestamp(row.completed_at),
    )


def attempt_view(task: Tasks) -> AttemptView:
    """One attempt."""
    assigned = timestamp(task.assigned_at)
    assert assigned is not None
    return AttemptView(
        attempt=task.attempt,
        node=task.node,
        status=task.status,
        assigned_at=assigned,
        started_at=timestamp(task.started_at),
        completed_at=timestamp(task.completed_at),
        exit_code=task.exit_code,
        signal=task.signal,
        error_message=task.error_message,
        usage=None
        if task.cpu_seconds is None
        else UsageView(cpu_seconds=task.cpu_seconds, memory_peak=task.memory_peak or 0),
    )


def workflow_view(row: Workflows, document: dict[str, Any] | None = None, latest: Runs | None = None) -> WorkflowView:
    """A definition; listings leave out document and latest run."""
    created, updated = timestamp(row.created_at), timestamp(row.updated_at)
    assert created is not None
    assert updated is not None
    return WorkflowView(
        name=row.name,
        working_dir=row.working_dir,
        status=row.status,
        created_at=created,
        updated_at=updated,
        started_at=timestamp(row.started_at),
        completed_at=timestamp(row.completed_at),
        workers=row.workers,
        document=document,
        latest_run=run_view(latest) if latest is not None else None,
    )
