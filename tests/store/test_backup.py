"""Backups: whole copies of stores in use, and data folders made of them."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.damages import KINDS, Damage, fill, leave_open, newer, table_overwritten
from wattle.errors import InvalidRequest, StoreError
from wattle.store import backup as backups
from wattle.store.base import Store
from wattle.store.folder import FolderLock
from wattle.store.runtime import MIGRATIONS, RuntimeStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with both stores, filled, and things that are no stores."""
    folder = tmp_path / "data"
    (folder / "logs").mkdir(parents=True)
    for role, kind in KINDS.items():
        store = kind(folder / f"{role}.db")
        fill(store)
        store.close()
    return folder


STORES = tuple(f"{role}.db" for role in KINDS)


def identity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        found: str = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()[0]
        return found


def back_up(folder: Path, target: Path) -> Path:
    backups.backup(folder, target, version="1")
    return target


def test_a_restored_folder_has_everything_under_new_identities(folder: Path, tmp_path: Path) -> None:
    copy = back_up(folder, tmp_path / "deep" / "copy")
    assert sorted(file.name for file in copy.iterdir()) == [backups.MANIFEST, "coordinator.db", "runtime.db"]
    assert copy.stat().st_mode & 0o777 == 0o700
    reports = backups.restore(copy, tmp_path / "new")
    assert all(report.ok for report in reports)
    assert [max(report.rows.values()) for report in reports] == [1000, 1000]
    for name in STORES:
        assert identity(copy / name) == identity(folder / name) != identity(tmp_path / "new" / name)
    store = RuntimeStore(tmp_path / "new" / "runtime.db")
    assert store.head == 1000
    assert store.id == identity(store.path)
    store.close()
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [*STORES, "wattle.lock"]


def test_a_copy_made_while_somebody_writes_is_of_one_moment(folder: Path, tmp_path: Path) -> None:
    lock = FolderLock(folder)
    store = RuntimeStore(folder / "runtime.db")
    store.database.execute_sql("CREATE TABLE counted (round INTEGER, part INTEGER)")
    store.close()
    stop, under_way = threading.Event(), threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        writer = Store(folder / "runtime.db", (), MIGRATIONS)
        while not stop.is_set():
            written += 1
            with writer.transaction():
                for part in range(4):
                    writer.database.execute_sql("INSERT INTO counted VALUES (?, ?)", (written, part))
            if written >= 50:
                under_way.set()
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for copy in range(5):
            assert under_way.wait(30)
            before = written
            target = back_up(folder, tmp_path / f"copy{copy}")
            with closing(sqlite3.connect(target / "runtime.db")) as connection:
                rounds = connection.execute("SELECT round, count(*) FROM counted GROUP BY round").fetchall()
            assert rounds == [(number, 4) for number in range(1, len(rounds) + 1)]
            assert len(rounds) >= before - 1  # the one being written is not promised yet
    finally:
        stop.set()
        thread.join()
        lock.close()


def test_what_a_killed_process_left_in_the_log_is_in_the_copy(folder: Path, tmp_path: Path) -> None:
    leave_open(folder / "coordinator.db", commits=5)
    copy = back_up(folder, tmp_path / "copy")
    with closing(sqlite3.connect(copy / "coordinator.db")) as connection:
        assert connection.execute("SELECT count(*) FROM meta WHERE key LIKE 'k%'").fetchone() == (5,)


@pytest.mark.parametrize("damage", [table_overwritten, newer], ids=lambda damage: damage.__name__)
def test_a_store_that_fails_the_check_is_not_backed_up(folder: Path, tmp_path: Path, damage: Damage) -> None:
    damage(folder / "runtime.db")
    with pytest.raises(StoreError, match=r"runtime\.db") as caught:
        back_up(folder, tmp_path / "copy")
    assert ".part-" not in caught.value.message, "the file that is damaged is named, not its copy"
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_backup_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").symlink_to("nowhere")
    with pytest.raises(InvalidRequest, match="exists already"):
        back_up(folder, tmp_path / "copy")
    with pytest.raises(InvalidRequest, match="holds no store"):
        back_up(tmp_path, tmp_path / "other")


def test_a_restore_that_finds_no_room_names_the_disk_that_is_full(
    folder: Path, tmp_path: Path, small_disk: Path
) -> None:
    copy = back_up(folder, tmp_path / "copy")
    (small_disk / "ballast").write_bytes(1_000_000 * b"x")
    for _ in range(2):
        with pytest.raises(StoreError, match="its disk is full") as caught:
            backups.restore(copy, small_disk / "new")
        assert caught.value.message.startswith(str(small_disk))
    (small_disk / "ballast").unlink()
    assert all(report.ok for report in backups.restore(copy, small_disk / "new"))


def test_a_damaged_backup_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = back_up(folder, tmp_path / "copy")
    with (copy / "coordinator.db").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xa5")
    with pytest.raises(StoreError, match=r"coordinator\.db is not what was backed up.*use another backup"):
        backups.restore(copy, tmp_path / "new")
    (copy / "coordinator.db").unlink()
    with pytest.raises(StoreError, match="damaged or missing"):
        backups.restore(copy, tmp_path / "new")
    (copy / backups.MANIFEST).write_text("{")
    with pytest.raises(StoreError, match=r"backup\.json is damaged"):
        backups.restore(copy, tmp_path / "new")
    (copy / backups.MANIFEST).unlink()
    with pytest.raises(InvalidRequest, match="is no backup"):
        backups.restore(copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_newer_backup_is_refused_and_leaves_the_folder_as_it_was(folder: Path, tmp_path: Path) -> None:
    copy = back_up(folder, tmp_path / "copy")
    newer(copy / "runtime.db")
    manifest = json.loads((copy / backups.MANIFEST).read_text())
    manifest["files"]["runtime.db"]["sha256"] = backups._digest(copy / "runtime.db")
    (copy / backups.MANIFEST).write_text(json.dumps(manifest))
    before = {name: identity(folder / name) for name in STORES}
    with pytest.raises(StoreError, match="newer Wattle") as caught:
        backups.restore(copy, folder, replace=True)
    assert caught.value.code == "STORE_NEWER"
    assert {name: identity(folder / name) for name in STORES} == before
    assert not [file.name for file in folder.iterdir() if "restore" in file.name]


def test_a_folder_with_something_in_it_is_left_alone_unless_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    copy = back_up(folder, tmp_path / "copy")
    leave_open(folder / "runtime.db", commits=5)
    lost = identity(folder / "runtime.db")
    with pytest.raises(InvalidRequest, match=r"is not empty.*--replace"):
        backups.restore(copy, folder)
    assert identity(folder / "runtime.db") == lost
    backups.restore(copy, folder, replace=True)
    assert (folder / "logs").is_dir()
    assert identity(folder / "runtime.db") != lost
    with closing(sqlite3.connect(folder / "runtime.db")) as connection:
        assert connection.execute("SELECT count(*) FROM meta WHERE key LIKE 'k%'").fetchone() == (0,)
    aside = [
        file for file in folder.iterdir() if ".before-restore-" in file.name and file.name.startswith("runtime.db")
    ]
    kept = next(file for file in aside if not file.name.endswith(("-wal", "-shm")))
    with closing(sqlite3.connect(kept)) as connection:  # its last commits are beside it still
        assert connection.execute("SELECT count(*) FROM meta WHERE key LIKE 'k%'").fetchone() == (5,)


def test_a_folder_in_use_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = back_up(folder, tmp_path / "copy")
    lock = FolderLock(folder)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        backups.restore(copy, folder, replace=True)
    lock.close()
    with (folder / "spawner.lock").open("w") as spawner:
        fcntl.flock(spawner, fcntl.LOCK_EX)
        spawner.write("4711\n")
        spawner.flush()
        with pytest.raises(StoreError, match=r"tasks of .* may still run under its spawner .process 4711") as caught:
            backups.restore(copy, folder, replace=True)
    assert caught.value.code == "STORE_IN_USE"
    backups.restore(copy, folder, replace=True)
