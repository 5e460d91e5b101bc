"""Loading a document: text -> values -> model -> checks; everything that is wrong is reported at once, with its place."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import ValidationError

from wattle.document.check import Draft, check
from wattle.document.model import Document, Worker
from wattle.document.places import Path, SyntaxProblem
from wattle.document.problems import (
    MAX_PROBLEMS,
    Problem,
    invalid,
    repeated_key,
    syntax_problem,
    validation_problems,
)
from wattle.document.syntax import Format, Parsed, parse

_STAND_IN = "true"


def load(data: bytes | str, *, file: str = "<document>", format: Format = "auto") -> Document:
    """The workflow that a text describes; ``file`` is what it is called in messages.

    ``format`` ``auto`` tells JSON and YAML apart by the first character. Raises InvalidDocument: ``detail`` lists every problem as
    ``{"file", "line", "column", "worker", "message", "fix"}`` (None where unknown), the message tells them one per line.
    """
    with _no_collector():
        try:
            parsed = parse(data, format)
            return _validated(parsed.value, file, parsed)
        except SyntaxProblem as error:
            raise invalid([syntax_problem(error)], file) from None


def load_value(value: object, *, file: str = "<document>") -> Document:
    """The same for a document that was read already, such as a part of a larger message. Lines and columns are unknown then."""
    with _no_collector():
        return _validated(value, file, None)


def _validated(value: object, file: str, parsed: Parsed | None) -> Document:
    problems: list[Problem] = []
    draft: Draft | None
    try:
        document = Document.model_validate(value)
        draft = Draft(document, list(enumerate(document.workers)))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = validation_problems(found[: MAX_PROBLEMS + 1], value)
        draft = _salvage(value, [tuple(each["loc"]) for each in found])
    if draft is not None:
        problems += check(draft)
    if parsed is not None and parsed.repeated:
        problems += [repeated_key(path, mark) for path, mark in islice(parsed.locate(())[1], MAX_PROBLEMS + 1)]
    if problems or draft is None:
        raise invalid(problems, file, value, parsed) from None
    return draft.document


def _salvage(value: object, broken: list[Path]) -> Draft | None:
    """The valid part of a document, so that one wrong value does not hide what else is wrong; None when there is too little."""
    if not isinstance(value, dict) or not isinstance(value.get("workers"), list):
        return None
    doubtful: set[tuple[int | None, str]] = set()
    lost: set[int] = set()
    for path in broken:
        if path and path[0] != "workers":
            doubtful.add((None, str(path[0])))
        elif len(path) > 2 and path[2] != "name":
            doubtful.add((int(path[1]), str(path[2])))
        elif len(path) > 1:  # no mapping, or no usable name
            lost.add(int(path[1]))
    kept = {key: part for key, part in value.items() if key in Document.model_fields and (None, key) not in doubtful}
    indexes = [index for index in range(len(value["workers"])) if index not in lost]
    kept["workers"] = [_salvaged_worker(value["workers"][index], index, doubtful) for index in indexes]
    try:
        document = Document.model_validate({"name": _STAND_IN, **kept})
    except ValidationError:
        return None
    return Draft(document, list(zip(indexes, document.workers, strict=True)), doubtful)


def _salvaged_worker(raw: dict[str, Any], index: int, doubtful: set[tuple[int | None, str]]) -> dict[str, Any]:
    kept = {key: part for key, part in raw.items() if key in Worker.model_fields and (index, key) not in doubtful}
    if "command" not in kept and "script" not in kept and (("command" in raw) or ("script" in raw)):
        kept["command"] = _STAND_IN
    return kept


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Without the garbage collector, which would walk a large document's values again and again: half of the time it takes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
