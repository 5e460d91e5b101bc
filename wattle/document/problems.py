"""What is wrong with a document: collected all at once, each with its place, and told in words.

``validation_problems`` puts pydantic's findings into the words of the document; wattle/document/check.py makes its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from wattle.document.model import Document, Place, Resources, Retries, Worker
from wattle.document.places import Mark, Path, SyntaxProblem
from wattle.document.syntax import Parsed
from wattle.errors import InvalidDocument
from wattle.names import NAME_PATTERN, name_problem
from wattle.values import value

MAX_PROBLEMS = 1_000
"""Problems listed at once; more help nobody."""

_MAX_COMPARED = 500


@value(frozen=True, slots=True)
class Problem:
    """One thing to mend. ``path`` leads to the value, ``at_key`` points at its key instead; ``mark`` overrides both."""

    message: str
    fix: str | None = None
    path: Path = ()
    at_key: bool = False
    mark: Mark | None = None


def invalid(
    problems: Sequence[Problem], file: str, value: object = None, parsed: Parsed | None = None
) -> InvalidDocument:
    """The error that reports the problems in the order of the text; ``value`` is the whole document, for the workers' names."""
    marks = _marks(problems, parsed)
    rows = sorted(dict.fromkeys(zip(marks, problems, strict=True)), key=lambda row: row[0] or Mark(0, 0))
    detail = [
        {
            "file": file,
            "line": mark.line if mark else None,
            "column": mark.column if mark else None,
            "worker": worker_name(value, problem.path),
            "message": problem.message,
            "fix": problem.fix,
        }
        for mark, problem in rows[:MAX_PROBLEMS]
    ]
    lines = [_line(row) for row in detail]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"{file}: there are more; only {MAX_PROBLEMS:,} problems are listed")
    return InvalidDocument("\n".join(lines), detail=detail)


def syntax_problem(error: SyntaxProblem) -> Problem:
    """A text that cannot be read, as a problem."""
    return Problem(error.message, error.fix, mark=error.mark)


def repeated_key(path: Path, mark: Mark) -> Problem:
    """A mapping that has one key twice."""
    return Problem(f"the key {shown(path[-1])} stands here a second time", "Keep one.", path, mark=mark)


def worker_name(value: object, path: Path) -> str | None:
    """The name of the worker that a path leads into, where it has one."""
    if len(path) < 2 or path[0] != "workers":
        return None
    name = value_at(value, (*path[:2], "name"))
    return name[:64] if isinstance(name, str) else None


def value_at(value: Any, path: Path) -> Any:
    """What stands at ``path``; None where nothing does."""
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def shown(value: object) -> str:
    """A value as it is quoted in messages: on one line and not too long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10**15 else "a very large number"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "a list" if isinstance(value, list) else "a mapping"


def where(path: Path) -> str:
    """A path within its worker in words: ``inputs.data``, ``args[2]``."""
    inner = path[2:] if len(path) > 2 and path[0] == "workers" else path
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{shown(key)[1:-1]}" for key in inner)
    return text.removeprefix(".") or "the document"


def closest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of ``words``, if one is similar; of a great many only the likely ones are looked at."""
    known = list(words)
    if len(known) > _MAX_COMPARED:
        known = [each for each in known if each[:1] == word[:1] and abs(len(each) - len(word)) < 2][:_MAX_COMPARED]
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def suggestion(word: object, words: Iterable[str], what: str) -> str:
    """How to mend a wrong word: the closest known one, or all where they are few."""
    known = list(words)
    match = closest(word, known) if isinstance(word, str) else None
    if match is not None:
        return f"Did you mean {match!r}?"
    if not known:
        return f"There are no {what}."
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"The {what} are: {listed}."


def _line(row: Mapping[str, Any]) -> str:
    place = row["file"] if row["line"] is None else f"{row['file']}:{row['line']}:{row['column']}"
    worker = "" if row["worker"] is None else f"worker {shown(row['worker'])}: "
    return f"{place}: {worker}{row['message']}." + (f" {row['fix']}" if row["fix"] else "")


def _marks(problems: Sequence[Problem], parsed: Parsed | None) -> list[Mark | None]:
    """Where each problem stands: its value's place, or that of the nearest value around it that the text shows."""
    if parsed is None:
        return [problem.mark for problem in problems]
    wanted = {problem.path[:end] for problem in problems for end in range(len(problem.path) + 1)}
    places, _ = parsed.locate(wanted)
    marks = []
    for problem in problems:
        end = next((end for end in range(len(problem.path), 0, -1) if problem.path[:end] in places), 0)
        place = places.get(problem.path[:end])
        at_key = problem.at_key and end == len(problem.path)
        marks.append(problem.mark or (place and (place.key if at_key else place.value)))
    return marks


# --- pydantic's findings --------------------------------------------------------------------------------------------


def validation_problems(error: ValidationError, value: object, at: Path = ()) -> list[Problem]:
    """What pydantic found at ``at`` in the document ``value``, in the words of the document; when it is very much, the first part."""
    found = error.errors(include_url=False, include_input=False)
    return [_translate(each, value, at) for each in found[: MAX_PROBLEMS + 1]]


def paths_of(error: ValidationError) -> list[Path]:
    """Where pydantic found something, from where it began."""
    return [tuple(each["loc"]) for each in error.errors(include_url=False, include_input=False, include_context=False)]


def _translate(error: ErrorDetails, value: object, at: Path) -> Problem:
    path: Path = (*at, *error["loc"])
    about_key = path[-1:] == ("[key]",)
    path = path[:-1] if about_key else path
    if path[-2:-1] == ("resources",) and error["type"] == "string_pattern_mismatch":
        about_key = True  # pydantic does not mark the keys of extra fields
    if error["type"] == "missing":
        return Problem(f"{shown(path[-1])} is missing", _MISSING.get(str(path[-1])), path)
    if error["type"] == "extra_forbidden":
        return Problem(
            f"unknown key {shown(path[-1])}", suggestion(path[-1], _keys(path[:-1]), "keys here"), path, at_key=True
        )
    found = path[-1] if about_key else value_at(value, path)
    message, fix = _words(error, found)
    return Problem(f"{where(path)} {message}", fix, path, at_key=about_key)


_MISSING = {
    "name": "Give it a name of letters, digits, '.', '_' and '-'.",
    "workers": "A workflow has a list of at least one worker.",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_FIXES = {"a text": "Quote it.", "a mapping": "Write 'key: value' pairs."}


def _words(error: ErrorDetails, found: object) -> tuple[str, str | None]:
    """What is wrong with a value, as the end of a sentence that starts with its place; and the fix."""
    kind, about = error["type"], error.get("ctx", {})
    if kind == "refused":
        return about["reason"], about["fix"]
    if kind in _KINDS:
        meant = _KINDS[kind]
        fix = None if meant == "a text" and isinstance(found, list | dict) else _FIXES.get(meant)
        return f"is {shown(found)}, not {meant}", fix
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"is {shown(found)}; it must be {words} {about[bound]:,}", None
    if kind == "literal_error":
        return f"is {shown(found)}; it must be {about['expected']}", None
    if kind == "string_pattern_mismatch":
        return _mismatch(found, about["pattern"])
    if kind in ("too_short", "string_too_short"):
        return (
            "is empty",
            "A workflow has at least one worker." if kind == "too_short" else "Write something, or leave the key out.",
        )
    if kind in ("too_long", "string_too_long"):
        return f"is too long: at most {about['max_length']:,}", None
    if kind == "string_unicode":
        return "is no valid Unicode", "Half of a surrogate pair is no character; write it in UTF-8."
    return f"is not valid: {error['msg']}", None


def _mismatch(found: object, pattern: str) -> tuple[str, str | None]:
    if "\0" in str(found):
        return "holds a NUL character", "Remove it."
    if pattern == f"^{NAME_PATTERN}$":
        return f"is no name: {shown(found)} {name_problem(found)}", None
    if NAME_PATTERN in pattern:
        return f"is {shown(found)}, not the output of a worker", "Write it as 'worker/output'."
    if found == "":
        return "is empty", "Write a path, or leave the key out."
    return f"is no name of an environment variable: {shown(found)}", "Use letters, digits and '_', and no digit first."


def _keys(path: Path) -> list[str]:
    """The keys of the mapping that an unknown key was found in."""
    models: dict[str, type[BaseModel]] = {"workers": Worker, "retries": Retries, "resources": Resources, "place": Place}
    last = next((key for key in reversed(path) if isinstance(key, str)), "")
    return list(models.get(last, Document).model_fields)
