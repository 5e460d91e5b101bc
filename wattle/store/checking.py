"""Looking a data folder's stores over: whether the file is whole, and whether its rows agree with each other. Reading only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import peewee

from wattle.errors import InvalidRequest, StoreError
from wattle.store import runtime
from wattle.store.audit import MODELS as AUDIT_MODELS
from wattle.store.audit import NAME as AUDIT
from wattle.store.audit import AuditStore
from wattle.store.base import Migration
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import MIGRATIONS as COORDINATOR_MIGRATIONS
from wattle.store.coordinator_tables import MODELS as COORDINATOR_MODELS
from wattle.store.faults import check_files, damaged, explain
from wattle.store.runtime import RuntimeStore

_SHOWN = 20  # problems of one kind


@dataclass(frozen=True, slots=True)
class Kind:
    """One role's store: how it is opened, and what is in it."""

    open: type[CoordinatorStore] | type[RuntimeStore] | type[AuditStore]
    models: Sequence[type[peewee.Model]]
    migrations: Sequence[Migration]


KINDS = {
    "coordinator.db": Kind(CoordinatorStore, COORDINATOR_MODELS, COORDINATOR_MIGRATIONS),
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
        with reading(path) as connection:
            _check_content(path, connection, report)
    except StoreError as error:
        report.fault(error.message)
    except sqlite3.Error as error:
        explained = explain(path, error)
        report.fault(explained.message if explained else f"{path}: {error}")
    return report


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
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
