"""Looking after the stores of a data folder: check them, copy them while their agents run, put a copy in the place of a lost one.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee

from wattle.errors import InvalidRequest, StoreError
from wattle.protocol.records import timestamp
from wattle.store import coordinator, runtime
from wattle.store.audit import MODELS as AUDIT_MODELS
from wattle.store.audit import NAME as AUDIT
from wattle.store.audit import AuditStore
from wattle.store.base import Migration, Store, replace_durably
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import MODELS as COORDINATOR_MODELS
from wattle.store.faults import check_files, damaged, explain, full, unusable
from wattle.store.folder import FolderLock
from wattle.store.runtime import RuntimeStore

MANIFEST = "backup.json"
_SHOWN = 20  # problems of one kind
_LOCKS = frozenset({"wattle.lock", "up.lock"})  # a data folder with nothing else in it is empty


@dataclass(frozen=True, slots=True)
class Kind:
    """One role's store: how it is opened, and what is in it."""

    open: type[CoordinatorStore] | type[RuntimeStore] | type[AuditStore]
    models: Sequence[type[peewee.Model]]
    migrations: Sequence[Migration]


KINDS = {
    "coordinator.db": Kind(CoordinatorStore, COORDINATOR_MODELS, coordinator.MIGRATIONS),
    "runtime.db": Kind(RuntimeStore, runtime.MODELS, runtime.MIGRATIONS),
    AUDIT: Kind(AuditStore, AUDIT_MODELS, ()),
}


@dataclass(slots=True)
class Report:
    """What was found of one file. ``size`` and ``log_size`` (of the write-ahead log) are bytes, ``rows`` counts by table."""

    file: str
    ok: bool = True
    problems: list[str] = field(default_factory=list)
    size: int = 0
    log_size: int = 0
    schema: int | None = None
    store: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    owners: list[str] = field(
        default_factory=list
    )  # coordinators that the runs belong to: nobody else goes on with them

    def fault(self, problem: str) -> None:
        """Note something that is not as it has to be."""
        self.ok = False
        self.problems.append(problem)


# --- checking ---------------------------------------------------------------------------------------------------------


def stores_in(folder: Path) -> list[Path]:
    """The stores of a data folder, or of a backup. Raises InvalidRequest where there is none."""
    found = [folder / name for name in KINDS if os.path.lexists(folder / name) or (folder / f"{name}-wal").exists()]
    if not found:
        raise InvalidRequest(f"{folder} holds no store ({' or '.join(KINDS)}); name a data folder with --data")
    return found


def check(path: Path) -> Report:
    """Look a store over, reading only; it may be in use. Everything that is wrong is in the report, nothing is raised."""
    report = Report(str(path))
    try:
        check_files(path)
        with _reading(path) as connection:
            _check_content(path, connection, report)
    except StoreError as error:
        report.fault(error.message)
    except sqlite3.Error as error:
        explained = explain(path, error)
        report.fault(explained.message if explained else f"{path}: {error}")
    return report


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing. On a read-only file system SQLite needs to be told that nobody else writes either."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    log = path.with_name(f"{path.name}-wal")
    if not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size):
        address += "&immutable=1"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        yield connection


def _check_content(path: Path, connection: sqlite3.Connection, report: Report) -> None:
    log = path.with_name(f"{path.name}-wal")
    report.size, report.log_size = path.stat().st_size, log.stat().st_size if log.exists() else 0
    connection.execute("BEGIN")  # one moment for all that follows
    if not report.log_size and report.size % connection.execute("PRAGMA page_size").fetchone()[0]:
        report.fault(damaged(path, "its last page is torn").message)
    for (found,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})"):
        if found != "ok":
            report.fault(damaged(path, " ".join(found.split())).message)
    if not report.ok:
        return  # what else is read from it is of no worth
    kind = KINDS[path.name]
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    wanted = {model._meta.table_name for model in kind.models} | {"meta"}
    if "meta" not in there:
        report.fault(f"{path} is no store of Wattle's: it has no table meta; move it away")
        return
    facts: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta"))
    if not facts.get("schema", "").isdigit() or not facts.get("store"):
        report.fault(damaged(path, "it does not say which store and schema it is").message)
        return
    report.schema, report.store = int(facts["schema"]), facts["store"]
    newest = len(kind.migrations) + 1
    if report.schema > newest:
        report.fault(
            f"{path} was written by a newer Wattle (schema {report.schema}, this one knows {newest}); use that version"
        )
        return
    if report.schema == newest and wanted - there:
        report.fault(f"{path} is no {path.stem} store: it lacks {', '.join(sorted(wanted - there))}; move it away")
        return
    report.rows = {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sorted(wanted & there)
    }
    if report.schema == newest:
        if path.name == "coordinator.db":
            report.owners = [name for (name,) in connection.execute("SELECT DISTINCT owner FROM runs ORDER BY owner")]
        for question, meaning in _RULES[path.name]:
            for row in connection.execute(f"{question} LIMIT {_SHOWN}"):
                report.fault(f"{path}: {meaning.format(*row)}")


_FINAL = "('succeeded', 'failed', 'cancelled')"
_RULES = {
    "coordinator.db": (
        (
            "SELECT id, document FROM runs WHERE document NOT IN (SELECT digest FROM documents)",
            "run {0} has no document ({1} is missing)",
        ),
        ("SELECT id FROM runs WHERE id NOT IN (SELECT run FROM workers)", "run {0} has no workers"),
        (
            "SELECT DISTINCT run FROM workers WHERE run NOT IN (SELECT id FROM runs)",
            "workers of run {0} are there without the run",
        ),
        (
            "SELECT t.run, t.worker, t.attempt FROM tasks t LEFT JOIN workers w ON w.run = t.run AND w.name = t.worker "
            "WHERE w.name IS NULL OR t.attempt > w.attempts",
            "attempt {2} of worker {1} of run {0} is there without its worker knowing of it",
        ),
        (
            f"SELECT r.id, r.status, w.name, w.status FROM runs r JOIN workers w ON w.run = r.id WHERE r.status IN {_FINAL} "
            f"AND w.status NOT IN {_FINAL} AND w.status <> 'skipped'",
            "run {0} is {1}, and its worker {2} is {3}",
        ),
    ),
    "runtime.db": (
        (
            "SELECT run, number FROM feed_runs WHERE number NOT IN (SELECT number FROM feed)",
            "the feed lacks entry {1}, which tells of run {0}",
        ),
        ("SELECT number FROM feed WHERE NOT json_valid(facts)", "entry {0} of the feed cannot be read"),
        (
            "SELECT run, worker, attempt FROM tasks WHERE phase <> 'done' AND NOT json_valid(assignment)",
            "the assignment of attempt {2} of worker {1} of run {0} cannot be read",
        ),
    ),
    AUDIT: (("SELECT number FROM audit WHERE NOT json_valid(entry)", "record {0} of the audit cannot be read"),),
}
"""What has to hold between rows, as questions for those that break it."""


# --- backup -----------------------------------------------------------------------------------------------------------


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
        with _reading(source) as reading, closing(sqlite3.connect(target)) as copy:
            reading.backup(copy)
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
