"""Where the values of a document stand in its text: lines and columns for those who have to mend it.

Places are looked up after the fact, by following the tokens of the text (``Step``) along the paths of values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

MAX_DEPTH = 64

Path = tuple[str | int, ...]
"""Keys and list positions that lead to a value, such as ``("workers", 3, "inputs", "data")``."""


class Mark(NamedTuple):
    """A place in a text; both count from 1, columns in characters."""

    line: int
    column: int


class Place(NamedTuple):
    """Where an entry of a mapping or list stands: its key (its value again, in a list), and its value."""

    key: Mark
    value: Mark


class SyntaxProblem(Exception):
    """The text is neither JSON nor YAML, or goes beyond a limit. ``fix`` says what to do, where that is known."""

    def __init__(self, message: str, mark: Mark | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message, self.mark, self.fix = message, mark, fix


class Step(NamedTuple):
    """One token: ``kind`` is one of ``{}[]``, or ``=`` for anything that is neither mapping nor list."""

    kind: str
    text: str
    line: int
    column: int


def walk(
    steps: Iterable[Step], wanted: Collection[Path] = (), to_the_end: bool = True
) -> tuple[dict[Path, Place], list[tuple[Path, Mark]]]:
    """Follow the tokens of a document: the places of those ``wanted`` paths that it has, and each key that its mapping has already.

    Without ``to_the_end`` it stops when all wanted places are found. Raises SyntaxProblem where values are nested too deeply.
    """
    places: dict[Path, Place] = {}
    repeated: list[tuple[Path, Mark]] = []
    path: list[str | int] = []
    keys: list[dict[str, Mark] | None] = []  # per open container: the keys seen in a mapping, None for a list
    key_mark: Mark | None = None  # of the key that was just read, whose value comes next
    for kind, text, line, column in steps:
        mark = Mark(line, column)
        if kind in "}]":
            keys.pop()
            path.pop()
            key_mark = None
            continue
        seen = keys[-1] if keys else None
        if seen is not None and key_mark is None:
            path[-1] = text
            if text in seen:
                repeated.append((tuple(path), mark))
            seen[text] = key_mark = mark
            continue
        if keys and seen is None:
            path[-1] = int(path[-1]) + 1
        here = tuple(path)
        if here in wanted:
            places[here] = Place(key_mark or mark, mark)
            if not to_the_end and len(places) == len(wanted):
                break
        key_mark = None
        if kind in "{[":
            if len(keys) >= MAX_DEPTH:
                raise too_deep(mark)
            keys.append({} if kind == "{" else None)
            path.append("" if kind == "{" else -1)
    return places, repeated


def too_deep(mark: Mark) -> SyntaxProblem:
    """The complaint about a value below ``MAX_DEPTH`` others."""
    return SyntaxProblem(f"values are nested more than {MAX_DEPTH} deep", mark, "No part of a workflow is that deep.")


def mark_at(text: str, position: int) -> Mark:
    """The place of a character, counted from 0."""
    return Mark(text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))
