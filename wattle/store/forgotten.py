"""Runs that a coordinator's store does not have any more: pruned, or another owner's. Followers are told of it, and of pruned ones
anybody who asks, until nobody can have missed it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from wattle.core.model import CopiedRun, RunHead
from wattle.store.copies import TRIM_MOST
from wattle.store.owned import DEFINITION, definition_copy, text

if TYPE_CHECKING:
    from wattle.store.coordinator import CoordinatorStore

_SAVE_TRIMMED = (
    "INSERT INTO meta (key, value) VALUES ('trimmed', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_DROP_WORKFLOW = (  # which only its runs have brought here
    "DELETE FROM workflows WHERE name = ? AND number = 0 AND NOT EXISTS (SELECT 1 FROM runs WHERE workflow_name = name)"
)
_PRUNABLE = (
    "SELECT id FROM runs WHERE completed_at < ? AND status IN ('succeeded', 'failed', 'cancelled') AND owner = ? AND number <= ? "
    "ORDER BY completed_at LIMIT ?"
)
_FORGOTTEN = (
    "INSERT INTO forgotten (run, number, at, head) VALUES (?, ?, ?, ?) ON CONFLICT (run) DO UPDATE SET number = excluded.number, "
    "at = excluded.at, head = excluded.head"
)


class ForgottenRuns:
    """See the module's docstring. ``trimmed`` is the newest commit of which it is not known any more what it removed."""

    def __init__(self, store: CoordinatorStore, trimmed: int) -> None:
        self._store, self.trimmed = store, trimmed

    def release(self, head: RunHead, number: int, *, handing: bool) -> None:
        """Let another owner have a run or definition; what was one's own stays as a copy until a real one is here.

        While it is being handed over it stays one's own as well, so that whoever keeps copies of it hears of its cancel. The last epoch
        here is remembered: that owner's may be an earlier one, and so may be that of a copy which is here and keeps its place.
        """
        left = None
        if head.run.startswith(DEFINITION):
            definition = self._store.owned.definition(head.run.removeprefix(DEFINITION))
            rows = () if definition is None else definition_copy(definition, head.owner, head.store, 0).rows
            self._store.execute("DELETE FROM workflows WHERE name = ?", (head.run.removeprefix(DEFINITION),))
        else:
            rows = tuple(self._store.owned.all(head.run))
            last = self._store.owned.head(head.run) or self._store.owned.last(head.run)  # let go of twice in a batch
            if last is not None and not last.pruned_at:
                left = text(last)
            if not handing:
                self._store.remove(head.run)
        of = (head.owner, head.store)
        known = any(
            h.rank >= head.rank or (h.number and (h.owner, h.store) == of)
            for h in self._store.copies.heads_of([head.run])
        )
        if rows and not known:
            copied = CopiedRun(head.run, 0, rows, replace(head, number=0, cancelled=head.cancelled or handing))
            self._store.copies.put(head.owner, head.store, copied)
        if not handing:
            self._store.execute(_FORGOTTEN, (head.run, number, time.time(), left))

    def forget(self, head: RunHead, number: int) -> None:
        """Remove a final run for good, and what only it has brought here."""
        row = self._store.run(head.run)
        if row is None:
            return  # another owner has it meanwhile
        self._store.remove(head.run)
        self._store.copies.forget_run(head)
        self._store.execute(_FORGOTTEN, (head.run, number, head.pruned_at, text(head)))
        self._store.execute(_DROP_WORKFLOW, (row.workflow_name,))
        self._store.drop_document(row.document)

    def trim(self, before: float) -> int:
        """Forget which runs were removed before a time, some of them at once, within a transaction; gives how many they were."""
        found = self._store.query(
            "SELECT run, number FROM forgotten WHERE at < ? ORDER BY at LIMIT ?", (before, TRIM_MOST)
        )
        if found:
            self._store.execute_many("DELETE FROM forgotten WHERE run = ?", ((run,) for run, _ in found))
            self.trimmed = max(self.trimmed, *(number for _, number in found))
            self._store.execute(_SAVE_TRIMMED, (str(self.trimmed),))
        return len(found)

    def prunable(self, before: float, settled: int, limit: int) -> list[RunHead]:
        """This owner's runs that ended before a time and have not changed since the commit ``settled``, oldest first."""
        found = [
            self._store.owned.head(run)
            for (run,) in self._store.query(_PRUNABLE, (before, self._store.owner, settled, limit))
        ]
        return [head for head in found if head is not None]

    def left(self, run: str) -> int:
        """The epoch in which a run was let go of for another owner's state; 0 where it was not, or is here."""
        last = self._store.owned.last(run)
        return 0 if last is None or last.pruned_at else last.epoch

    def pruned(self, run: str) -> RunHead | None:
        """The last state of a run that is known to have been pruned; None when it is not known, or somebody has gone on with it."""
        return self.gone(run) if self._store.run(run) is None else None

    def gone(self, run: str) -> RunHead | None:
        """The same for a run that is not here."""
        own = self._store.owned.pruned(run)
        heads = [*self._store.copies.heads_of([run]), *([] if own is None else [own])]
        best = max(heads, key=lambda head: head.rank, default=None)
        return best if best is not None and best.pruned_at else None
