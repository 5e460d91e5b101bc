"""What can be wrong with a store's file or its disk, in words: which file, what is wrong, what to do.

Every connection of a store is a ``Connection`` of this module, so whoever reads or writes, through peewee or not, gets a StoreError
where SQLite blames the file. Faults of a statement (a constraint, wrong SQL) stay SQLite's own errors: they are Wattle's.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wattle.errors import StoreError

_RESTORE = "restore a backup (wattle restore), or move it away with its -wal and start again without what it held"
_MAGIC = (0x377F0682, 0x377F0683)  # of write-ahead logs
_WAL_HEADER, _FRAME_HEADER = 32, 24  # bytes


def damaged(path: Path, how: str) -> StoreError:
    """The error for a file whose content cannot be trusted."""
    return StoreError(f"{path} is damaged ({how}); {_RESTORE}", code="STORE_DAMAGED")


def unusable(path: Path, why: str, fix: str) -> StoreError:
    """The error for a file that may be sound, and cannot be used as things are."""
    return StoreError(f"{path} cannot be used: {why}; {fix}", code="STORE_UNUSABLE")


def full(path: Path) -> StoreError:
    """The error for a disk without room."""
    message = f"{path} cannot be written: its disk is full; free some space there and start again (nothing acknowledged is lost)"
    return StoreError(message, code="STORE_FULL")


def explain(path: Path, error: sqlite3.Error) -> StoreError | None:
    """The StoreError for what the file or its disk is to blame for; None for any other error of SQLite's."""
    text, extended = str(error), getattr(error, "sqlite_errorcode", 0)
    match extended & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(path, text)
        case sqlite3.SQLITE_FULL:
            return full(path)
        case sqlite3.SQLITE_IOERR:
            if _without_room(path):
                return full(path)
            fix = "see the system's log for faults of the disk, and wattle store check once it is sound"
            return unusable(path, f"{text} ({getattr(error, 'sqlite_errorname', '')})", fix)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return full(path) if _without_room(path) else _closed_to_us(path, text)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return unusable(path, text, "another program has locked it; end that (a shell of sqlite3?) and start again")
    return None


def _without_room(path: Path) -> bool:
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return False
    return room.f_bavail == 0


def _closed_to_us(path: Path, text: str) -> StoreError:
    other = "or give another folder with --data"
    if not path.parent.is_dir():
        return unusable(path, f"there is no folder {path.parent}", f"make it, {other}")
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.is_dir():
            return unusable(path, f"{file.name} is a folder, where a file has to be", "move that away")
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            return unusable(path, f"{file.name} may not be read and written by this user", f"change its owner, {other}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return unusable(path, f"folder {path.parent} may not be written to by this user", f"change its owner, {other}")
    return unusable(path, text, f"make the file and its folder writable, {other}")


def check_files(path: Path) -> None:
    """Look at a store's files before SQLite does, which takes an empty file for a new database and a foreign log for its own.

    Raises StoreError.
    """
    log = path.with_name(f"{path.name}-wal")
    logged = log.stat().st_size if log.is_file() else 0
    try:
        found = path.stat()
    except FileNotFoundError:
        if logged:
            why = f"the file is gone, and what was committed last is in {log.name}"
            raise unusable(path, why, f"put it back, or move {log.name} away as well to start with nothing") from None
        return
    except OSError as error:
        raise unusable(path, error.strerror or str(error), "see to the folders on the way to it") from None
    if path.is_dir():
        raise _closed_to_us(path, "")
    if found.st_size == 0:
        raise damaged(path, "it is empty: something cut it off")
    if logged >= _WAL_HEADER:
        with log.open("rb") as file:
            header = file.read(_WAL_HEADER)
        if any(header) and not _is_log_header(header):
            raise StoreError(
                f"{log} is damaged (its header is none); what was committed last is in it: restore a backup (wattle restore), or move "
                f"{log.name} away and start again without that",
                code="STORE_DAMAGED",
            )


def _is_log_header(header: bytes) -> bool:
    magic = struct.unpack(">I", header[:4])[0]
    if magic not in _MAGIC:
        return False
    first = second = 0
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack(">2I", header[24:32])


def lost_commits(log: bytes, recovered: int) -> bool:
    """Whether a write-ahead log holds a commit that SQLite did not recover though another transaction was written after it.

    ``recovered`` is how many frames SQLite took. A process killed in the middle of a commit leaves the last transaction torn, never an
    earlier one: then a block of the log was damaged, or never reached the disk in a power cut.
    """
    if len(log) < _WAL_HEADER:
        return False
    page, salts = struct.unpack(">I", log[8:12])[0], log[16:24]
    at = _WAL_HEADER + recovered * (_FRAME_HEADER + page)
    committed = False
    while len(log) >= at + _FRAME_HEADER and log[at + 8 : at + 16] == salts:
        if committed:
            return True
        committed = log[at + 4 : at + 8] != b"\0\0\0\0"
        at += _FRAME_HEADER + page
    return False


class Connection(sqlite3.Connection):
    """A connection that raises StoreError for faults of the file, and tells ``on_failure`` of each first."""

    path: Path
    on_failure: Callable[[StoreError], None] | None = None

    def cursor(self, factory: Any = None) -> Any:
        """One that explains its errors."""
        return super().cursor(_Cursor)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Through a cursor that explains its errors; the inherited one takes a plain cursor."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        """As ``execute``."""
        return self.cursor().executemany(sql, parameters)

    def explained(self, error: sqlite3.Error) -> Exception:
        """What to raise for an error."""
        failure = explain(self.path, error)
        if failure is None:
            return error
        if self.on_failure is not None:
            self.on_failure(failure)
        return failure


class _Cursor(sqlite3.Cursor):
    connection: Connection

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        try:
            return super().execute(sql, parameters)
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        try:
            return super().executemany(sql, parameters)
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        try:
            return super().fetchmany(size)
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.Error as error:
            raise self.connection.explained(error) from error
