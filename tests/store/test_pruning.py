"""Removing runs for good: at their owner, in copies and on nodes; what is remembered of them, and for how long."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.test_coordinator_store import create, run_record, save
from tests.store.test_runtime_store import ASSIGNMENT
from tests.store.test_runtime_store import save as save_runtime
from wattle.coordinator.journal import Journal
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import HeldTask
from wattle.core.model import CopiedRun, CopyPage, Fact, FactKind, Output, RunHead, RunStatus, TaskStatus
from wattle.core.states import Phase
from wattle.store.coordinator import CoordinatorStore
from wattle.store.runtime import BlobRow, RuntimeStore


@pytest.fixture
def store(tmp_path: Path) -> CoordinatorStore:
    return CoordinatorStore(tmp_path / "coordinator.db", owner="me")


def end(store: CoordinatorStore, run: str, at: float) -> None:
    record = replace(run_record(run, status=RunStatus.SUCCEEDED), completed_at=at)
    save(store, do.SaveRun(record))
    store.number += 1


def prune(store: CoordinatorStore, run: str, at: float = 100.0) -> RunHead:
    head = store.owned.head(run)
    assert head is not None
    save(store, do.ForgetRun(replace(head, pruned_at=at)))
    store.number += 1
    pruned = store.forgotten.pruned(run)
    assert pruned is not None
    return pruned


def test_only_what_ended_long_ago_and_is_settled_may_go_oldest_first(store: CoordinatorStore) -> None:
    for run, at in (("new", 90.0), ("old", 10.0), ("older", 5.0)):
        create(store, run)
        store.number += 1
        end(store, run, at)
    create(store, "open")
    found = lambda *args: [head.run for head in store.forgotten.prunable(*args)]  # noqa: E731
    assert found(50.0, store.number, 9) == ["older", "old"]
    assert found(50.0, store.number, 1) == ["older"]
    assert found(50.0, 4, 9) == ["old"]  # the end of the other is not on other stores yet
    store.owner = "other"
    assert found(50.0, store.number, 9) == []


def test_a_pruned_run_leaves_its_last_head_and_nothing_else(store: CoordinatorStore) -> None:
    create(store, "kept")
    create(store, "gone")
    end(store, "gone", 5.0)
    head = prune(store, "gone")
    assert (head.final, head.pruned_at, head.number) == (True, 100.0, store.number)
    assert store.run("gone") is None
    for table in ("workers", "tasks", "holders"):
        assert store.query(f"SELECT 1 FROM {table} WHERE run = 'gone'") == []
    assert store.query("SELECT count(*) FROM documents") == [(1,)]  # the other run's as well
    end(store, "kept", 6.0)
    prune(store, "kept")
    assert store.query("SELECT count(*) FROM documents") == store.query("SELECT count(*) FROM workflows") == [(0,)]
    save(store, do.ForgetRun(replace(head, run="another's", pruned_at=1.0)))
    assert store.forgotten.pruned("another's") is None  # it has never been here, or has another owner meanwhile


def test_followers_keep_the_head_of_a_pruned_run_over_any_copy_of_it(store: CoordinatorStore, tmp_path: Path) -> None:
    core = CoordinatorCore("me", CoordinatorOptions(), random.Random(0).random, store=store.id)
    create(store, "gone")
    store.number += 1
    follower = RuntimeStore(tmp_path / "runtime.db")
    with follower.transaction():
        for page in Journal(store, core).pages(0):  # a new one remembers nothing: it comes from the store
            follower.copies.keep(page)
        stale = RunHead("gone", "earlier", "s0", 1)
        follower.copies.put("earlier", "s0", CopiedRun("gone", 1, (("run", "{}"),), stale))
    kept = follower.copies.cursors()["me", store.id]
    end(store, "gone", 5.0)
    head = prune(store, "gone")
    with follower.transaction():
        for page in Journal(store, core).pages(kept):
            follower.copies.keep(page)
    assert follower.copies.heads_of(["gone"]) == [head]
    assert follower.query("SELECT count(*) FROM copies") == [(0,)]
    assert follower.copies.owners() == follower.copies.heads_by("me", store.id) == []  # nothing that has to be adopted
    assert head.rank > replace(stale, epoch=99).rank
    assert head.rank < replace(stale, retried=1).rank
    with follower.transaction():
        assert (follower.copies.trim(100.0), follower.copies.trim(100.1)) == (0, 1)
    follower.close()


def test_what_was_pruned_is_forgotten_in_time_and_followers_far_behind_are_known(store: CoordinatorStore) -> None:
    create(store, "gone")
    end(store, "gone", 5.0)
    head = prune(store, "gone", at=100.0)
    with store.transaction():
        assert (store.forgotten.trim(100.0), store.forgotten.trimmed) == (0, 0)
        assert (store.forgotten.trim(101.0), store.forgotten.trimmed) == (1, head.number)
    assert store.forgotten.pruned("gone") is None
    path = store.path
    store.close()
    again = CoordinatorStore(path, owner="me")
    assert (again.forgotten.trimmed, again.number) == (head.number, head.number)
    again.close()


def test_a_run_that_was_retried_meanwhile_is_not_pruned() -> None:
    core = CoordinatorCore("me", CoordinatorOptions(), random.Random(0).random, store="s")
    core.runs["retried"] = None  # type: ignore[assignment]  # whatever it is, it is not final
    heads = [RunHead(run, "me", "s", 1, final=final) for run, final in (("retried", True), ("a", True), ("b", False))]
    effects = core.handle([on.Prune(tuple(heads))], 7.0)
    assert [e.head for e in effects if isinstance(e, do.ForgetRun)] == [replace(heads[1], pruned_at=7.0)]


def test_a_stale_copy_of_a_pruned_run_is_dropped_and_not_adopted() -> None:
    core = CoordinatorCore("me", CoordinatorOptions(adopt_after=1.0), random.Random(0).random, store="s")
    stale = RunHead("r", "dead", "s0", 1, 3)
    tombstone = RunHead("r", "gone", "s1", 2, 9, final=True, completed_at=5.0, pruned_at=6.0)
    core.handle([on.CoordinatorSeen("back", "i", "s2")], 0.0)

    def answer(now: float, **heads: tuple[RunHead, ...]) -> list[do.CoordinatorEffect]:
        effects: list[do.CoordinatorEffect] = []
        for ask in [e for e in core.handle([on.Tick()], now) if isinstance(e, do.AskCopies)]:
            effects += core.handle([on.CopiesTold(ask.peer, ask.token, heads.get(ask.peer, ()))], now)
        return effects

    core.succession.look("back")
    answer(0.0, back=(stale,))
    second = [e for e in answer(2.0, back=(stale,)) if isinstance(e, do.AskCopies)]
    assert {ask.runs for ask in second} == {("r",)}
    effects: list[do.CoordinatorEffect] = []
    for ask in second:
        told = {"back": (stale,), "me": (tombstone,)}[ask.peer]
        effects += core.handle([on.CopiesTold(ask.peer, ask.token, told)], 2.0)
    assert [e for e in effects if isinstance(e, do.Gather)] == []
    assert [e for e in effects if isinstance(e, do.Forget)] == [do.Forget("back", stale)]


# --- nodes ------------------------------------------------------------------------------------------------------------


def finished(run: str, digest: str) -> Fact:
    outputs = {"o": Output("o", digest, 1)}
    return Fact(FactKind.FINISHED, run, "w", 1, at=1.0, status=TaskStatus.SUCCEEDED, outputs=outputs)


def node(path: Path) -> RuntimeStore:
    """Two runs: an entry of the feed for each and one for both, content of its own and shared."""
    store = RuntimeStore(path)
    for run in ("a", "b"):
        task = HeldTask(replace(ASSIGNMENT, run=run), "c", Phase.DONE, 1)
        save_runtime(store, do.SaveHeldTask(task), do.SaveFence(run, 1, "c"), do.Append(finished(run, f"only-{run}")))
        with store.transaction():
            store.save_logs([("flow", "w", run, 1, "stdout", f"/data/logs/{run}/w.1.stdout", 1.0)])
            paths = (
                (f"only-{run}", f"/data/work/{run}/o"),
                ("both", f"/data/work/{run}/p"),
                (f"only-{run}", f"/user/{run}"),
            )
            store.save_blobs([(run, BlobRow(digest, path, 1, 1)) for digest, path in paths])
    save_runtime(store, do.Append(finished("a", "both")), do.Append(finished("b", "both")))
    save_runtime(store, do.Append(finished("a", "both")))
    return store


def test_a_node_removes_what_only_a_pruned_run_has(tmp_path: Path) -> None:
    store = node(tmp_path / "runtime.db")
    assert store.known_runs("", 9) == ["a", "b"]
    assert store.content_only_of("a") == ["only-a"]
    with store.transaction():
        assert store.discard(RunHead("a", "c", "s", 1, final=True, pruned_at=50.0), "/data/work/a/")
    assert [n for n, _ in store.feed(0, 9)] == [2, 3]  # the newest told of it alone
    assert store.find("only-a") == []
    assert [b.path for b in store.find("both")] == ["/data/work/b/p"]
    assert [b.path for b in store.find("only-b")] == ["/data/work/b/o", "/user/b"]
    for table in ("tasks", "worker_logs", "feed_runs", "blob_runs"):
        assert {run for (run,) in store.query(f"SELECT run FROM {table}")} == {"b"}
    assert (store.known_runs("", 9), store.known_runs("b", 9)) == (["b"], [])
    assert store.fences(["a", "b", "x"]) == {"a": (1, "c"), "b": (1, "c")}  # late commands are still refused
    store.close()
    store = RuntimeStore(tmp_path / "runtime.db")
    assert store.head == 4  # never back
    save_runtime(store, do.Append(finished("b", "x")))
    assert [n for n, _ in store.feed(0, 9)] == [2, 3, 5]
    with store.transaction():
        assert (store.trim(50.0), store.trim(51.0)) == ([], ["a"])
    assert store.fences(["a", "b"]) == {"b": (1, "c")}
    store.close()


def schema(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    columns = {f"{t}.{c[1]}" for t in names for c in connection.execute(f'PRAGMA table_info("{t}")')}
    connection.close()
    return names | columns


def test_stores_of_schema_1_get_all_that_new_ones_have(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.db" for name in ("runtime", "coordinator")}
    node(paths["runtime"]).close()
    CoordinatorStore(paths["coordinator"]).close()
    fresh = {name: schema(path) for name, path in paths.items()}
    new = {
        "runtime": (("feed_runs", "blob_runs"), ("fences_pruned_at", "workerlogs_run"), (("fences", "pruned_at"),)),
        "coordinator": (
            ("forgotten",),
            ("runs_number", "runs_completed_at", "runs_document", "workflows_document"),
            (("runs", "number"), ("runs", "retried"), ("runs", "adopted"), ("workflows", "number")),
        ),
    }
    for name, (tables, indexes, columns) in new.items():
        connection = sqlite3.connect(paths[name])
        for table in (*tables, "copies", "copied_runs", "copy_cursors"):
            connection.execute(f"DROP TABLE {table}")
        for index in indexes:
            connection.execute(f"DROP INDEX {index}")
        for table, column in columns:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
        connection.commit()
        connection.close()
    CoordinatorStore(paths["coordinator"]).close()
    store = RuntimeStore(paths["runtime"])
    assert store.content_only_of("a") == ["only-a"]  # from what the feed says
    store.close()
    assert {name: schema(path) for name, path in paths.items()} == fresh


def test_a_page_of_a_pruned_run_fits_what_older_pages_say(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    head = RunHead("r", "c", "s", 1, 4, final=True, completed_at=1.0)
    tombstone = replace(head, number=6, pruned_at=9.0)
    with store.transaction():
        store.copies.keep(CopyPage("c", "s", 0, 6, (CopiedRun("r", 6, (), tombstone, forgotten=True),)))
        store.copies.keep(CopyPage("c", "s", 0, 7, (CopiedRun("x", 7, forgotten=True),)))
    assert store.copies.heads_of(["r", "x"]) == [tombstone]
    store.close()
