"""The coordinator's store: what the core saves comes back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wattle.core import effects as do
from wattle.core.model import (
    Fact,
    FactKind,
    Output,
    RunRecord,
    RunStatus,
    TaskRecord,
    TaskStatus,
    Usage,
    WorkerRecord,
    WorkerSpec,
    WorkerStatus,
    Workflow,
)
from wattle.store.coordinator import CoordinatorStore
from wattle.store.owned import Definition, Submission

DOCUMENT: dict[str, Any] = {
    "name": "flow",
    "working_dir": "/w",
    "workers": [
        {"name": "b", "command": "echo hi", "args": ["x"], "outputs": {"o": "o.txt"}, "env_vars": {"A": "1"}},
        {"name": "a", "script": "cat", "inputs": {"i": "b/o"}, "needs": ["b"]},
    ],
}
WORKFLOW = Workflow("flow", {"b": WorkerSpec("b"), "a": WorkerSpec("a", needs=("b",))})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(tmp_path / "coordinator.db")
    yield store
    store.close()


def run_record(run_id: str, created_at: float = 1.0, status: RunStatus = RunStatus.CREATED) -> RunRecord:
    return RunRecord(run_id, "flow", status, "me", 1, created_at, counts={"created": 2})


def save(store: CoordinatorStore, *effects: do.CoordinatorEffect) -> None:
    with store.transaction():
        store.save(effects)


def create(store: CoordinatorStore, run_id: str, created_at: float = 1.0) -> None:
    submission = Submission(json.dumps(DOCUMENT), "d1", {"p": 1})
    save(store, do.CreateRun(run_record(run_id, created_at), WORKFLOW, set(), (), submission))


def test_a_run_comes_back_as_it_was_saved(store: CoordinatorStore) -> None:
    create(store, "r1")
    output = Output("o.txt", "ab" * 32, 7)
    worker = WorkerRecord("r1", "b", WorkerStatus.SUCCEEDED, None, 2, 1, 1, 1, 5.0, {"o": output}, 1.0, 2.0, 3.0)
    lost = TaskRecord("r1", "b", 1, "n1", TaskStatus.LOST, 1.0, error_message="gone")
    ended = TaskRecord("r1", "b", 2, "n2", TaskStatus.SUCCEEDED, 1.0, 2.0, 3.0, 0, None, None, Usage(0.5, 4096))
    running = TaskRecord("r1", "a", 1, "n2", TaskStatus.RUNNING, 3.5, 4.0)
    run = replace(run_record("r1", status=RunStatus.RUNNING), started_at=2.0, cancel_requested=True, error_message="e")
    tasks = [do.SaveTask(t) for t in (lost, ended, running)]
    save(store, do.SaveRun(run), do.SaveWorker(worker), *tasks, do.SaveHolder("r1", output.digest, "n2"))

    kept = store.snapshot("r1", WORKFLOW)
    assert kept.run == run
    assert kept.workers["b"] == worker
    assert set(kept.tasks) == {lost, running}  # what has ended is history
    assert kept.holders == {output.digest: frozenset({"n2"})}
    history = store.tasks("r1")
    assert [(t.attempt, t.status, t.memory_peak) for t in history["b"]] == [(1, "lost", None), (2, "succeeded", 4096)]


def test_workers_keep_their_definition_and_the_documents_order(store: CoordinatorStore) -> None:
    create(store, "r1")
    rows = store.workers("r1")
    assert [(w.name, w.command, w.script, w.args, w.env_vars) for w in rows] == [
        ("b", "echo hi", None, '["x"]', '{"A":"1"}'),
        ("a", None, "cat", "[]", "{}"),
    ]
    assert [w.name for w in store.workers("r1", after=0)] == ["a"]
    assert [w.name for w in store.workers("r1", limit=1)] == ["b"]


def test_runs_are_listed_newest_first_in_pages_without_gaps(store: CoordinatorStore) -> None:
    for number in range(7):
        create(store, f"r{number}", created_at=float(number // 2))  # some share their time
    everything = [r.id for r in store.runs(None, None, None, 100)]
    assert everything == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
    paged: list[str] = []
    after: tuple[float, str] | None = None
    while page := store.runs("flow", "created", after, 2):
        paged += [r.id for r in page]
        after = (page[-1].created_at, page[-1].id)
    assert paged == everything
    assert store.runs("other", None, None, 100) == []


def test_a_workflow_shows_its_latest_run(store: CoordinatorStore) -> None:
    create(store, "r1", 1.0)
    create(store, "r2", 2.0)
    save(store, do.SaveRun(replace(run_record("r2", 2.0), status=RunStatus.RUNNING, started_at=3.0)))
    save(store, do.SaveRun(replace(run_record("r1", 1.0), status=RunStatus.FAILED, completed_at=9.0)))
    row = store.workflow("flow")
    assert row is not None
    assert (row.latest_run, row.status, row.started_at, row.completed_at) == ("r2", "running", 3.0, None)


def test_a_deleted_workflow_is_gone_and_can_be_put_again(store: CoordinatorStore) -> None:
    create(store, "r1")
    save(store, do.SaveDefinition(Definition("flow", 2.0, DOCUMENT, "d1", 1.0, deleted_at=2.0)))
    assert store.workflow("flow") is None
    assert store.workflows(None, None, 10) == []
    assert store.run("r1") is not None
    save(store, do.SaveDefinition(Definition("flow", 4.0, DOCUMENT, "d1", 4.0)))
    assert [w.name for w in store.workflows(None, None, 10)] == ["flow"]
    assert store.document("d1") == DOCUMENT


def test_unfinished_runs_and_cursors(store: CoordinatorStore) -> None:
    create(store, "r1", 1.0)
    create(store, "r2", 2.0)
    done = replace(run_record("r1"), status=RunStatus.SUCCEEDED)
    save(
        store,
        do.SaveRun(done),
        do.SaveCursor("n1", "s1", 3),
        do.SaveCursor("n1", "s1", 4),
        do.SaveCursor("n2", "s2", 1),
    )
    assert list(store.unfinished()) == ["r2"]
    assert store.cursors() == {"n1": ("s1", 4), "n2": ("s2", 1)}


def test_how_far_commits_were_settled_is_remembered(tmp_path: Path) -> None:
    with closing(CoordinatorStore(tmp_path / "c.db")) as store:
        assert store.settled == 0
        save(store, do.SaveSettled(3), do.SaveSettled(7))
    with closing(CoordinatorStore(tmp_path / "c.db")) as store:
        assert store.settled == 7


def test_a_late_finish_supersedes_a_lost_or_open_attempt_on_its_node_and_nothing_else(store: CoordinatorStore) -> None:
    create(store, "r1")
    lost = TaskRecord("r1", "b", 1, "n1", TaskStatus.LOST, 1.0)
    won = TaskRecord("r1", "b", 2, "n1", TaskStatus.SUCCEEDED, 1.0, exit_code=0)
    open_still = TaskRecord("r1", "b", 3, "n1", TaskStatus.RUNNING, 1.0)
    elsewhere = TaskRecord("r1", "b", 4, "n2", TaskStatus.RUNNING, 1.0)
    save(store, *(do.SaveTask(record) for record in (lost, won, open_still, elsewhere)))
    for attempt in (1, 2, 3, 4):
        fact = Fact(FactKind.FINISHED, "r1", "b", attempt, at=9.0, status=TaskStatus.FAILED, exit_code=3)
        save(store, do.SaveLateFact("n1", fact))
    assert [(t.status, t.exit_code) for t in store.tasks("r1")["b"]] == [
        ("superseded", 3), ("succeeded", 0), ("superseded", 3), ("running", None),
    ]  # fmt: skip
