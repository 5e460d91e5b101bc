"""The runtime's store: tasks, feed, fences and content survive a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wattle.core import effects as do
from wattle.core.effects import HeldTask
from wattle.core.model import Assignment, Fact, FactKind, Input, Output, TaskStatus, Usage
from wattle.core.states import Phase
from wattle.store.runtime import BlobRow, RuntimeStore

ASSIGNMENT = Assignment(
    "r",
    "w",
    1,
    epoch=2,
    workflow="flow",
    argv=("echo", "ä\n"),
    env={"A": "1"},
    inputs={"i": Input("v", "o", "o.txt", "ab" * 32, 7)},
    outputs={"o": "out"},
    resources={"cpus": 0.5},
    timeout=3.0,
)


def save(store: RuntimeStore, *effects: do.RuntimeEffect) -> None:
    with store.transaction():
        facts = store.save(effects)
    store.head += bool(facts)


def test_tasks_and_fences_come_back_after_a_restart(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    queued = HeldTask(ASSIGNMENT, "c1", Phase.QUEUED, 1)
    running = replace(queued, phase=Phase.RUNNING, pid=42, started_at=5.0, ending="cancelled")
    other = HeldTask(replace(ASSIGNMENT, worker="x"), "c1", Phase.QUEUED, 2)
    save(store, do.SaveHeldTask(queued), do.SaveHeldTask(other), do.SaveFence("r", 1, "c0"), do.SaveFence("r", 2, "c1"))
    save(store, do.SaveHeldTask(running), do.SaveHeldTask(replace(other, phase=Phase.DONE)))
    store.close()

    store = RuntimeStore(tmp_path / "runtime.db")
    assert store.open_tasks() == [running]
    assert store.past("r", ["x", running.assignment.worker, "y"]) == ((2, "c1"), {"x": 1})
    assert store.past("s", ["x"]) == (None, {})
    save(store, do.SaveHeldTask(replace(running, phase=Phase.DONE)))  # known to the new process as well
    assert store.open_tasks() == []
    save(store, do.SaveHeldTask(replace(running, assignment=replace(ASSIGNMENT, attempt=7), phase=Phase.DONE)))
    assert store.past("r", [ASSIGNMENT.worker]) == ((2, "c1"), {ASSIGNMENT.worker: 7})
    store.close()


def test_the_feed_counts_commits_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    started = Fact(FactKind.STARTED, "r", "w", 1, at=1.0, pid=7)
    outputs = {"o": Output("out", "cd" * 32, 3)}
    finished = replace(
        started, kind=FactKind.FINISHED, status=TaskStatus.SUCCEEDED, outputs=outputs, usage=Usage(1.5, 2)
    )
    save(store, do.Append(started), do.Append(finished))
    save(store, do.SaveFence("r", 1, "c"))  # no facts, no entry
    save(store, do.Append(replace(finished, worker="v")))
    assert store.head == 2
    store.close()

    store = RuntimeStore(tmp_path / "runtime.db")
    assert store.head == 2
    assert store.feed(0, 10) == [(1, (started, finished)), (2, (replace(finished, worker="v"),))]
    assert [number for number, _ in store.feed(1, 10)] == [2]
    assert [number for number, _ in store.feed(0, 1)] == [1]
    store.close()


def test_a_rolled_back_entry_leaves_no_gap(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    fact = Fact(FactKind.STARTED, "r", "w", 1, at=1.0)
    try:
        with store.transaction():
            store.save([do.Append(fact)])
            raise KeyError
    except KeyError:
        pass
    save(store, do.Append(fact))
    assert [number for number, _ in store.feed(0, 10)] == [1]
    store.close()


def test_content_is_found_at_each_of_its_places(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    first, moved = BlobRow("ab" * 32, "/a", 1, 10), BlobRow("ab" * 32, "/b", 1, 11)
    with store.transaction():
        store.save_blobs([("r", blob) for blob in (first, moved, replace(first, mtime_ns=12))])
        store.save_logs([("flow", "w", "r", 1, "stdout", "/l", 1.0)])
    assert store.find("ab" * 32) == [replace(first, mtime_ns=12), moved]
    assert store.find("ef" * 32) == []
    assert store.database.execute_sql("SELECT worker_name, log_type FROM worker_logs").fetchall() == [("w", "stdout")]
    store.close()
