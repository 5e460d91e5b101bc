"""Copies of other owners' runs, as both stores keep them: a state per owner and run, and how far each owner's copies go.

Rows are (key, JSON text) that only an adopting coordinator looks into: ``run``, ``document``, ``w/<worker>``,
``t/<worker>/<attempt>``, ``h/<digest>/<node>``. A run that is told whole takes several pages: its rows are kept aside, as if of another
store of that owner's, until its head is here, so that a copy is a state that its owner once had.

Tables are reached by SQL on the store's own connection, because a peewee model belongs to the store that was opened last, and these
tables are in two stores.
"""

from __future__ import annotations

from collections.abc import Sequence

import peewee
from peewee import BooleanField, CompositeKey, FloatField, IntegerField, TextField

from wattle.core.model import CopiedRun, CopyPage, RunHead
from wattle.store.base import Store


class CopiedRuns(peewee.Model):
    """One owner's state of one run: its head. Of a run that the owner has pruned (``pruned_at`` is not 0) that is all there is."""

    owner = TextField()
    store = TextField()
    run = TextField(index=True)
    epoch = IntegerField()
    number = IntegerField()
    retried = IntegerField()
    final = BooleanField()
    completed_at = FloatField()
    pruned_at = FloatField(index=True)
    cancelled = BooleanField()

    class Meta:
        table_name = "copied_runs"
        primary_key = CompositeKey("owner", "store", "run")


class Copies(peewee.Model):
    """The rows of one owner's state of one run; ``number`` is the owner's commit that wrote it."""

    owner = TextField()
    store = TextField()
    run = TextField()
    key = TextField()
    number = IntegerField()
    body = TextField()

    class Meta:
        primary_key = CompositeKey("owner", "store", "run", "key")
        without_rowid = True


class CopyCursors(peewee.Model):
    """The owner's commit up to which everything of it is kept here."""

    owner = TextField()
    store = TextField()
    number = IntegerField()

    class Meta:
        table_name = "copy_cursors"
        primary_key = CompositeKey("owner", "store")


COPY_MODELS = (CopiedRuns, Copies, CopyCursors)

ROWS_MOST = 2000
"""Rows of a run in one answer or page, at most: about a megabyte."""

ASIDE = "+"
"""What follows the identity of an owner's data folder in rows whose head is still to come."""

TRIM_MOST = 1000
"""Runs that are forgotten to have been pruned in one transaction, at most."""

PRUNED_REMEMBERED = 90 * 86400.0
"""Seconds for which it is remembered of a run that it was pruned: so long may a peer be away and still learn of it."""

_HEAD = "run, owner, store, epoch, number, retried, final, completed_at, pruned_at, cancelled"
_KEEP_ROW = (
    "INSERT INTO copies (owner, store, run, key, number, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner, store, run, key) "
    "DO UPDATE SET number = excluded.number, body = excluded.body WHERE excluded.number >= copies.number"
)
_KEEP_HEAD = (
    f"INSERT INTO copied_runs ({_HEAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, store, run) DO UPDATE SET "
    "epoch = excluded.epoch, number = excluded.number, retried = excluded.retried, final = excluded.final, "
    "completed_at = excluded.completed_at, pruned_at = excluded.pruned_at, cancelled = excluded.cancelled "
    "WHERE excluded.number >= copied_runs.number"
)
_STAND_IN = "SELECT 1 FROM copied_runs WHERE owner = ? AND store = ? AND run = ? AND number = 0"
_ASIDE = "SELECT max(number) FROM copies WHERE owner = ? AND store = ? AND run = ?"
_TAKE_IN = (
    "INSERT INTO copies (owner, store, run, key, number, body) SELECT owner, ?, run, key, ?, body FROM copies "
    "WHERE owner = ? AND store = ? AND run = ? AND number = ? ON CONFLICT (owner, store, run, key) "
    "DO UPDATE SET number = excluded.number, body = excluded.body WHERE excluded.number >= copies.number"
)
_DROP_ROWS = "DELETE FROM copies WHERE owner = ? AND store = ? AND run = ?"
_DROP_ASIDE = "DELETE FROM copies WHERE owner = ? AND store = ?"
_DROP_OLDER = "DELETE FROM copies WHERE owner = ? AND store = ? AND run = ? AND number < ?"
_KEEP_CURSOR = (
    "INSERT INTO copy_cursors (owner, store, number) VALUES (?, ?, ?) ON CONFLICT (owner, store) "
    "DO UPDATE SET number = excluded.number"
)


class CopyTables:
    """The copies in one store. What writes is to be called within a transaction of that store's."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- writing ------------------------------------------------------------------------------------------------------

    def take_up(self) -> dict[tuple[str, str], int]:
        """The cursors, as of a peer that starts: what is aside is told anew, for which parts came is not stored (core/copies.py)."""
        cursors = self.cursors()
        self._store.execute_many(_DROP_ASIDE, ((owner, store + ASIDE) for owner, store in cursors))
        return cursors

    def keep(self, page: CopyPage) -> None:
        """Store a page; older rows never replace newer ones.

        Other owners' worse states stay: an owner that is not gone for good tells only what has changed since, which is worth nothing
        without the rest. They go when their owner says so, or by ``forget``.
        """
        owner = (page.owner, page.store)
        for copied in page.runs:
            if copied.forgotten and copied.head is None:
                self._drop(*owner, copied.run)
            else:
                self.put(*owner, copied)
        self._store.execute(_KEEP_CURSOR, (*owner, page.number))

    def put(self, owner: str, store: str, copied: CopiedRun) -> None:
        """Store rows of one owner's state of a run, and its head; of a run that was pruned the head alone is left.

        Rows without a head are the first parts of a run told whole, and kept aside; a head without rows ends it.
        """
        head = copied.head
        aside = store if head is not None else store + ASIDE
        self._store.execute_many(
            _KEEP_ROW, ((owner, aside, copied.run, key, copied.number, body) for key, body in copied.rows)
        )
        if head is None:
            return
        if head.pruned_at:
            self.forget_run(head)
        elif not copied.rows:
            if not self._take_in(owner, store, copied.number, head):
                return
        elif copied.number and self._stands_in(owner, store, copied.run):
            self._store.execute(_DROP_OLDER, (owner, store, copied.run, 1))
        self._store.execute(_KEEP_HEAD, _head_row(head))
        if store and any(
            h.standing <= head.standing for h in self.heads_of([head.run]) if (h.owner, h.store) == (owner, "")
        ):
            # What stood in for it, unless that is of a retry of which its owner has not heard.
            self._drop(owner, "", head.run)

    def _take_in(self, owner: str, store: str, number: int, head: RunHead) -> bool:
        """Put what was told of a run from its owner's commit ``number`` on, up to its head, in the place of what was kept before.

        All of that goes: the owner may have adopted the run again since, from a state that lacked some of it. False where the rows are not
        aside: the head comes a second time, or after the first parts of a newer state.
        """
        parts = (owner, store + ASIDE, head.run)
        ((newest,),) = self._store.query(_ASIDE, parts)
        if newest != number:
            return False
        upto = max(number, head.number)
        self._store.execute(_TAKE_IN, (store, upto, *parts, number))
        self._store.execute(_DROP_ROWS, parts)
        self._store.execute(_DROP_OLDER, (owner, store, head.run, upto))
        return True

    def _stands_in(self, owner: str, store: str, run: str) -> bool:
        """Whether what is kept of an owner's state is only what another had (``number`` 0)."""
        return bool(self._store.query(_STAND_IN, (owner, store, run)))

    def forget(self, head: RunHead) -> None:
        """Drop an owner's state of a run, unless another has come since. Should that owner come back, it has to tell everything anew.

        The number alone does not tell: what stands in for a later state (``number`` 0) may be all that anybody beside its owner has of it.
        """
        owner = (head.owner, head.store)
        if all(other == head for other in self.heads_of([head.run]) if (other.owner, other.store) == owner):
            self._drop(*owner, head.run)
        self._store.execute(_DROP_ASIDE, (head.owner, head.store + ASIDE))
        self._store.execute("DELETE FROM copy_cursors WHERE owner = ? AND store = ?", owner)

    def forget_run(self, head: RunHead) -> None:
        """Drop what nobody needs whole any more: that owner's copy, and what counts no more and is of nobody who goes on telling.

        An owner of which there is a cursor tells only what it changes, which would be worth nothing without its copy. It says itself when
        it has the run no more; where it is gone for good, its worse states are dropped by who looks for its runs (core/succession.py).
        """
        me, cursors = (head.owner, head.store), self.cursors()
        for other in self.heads_of([head.run]):
            owner = (other.owner, other.store)
            if other.number <= head.number if owner == me else other.rank <= head.rank and owner not in cursors:
                self._drop(*owner, head.run)

    def _drop(self, owner: str, store: str, run: str) -> None:
        self._store.execute("DELETE FROM copied_runs WHERE owner = ? AND store = ? AND run = ?", (owner, store, run))
        for rows in (store, store + ASIDE):
            self._store.execute(_DROP_ROWS, (owner, rows, run))

    def trim(self, before: float) -> int:
        """Forget which runs were pruned before a time, some of them at once; gives how many they were."""
        return self._store.execute(
            "DELETE FROM copied_runs WHERE rowid IN (SELECT rowid FROM copied_runs WHERE pruned_at > 0 AND pruned_at < ? LIMIT ?)",
            (before, TRIM_MOST),
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    def cursors(self) -> dict[tuple[str, str], int]:
        """(owner, its store) -> the commit up to which its copies go."""
        found = self._store.query("SELECT owner, store, number FROM copy_cursors")
        return {(owner, store): number for owner, store, number in found}

    def heads_of(self, runs: Sequence[str]) -> list[RunHead]:
        """Every state of these runs that is kept here, and which of them were pruned."""
        found: list[RunHead] = []
        for run in runs:
            found += map(_head, self._store.query(f"SELECT {_HEAD} FROM copied_runs WHERE run = ?", (run,)))
        return found

    def heads_by(self, owner: str, store: str) -> list[RunHead]:
        """Every run of an owner that is kept here."""
        sql = f"SELECT {_HEAD} FROM copied_runs WHERE owner = ? AND store = ? AND pruned_at = 0"
        return list(map(_head, self._store.query(sql, (owner, store))))

    def owners(self) -> list[RunHead]:
        """One state for each owner that any is kept of."""
        sql = f"SELECT {_HEAD} FROM copied_runs WHERE pruned_at = 0 GROUP BY owner, store"
        return list(map(_head, self._store.query(sql)))

    def rows(self, owner: str, store: str, run: str, after: str = "") -> list[tuple[str, str]]:
        """Up to ROWS_MOST rows of one state, in the order of their keys, from the one after ``after`` on."""
        sql = "SELECT key, body FROM copies WHERE owner = ? AND store = ? AND run = ? AND key > ? ORDER BY key LIMIT ?"
        return [(key, body) for key, body in self._store.query(sql, (owner, store, run, after, ROWS_MOST))]


def _head_row(head: RunHead) -> tuple[object, ...]:
    return (
        head.run, head.owner, head.store, head.epoch, head.number, head.retried, head.final, head.completed_at, head.pruned_at,
        head.cancelled,
    )  # fmt: skip


def _head(row: tuple[str, str, str, int, int, int, int, float, float, int]) -> RunHead:
    run, owner, store, epoch, number, retried, final, completed_at, pruned_at, cancelled = row
    return RunHead(run, owner, store, epoch, number, retried, bool(final), completed_at, pruned_at, bool(cancelled))
