"""The audit of a gateway: who asked for what change and whether it was allowed, in a table that is only ever added to.

Each row's hash is the sha256 of the hash before it and of its own entry, which is JSON in one canonical form and holds the row's number.
So a row that was changed, left out, added between or moved is found by whoever computes the chain again (``verify``). What the file alone
cannot show is that its end was cut off by somebody who also wrote its ``head`` anew, or that all of it was written anew: that takes a head
noted elsewhere.

Rows beyond ``most`` are removed from the front; a row says so, with the number and hash of the last one removed, and the chain goes on.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import peewee

from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.store.base import Store
from wattle.store.faults import explain, unusable

NAME = "audit.db"
"""The file in a gateway's data folder."""

START = "0" * 64
"""What stands for the hash before the first row."""

TRIMMED = 1000
"""Rows that are removed at a time."""

Record = Mapping[str, Any]

log = get_logger("wattle.store.audit")


class Audit(peewee.Model):
    """One row per record."""

    number = peewee.IntegerField(primary_key=True)
    entry = peewee.TextField()
    hash = peewee.CharField()


MODELS = (Audit,)

_GUARDS = (
    "CREATE TRIGGER IF NOT EXISTS audit_unchanged BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is added to alone'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_kept BEFORE DELETE ON audit "
    "WHEN OLD.number > coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'trimmed'), 0) "
    "BEGIN SELECT RAISE(ABORT, 'the audit is added to alone'); END",
)
"""Against mistakes: who may write the file may drop them."""


class AuditStore(Store):
    """One gateway's audit. ``number`` and ``hash`` are its head: those of the newest row."""

    def __init__(self, path: Path, *, most: int = 1_000_000, synchronous: str = "normal") -> None:
        super().__init__(path, MODELS, synchronous=synchronous)
        self._most = max(most, 2 * TRIMMED)
        with self.transaction():
            for guard in _GUARDS:
                self.execute(guard)
        found = self.query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        self.number, self.hash = found[0] if found else (0, START)
        self._first = (self.query("SELECT min(number) FROM audit")[0][0]) or 1
        self._look_at_head()

    def append(self, record: Record) -> int:
        """Add a row, and remove the oldest where there are too many; gives its number. It is there for good when this returns."""
        with self.transaction():
            head, first = self._add((self.number, self.hash), record), self._first
            number = head[0]
            if number - first >= self._most:
                head, first = self._trim(head)
            self._note("head", f"{head[0]}:{head[1]}")
        (self.number, self.hash), self._first = head, first
        return number

    def _add(self, head: tuple[int, str], record: Record) -> tuple[int, str]:
        number, entry = head[0] + 1, canonical({**record, "number": head[0] + 1})
        hash = chained(head[1], entry)
        self.execute("INSERT INTO audit (number, entry, hash) VALUES (?, ?, ?)", (number, entry, hash))
        return number, hash

    def _trim(self, head: tuple[int, str]) -> tuple[tuple[int, str], int]:
        last = self._first + TRIMMED - 1
        ((hash,),) = self.query("SELECT hash FROM audit WHERE number = ?", (last,))
        head = self._add(head, {"kind": "trimmed", "through": last, "hash": hash})
        self._note("trimmed", str(last))
        self.execute("DELETE FROM audit WHERE number <= ?", (last,))
        return head, last + 1

    def _look_at_head(self) -> None:
        """Record it for good where the newest row is not the one that was written last."""
        noted = self._facts().get("head", f"0:{START}")
        if noted != f"{self.number}:{self.hash}":
            log.error("the end of the audit was changed", file=str(self.path), noted=noted, found=self.number)
            self.append({"kind": "broken", "noted": noted})


def canonical(record: Record) -> str:
    """The one text of a record."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def chained(previous: str, entry: str) -> str:
    """The hash of a row that follows one with the hash ``previous``."""
    return hashlib.sha256(previous.encode() + entry.encode()).hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Verdict:
    """What was found of an audit: its rows, its head, and what is wrong with it."""

    file: str
    rows: int = 0
    number: int = 0
    hash: str = START
    problems: list[str] = field(default_factory=list)


def verify(path: Path, heads: Mapping[int, str] | None = None) -> Verdict:
    """Compute the chain again. ``heads`` are hashes by number that were noted elsewhere before: each must still be there, unless it was
    among the rows removed from the front; one at least must be, for else nothing shows that the file was not written anew.
    """
    verdict, wanted = Verdict(str(path)), dict(heads or {})
    with _reading(path) as connection:
        _begin(verdict, connection)
        gone, matched = verdict.number, wanted.get(verdict.number) == verdict.hash
        for number, entry, hash in connection.execute("SELECT number, entry, hash FROM audit ORDER BY number"):
            _check_row(verdict, number, str(entry), str(hash))
            if number in wanted:
                matched = _check_head(verdict, number, wanted.pop(number), str(hash)) or matched
        noted = dict(connection.execute("SELECT key, value FROM meta")).get("head", f"0:{START}")
    if noted != f"{verdict.number}:{verdict.hash}":
        verdict.problems.append(f"the end was cut off or changed: the row written last was {noted.partition(':')[0]}")
    verdict.problems += [
        f"row {number} is gone, which was noted elsewhere" for number in sorted(wanted) if number > gone
    ]
    if heads and not matched and not verdict.problems:
        verdict.problems.append(
            f"rows up to {gone} were removed, all that were noted elsewhere among them: nothing shows that the rest is not written anew"
        )
    return verdict


def _begin(verdict: Verdict, connection: sqlite3.Connection) -> None:
    """Begin with the last row that was removed from the front, as the newest row about it says."""
    found = connection.execute(
        'SELECT number, entry FROM audit WHERE entry LIKE \'%"kind":"trimmed"%\' ORDER BY number DESC'
    )
    for number, entry in found:
        record = _record(entry)
        if record.get("kind") == "trimmed":
            through, hash = record.get("through"), str(record.get("hash"))
            if not isinstance(through, int):
                verdict.problems.append(f"row {number}: it does not say which rows were removed")
                return
            if number - through <= TRIMMED:
                verdict.problems.append(
                    f"row {number}: it says that rows up to {through} were removed, which is too many"
                )
            verdict.number, verdict.hash = through, hash
            return


def _check_head(verdict: Verdict, number: int, noted: str, hash: str) -> bool:
    """Whether a row's hash is the one noted elsewhere."""
    if noted != hash:
        verdict.problems.append(f"row {number}: its hash is not the one noted elsewhere")
    return noted == hash


def _check_row(verdict: Verdict, number: int, entry: str, hash: str) -> None:
    """Whether a row follows the one before it; what is wrong with it is told, and the next is looked at as if it were sound."""
    if number != verdict.number + 1:
        verdict.problems.append(f"rows {verdict.number + 1} to {number - 1} are gone")
    elif hash != chained(verdict.hash, entry):
        verdict.problems.append(f"row {number}: it, or the row before it, was changed")
    record = _record(entry)
    if "number" not in record:
        verdict.problems.append(f"row {number}: it holds no record")
    elif record["number"] != number:
        verdict.problems.append(f"row {number}: it was row {record['number']}")
    elif record.get("kind") == "broken":
        noted = str(record.get("noted"))[:20]
        verdict.problems.append(f"row {number}: the rows before it did not end with the one written last, {noted}")
    verdict.rows, verdict.number, verdict.hash = verdict.rows + 1, number, hash


def _record(entry: object) -> dict[str, Any]:
    """What a row holds; nothing where that is no record."""
    try:
        record = json.loads(str(entry))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def newest_first(path: Path) -> Iterator[dict[str, Any]]:
    """The records, each with its row's number and hash; of one that is none these alone."""
    with _reading(path) as connection:
        for number, entry, hash in connection.execute("SELECT number, entry, hash FROM audit ORDER BY number DESC"):
            yield _record(entry) | {"number": number, "hash": str(hash)}


def read(path: Path, limit: int) -> list[dict[str, Any]]:
    """The newest records, oldest first."""
    return list(islice(newest_first(path), limit))[::-1]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing, to a file that may be in use."""
    if not path.exists():
        raise InvalidRequest(
            f"there is no audit at {path}; a gateway keeps one where it checks tokens, or where audit is set"
        )
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.text_factory = lambda text: text.decode(errors="replace")  # whatever somebody put there
            connection.execute("PRAGMA busy_timeout = 5000")
            connection.execute("BEGIN")  # one moment for all that is read
            yield connection
    except sqlite3.Error as error:
        raise (explain(path, error) or unusable(path, str(error), "wattle store check says more")) from error
