"""The rows of a new run's workers, which SQLite makes of the document: they are as it says, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from wattle.core import effects as do
from wattle.core.model import RunRecord, RunStatus, Snapshot, WorkerRecord, WorkerStatus, Workflow
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import Workers
from wattle.store.owned import Submission, text

ODD = 'it\'s "so"\\ \n\t\x01\x7f %s $[0] {} ünï 漢字 \U0001f41f é \ufeff'
PLAIN = {"command": "true"}
ALL_OF_IT = {
    "command": ODD,
    "args": [ODD, "", "7", "true", "null", "[1]", "'"],
    "working_dir": f"/{ODD}",
    "env_vars": {"A": ODD, "B": "", "A_1": "1.0"},
    "inputs": {"a.b-c_d": "w0/o"},
    "outputs": {"o": ODD, "o.p": "'"},
    "needs": ["w0"],
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(tmp_path / "coordinator.db")
    yield store
    store.close()


def submission(*definitions: Mapping[str, Any]) -> Submission:
    workers = [{"name": f"w{n}", **definition} for n, definition in enumerate(definitions)]
    return Submission(text({"name": "flow", "workers": workers}), "d", {})


RUN = RunRecord("r", "flow", RunStatus.CREATED, "me", 1, 5.0, counts={})


def create(
    store: CoordinatorStore, given: Submission, ready: set[str] | None = None, *moved: WorkerRecord
) -> list[Workers]:
    with store.transaction():
        store.save([do.CreateRun(RUN, Workflow("flow", {}), ready or set(), moved, given)])
    return store.workers("r", limit=10_000)


def defined(row: Workers) -> dict[str, Any]:
    """What a row says of its definition, but for what is empty."""
    texts = {"name": row.name, "command": row.command, "script": row.script, "working_dir": row.working_dir}
    values = {key: json.loads(getattr(row, key)) for key in ("args", "env_vars", "inputs", "outputs", "needs")}
    return {key: value for key, value in (texts | values).items() if value}


@pytest.mark.parametrize(
    "definitions",
    [
        [PLAIN, PLAIN, PLAIN],
        [{**PLAIN, "outputs": {"o": "o"}}, ALL_OF_IT, ALL_OF_IT],
        [{**PLAIN, "outputs": {"o": "o"}}, ALL_OF_IT, PLAIN, {"script": ODD}],
        [PLAIN, {**PLAIN, "args": []}, {**PLAIN, "args": ["x"], "script": None}],
        [{"script": ODD, "env_vars": {"A": ODD}}, {"script": ODD, "env_vars": {"A": "é"}}],
    ],
    ids=["alike", "alike but for one", "each another", "empty or not given", "scripts"],
)
def test_rows_say_what_the_document_does(store: CoordinatorStore, definitions: list[dict[str, Any]]) -> None:
    rows = create(store, submission(*definitions))
    assert [defined(row) for row in rows] == [
        {"name": f"w{n}", **{key: value for key, value in definition.items() if value}}
        for n, definition in enumerate(definitions)
    ]
    assert [row.position for row in rows] == list(range(len(definitions)))
    assert {(row.run, row.workflow_name, row.created_at) for row in rows} == {("r", "flow", 5.0)}


def test_a_command_of_words_is_kept_as_their_list(store: CoordinatorStore) -> None:
    words = [["echo", ODD], ["true"]]
    rows = create(store, submission(*({"command": command} for command in [*words, "true"])))
    assert [json.loads(str(row.command)) for row in rows[:2]] == words
    assert rows[2].command == "true"
    (row,) = create_alone(store, {"command": words[0]})
    assert json.loads(str(row.command)) == words[0]


def create_alone(store: CoordinatorStore, definition: dict[str, Any]) -> list[Workers]:
    with store.transaction():
        store.remove("r")
    return create(store, submission(definition))


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_each_worker_of_a_large_document_has_one_row(store: CoordinatorStore, count: int) -> None:
    ready = {f"w{n}" for n in range(0, count, 3)}
    given = submission(*({"command": "true", "args": [str(n)]} for n in range(count)))
    rows = create(store, given, ready)
    assert [(row.name, row.args) for row in rows] == [(f"w{n}", f'["{n}"]') for n in range(count)]
    assert {row.name for row in rows if (row.status, row.ready_at) == ("ready", 5.0)} == ready
    assert {(row.status, row.ready_at) for row in rows if row.name not in ready} <= {("created", None)}


def test_workers_that_have_moved_are_as_they_say_and_the_others_new(store: CoordinatorStore) -> None:
    moved = WorkerRecord("r", "w1", WorkerStatus.RUNNING, None, 1, ready_at=5.0, started_at=6.0)
    create(store, submission(PLAIN, PLAIN, PLAIN), {"w0"}, moved)
    kept = store.snapshot("r", Workflow("flow", {})).workers
    assert kept == {
        "w0": WorkerRecord("r", "w0", WorkerStatus.READY, ready_at=5.0),
        "w1": moved,
        "w2": WorkerRecord("r", "w2", WorkerStatus.CREATED),
    }


def test_an_adopted_run_takes_workers_from_its_copy_alone(store: CoordinatorStore) -> None:
    """What a copy says of a worker goes to that run's row, whichever run the copy names, and to none that the document lacks."""
    create(store, submission(PLAIN, PLAIN))
    told = WorkerRecord("r", "w0", WorkerStatus.SUCCEEDED, attempts=1, ready_at=5.0, started_at=6.0, completed_at=7.0)
    stray = WorkerRecord("r2", "w9", WorkerStatus.FAILED)
    run = RunRecord("r2", "flow", RunStatus.RUNNING, "me", 2, 5.0, counts={})
    copy = Snapshot(run, Workflow("flow", {}), {"w0": told, "w9": stray}, (), {}, submission(PLAIN, PLAIN))
    with store.transaction():
        store.save([do.AdoptRun(copy)])
    found = [(row.run, row.name, row.status) for row in (*store.workers("r"), *store.workers("r2"))]
    assert found == [
        ("r", "w0", "created"),
        ("r", "w1", "created"),
        ("r2", "w0", "succeeded"),
        ("r2", "w1", "created"),
    ]
