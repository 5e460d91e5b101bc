"""Backups of a data folder's stores: copy them while their agents run, put a copy in the place of a lost one.

A backup is a folder with one database per role and ``backup.json``, which names the files and their sha256. It holds what the databases
hold: workflows, runs, results, assignments, feeds; not the output and files of tasks, which lie beside the databases as plain files.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from wattle.errors import InvalidRequest, StoreError
from wattle.protocol.records import timestamp
from wattle.store.base import Store, replace_durably
from wattle.store.checking import KINDS, Report, check, reading, stores_in
from wattle.store.faults import check_files, explain, full, unusable
from wattle.store.folder import FolderLock

MANIFEST = "backup.json"
_LOCKS = frozenset({"wattle.lock", "up.lock"})  # a data folder with nothing else in it is empty


def backup(folder: Path, target: Path, *, version: str) -> list[Report]:
    """Copy the stores of a data folder, in use or not, to a new folder, which is there whole and checked or not at all.

    Each copy is the state of one moment. Raises InvalidRequest when there is nothing to copy or ``target`` exists, StoreError when a
    store is damaged or a copy cannot be written. ``version`` is of the program that makes it, for people to read.
    """
    sources = stores_in(folder)
    if os.path.lexists(target):
        raise InvalidRequest(f"{target} exists already; name a folder that is to be made")
    part = target.with_name(f".{target.name}.part-{os.getpid()}")
    with _removed_after_failure(part), _writing(part):
        part.mkdir(mode=0o700, parents=True)
        reports = [_copy(source, part / source.name) for source in sources]
        manifest = {
            "wattle": version,
            "made_at": timestamp(time.time()),
            "files": {
                path.name: {"sha256": _digest(path), "schema": report.schema, "store": report.store}
                for path, report in (
                    (part / source.name, report) for source, report in zip(sources, reports, strict=True)
                )
            },
        }
        (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in (*part.iterdir(), part):
            _sync(path)
        os.rename(part, target)
        _sync(target.parent)
    for report in reports:
        report.file = str(target / Path(report.file).name)
    return reports


def _copy(source: Path, target: Path) -> Report:
    """SQLite's online copy, in one read transaction, which writers do not wait for; checked afterwards."""
    check_files(source)
    try:
        with reading(source) as original, closing(sqlite3.connect(target)) as copy:
            original.backup(copy)
            copy.execute("DELETE FROM meta WHERE key = 'open'")  # nobody has the copy open
            copy.commit()
    except sqlite3.Error as error:
        wrong = source if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_SOURCE else target
        raise explain(wrong, error) or unusable(wrong, str(error), "see to its disk") from error
    report = check(target)
    if not report.ok:
        problem = report.problems[0].replace(str(target), str(source))  # the copy is soon gone, and faithful
        raise StoreError(f"{source} cannot be backed up: {problem}", code="STORE_DAMAGED")
    _remove_logs(target)
    return report


_OF_SOURCE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


# --- restore ----------------------------------------------------------------------------------------------------------


def restore(source: Path, folder: Path, *, replace: bool = False) -> list[Report]:
    """Make a data folder of a backup, or (``replace``) put its stores in the place of those there, which are kept beside them.

    The restored stores get a new identity (``Store.renew``): they are an older state of what other peers have seen. Raises
    InvalidRequest when ``source`` is no backup or ``folder`` is not empty, StoreError when the backup is damaged or newer, when the
    folder is in use, or when tasks still run there.
    """
    files = _read_manifest(source)
    present = [name for name in (os.listdir(folder) if folder.is_dir() else []) if name not in _LOCKS]
    if present and not replace:
        raise InvalidRequest(
            f"{folder} is not empty ({', '.join(sorted(present)[:3])}); name a new folder, or give --replace to put the backup's stores in "
            "the place of those there (which are kept under other names)"
        )
    with ExitStack() as stack:
        stack.callback(FolderLock(folder).close)
        _refuse_running_tasks(folder)
        made = [_renewed(source / name, folder / f".restored-{name}", stack) for name in files]
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        for new in made:
            _put_in_place(new, folder / new.name.removeprefix(".restored-"), f"before-restore-{moment}")
        reports = [check(folder / name) for name in files]
        for name in files:
            _remove_logs(folder / name)
        return reports


def _read_manifest(source: Path) -> list[str]:
    """The names of a backup's files, each found to be what was written. Raises InvalidRequest or StoreError."""
    path = source / MANIFEST
    try:
        files: dict[str, dict[str, Any]] = json.loads(path.read_text())["files"]
        digests = {name: str(files[name]["sha256"]) for name in files}
    except FileNotFoundError:
        raise InvalidRequest(
            f"{source} is no backup: it has no {MANIFEST}; name a folder that wattle backup made"
        ) from None
    except OSError as error:
        raise unusable(path, error.strerror or str(error), "see to its owner and its disk") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({error}); use another backup", code="STORE_DAMAGED") from None
    unknown = [name for name in digests if name not in KINDS]
    if unknown or not digests:
        raise StoreError(
            f"{path} names {unknown or 'no store'}, which this Wattle does not know; use a newer one",
            code="STORE_NEWER",
        )
    for name, digest in digests.items():
        if not (source / name).is_file() or _digest(source / name) != digest:
            raise StoreError(
                f"{source / name} is not what was backed up: it is damaged or missing; use another backup",
                code="STORE_DAMAGED",
            )
    return list(digests)


def _refuse_running_tasks(folder: Path) -> None:
    """The restored store would not know what the spawner runs, and the same workers would run a second time beside that."""
    lock = folder / "spawner.lock"
    if not lock.exists():
        return
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            process = file.read(100).strip()
            raise StoreError(
                f"tasks of {folder} may still run under its spawner (process {process}): let them end, or end them with kill {process}, "
                "then restore",
                code="STORE_IN_USE",
            ) from None


def _renewed(source: Path, new: Path, stack: ExitStack) -> Path:
    """A copy of a backup's file with an identity of its own; removed when ``stack`` ends before it is put in place."""

    def remove() -> None:
        for suffix in ("", "-wal", "-shm"):
            new.with_name(new.name + suffix).unlink(missing_ok=True)

    remove()
    stack.callback(remove)
    with _writing(new):
        shutil.copyfile(source, new)
        new.chmod(0o600)
    store: Store = KINDS[source.name].open(new)
    try:
        with store.transaction():
            store.renew()
    finally:
        store.close()
    return new


def _put_in_place(new: Path, path: Path, suffix: str) -> None:
    """Move what is there aside, the log first: a log without its file is refused, a file beside another's log would be spoiled."""
    with _writing(path):
        for part in ("-shm", "-wal", ""):
            there = path.with_name(path.name + part)
            if os.path.lexists(there):
                os.rename(there, path.with_name(f"{path.name}.{suffix}{part}"))
    replace_durably(new, path)


def _remove_logs(path: Path) -> None:
    """Remove what looking at a file leaves beside it; nobody may have it open."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# --- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into ones that name the file and the way out."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename or path)
        if error.errno == errno.ENOSPC:
            raise full(Path(error.filename2 or where)) from error  # of a copy, where it was to be
        raise unusable(where, error.strerror or str(error), "see to its owner and its disk") from error


@contextmanager
def _removed_after_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # what went wrong before says more
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
