"""What every store shares: one SQLite file per role in the peer's data folder, opened through peewee.

* WAL; ``synchronous=normal`` survives the death of the process, ``full`` also a power cut, at one fsync per commit.
* A numbered schema with migrations; a file written by a newer Wattle is refused.
* A damaged file is refused by name when it is opened (wattle/store/faults.py); one that turns out damaged later ends its agent.
* A store that may have lost commits it had told of (a power cut, a restored backup) gets a new identity, see ``Store.renew``.
* One process per data folder: wattle/store/folder.py.
* Writes on the hot path are ``executemany`` with SQL made once per table; everything else is ordinary peewee.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import peewee

from wattle.errors import StoreError
from wattle.logs import get_logger
from wattle.store.faults import Connection, check_files, damaged, explain, full, lost_commits, unusable

M = TypeVar("M", bound=peewee.Model)
Row = tuple[Any, ...]
Migration = Callable[[peewee.SqliteDatabase], None]

CACHED_KIB = 2000
"""KiB of pages that a store keeps in memory. A store works on what is new, so 16 MiB were no faster (they cost as much CPU per task)."""

CHECKED_MOST = 64 << 20
"""Bytes of the largest file that is checked as a whole when it is opened (about 1 ms per MiB); ``wattle store check`` does any."""

log = get_logger("wattle.store")


class Insert:
    """A prepared ``INSERT`` for one table; rows are tuples in the order of ``columns``.

    Any other columns stay NULL.
    """

    def __init__(self, model: type[peewee.Model], columns: Sequence[str]) -> None:
        names = [model._meta.fields[c].column_name for c in columns]
        values = ", ".join("?" * len(columns))
        self.sql = f'INSERT INTO "{model._meta.table_name}" ({_quoted(names)}) VALUES ({values})'


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
    """A prepared ``SELECT`` of one row by primary key: peewee takes ten times as long to word the query as SQLite to answer it.

    Nor is peewee asked to make the row, field by field: SQLite gives all values as they are to be, but for what is true or false.
    """

    def __init__(self, model: type[M]) -> None:
        meta = model._meta
        self._model = model
        self._names = [f.name for f in meta.sorted_fields]
        self._flags = [f.name for f in meta.sorted_fields if isinstance(f, peewee.BooleanField)]
        where = " AND ".join(f'"{f.column_name}" = ?' for f in meta.get_primary_keys())
        columns = _quoted(f.column_name for f in meta.sorted_fields)
        self.sql = f'SELECT {columns} FROM "{meta.table_name}" WHERE {where}'

    def made(self, values: Row) -> M:
        """The row with these values, to be read."""
        row = self._model(__no_default__=True)
        row.__data__ = data = dict(zip(self._names, values, strict=True))
        for name in self._flags:
            data[name] = bool(data[name])
        return row


class Meta(peewee.Model):
    """One row per fact about the file itself."""

    key = peewee.CharField(primary_key=True)
    value = peewee.TextField()


class Store:
    """One role's database. ``id`` identifies the file's content: a new folder means a new id, and so a new feed.

    ``on_failure`` is told of every fault of the file, whoever met it: what reads the store for others must not go on with a damaged one.
    """

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
        self._models: list[type[peewee.Model]] = [Meta, *models]
        self._migrations = migrations
        self._synchronous = synchronous
        check_files(path)
        if not path.exists():
            self._create()
        written = _read(path.with_name(f"{path.name}-wal"))
        self._connect(path)
        try:
            recovered = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            self._check()
            self._migrate()
            self._take_up(recovered, written)
        except BaseException:
            self.database.close()
            raise

    def _connect(self, path: Path) -> None:
        self.database = _Database(
            str(path),
            pragmas={
                "busy_timeout": 5000,
                "journal_mode": "wal",
                "synchronous": self._synchronous,
                "foreign_keys": 0,
                "cache_size": -CACHED_KIB,
            },
            autoconnect=False,
            factory=_connections(path),
        )
        self.database.bind(self._models, bind_refs=False, bind_backrefs=False)
        self.database.connect()
        self._connection: Connection = self.database.connection()

    @property
    def on_failure(self) -> Callable[[StoreError], None] | None:
        """Told of every fault of the file before the error is raised."""
        return self._connection.on_failure

    @on_failure.setter
    def on_failure(self, told: Callable[[StoreError], None] | None) -> None:
        self._connection.on_failure = told

    # --- opening ------------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        """Make the file under another name first: one that is there under its own is whole, so an empty one is a damaged one."""
        new = self.path.with_name(f"{self.path.name}.new")
        for suffix in ("", "-wal", "-shm"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)
        self._connect(new)
        try:
            with self.transaction():
                self.database.create_tables(self._models, safe=False)
                self._note("schema", str(self._newest))
                self._note("store", uuid.uuid4().hex)
        finally:
            self.database.close()
        replace_durably(new, self.path)

    @property
    def _newest(self) -> int:
        return len(self._migrations) + 1

    def _check(self) -> None:
        """Refuse a file that is cut off, damaged, or no store of this kind."""
        size = self.path.stat().st_size
        if size % self._connection.execute("PRAGMA page_size").fetchone()[0] and not self._logged():
            raise damaged(self.path, "its last page is torn")
        if size <= CHECKED_MOST:
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise damaged(self.path, found.splitlines()[-1])
        tables = set(self.database.get_tables())
        if Meta._meta.table_name not in tables:
            raise unusable(self.path, "it is no store of Wattle's", "move it away, or give another folder with --data")
        facts = self._facts()
        if not facts.get("store") or not facts.get("schema", "").isdigit():
            raise damaged(self.path, "it does not say which store and schema it is")
        if int(facts["schema"]) > self._newest:
            raise StoreError(
                f"{self.path} was written by a newer Wattle (schema {facts['schema']}, this one knows {self._newest}); "
                "use that version, or give another folder with --data",
                code="STORE_NEWER",
            )
        if int(facts["schema"]) == self._newest:
            missing = {model._meta.table_name for model in self._models} - tables
            if missing:
                why = f"it is no {self.path.stem} store: it has no table {min(missing)}"
                raise unusable(self.path, why, "move it away, or give another folder with --data")

    def _facts(self) -> dict[str, str]:
        """What the file says of itself. (The model of that table is bound to one database, and a process may have two stores.)"""
        return dict(self._connection.execute("SELECT key, value FROM meta").fetchall())

    def _note(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def _logged(self) -> bool:
        """Whether commits are in the write-ahead log that are not in the file yet, because somebody reads it."""
        _, frames, folded = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(frames != folded)

    def _migrate(self) -> None:
        """Bring the file to this program's schema, in one transaction."""
        with self.transaction():
            version = int(self._facts()["schema"])
            for migration in self._migrations[version - 1 :]:
                migration(self.database)
            if version != self._newest:
                self._note("schema", str(self._newest))

    def _take_up(self, recovered: int, written: bytes) -> None:
        """Mark the file as open, and renew its identity if commits may be missing at its end."""
        boot = _boot()
        facts = self._facts()
        left = facts.get("open")
        lost = lost_commits(written, recovered)
        cut = left is not None and left != boot  # the system ended before the process that had it open closed it
        if lost and not cut:
            raise StoreError(
                f"{self.path}-wal is damaged in the middle, and commits after that are lost; restore a backup (wattle restore), or move it "
                "away and start again without what was committed last",
                code="STORE_DAMAGED",
            )
        self.id = facts["store"]
        with self.transaction():
            if left is not None and ((cut and self._synchronous != "full") or not written):
                log.warning(
                    "store was not closed: the last commits may be missing, its feed starts anew", file=str(self.path)
                )
                self.renew()
            self._note("open", boot)
        self._connection.execute(
            "PRAGMA wal_checkpoint(PASSIVE)"
        )  # the mark is to be on the disk before anything that might be lost

    def renew(self) -> None:
        """Give the store a new identity, within a transaction of the caller's: it may be an older state of what others have seen.

        Its feed could otherwise give numbers a second time that followers have learned already, and what they stand for now would
        never be read. Under a new identity followers read the whole feed again, where they pass over what they know, and settle anew
        what this peer holds.
        """
        self.id = uuid.uuid4().hex
        self._note("store", self.id)

    # --- using --------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the block has ended. Raises StoreError when the file cannot be written."""
        self._connection.execute("BEGIN IMMEDIATE")  # peewee's own costs as much again as a small commit
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(
                sqlite3.Error
            ):  # what made it fail says more; a transaction that is not committed is not there
                self._connection.rollback()
            raise

    def write(self, statement: Insert | Update, rows: Iterable[Row]) -> None:
        """Execute a prepared statement once per row, within a transaction."""
        self._connection.executemany(statement.sql, rows)

    def execute(self, sql: str, values: Row = ()) -> int:
        """Execute a statement on this store's own connection; gives the number of rows it touched."""
        touched: int = self._connection.execute(sql, values).rowcount
        return touched

    def execute_many(self, sql: str, rows: Iterable[Row]) -> None:
        """Execute a statement once per row."""
        self._connection.executemany(sql, rows)

    def query(self, sql: str, values: Row = ()) -> list[Row]:
        """The rows that a statement finds."""
        found: list[Row] = self._connection.execute(sql, values).fetchall()
        return found

    def row(self, lookup: Lookup[M], *key: Any) -> M | None:
        """The row with a primary key."""
        values = self._connection.execute(lookup.sql, key).fetchone()
        return None if values is None else lookup.made(values)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it. One that cannot be written stays marked as open."""
        self.on_failure = None
        with suppress(StoreError):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # makes room for the next line on a full disk
            with self.transaction():
                self._connection.execute("DELETE FROM meta WHERE key = 'open'")
        self.database.close()


class _Database(peewee.SqliteDatabase):
    def _connect(self) -> Any:
        try:
            return super()._connect()  # type: ignore[misc]  # not in peewee's annotations
        except sqlite3.Error as error:
            path = Path(self.database)
            raise (explain(path, error) or unusable(path, str(error), "see to its folder")) from error


def _connections(path: Path) -> type[Connection]:
    return type("StoreConnection", (Connection,), {"path": path})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # of the last two SQLite itself will complain
        return b""


def _boot() -> str:
    """Which start of the system this is; a file left open in another one may miss what had not reached the disk."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def replace_durably(new: Path, path: Path) -> None:
    """Put a file in the place of another, whole on the disk before it is there under that name. Raises StoreError when it cannot."""
    try:
        for name, flags in ((new, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
            if name is not new:
                os.replace(new, path)
            descriptor = os.open(name, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise full(path) from error
        raise unusable(path, error.strerror or str(error), "see to its folder, or give another with --data") from error
