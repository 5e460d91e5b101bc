"""Statements worded once: they do what peewee's own would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from wattle.core import effects as do
from wattle.core.model import RunRecord, RunStatus, WorkerSpec, Workflow
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import Runs, Workers
from wattle.store.owned import Definition, Submission

WORKFLOW = Workflow("flow", {"a": WorkerSpec("a")})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(tmp_path / "coordinator.db")
    yield store
    store.close()


DOCUMENT = {"name": "flow", "workers": [{"name": "a", "command": "true"}]}


def create(store: CoordinatorStore, run_id: str, at: float) -> RunRecord:
    run = RunRecord(run_id, "flow", RunStatus.CREATED, "me", 1, at, cancel_requested=True, counts={"created": 1})
    with store.transaction():
        store.save([do.CreateRun(run, WORKFLOW, set(), (), Submission(json.dumps(DOCUMENT), "d", {}))])
    return run


def test_a_row_found_by_key_is_the_one_that_peewee_finds(store: CoordinatorStore) -> None:
    create(store, "r", 1.0)
    run, worker = store.run("r"), store.worker("r", "a")
    assert run is not None
    assert worker is not None
    assert run.__data__ == Runs.get_by_id("r").__data__
    assert run.cancel_requested is True
    assert worker.__data__ == Workers.get_by_id(("r", "a")).__data__
    assert (store.run("x"), store.worker("r", "x")) == (None, None)


def test_an_older_run_does_not_take_its_workflow_from_a_newer_one(store: CoordinatorStore) -> None:
    older = create(store, "older", 1.0)
    create(store, "newer", 2.0)
    with store.transaction():  # while it still waits for room, and when it runs
        store.save([do.SaveRun(older)])
        store.save([do.SaveRun(replace(older, status=RunStatus.RUNNING, started_at=3.0))])
    workflow = store.workflow("flow")
    assert workflow is not None
    assert (workflow.latest_run, workflow.status, workflow.started_at) == ("newer", "created", None)


def test_a_document_stored_again_keeps_when_it_was_first(store: CoordinatorStore) -> None:
    create(store, "r1", 1.0)
    with store.transaction():
        store.save([do.SaveDefinition(Definition("flow", 2.0, DOCUMENT, "d", 1.0, deleted_at=2.0))])
    create(store, "r2", 3.0)
    workflow = store.workflow("flow")
    assert workflow is not None
    assert (workflow.created_at, workflow.updated_at, workflow.latest_run) == (1.0, 3.0, "r2")
