"""Reading JSON: values by the json module, tokens with their places by a scan of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from wattle.document.places import Mark, Step, SyntaxProblem, mark_at, walk

_TOKEN = re.compile(r'[\s:,]*(?:([{}\[\]])|"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s{}\[\],:"]+))', re.DOTALL)


def parse_json(text: str) -> tuple[Any, bool]:
    """The value, and whether some mapping has a key twice (the last one is in the value). Raises SyntaxProblem."""
    repeated = False

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated = True
        return found

    try:
        return json.loads(text, object_pairs_hook=mapping), repeated
    except json.JSONDecodeError as error:
        raise SyntaxProblem(f"no valid JSON: {error.msg}", Mark(error.lineno, error.colno)) from None
    except RecursionError:
        walk(json_steps(text))  # raises, naming the place
        raise SyntaxProblem("values are nested too deeply") from None
    except (
        ValueError
    ):  # Python refuses to read whole numbers of thousands of digits, which would take it quadratic time
        match = re.search(r"\d{1000,}", text)
        raise SyntaxProblem("a number is too long", mark_at(text, match.start()) if match else None) from None


def json_steps(text: str) -> Iterator[Step]:
    """The tokens of valid JSON, keys among them, without colons and commas."""
    line, line_start, last = 1, 0, 0
    text = text.rstrip()  # what follows the last token would be looked at once from each of its characters
    for match in _TOKEN.finditer(text):
        group = match.lastindex or 1
        start = match.start(group) - (group == 2)
        if newlines := text.count("\n", last, start):
            line, line_start = line + newlines, text.rfind("\n", last, start) + 1
        last = start
        found = match.group(group)
        if group == 2 and "\\" in found:
            found = json.loads(f'"{found}"', strict=False)
        yield Step(found if group == 1 else "=", found, line, start - line_start + 1)
