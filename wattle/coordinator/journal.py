"""What was committed lately, as the pages that followers get: from memory for those who are close, else from the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from wattle.core import effects as do
from wattle.core.coordinator import CoordinatorCore
from wattle.core.effects import CoordinatorEffect
from wattle.core.model import CopiedRun, CopyPage, RunHead, RunRecord, TaskRecord, WorkerRecord
from wattle.core.run import head_of
from wattle.store.coordinator import CoordinatorStore
from wattle.store.copies import ROWS_MOST
from wattle.store.owned import DEFINITION, Submission, definition_copy, document_row, holder_row, record_text

REMEMBERED_MOST = 100_000
"""Changed rows kept in memory, about 0.4 kB each: ten seconds of full load. A follower further behind gets whole runs from the store,
which takes it longer than its owner takes to change as much of a large run again."""

REMEMBERED_LEAST = 1_000
"""Changed rows kept although every follower has them: for one that was out of sight for a moment."""

ASKED_MOST = 1_000
"""Runs in one question: a few hundred kilobytes."""

TURNS = 4
"""Times that what changed of a run is told in pages while it is told whole; then all the rest comes in one, however much it is."""

GONE_MOST = 500
"""Runs that are not there any more in one page, unless one commit removed more."""


class _Changes:
    """What one commit, or several, changed of one run."""

    def __init__(self) -> None:
        self.rows: dict[str, object] = {}  # key -> what makes the row's text
        self.head: RunHead | None = None
        self.gone = False
        self.whole = False  # not known row by row


class Journal:
    """See the module's docstring. ``note`` is told of every commit."""

    def __init__(self, store: CoordinatorStore, core: CoordinatorCore) -> None:
        self._store, self._core = store, core
        self._commits: deque[tuple[int, dict[str, _Changes]]] = deque()
        self._start = store.number  # everything after this commit is in memory
        self._anew: dict[str, int] = {}  # run -> the newest of these commits that adopted it or let it go
        self._rows = 0

    def note(self, number: int, effects: Iterable[CoordinatorEffect]) -> None:
        """Remember what a commit changed, if anybody follows."""
        if not self._core.replication.followers:
            self._commits.clear()
            self._anew.clear()
            self._start, self._rows = number, 0
            return
        changes = self._changes(number, effects)
        self._commits.append((number, changes))
        self._rows += sum(1 + len(change.rows) for change in changes.values())
        self.forget()

    def forget(self) -> None:
        """Let go of what every follower has, but for the newest, and of what is too much."""
        if self._rows <= REMEMBERED_LEAST:
            return
        kept = min((follower.kept or 0 for follower in self._core.replication.followers.values()), default=0)
        while self._commits:
            number, oldest = self._commits[0]
            rows = sum(1 + len(change.rows) for change in oldest.values())
            needed = self._rows - rows < REMEMBERED_LEAST or number > kept
            if needed and self._rows <= REMEMBERED_MOST:
                return
            self._commits.popleft()
            for run in [run for run in oldest if self._anew.get(run) == number]:
                del self._anew[run]
            self._start = number
            self._rows -= rows

    def _changes(self, number: int, effects: Iterable[CoordinatorEffect]) -> dict[str, _Changes]:
        changes: dict[str, _Changes] = {}

        def of(run: str) -> _Changes:
            return changes.setdefault(run, _Changes())

        for effect in effects:
            match effect:
                case do.CreateRun():
                    of(effect.run.id).rows |= {"run": effect.run, "document": effect.submission}
                    of(effect.run.id).head = head_of(effect.run, self._store.id, number)
                    # Those that have not moved are as the document says.
                    of(effect.run.id).rows |= {f"w/{w.name}": w for w in effect.moved}
                    if effect.run.id in self._anew:  # one of this name was let go of, and a follower may still have it
                        of(effect.run.id).whole = True
                        self._anew[effect.run.id] = number
                case do.SaveRun():
                    of(effect.run.id).rows["run"] = effect.run
                    of(effect.run.id).head = head_of(effect.run, self._store.id, number)
                case do.SaveWorker():
                    of(effect.worker.run).rows[f"w/{effect.worker.name}"] = effect.worker
                case do.SaveTask():
                    task = effect.task
                    of(task.run).rows[f"t/{task.worker}/{task.attempt}"] = task
                case do.SaveHolder():
                    of(effect.run).rows[holder_row(effect.digest, effect.node)[0]] = None
                case do.AdoptRun():
                    of(effect.snapshot.run.id).whole = True
                    self._anew[effect.snapshot.run.id] = number
                case do.SaveLateFact():
                    of(effect.fact.run).whole = True
                case do.SaveDefinition():
                    of(DEFINITION + effect.definition.name).whole = True
                case do.ReleaseRun(handing=False) | do.ForgetRun():
                    changes[effect.head.run] = _Changes()
                    changes[effect.head.run].gone = True
                    self._anew[effect.head.run] = number
        for run, change in changes.items():
            if change.head is None and not change.gone and not change.whole:
                current = self._core.runs.get(run)
                change.head = None if current is None else current.head(self._store.id, number)
                change.whole = current is None
        return changes

    # --- pages --------------------------------------------------------------------------------------------------------

    def pages(self, after: int) -> Iterator[CopyPage]:
        """Pages that bring a follower from ``after`` to what is committed now, to be sent one after another."""
        begun = self._store.number
        for part, page in enumerate(self._pages(after)):
            yield replace(page, part=part, begun=begun)

    def _pages(self, after: int) -> Iterator[CopyPage]:
        if after < self._start:
            yield from self._from_store(after)
            return
        merged: dict[str, _Changes] = {}
        rows, number = 0, after
        for commit, changes in self._commits:
            if commit <= after:
                continue
            if rows >= ROWS_MOST:
                break
            for run, change in changes.items():
                if self._anew.get(run, 0) > commit:
                    continue  # counts no more, and the follower may lack, or have dropped, what it was a change of
                rows += 1 + len(change.rows)
                merged[run] = _merged(merged.get(run), change)
            number = commit
        for run in [run for run, change in merged.items() if change.whole]:
            yield from self._whole(run, after)
            del merged[run]
        runs = tuple(self._copied(run, change, number) for run, change in merged.items())
        yield CopyPage(self._core.name, self._store.id, after, number, runs)

    def questions(self, since: int | None) -> Iterator[CopyPage]:
        """Pages with no rows, which are not kept, but answered with how far a follower is, and what it knows better.

        They have the heads of runs that changed after a commit; with None there is one page without any.
        """
        heads: list[CopiedRun] = []
        for _, run in () if since is None else self._store.owned.changed(since):
            head = None if run.startswith(DEFINITION) else self._store.owned.head(run)
            if head is not None:
                heads.append(CopiedRun(run, head.number, (), head))
            if len(heads) >= ASKED_MOST:
                yield self._question(heads)
                heads = []
        yield self._question(heads)

    def _question(self, heads: Iterable[CopiedRun]) -> CopyPage:
        return CopyPage(self._core.name, self._store.id, -1, -1, tuple(heads))

    def _copied(self, run: str, change: _Changes, number: int) -> CopiedRun:
        """A run's changes, or that it is not here any more."""
        if change.gone:
            return self._gone(run, number)
        return CopiedRun(run, number, tuple(_row(key, what) for key, what in change.rows.items()), change.head)

    def _from_store(self, after: int) -> Iterator[CopyPage]:
        """Every run that changed since, whole; what is gone, many in one page.

        The cursor moves once, at the end: a run is listed by its newest change, so until then changes of any commit may be lacking.
        """
        upto = self._store.number
        gone: list[CopiedRun] = []
        for _, run in self._store.owned.changed(after):
            head = self._store.owned.head(run)
            if head is not None and not head.pruned_at:
                yield from self._whole(run, after)
                continue
            gone.append(self._gone(run, upto))
            if len(gone) >= GONE_MOST:
                yield CopyPage(self._core.name, self._store.id, after, after, tuple(gone))
                gone = []
        yield CopyPage(self._core.name, self._store.id, after, max(upto, after), tuple(gone))

    def _gone(self, run: str, number: int) -> CopiedRun:
        """A run that is not here any more: another's, or pruned."""
        head = self._store.owned.head(run)
        pruned = head is not None and head.pruned_at > 0
        return CopiedRun(run, number, (), head if pruned else None, forgotten=True)

    def _whole(self, run: str, after: int) -> Iterator[CopyPage]:
        """A run, in as many pages as it takes; the last one has its head. They move no cursor."""
        for runs in self._parts(run):
            yield CopyPage(self._core.name, self._store.id, after, after, runs)

    def _parts(self, run: str) -> Iterator[tuple[CopiedRun, ...]]:
        """What is to be told of a run, page by page. Commits go on meanwhile: what they changed comes again, in the end with the head."""
        number = self._store.number
        head = self._store.owned.head(run)
        if head is None or head.pruned_at:
            yield (self._gone(run, number),)
            return
        if run.startswith(DEFINITION):
            definition = self._store.owned.definition(run.removeprefix(DEFINITION))
            if definition is not None:
                yield (definition_copy(definition, self._core.name, self._store.id, number),)
            return
        after = ""
        while rows := self._store.owned.rows(run, after):
            after = rows[-1][0]
            yield (CopiedRun(run, number, tuple(rows)),)
        yield from self._rest(run, number)

    def _rest(self, run: str, number: int) -> Iterator[tuple[CopiedRun, ...]]:
        """What has changed of a run since its rows were told as those of commit ``number``, and then its head."""
        told = number
        for turn in range(1, TURNS + 1):
            rows = self._since(run, told)
            told = self._store.number
            if rows is None:  # all anew: what was told under the earlier number counts no more
                number, rows = told, list(self._store.owned.all(run))
            head = self._store.owned.head(run)
            if head is None or head.pruned_at:
                yield (self._gone(run, told),)
                return
            if len(rows) <= ROWS_MOST or turn == TURNS:
                changed = (CopiedRun(run, number, tuple(rows)),) if rows else ()
                yield (*changed, CopiedRun(run, number, (), head))
                return
            for start in range(0, len(rows), ROWS_MOST):
                yield (CopiedRun(run, number, tuple(rows[start : start + ROWS_MOST])),)

    def _since(self, run: str, after: int) -> list[tuple[str, str]] | None:
        """The rows of a run that were changed after a commit; None where that is not known row by row."""
        if after < self._start:
            return None
        rows: dict[str, object] = {}
        for commit, changes in self._commits:
            change = changes.get(run) if commit > after else None
            if change is not None:
                if change.whole or change.gone:
                    return None
                rows |= change.rows
        return [_row(key, what) for key, what in rows.items()]


def _merged(before: _Changes | None, change: _Changes) -> _Changes:
    if before is None:
        merged = _Changes()
        merged.rows, merged.head, merged.gone, merged.whole = dict(change.rows), change.head, change.gone, change.whole
        return merged
    before.rows |= change.rows
    before.head = change.head or before.head
    before.whole = before.whole or change.whole
    return before


def _row(key: str, what: object) -> tuple[str, str]:
    match what:
        case None:
            return key, ""
        case Submission():
            return document_row(what)
        case RunRecord() | WorkerRecord() | TaskRecord():
            return key, record_text(what)
        case _:
            raise TypeError(f"what is {what!r} in the row {key!r} of a copy?")
