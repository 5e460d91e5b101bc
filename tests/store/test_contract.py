"""What every store promises, run on each of them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wattle.errors import StoreError
from wattle.store.base import Store
from wattle.store.coordinator import CoordinatorStore
from wattle.store.folder import FolderLock
from wattle.store.runtime import RuntimeStore

Open = Callable[[Path], Store]


@pytest.fixture(params=[CoordinatorStore, RuntimeStore], ids=["coordinator", "runtime"])
def open_store(request: pytest.FixtureRequest) -> Open:
    kind: Open = request.param
    return kind


def test_identity_survives_reopening_and_differs_between_files(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    first = store.id
    store.close()
    again, other = open_store(tmp_path / "a.db"), open_store(tmp_path / "b.db")
    assert again.id == first
    assert other.id != first
    again.close()
    other.close()


def test_a_failed_transaction_leaves_nothing(open_store: Open, tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")

    def insert_and_fail() -> None:
        with store.transaction():
            store.database.execute_sql("INSERT INTO meta (key, value) VALUES ('x', 'y')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    assert store.database.execute_sql("SELECT count(*) FROM meta WHERE key = 'x'").fetchone() == (0,)
    store.close()


def test_a_commit_survives_a_killed_process(open_store: Open, tmp_path: Path) -> None:
    program = (
        "import os, sys, signal; from pathlib import Path\n"
        f"from {open_store.__module__} import {open_store.__name__} as Kind\n"
        "store = Kind(Path(sys.argv[1]))\n"
        "with store.transaction(): store.database.execute_sql(\"INSERT INTO meta (key, value) VALUES ('kept', '1')\")\n"
        "store.database.begin(); store.database.execute_sql(\"INSERT INTO meta (key, value) VALUES ('torn', '1')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.db"
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    store = open_store(path)
    assert store.database.execute_sql("SELECT key FROM meta WHERE key IN ('kept', 'torn')").fetchall() == [("kept",)]
    store.close()


def test_a_newer_schema_is_refused_and_left_alone(open_store: Open, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(StoreError, match="newer Wattle") as caught:
        open_store(path)
    assert caught.value.code == "STORE_NEWER"
    assert str(path) in caught.value.message


def test_a_damaged_file_is_refused_by_name(open_store: Open, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is no database, " * 500)
    with pytest.raises(StoreError, match=r"not a database.*restore a backup.*move it away") as caught:
        open_store(path)
    assert str(path) in caught.value.message
    assert path.read_bytes().startswith(b"this is no database")


def test_a_missing_folder_is_named(open_store: Open, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder") as caught:
        open_store(tmp_path / "nowhere" / "a.db")
    assert "nowhere" in caught.value.message


def test_one_process_per_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}") as caught:
        FolderLock(tmp_path)
    assert caught.value.code == "STORE_IN_USE"
    lock.close()
    FolderLock(tmp_path).close()


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    FolderLock(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
