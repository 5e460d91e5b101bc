"""The internal messages: what peers tell each other below the public API. One encode, one decode, both here.

Messages are plain dataclasses; pydantic checks them once, at the edge of a batch. Fields at their defaults are left out of the JSON, so a
message may gain fields without a new protocol number; anything else needs ``PROTOCOL`` raised, which keeps unlike peers apart on joining.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, core_schema

from wattle.core.model import Assignment, Fact, FactKind, RunHead, TaskId, TaskStatus
from wattle.errors import InvalidRequest
from wattle.names import check_name
from wattle.values import value

PROTOCOL = 4
"""Raised when peers of different versions could misunderstand each other."""

NOT_HERE = "NOT_HERE"
"""The code with which a coordinator says that it does not know what all were asked for. ``detail`` holds one object: ``peer`` and ``store``
(its name and data folder), and ``others``, the names and data folders of coordinators that may know it."""

MOST = 2**62
"""Numbers in messages lie between plus and minus this."""

MOST_EPOCH = 2**32
"""The highest epoch: numbers of attempts are made by multiplication with it."""

FIRST_TIME, LAST_TIME = -62_135_596_800.0, 253_402_300_799.0
"""The times that a date of four digits can be written for, in seconds since the epoch."""

ENDS = frozenset({TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.LOST, TaskStatus.RETURNED})
"""How a runtime may say that a task has finished."""

M = TypeVar("M")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@value(frozen=True, slots=True)
class AssignBatch:
    """``cmd/<runtime>/assign``: store these tasks and execute them. Answered by TaskAnswers."""

    owner: str
    tasks: tuple[Assignment, ...]


def check_assignments(batch: AssignBatch) -> None:
    """Raise InvalidRequest where a name or digest of a task is none: they become parts of paths and keys on the node."""
    for task in batch.tasks:
        check_name(task.run, "run")
        check_name(task.worker, "worker")
        for worker, _ in task.after:
            check_name(worker, "worker")
        for source in task.inputs.values():
            check_name(source.worker, "worker")
            if _DIGEST.fullmatch(source.digest) is None:
                raise InvalidRequest(f"{source.digest[:80]!r} is no digest; content is named by 64 hexadecimal digits")


@value(frozen=True, slots=True)
class TaskRef:
    """A task, and the epoch of its run's owner."""

    run: str
    worker: str
    attempt: int
    epoch: int

    @property
    def id(self) -> TaskId:
        """The task's identity."""
        return TaskId(self.run, self.worker, self.attempt)


@value(frozen=True, slots=True)
class CancelBatch:
    """``cmd/<runtime>/cancel``: end these tasks. Answered by TaskAnswers."""

    owner: str
    tasks: tuple[TaskRef, ...]


@value(frozen=True, slots=True)
class TaskAnswer:
    """A runtime's word on one task of a command: OK, FENCED (with the current epoch and owner), OVER, PASSED, DRAINING or UNFIT."""

    run: str
    worker: str
    attempt: int
    code: str = "OK"
    reason: str = ""
    epoch: int = 0
    owner: str = ""

    @property
    def id(self) -> TaskId:
        """The task's identity."""
        return TaskId(self.run, self.worker, self.attempt)


@value(frozen=True, slots=True)
class TaskAnswers:
    """The answer to a command, one entry per task in the order asked."""

    tasks: tuple[TaskAnswer, ...]


@value(frozen=True, slots=True)
class HeldQuestion:
    """``cmd/<runtime>/held``: these runs, as (run, epoch), are ``owner``'s now; which tasks are open there? Answered by HeldTasks."""

    owner: str
    claims: tuple[tuple[str, int], ...] = ()


@value(frozen=True, slots=True)
class HeldTasks:
    """The open tasks: the asking owner's, those of ``others``, and the claims ``refused`` as (run, epoch, owner)."""

    tasks: tuple[TaskRef, ...]
    others: tuple[TaskRef, ...] = ()
    refused: tuple[tuple[str, int, str], ...] = ()


@value(frozen=True, slots=True)
class FactsQuestion:
    """``cmd/<runtime>/facts``: what did its feed ever say of a run, from the entry ``after`` on? Answered by FactsAnswer."""

    run: str
    after: int = 0


@value(frozen=True, slots=True)
class FactsAnswer:
    """Facts of one run; ``after`` is where to ask on, None at the end."""

    facts: tuple[Fact, ...]
    after: int | None = None


@value(frozen=True, slots=True)
class KeepAnswer:
    """The answer to a CopyPage (``cmd/<peer>/keep``): its owner's copies go up to ``number`` in the data folder ``store``.

    ``heads``: states of the page's runs that count more than what it tells (its owner lets go of these), or whose cancel it lacks.
    """

    number: int
    store: str = ""
    heads: tuple[RunHead, ...] = ()


@value(frozen=True, slots=True)
class CopiesQuestion:
    """``cmd/<peer>/copies``: which states of these runs are there, or of this owner's runs, or one of each owner's? See AskCopies.

    With both, copies of these runs of that owner's have been found, and a coordinator that is asked finds out about it, too.
    """

    owner: str = ""
    store: str = ""
    runs: tuple[str, ...] = ()


@value(frozen=True, slots=True)
class CopiesAnswer:
    """States of runs; ``sees`` are the coordinators in the answering peer's sight."""

    heads: tuple[RunHead, ...]
    sees: tuple[str, ...] = ()


@value(frozen=True, slots=True)
class CopyQuestion:
    """``cmd/<peer>/copy``: the rows of one owner's state of a run, from the key ``after`` on. Answered by CopyAnswer."""

    owner: str
    store: str
    run: str
    after: str = ""


@value(frozen=True, slots=True)
class CopyAnswer:
    """Rows of a state of a run; none means that there are no more."""

    rows: tuple[tuple[str, str], ...]


@value(frozen=True, slots=True)
class ForgetOrder:
    """``cmd/<peer>/forget``: drop the copies of these very states, none that took their places since. Answered with the same."""

    heads: tuple[RunHead, ...]


@value(frozen=True, slots=True)
class Discard:
    """``cmd/<runtime>/discard``: these runs are pruned, as their last states say; remove what there is of them. Not answered: a hint."""

    runs: tuple[RunHead, ...]


@value(frozen=True, slots=True)
class PrunedQuestion:
    """``cmd/<coordinator>/pruned``: which of these runs are pruned? Answered by Discard, or not at all where none is."""

    runs: tuple[str, ...]


@value(frozen=True, slots=True)
class FeedEntry:
    """The facts of one commit. Entries of a feed are numbered from 1 in the order of commits; old ones are removed in time."""

    number: int
    facts: tuple[Fact, ...]


@value(frozen=True, slots=True)
class FeedPage:
    """A stretch of a feed: published when new, or answering ``feed/<peer>?after=N``. ``head`` is the newest entry's number.

    An answer has the number it goes on from in ``after``: entries between that and the last one here which are not here are gone for good.
    """

    store: str
    head: int
    entries: tuple[FeedEntry, ...]
    after: int | None = None


_adapters: dict[Any, TypeAdapter[Any]] = {}
_validators: dict[type, SchemaValidator] = {}


def _validator(kind: type) -> SchemaValidator:
    """What checks a message type: pydantic's own rules, with every number one that SQLite and a clock can hold."""
    validator = _validators.get(kind)
    if validator is None:
        validator = _validators[kind] = SchemaValidator(_bounded(adapter(kind).core_schema))
    return validator


_NUMBERS = {"int": (-MOST, MOST), "float": (-float(MOST), float(MOST))}
_EPOCHS = _NUMBERS | {"int": (0, MOST_EPOCH)}
_TIMES = _NUMBERS | {"float": (FIRST_TIME, LAST_TIME)}


def _bounds(field: str) -> dict[str, tuple[float, float]]:
    """The least and the most of the numbers in a field, by what its name says they are."""
    if field in ("epoch", "adopted", "claims", "refused"):
        return _EPOCHS
    return _TIMES if field == "at" or field.endswith("_at") else _NUMBERS


def _bounded(schema: Any, bounds: dict[str, tuple[float, float]] = _NUMBERS) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(_bounded(part, bounds) for part in schema)
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "any":
        return core_schema.no_info_after_validator_function(_finite, core_schema.any_schema())
    if schema.get("type") in bounds:
        least, most = bounds[schema["type"]]
        return {"ge": least, "le": most, **schema}
    if schema.get("type") == "dataclass-field":
        bounds = _bounds(schema["name"])
    return {key: value if key == "metadata" else _bounded(value, bounds) for key, value in schema.items()}


def _finite(value: Any) -> Any:
    """A value of any sort, as long as JSON can say it again: 1e999 is read as infinite."""
    json.dumps(value, allow_nan=False)
    return value


def adapter(kind: Any) -> TypeAdapter[Any]:
    """The one adapter of a type, made at first use: making one costs milliseconds."""
    made = _adapters.get(kind)
    if made is None:
        made = _adapters[kind] = TypeAdapter(kind)
    return made


def encode(message: Any) -> bytes:
    """The JSON of a message."""
    return adapter(type(message)).dump_json(message, exclude_defaults=True)


def decode(kind: type[M], payload: bytes | str | None) -> M:
    """The message in ``payload``; raises InvalidRequest naming the first fields that are wrong."""
    if payload is None:
        raise InvalidRequest(f"a {kind.__name__} must carry a payload")
    try:
        message: M = _validator(kind).validate_json(payload)
    except ValidationError as error:
        places = [".".join(map(str, e["loc"])) + ": " + e["msg"] for e in error.errors(include_url=False)[:5]]
        raise InvalidRequest(f"this is no {kind.__name__}: " + "; ".join(places), detail=places) from None
    match message:
        case FeedPage():
            for entry in message.entries:
                _check_facts(entry.facts)
        case FactsAnswer():
            _check_facts(message.facts)
    return message


def _check_facts(facts: tuple[Fact, ...]) -> None:
    for fact in facts:
        if fact.kind is FactKind.FINISHED and fact.status not in ENDS:
            raise InvalidRequest(f"task {fact.id} cannot have finished as {fact.status or 'nothing'}")
