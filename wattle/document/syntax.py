"""From text to plain values, and from values back to the lines they stand on."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any, Literal

from wattle.document.jsontext import json_steps, parse_json
from wattle.document.places import Mark, Path, Place, Step, SyntaxProblem, mark_at, walk
from wattle.values import value

MAX_BYTES = 64 * 1024 * 1024

Format = Literal["auto", "json", "yaml"]


@value(frozen=True, slots=True)
class Parsed:
    """A text and the value it stands for. ``repeated`` tells that some mapping has a key twice (the last one is in ``value``)."""

    text: str
    format: Literal["json", "yaml"]
    value: Any
    repeated: bool

    def locate(self, wanted: Collection[Path]) -> tuple[dict[Path, Place], list[tuple[Path, Mark]]]:
        """The places of those paths that stand in the text, and every key that its mapping has already."""
        steps = _steps(self.text, self.format)
        present = {path for path in wanted if _stands(self.value, path)}
        return walk(steps, present, to_the_end=self.repeated or not present)


def parse(data: bytes | str, format: Format = "auto") -> Parsed:
    """Read a text. ``auto`` takes what starts with ``{`` or ``[`` for JSON, unless only YAML can read it. Raises SyntaxProblem."""
    if len(data) > MAX_BYTES:
        raise SyntaxProblem(f"the document is larger than {MAX_BYTES // 2**20} MiB", fix="Split the workflow.")
    text = _decode(data)
    if not text.strip():
        raise SyntaxProblem("the document is empty", Mark(1, 1), "Write a workflow: a name and workers.")
    if format == "json" or (format == "auto" and text.lstrip()[0] in "{["):
        try:
            return Parsed(text, "json", *parse_json(text))
        except SyntaxProblem:
            if format == "json":
                raise
            with contextlib.suppress(SyntaxProblem):  # it looks like JSON: what is wrong with it as JSON helps more
                return _parse_yaml(text)
            raise
    return _parse_yaml(text)


def _parse_yaml(text: str) -> Parsed:
    from wattle.document.yamltext import parse_yaml  # late: a coordinator that is only given JSON never needs it

    return Parsed(text, "yaml", *parse_yaml(text))


def _steps(text: str, format: Literal["json", "yaml"]) -> Iterator[Step]:
    if format == "json":
        return json_steps(text)
    from wattle.document.yamltext import yaml_steps

    return yaml_steps(text)


def _stands(value: Any, path: Path) -> bool:
    """Whether something stands at a path."""
    for key in path:
        known = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if key not in known:
            return False
        value = value[key]
    return True


def _decode(data: bytes | str) -> str:
    try:
        if isinstance(data, bytes):
            return data.decode("utf-8-sig")
        data.encode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        raise SyntaxProblem("the document is not UTF-8", mark_at(before, len(before)), "Save it as UTF-8.") from None
    except UnicodeEncodeError as error:
        raise SyntaxProblem("half of a surrogate pair is no character", mark_at(error.object, error.start)) from None
    return data.removeprefix("\ufeff")
