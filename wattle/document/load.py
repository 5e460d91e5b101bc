"""Loading a document: text -> values -> model -> checks; everything that is wrong is reported at once, with its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from wattle.collector import paused
from wattle.document.check import Draft, check
from wattle.document.model import MAX_ENTRIES, MAX_WORKERS, Document, Worker
from wattle.document.places import Path, SyntaxProblem
from wattle.document.problems import (
    MAX_PROBLEMS,
    Problem,
    invalid,
    paths_of,
    repeated_key,
    syntax_problem,
    validation_problems,
    where,
)
from wattle.document.syntax import Format, Parsed, parse

_STAND_IN = {"name": "unknown", "command": "unknown"}


def load(data: bytes | str, *, file: str = "<document>", format: Format = "auto") -> Document:
    """The workflow that a text describes; ``file`` is what it is called in messages.

    ``format`` ``auto`` tells JSON and YAML apart by the first character. Raises InvalidDocument: ``detail`` lists every problem as
    ``{"file", "line", "column", "worker", "message", "fix"}`` (None where unknown), the message tells them one per line.
    """
    with paused():
        try:
            parsed = parse(data, format)
            return _validated(parsed.value, file, parsed)
        except SyntaxProblem as error:
            raise invalid([syntax_problem(error)], file) from None


def load_value(value: object, *, file: str = "<document>", placed: bool = False) -> Document:
    """The same for a document that was read already, such as a part of a larger message.

    Lines and columns are unknown then; with ``placed`` they are those of the JSON text that the value would be written as.
    """
    with paused():
        return _validated(value, file, None, placed=placed)


def _validated(value: object, file: str, parsed: Parsed | None, *, placed: bool = False) -> Document:
    problems = list(_too_large(value))
    if problems:
        raise invalid(problems, file, value, _written(value) if placed else parsed)
    draft: Draft | None
    try:
        document = Document.model_validate(value)
        draft = Draft(document, list(enumerate(document.workers)))
    except ValidationError as error:
        problems, draft = validation_problems(error, value), None
        if isinstance(value, dict) and isinstance(value.get("workers"), list) and value["workers"]:
            draft, problems = _salvage(value)
    if draft is not None:
        problems += check(draft)
    if parsed is not None and parsed.repeated:
        problems += [repeated_key(path, mark) for path, mark in islice(parsed.locate(())[1], MAX_PROBLEMS + 1)]
    if problems or draft is None:
        raise invalid(problems, file, value, _written(value) if placed else parsed)
    return draft.document


def _written(value: object) -> Parsed:
    """A value as a text, for the places in it: written and read again only where something is wrong."""
    return parse(to_json(value), "json")


def _too_large(value: object) -> Iterator[Problem]:
    """Mappings and lists with so many entries that pydantic, which keeps about 1 kB per error and cannot stop early, could fill memory."""
    if not isinstance(value, dict):
        return
    parts: list[tuple[Path, object, int]] = [((), value, MAX_ENTRIES)]
    parts += [
        ((key,), part, MAX_WORKERS if key == "workers" else MAX_ENTRIES)
        for key, part in islice(value.items(), MAX_ENTRIES)
    ]
    for path, part, limit in parts:
        if isinstance(part, dict | list) and len(part) > limit:
            yield Problem(
                f"{where(path)} has {len(part):,} entries; at most {limit:,} are allowed", "Split the workflow.", path
            )
            return
    workers = value.get("workers")
    for index, worker in enumerate(workers if isinstance(workers, list) else ()):
        if isinstance(worker, dict) and _has_many_entries(worker):
            yield Problem(
                f"has a list or mapping of more than {MAX_ENTRIES:,} entries", "Split the worker.", ("workers", index)
            )


def _has_many_entries(worker: dict[str, Any]) -> bool:
    if len(worker) > MAX_ENTRIES:
        return True
    for part in worker.values():
        if isinstance(part, (dict, list)) and len(part) > MAX_ENTRIES:
            return True
    place = worker.get("place")
    return isinstance(place, dict) and any(
        isinstance(part, dict) and len(part) > MAX_ENTRIES for part in place.values()
    )


def _salvage(value: dict[str, Any]) -> tuple[Draft | None, list[Problem]]:
    """What is wrong with each value by itself, and the valid part, so that one wrong value does not hide what else is wrong."""
    doubtful: set[tuple[int | None, str]] = set()
    kept = {**value, "workers": [_STAND_IN]}
    problems: list[Problem] = []
    document: Document | None = None
    while document is None:  # half a character in a key is told alone, whatever else is wrong
        try:
            document = Document.model_validate(kept)
        except ValidationError as error:
            problems += validation_problems(error, value)
            doubtful |= {(None, str(path[0])) for path in paths_of(error) if path}
            known = {key: part for key, part in kept.items() if key in Document.model_fields}
            less = {"name": "unknown"} | {key: part for key, part in known.items() if (None, key) not in doubtful}
            if less == kept:
                raise  # a rule of the model's that names no key
            kept = less
    workers: list[tuple[int, Worker]] = []
    for index, raw in enumerate(value["workers"]):
        try:
            workers.append((index, Worker.model_validate(raw)))
        except ValidationError as error:
            problems += validation_problems(error, value, ("workers", index))
            doubtful |= {(index, str(path[0])) for path in paths_of(error) if path}
            worker = _salvaged_worker(raw, {key for at, key in doubtful if at == index})
            workers += [] if worker is None else [(index, worker)]
        if len(problems) > MAX_PROBLEMS:
            return None, problems
    return Draft(document, workers, doubtful), problems


def _salvaged_worker(raw: object, doubtful: set[str]) -> Worker | None:
    """A worker without what is wrong with it; None when it has no usable name."""
    if not isinstance(raw, dict):
        return None
    kept = {key: part for key, part in raw.items() if key in Worker.model_fields and key not in doubtful}
    if doubtful & {"command", "script"} and not kept.keys() & {"command", "script"}:
        kept["command"] = "unknown"
    with contextlib.suppress(ValidationError):
        return Worker.model_validate(kept)
    return None
