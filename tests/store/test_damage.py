"""A store whose file, disk or process comes to harm: it recovers, or is refused by name with what to do."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.damages import (
    DAMAGED,
    KINDS,
    REFUSED,
    Damage,
    fill,
    leave_open,
    log,
    log_overwritten,
    table_overwritten,
)
from wattle.core import effects as do
from wattle.core.effects import HeldTask
from wattle.core.model import Assignment, Fact, FactKind
from wattle.core.states import Phase
from wattle.errors import StoreError
from wattle.store import base, checking
from wattle.store.base import Store
from wattle.store.runtime import MIGRATIONS, RuntimeStore

SCHEMA = len(MIGRATIONS) + 1


@pytest.fixture(params=["coordinator", "runtime"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A closed store with rows in it."""
    path = tmp_path / f"{request.param}.db"
    store = KINDS[request.param](path)
    fill(store)
    store.close()
    return path


def open_store(path: Path) -> Store:
    return KINDS[path.stem](path)


def content(folder: Path) -> dict[str, str]:
    """What the files are; SQLite's index of a log is made anew by whoever opens it."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.is_file() and not file.name.endswith("-shm") and (file.stat().st_size or not file.name.endswith("-wal"))
    }


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_refused_and_found_by_check_and_left_as_it_is(path: Path, damage: Damage) -> None:
    damage(path)
    before = content(path.parent)
    code, what, fix = REFUSED[damage]
    if damage.__name__ != "log_flipped_in_the_middle":  # a reader cannot know whether the writer is just at it
        report = checking.check(path)
        assert not report.ok
        assert all(str(path) in problem for problem in report.problems)
        assert content(path.parent) == before
    with pytest.raises(StoreError) as caught:
        open_store(path)
    assert caught.value.code == code
    message = caught.value.message
    assert str(path) in message
    assert what in message
    assert fix in message
    assert "\n" not in message


def test_a_sound_store_passes_the_check_also_while_it_is_open(path: Path) -> None:
    assert checking.check(path).ok
    store = open_store(path)
    report = checking.check(path)
    store.close()
    assert report.ok, report.problems
    assert (report.schema, report.store) == (SCHEMA, store.id)
    assert max(report.rows.values()) == 1000
    assert report.size > 50_000


def test_check_names_missing_entries_of_a_feed(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    fill(store)
    with store.transaction():
        store.execute_many("INSERT INTO feed_runs (run, number) VALUES (?, ?)", [("r", 1), ("r", 2), ("s", 500)])
        store.database.execute_sql(
            "DELETE FROM feed WHERE number IN (1, 300, 500)"
        )  # of 300 nobody has to know any more
        store.database.execute_sql("UPDATE feed SET facts = '[' WHERE number = 700")
    store.close()
    problems = checking.check(store.path).problems
    assert [problem.partition(": ")[2] for problem in problems] == [
        "the feed lacks entry 1, which tells of run r",
        "the feed lacks entry 500, which tells of run s",
        "entry 700 of the feed cannot be read",
    ]


def test_damage_met_by_a_reader_is_told_to_whoever_has_to_end_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runtime.db"
    store = RuntimeStore(path)
    fill(store)
    store.close()
    table_overwritten(path)
    monkeypatch.setattr(base, "CHECKED_MOST", 0)  # as if it were too large to be checked when it is opened
    with pytest.raises(StoreError, match=DAMAGED):
        RuntimeStore(path).feed(0, 1000)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT * FROM feed").fetchall()


def test_every_way_of_reading_tells_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHECKED_MOST", 0)
    path = tmp_path / "coordinator.db"
    fill(KINDS["coordinator"](path))
    store = KINDS["coordinator"](path)
    told: list[StoreError] = []
    store.on_failure = told.append
    store.database.execute_sql("PRAGMA cache_size = 0")
    store.database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    table_overwritten(path)
    with pytest.raises(StoreError, match=DAMAGED) as caught:
        store.database.execute_sql("SELECT * FROM documents").fetchall()
    assert told == [caught.value]
    store.close()


# --- the last commits -------------------------------------------------------------------------------------------------


def test_a_log_cut_off_in_its_last_commit_recovers_to_the_one_before(path: Path) -> None:
    leave_open(path, commits=3)
    os.truncate(log(path), log(path).stat().st_size - 100)
    store = open_store(path)
    keys = store.database.execute_sql("SELECT key FROM meta WHERE key LIKE 'k%' ORDER BY key").fetchall()
    assert keys == [("k0",), ("k1",)]
    store.close()
    assert checking.check(path).ok


def test_without_its_damaged_log_a_store_opens_under_a_new_identity(path: Path) -> None:
    before = checking.check(path).store
    log_overwritten(path)
    log(path).unlink()
    store = open_store(path)
    assert store.id != before
    assert not store.database.execute_sql("SELECT key FROM meta WHERE key LIKE 'k%'").fetchall()
    kept = store.id
    store.close()
    again = open_store(path)
    assert again.id == kept
    again.close()


@pytest.mark.parametrize(("synchronous", "renewed"), [("normal", True), ("full", False)])
def test_a_store_left_open_by_a_power_cut_gets_a_new_identity_unless_every_commit_was_durable(
    path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str, renewed: bool
) -> None:
    before = checking.check(path).store
    leave_open(path)
    store = open_store(path)  # only the process had ended
    assert store.id == before
    store.close()
    leave_open(path, commits=0)
    monkeypatch.setattr(base, "_boot", lambda: "another start of the system")
    store = KINDS[path.stem](path, synchronous=synchronous)
    assert (store.id != before) is renewed
    kept = store.id
    store.close()
    monkeypatch.setattr(base, "_boot", lambda: "a third")  # it was closed well before
    store = open_store(path)
    assert store.id == kept
    store.close()


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
def test_sqlite_is_told_what_a_commit_has_to_survive(path: Path, synchronous: str, level: int) -> None:
    store = KINDS[path.stem](path, synchronous=synchronous)
    assert store.database.execute_sql("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.database.execute_sql("PRAGMA synchronous").fetchone() == (level,)
    store.close()


def test_two_stores_of_one_process_keep_their_marks_apart(tmp_path: Path) -> None:
    stores = [KINDS[role](tmp_path / f"{role}.db") for role in KINDS]
    for store in reversed(stores):
        store.close()
    for store in stores:
        with closing(sqlite3.connect(store.path)) as connection:
            facts = dict(connection.execute("SELECT key, value FROM meta"))
        assert facts == {"schema": str(SCHEMA), "store": store.id}


def test_a_renewed_runtime_store_forgets_what_had_not_started(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "runtime.db")
    assignment = Assignment("r", "w", 1, epoch=1, workflow="f")
    phases = [Phase.QUEUED, Phase.PREPARING, Phase.STARTING, Phase.RUNNING, Phase.COLLECTING, Phase.DONE]
    with store.transaction():
        store.save(
            do.SaveHeldTask(HeldTask(Assignment("r", phase, 1, epoch=1, workflow="f"), "c", phase, 1))
            for phase in phases
        )
        store.save([do.Append(Fact(FactKind.STARTED, *assignment.id, at=1.0)), do.SaveFence("r", 1, "c")])
    first = store.id
    with store.transaction():
        store.renew()
    assert store.id != first
    store.close()
    store = RuntimeStore(tmp_path / "runtime.db")
    assert {task.phase for task in store.open_tasks()} == set(phases[2:5])
    assert store.past("r", list(Phase)) == ((1, "c"), {Phase.DONE: 1})
    assert store.head == 1  # what was told stays told
    store.close()


def test_a_store_killed_while_it_is_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "runtime.db.new").write_bytes(b"SQLite format 3\0 and no more")
    (tmp_path / "runtime.db.new-wal").write_bytes(b"x" * 100)
    RuntimeStore(tmp_path / "runtime.db").close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["runtime.db"]


# --- killed at any moment ---------------------------------------------------------------------------------------------

WRITER = """
import random, sys; from pathlib import Path
from wattle.store.base import Store
from wattle.store.runtime import MIGRATIONS
chance = random.Random(int(sys.argv[2]))
store = Store(Path(sys.argv[1]), (), MIGRATIONS)
store.database.execute_sql("CREATE TABLE IF NOT EXISTS counted (round INTEGER, part INTEGER, filler TEXT, PRIMARY KEY (round, part))")
store.database.execute_sql("PRAGMA wal_autocheckpoint = 20")
last = store.database.execute_sql("SELECT max(round) FROM counted").fetchone()[0] or 0
while True:
    last += 1
    with store.transaction():
        for part in range(4):
            filler = chance.randrange(5000) * "x"
            store.database.execute_sql("INSERT INTO counted VALUES (?, ?, ?)", (last, part, filler))
    sys.stdout.write(f"{last}\\n"); sys.stdout.flush()
"""


def test_killed_at_any_moment_nothing_committed_is_missing_and_nothing_half_is_there(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    RuntimeStore(path).close()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    identity = checking.check(path).store
    root, told = Path(__file__).parents[2], 0
    for life in range(12):
        # Killed after a number of commits and a moment that falls anywhere within one, or within a checkpoint, or while it opens.
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(seed + life)], cwd=root, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(60)):
            told = int(writer.stdout.readline())
        for _ in range(chance.randrange(20_000)):
            pass
        writer.kill()
        rest = writer.stdout.read().split(b"\n")[:-1]  # a line is whole once its end is there
        told = int(rest[-1]) if rest else told
        writer.stdout.close()
        writer.wait(10)
        store = RuntimeStore(path)
        assert store.id == identity, f"seed {seed}"
        if told:
            rounds = store.database.execute_sql("SELECT round, count(*) FROM counted GROUP BY round").fetchall()
            assert rounds == [(n, 4) for n in range(1, len(rounds) + 1)], f"seed {seed}"
            assert told <= len(rounds) <= told + 1, f"seed {seed}"
            told = len(rounds)
        store.close()
        assert checking.check(path).ok, f"seed {seed}"


# --- disks and folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", KINDS)
def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room(small_disk: Path, role: str) -> None:
    path = small_disk / f"{role}.db"
    store = KINDS[role](path)
    told: list[StoreError] = []
    store.on_failure = told.append
    store.database.execute_sql("CREATE TABLE counted (round INTEGER PRIMARY KEY, filler TEXT)")
    committed = 0

    def write(number: int) -> None:
        with store.transaction():
            store.database.execute_sql("INSERT INTO counted VALUES (?, ?)", (number, 9000 * "x"))

    ballast = small_disk / "ballast"
    ballast.write_bytes(700_000 * b"x")
    with pytest.raises(StoreError) as caught:  # noqa: PT012  # which one fails depends on the disk
        while True:
            write(committed + 1)
            committed += 1
    assert caught.value.code == "STORE_FULL"
    assert str(path) in caught.value.message
    assert "free some space" in caught.value.message
    assert told == [caught.value]
    assert committed > 3
    store.close()
    ballast.unlink()
    store = KINDS[role](path)
    assert store.database.execute_sql("SELECT count(*) FROM counted").fetchone() == (committed,)
    write(committed + 1)
    store.close()
    assert checking.check(path).ok


@pytest.mark.parametrize("role", KINDS)
def test_a_store_that_finds_no_room_to_begin_says_so(small_disk: Path, role: str) -> None:
    with pytest.raises(OSError, match="space"):
        (small_disk / "ballast").write_bytes(2_000_000 * b"x")
    with pytest.raises(StoreError, match="disk is full") as caught:
        KINDS[role](small_disk / f"{role}.db")
    assert caught.value.code == "STORE_FULL"


def test_a_statement_that_is_wrong_is_not_blamed_on_the_file(path: Path) -> None:
    store = open_store(path)
    told: list[StoreError] = []
    store.on_failure = told.append
    with pytest.raises(Exception, match="no such table"):
        store.database.execute_sql("SELECT * FROM nowhere")
    assert not told
    store.close()


def test_a_locked_file_is_named(path: Path) -> None:
    store = open_store(path)
    store.database.execute_sql("PRAGMA busy_timeout = 10")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program has locked it") as caught, store.transaction():
            pass
    assert caught.value.code == "STORE_UNUSABLE"
    assert str(path) in caught.value.message
    with store.transaction():
        pass
    store.close()
