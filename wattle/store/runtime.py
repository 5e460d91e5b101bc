"""The runtime's store: the tasks it holds, its feed, the fences, what content it has, and where its logs are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import peewee
from peewee import AutoField, CompositeKey, FloatField, IntegerField, TextField

from wattle.core import effects as do
from wattle.core.effects import HeldTask, RuntimeEffect
from wattle.core.model import Assignment, CopiedRun, Fact, RunHead, TaskId
from wattle.core.states import Phase
from wattle.protocol.messages import adapter, encode
from wattle.store.base import Insert, Migration, Store, Update, Upsert
from wattle.store.copies import COPY_MODELS, TRIM_MOST, CopyTables
from wattle.values import value


class Tasks(peewee.Model):
    """Every task this node was given."""

    run = TextField()
    worker = TextField()
    attempt = IntegerField()
    assignment = TextField()
    owner = TextField()
    accepted = IntegerField()
    phase = TextField()
    pid = IntegerField(null=True)
    started_at = FloatField(null=True)
    ending = TextField(null=True)
    exit_code = IntegerField(null=True)
    signal = IntegerField(null=True)
    cpu_seconds = FloatField(default=0)
    memory_peak = IntegerField(default=0)

    class Meta:
        primary_key = CompositeKey("run", "worker", "attempt")
        without_rowid = True


class WorkerLogs(peewee.Model):
    """Where a task's output went."""

    id = AutoField()
    workflow_name = TextField()
    worker_name = TextField()
    run = TextField(index=True)
    attempt = IntegerField()
    log_type = TextField()
    file_path = TextField()
    created_at = FloatField()

    class Meta:
        table_name = "worker_logs"


class Fences(peewee.Model):
    """The highest (epoch, owner) seen for each run; all that is left of one that is pruned (``pruned_at`` is not 0)."""

    run = TextField(primary_key=True)
    epoch = IntegerField()
    owner = TextField()
    pruned_at = FloatField(default=0, index=True, constraints=[peewee.SQL("DEFAULT 0")])


class Blobs(peewee.Model):
    """Content this node has: where, and what the file looked like when it was hashed."""

    digest = TextField()
    path = TextField()
    size = IntegerField()
    mtime_ns = IntegerField()

    class Meta:
        primary_key = CompositeKey("digest", "path")
        without_rowid = True


class BlobRuns(peewee.Model):
    """Which runs have made or fetched some content here."""

    run = TextField()
    digest = TextField(index=True)

    class Meta:
        table_name = "blob_runs"
        primary_key = CompositeKey("run", "digest")
        without_rowid = True


class Feed(peewee.Model):
    """The facts of one commit, numbered from 1. Entries that tell only of pruned runs are removed."""

    number = IntegerField(primary_key=True)
    facts = TextField()


class FeedRuns(peewee.Model):
    """Which entries of the feed tell of a run."""

    run = TextField()
    number = IntegerField(index=True)

    class Meta:
        table_name = "feed_runs"
        primary_key = CompositeKey("run", "number")
        without_rowid = True


MODELS = (Tasks, WorkerLogs, Fences, Blobs, BlobRuns, Feed, FeedRuns, *COPY_MODELS)


def _add_copies(database: peewee.SqliteDatabase) -> None:
    """Schema 2: several coordinators."""
    database.create_tables([FeedRuns, BlobRuns, *COPY_MODELS])
    database.execute_sql("ALTER TABLE fences ADD COLUMN pruned_at REAL NOT NULL DEFAULT 0")
    database.execute_sql('CREATE INDEX "fences_pruned_at" ON "fences" ("pruned_at")')
    database.execute_sql('CREATE INDEX "workerlogs_run" ON "worker_logs" ("run")')
    database.execute_sql(
        "INSERT OR IGNORE INTO feed_runs (run, number) SELECT json_extract(fact.value, '$.run'), feed.number "
        "FROM feed, json_each(feed.facts) AS fact"
    )
    for made in (
        "json_extract(file.value, '$.digest') FROM feed, json_each(feed.facts) AS fact, json_each(fact.value, '$.outputs') AS file",
        "file.value FROM feed, json_each(feed.facts) AS fact, json_each(fact.value, '$.fetched') AS file",
    ):
        database.execute_sql(
            f"INSERT OR IGNORE INTO blob_runs (run, digest) SELECT json_extract(fact.value, '$.run'), {made}"
        )


MIGRATIONS: tuple[Migration, ...] = (_add_copies,)

_PROGRESS = ("phase", "pid", "started_at", "ending", "exit_code", "signal", "cpu_seconds", "memory_peak")
_INSERT_TASK = Upsert(Tasks, ("run", "worker", "attempt", "assignment", "owner", "accepted", *_PROGRESS), _PROGRESS)
_UPDATE_TASK = Update(Tasks, _PROGRESS)
_UPSERT_FENCE = Upsert(Fences, ("run", "epoch", "owner", "pruned_at"))
_INSERT_BLOB_RUN = Upsert(BlobRuns, ("run", "digest"))
_UPSERT_BLOB = Upsert(Blobs, ("digest", "path", "size", "mtime_ns"))
_INSERT_LOG = Insert(
    WorkerLogs, ("workflow_name", "worker_name", "run", "attempt", "log_type", "file_path", "created_at")
)
_INSERT_ENTRY = Insert(Feed, ("number", "facts"))

_INSERT_FEED_RUN = Insert(FeedRuns, ("run", "number"))
_SAVE_HEAD = "INSERT INTO meta (key, value) VALUES ('head', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_KNOWN_RUNS = (
    "SELECT run FROM fences WHERE pruned_at = 0 AND run > ? UNION "
    "SELECT run FROM copied_runs WHERE pruned_at = 0 AND run > ? AND run NOT LIKE 'workflow/%' ORDER BY run LIMIT ?"
)
_NEWEST_ENDED = "SELECT attempt FROM tasks WHERE run = ? AND worker = ? AND phase = ? ORDER BY attempt DESC LIMIT 1"
_PLACES = "SELECT digest, path, size, mtime_ns FROM blobs WHERE digest = ?"
_ONLY_OF = (
    "SELECT digest FROM blob_runs AS mine WHERE run = ? "
    "AND NOT EXISTS (SELECT 1 FROM blob_runs AS others WHERE others.digest = mine.digest AND others.run <> mine.run)"
)

DELETE_MOST = 5000
"""Rows of a table that one transaction removes, at most."""

_FACTS = tuple[Fact, ...]


@value(frozen=True, slots=True)
class BlobRow:
    """Content at a path; it is held as long as the file still has this size and modification time."""

    digest: str
    path: str
    size: int
    mtime_ns: int


class RuntimeStore(Store):
    """See the module's docstring."""

    def __init__(self, path: Path, *, synchronous: str = "normal") -> None:
        super().__init__(path, MODELS, MIGRATIONS, synchronous=synchronous)
        kept = self.query("SELECT value FROM meta WHERE key = 'head'")  # the newest entry may have been removed
        newest: int = Feed.select(peewee.fn.MAX(Feed.number)).scalar() or 0
        self.head = max(newest, int(kept[0][0]) if kept else 0)
        self.copies = CopyTables(self)
        self._known: set[TaskId] = set()  # open tasks that have a row, so that only what changes is written

    def renew(self) -> None:
        """As of every store. Tasks that had not started are forgotten: they may have run since; who still wants them sends them again."""
        super().renew()
        Tasks.delete().where(Tasks.phase.in_([Phase.QUEUED, Phase.PREPARING])).execute()

    def save(self, effects: Iterable[RuntimeEffect]) -> tuple[Fact, ...]:
        """Write every Save and Append effect, within one transaction of the caller's; gives the facts of the new feed entry, if any.

        The entry's number is ``head + 1``; the caller sets ``head`` once the transaction is durable.
        """
        groups: dict[type, list[Any]] = defaultdict(list)
        for effect in effects:
            groups[type(effect)].append(effect)
        if groups[do.SaveHeldTask]:
            self._save_tasks([e.task for e in groups[do.SaveHeldTask]])
        if groups[do.SaveFence]:
            self.write(_UPSERT_FENCE, ((e.run, e.epoch, e.owner, 0) for e in groups[do.SaveFence]))
        facts = tuple(e.fact for e in groups[do.Append])
        if facts:
            self.write(
                _INSERT_ENTRY, [(self.head + 1, adapter(_FACTS).dump_json(facts, exclude_defaults=True).decode())]
            )
            self.write(_INSERT_FEED_RUN, ((run, self.head + 1) for run in {fact.run for fact in facts}))
        for kept in groups[do.SaveCopies]:
            self.copies.keep(kept.page)
        return facts

    def _save_tasks(self, tasks: list[HeldTask]) -> None:
        new: list[tuple[TaskId, HeldTask]] = []
        known: list[tuple[TaskId, HeldTask]] = []
        for task in tasks:
            id = task.assignment.id
            (known if id in self._known else new).append((id, task))
        self.write(
            _INSERT_TASK, ((*id, encode(t.assignment).decode(), t.owner, t.accepted, *_progress(t)) for id, t in new)
        )
        self.write(_UPDATE_TASK, ((*_progress(t), *id) for id, t in known))
        self._known.update(id for id, t in new if t.phase is not Phase.DONE)
        self._known.difference_update(id for id, t in known if t.phase is Phase.DONE)

    def save_logs(self, rows: Iterable[tuple[str, str, str, int, str, str, float]]) -> None:
        """Note log files: (workflow, worker, run, attempt, stream, path, time) each."""
        self.write(_INSERT_LOG, rows)

    def save_blobs(self, blobs: Sequence[tuple[str, BlobRow]]) -> None:
        """Note content this node has, and for which run."""
        self.write(_UPSERT_BLOB, ((b.digest, b.path, b.size, b.mtime_ns) for _, b in blobs))
        self.write(_INSERT_BLOB_RUN, ((run, b.digest) for run, b in blobs))

    # --- pruned runs --------------------------------------------------------------------------------------------------

    def known_runs(self, after: str, limit: int) -> list[str]:
        """Runs this node knows something of and that are not known to be pruned, by name, from the one after ``after`` on."""
        return [run for (run,) in self.query(_KNOWN_RUNS, (after, after, limit))]

    def fence(self, run: str) -> tuple[int, str] | None:
        """The highest (epoch, owner) seen for a run."""
        for epoch, owner in self.query("SELECT epoch, owner FROM fences WHERE run = ?", (run,)):
            return epoch, owner
        return None

    def content_only_of(self, run: str) -> list[str]:
        """Digests of what a run made or fetched here and no other run did."""
        return [digest for (digest,) in self.query(_ONLY_OF, (run,))]

    def discard(self, head: RunHead, within: str) -> bool:
        """Remove rows of a pruned run, within a transaction; False when there are more, for the next one.

        ``within``: what the paths of files start with that are gone. What the feed says of other runs as well stays.
        """
        run = head.run
        for table, key in (("worker_logs", "id"), ("tasks", "run, worker, attempt")):
            rows = f"SELECT {key} FROM {table} WHERE run = ? LIMIT ?"
            if self.execute(f"DELETE FROM {table} WHERE ({key}) IN ({rows})", (run, DELETE_MOST)) == DELETE_MOST:
                return False
        numbers = self.query("SELECT number FROM feed_runs WHERE run = ? LIMIT ?", (run, DELETE_MOST))
        self.execute_many("DELETE FROM feed_runs WHERE run = ? AND number = ?", ((run, n) for (n,) in numbers))
        unused = "DELETE FROM feed WHERE number = ? AND NOT EXISTS (SELECT 1 FROM feed_runs WHERE feed_runs.number = feed.number)"
        self.execute(_SAVE_HEAD, (str(self.head),))
        self.execute_many(unused, numbers)
        if len(numbers) == DELETE_MOST:
            return False
        digests = self.query("SELECT digest FROM blob_runs WHERE run = ?", (run,))
        self.execute_many(
            "DELETE FROM blobs WHERE digest = ? AND substr(path, 1, ?) = ?",
            ((d, len(within), within) for (d,) in digests),
        )
        only = self.content_only_of(run)
        self.execute_many("DELETE FROM blobs WHERE digest = ?", ((digest,) for digest in only))
        self.execute("DELETE FROM blob_runs WHERE run = ?", (run,))
        if self.copies.heads_of([run]):
            self.copies.put(head.owner, head.store, CopiedRun(run, head.number, (), head, forgotten=True))
        self.execute("UPDATE fences SET pruned_at = ? WHERE run = ?", (head.pruned_at, run))
        return True

    def trim(self, before: float) -> list[str]:
        """Forget which runs were pruned before a time, some of them at once, within a transaction; gives those."""
        found = self.query(
            "SELECT run FROM fences WHERE pruned_at > 0 AND pruned_at < ? ORDER BY pruned_at LIMIT ?",
            (before, TRIM_MOST),
        )
        self.execute_many("DELETE FROM fences WHERE run = ?", found)
        self.copies.trim(before)
        return [run for (run,) in found]

    # --- reading ------------------------------------------------------------------------------------------------------

    def open_tasks(self) -> list[HeldTask]:
        """Tasks that have not ended, as they were saved last."""
        found = [_held(row) for row in Tasks.select().where(Tasks.phase != Phase.DONE)]
        self._known.update(t.assignment.id for t in found)
        return found

    def fences(self, runs: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Run -> highest (epoch, owner) seen, of these runs."""
        found = ((run, self.fence(run)) for run in runs)
        return {run: fence for run, fence in found if fence is not None}

    def past(self, run: str, workers: Iterable[str]) -> tuple[tuple[int, str] | None, dict[str, int]]:
        """The fence of a run, and which attempts ended last of those of its workers that are named; no fence, no attempts."""
        fence = self.fence(run)
        ended: dict[str, int] = {}
        for worker in workers if fence is not None else ():
            for (attempt,) in self.query(_NEWEST_ENDED, (run, worker, Phase.DONE.value)):
                ended[worker] = attempt
        return fence, ended

    def find(self, digest: str) -> list[BlobRow]:
        """Where some content is said to be."""
        return [BlobRow(*row) for row in self.query(_PLACES, (digest,))]

    def feed(self, after: int, limit: int) -> list[tuple[int, tuple[Fact, ...]]]:
        """Entries of the feed from ``after`` on, oldest first."""
        query = Feed.select().where(Feed.number > after).order_by(Feed.number).limit(limit)
        return [(row.number, adapter(_FACTS).validate_json(row.facts)) for row in query]

    def facts_of(self, run: str, after: int, limit: int) -> list[tuple[int, tuple[Fact, ...]]]:
        """What entries of the feed say of one run, from the entry ``after`` on, oldest first."""
        sql = (
            "SELECT feed.number, feed.facts FROM feed_runs JOIN feed ON feed.number = feed_runs.number "
            "WHERE feed_runs.run = ? AND feed_runs.number > ? ORDER BY feed_runs.number LIMIT ?"
        )
        entries = self.query(sql, (run, after, limit))
        return [(n, tuple(f for f in adapter(_FACTS).validate_json(facts) if f.run == run)) for n, facts in entries]


def _progress(task: HeldTask) -> tuple[Any, ...]:
    return (
        task.phase.value, task.pid, task.started_at, task.ending, task.exit_code, task.signal, task.cpu_seconds, task.memory_peak,
    )  # fmt: skip


def _held(row: Tasks) -> HeldTask:
    return HeldTask(
        assignment=adapter(Assignment).validate_json(row.assignment),
        owner=row.owner,
        phase=Phase(row.phase),
        accepted=row.accepted,
        pid=row.pid,
        started_at=row.started_at,
        ending=row.ending,
        exit_code=row.exit_code,
        signal=row.signal,
        cpu_seconds=row.cpu_seconds,
        memory_peak=row.memory_peak,
    )
