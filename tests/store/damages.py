"""Ways in which a store's file comes to harm; each takes the path of a closed store, and leaves it as it would be found."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from wattle.store.base import Store
from wattle.store.coordinator import CoordinatorStore
from wattle.store.runtime import RuntimeStore

KINDS: dict[str, type[CoordinatorStore] | type[RuntimeStore]] = {
    "coordinator": CoordinatorStore,
    "runtime": RuntimeStore,
}
PAGE = 4096


def log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def fill(store: Store) -> None:
    """Enough rows for tables and an index of many pages."""
    with store.transaction():
        for number in range(1, 1001):
            row: tuple[str, tuple[object, ...]]
            if isinstance(store, RuntimeStore):
                row = ("INSERT INTO feed (number, facts) VALUES (?, ?)", (number, "[]" + 40 * " "))
            else:
                row = (
                    "INSERT INTO documents (digest, body) VALUES (?, ?)",
                    (f"{number:064}", "{}"),
                )
            store.database.execute_sql(*row)


def leave_open(path: Path, commits: int = 3) -> None:
    """A process that makes commits of several pages each and is killed."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from wattle.store.base import Store\nfrom wattle.store.runtime import MIGRATIONS\n"
        "store = Store(Path(sys.argv[1]), (), MIGRATIONS)\n"
        "for n in range(int(sys.argv[2])):\n"
        "    with store.transaction():\n"
        "        store.database.execute_sql('INSERT INTO meta (key, value) VALUES (?, ?)', (f'k{n}', 9000 * 'x'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, str(path), str(commits)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)


def torn_last_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def header_overwritten(path: Path) -> None:
    _overwrite(path, 0, b"\xff" * 100)


def schema_overwritten(path: Path) -> None:
    _overwrite(path, 100, b"\xff" * 200)


def _page_of(path: Path, name: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        page: int = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
        return page


def table_overwritten(path: Path) -> None:
    _overwrite(path, (_page_of(path, "feed" if path.stem == "runtime" else "documents") - 1) * PAGE, b"\xa5" * PAGE)


def index_overwritten(path: Path) -> None:
    _overwrite(path, (_page_of(path, "sqlite_autoindex_meta_1") - 1) * PAGE, b"\xa5" * PAGE)


def last_page_flipped(path: Path) -> None:
    _overwrite(path, path.stat().st_size - PAGE, b"\xa5" * 16)


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_text(path: Path) -> None:
    path.write_text("this is no database " * 1000)


def log_replaced_by_folder(path: Path) -> None:
    log(path).mkdir()


def log_overwritten(path: Path) -> None:
    leave_open(path)
    _overwrite(log(path), 0, os.urandom(log(path).stat().st_size))


def log_flipped_in_the_middle(path: Path) -> None:
    leave_open(path)
    _overwrite(log(path), log(path).stat().st_size // 2, b"\xa5" * 64)


def file_gone_log_there(path: Path) -> None:
    leave_open(path)
    path.unlink()


def of_another_role(path: Path) -> None:
    other = KINDS["runtime" if path.stem == "coordinator" else "coordinator"](path.with_name("other.db"))
    other.close()
    os.replace(other.path, path)


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (a)")


def nameless(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM meta")
        connection.commit()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        connection.commit()


Damage = Callable[[Path], None]
DAMAGED = "restore a backup"
REFUSED: dict[Damage, tuple[str, str, str]] = {
    # how the file came to harm: the error's code, and what its message says of the matter and of what to do
    emptied: ("STORE_DAMAGED", "it is empty", DAMAGED),
    halved: ("STORE_DAMAGED", "malformed", DAMAGED),
    torn_last_page: ("STORE_DAMAGED", "torn", DAMAGED),
    header_overwritten: ("STORE_DAMAGED", "not a database", DAMAGED),
    schema_overwritten: ("STORE_DAMAGED", "malformed", DAMAGED),
    table_overwritten: ("STORE_DAMAGED", "age", DAMAGED),
    index_overwritten: ("STORE_DAMAGED", "", DAMAGED),
    last_page_flipped: ("STORE_DAMAGED", "age", DAMAGED),
    replaced_by_text: ("STORE_DAMAGED", "not a database", DAMAGED),
    replaced_by_folder: ("STORE_UNUSABLE", "is a folder", "move that away"),
    log_replaced_by_folder: ("STORE_UNUSABLE", "-wal is a folder", "move that away"),
    log_overwritten: ("STORE_DAMAGED", "-wal is damaged", "move"),
    log_flipped_in_the_middle: ("STORE_DAMAGED", "-wal is damaged in the middle", "move"),
    file_gone_log_there: ("STORE_UNUSABLE", "the file is gone", "put it back"),
    of_another_role: ("STORE_UNUSABLE", "it has no table", "move it away"),
    of_another_program: ("STORE_UNUSABLE", "no store of Wattle's", "move it away"),
    nameless: ("STORE_DAMAGED", "does not say which store", DAMAGED),
    newer: ("STORE_NEWER", "newer Wattle", "use that version"),
}
