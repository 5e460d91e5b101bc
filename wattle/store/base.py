"""What every store shares: one SQLite file per role in the peer's data folder, opened through peewee.

* WAL; ``synchronous=normal`` survives the death of the process, ``full`` also a power cut, at one fsync per commit.
* A numbered schema with migrations; a file written by a newer Wattle is refused.
* One process per data folder, held by a lock file.
* Writes on the hot path are ``executemany`` with SQL made once per table; everything else is ordinary peewee.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import peewee

from wattle.errors import StoreError

M = TypeVar("M", bound=peewee.Model)
Row = tuple[Any, ...]
Migration = Callable[[peewee.SqliteDatabase], None]


class FolderLock:
    """Keeps a data folder to one process. Released by ``close`` or by the process's end, however it ends."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(folder / "wattle.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot use the data folder {folder}: {error.strerror}; give a folder you may write to with --data",
                code="STORE_DAMAGED",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 100, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise StoreError(
                f"the data folder {folder} is in use by process {holder or 'unknown'}; stop it, or give another folder with --data",
                code="STORE_IN_USE",
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._file)


class Insert:
    """A prepared ``INSERT`` for one table; rows are tuples in the order of ``columns``."""

    def __init__(self, model: type[peewee.Model], columns: Sequence[str]) -> None:
        names = [model._meta.fields[c].column_name for c in columns]
        self.sql = f'INSERT INTO "{model._meta.table_name}" ({_quoted(names)}) VALUES ({", ".join("?" * len(names))})'


class Upsert(Insert):
    """A prepared ``INSERT ... ON CONFLICT DO UPDATE`` for one table; rows are tuples in the order of ``columns``."""

    def __init__(self, model: type[peewee.Model], columns: Sequence[str], update: Sequence[str] | None = None) -> None:
        meta = model._meta
        keys = [f.column_name for f in meta.get_primary_keys()]
        names = [meta.fields[c].column_name for c in columns]
        changed = names if update is None else [meta.fields[c].column_name for c in update]
        sets = ", ".join(f'"{c}" = excluded."{c}"' for c in changed if c not in keys)
        on_conflict = f"DO UPDATE SET {sets}" if sets else "DO NOTHING"
        super().__init__(model, columns)
        self.sql += f" ON CONFLICT ({_quoted(keys)}) {on_conflict}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)


class Update:
    """A prepared ``UPDATE`` by primary key; rows are tuples: the columns, the key's columns, the values of ``also``.

    ``also`` is a further condition, in SQL.
    """

    def __init__(self, model: type[peewee.Model], columns: Sequence[str], also: str = "") -> None:
        meta = model._meta
        sets = ", ".join(f'"{meta.fields[c].column_name}" = ?' for c in columns)
        where = " AND ".join(f'"{f.column_name}" = ?' for f in meta.get_primary_keys())
        self.sql = f'UPDATE "{meta.table_name}" SET {sets} WHERE {where}' + (f" AND {also}" if also else "")


class Lookup(Generic[M]):
    """A prepared ``SELECT`` of one row by primary key: peewee takes ten times as long to word the query as SQLite to answer it."""

    def __init__(self, model: type[M]) -> None:
        meta = model._meta
        self.model = model
        self.readers = [(f.name, f.python_value) for f in meta.sorted_fields]
        where = " AND ".join(f'"{f.column_name}" = ?' for f in meta.get_primary_keys())
        columns = _quoted(f.column_name for f in meta.sorted_fields)
        self.sql = f'SELECT {columns} FROM "{meta.table_name}" WHERE {where}'


class Meta(peewee.Model):
    """One row per fact about the file itself."""

    key = peewee.CharField(primary_key=True)
    value = peewee.TextField()


class Store:
    """One role's database. ``id`` identifies the file's content: a new folder means a new id, and so a new feed."""

    def __init__(
        self,
        path: Path,
        models: Sequence[type[peewee.Model]],
        migrations: Sequence[Migration] = (),
        *,
        synchronous: str = "normal",
    ) -> None:
        """Open or create; raises StoreError when the file is damaged, newer than this program, or cannot be used."""
        self.path = path
        self.database = peewee.SqliteDatabase(
            str(path),
            pragmas={
                "journal_mode": "wal",
                "synchronous": synchronous,
                "foreign_keys": 0,
                "busy_timeout": 5000,
                "cache_size": -16000,
            },
            autoconnect=False,
        )
        self._models: list[type[peewee.Model]] = [Meta, *models]
        self._migrations = migrations
        self.database.bind(self._models, bind_refs=False, bind_backrefs=False)
        with _explained(path):
            self.database.connect()
            self._migrate()
        self._connection: sqlite3.Connection = self.database.connection()
        self.id = Meta.get_by_id("store").value

    def _migrate(self) -> None:
        """Bring the file to this program's schema, in one transaction."""
        newest = len(self._migrations) + 1
        with self.database.atomic("IMMEDIATE"):
            if not Meta.table_exists():
                self.database.create_tables(self._models)
                Meta.create(key="schema", value=str(newest))
                Meta.create(key="store", value=uuid.uuid4().hex)
                return
            version = int(Meta.get_by_id("schema").value)
            if version > newest:
                raise StoreError(
                    f"{self.path} was written by a newer Wattle (schema {version}, this one knows {newest}); "
                    "use that version, or give another folder with --data",
                    code="STORE_NEWER",
                )
            for migration in self._migrations[version - 1 :]:
                migration(self.database)
            Meta.update(value=str(newest)).where(Meta.key == "schema").execute()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the block has ended."""
        with _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")  # peewee's own costs as much again as a small commit
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def write(self, statement: Insert | Update, rows: Iterable[Row]) -> None:
        """Execute a prepared statement once per row, within a transaction."""
        self._connection.executemany(statement.sql, rows)

    def execute(self, sql: str, values: Row = ()) -> int:
        """Execute a statement on this store's own connection; gives the number of rows it touched."""
        return self._connection.execute(sql, values).rowcount

    def execute_many(self, sql: str, rows: Iterable[Row]) -> None:
        """Execute a statement once per row."""
        self._connection.executemany(sql, rows)

    def query(self, sql: str, values: Row = ()) -> list[Row]:
        """The rows that a statement finds."""
        return self._connection.execute(sql, values).fetchall()

    def row(self, lookup: Lookup[M], *key: Any) -> M | None:
        """The row with a primary key."""
        row = self._connection.execute(lookup.sql, key).fetchone()
        if row is None:
            return None
        return lookup.model(**{name: read(value) for (name, read), value in zip(lookup.readers, row, strict=True)})

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self.database.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ones that name the file and the way out."""
    try:
        yield
    except (peewee.DatabaseError, sqlite3.DatabaseError) as error:
        text = str(error)
        if "malformed" in text or "not a database" in text:
            fix = "move it away (or restore a backup) and start again"
        elif "full" in text:
            fix = "free some space on its disk and start again"
        elif "readonly" in text or "unable to open" in text:
            fix = "make the folder writable, or give another one with --data"
        else:
            fix = "see the log for what was being done"
        raise StoreError(f"{path}: {text}; {fix}", code="STORE_DAMAGED") from error
