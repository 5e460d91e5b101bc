"""Reading YAML event by event: values and tokens with their places.

PyYAML's composer recurses and overflows the C stack on deep nesting, and its constructor reads ``yes``, ``010`` and ``12:30`` as YAML 1.1
does. Here plain scalars mean what the same characters mean in JSON and are texts otherwise; keys are always texts; tags other than
``!!str`` are refused. Anchors, aliases and merge keys (``<<``) work within bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from wattle.document.places import MAX_DEPTH, Mark, Step, SyntaxProblem, mark_at, too_deep

MAX_ALIASES = 1_000
MAX_EXPANDED = 1_000_000
"""Values that the aliases of one document may stand for, counted each time they are used."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where PyYAML was built with it: ten times faster
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,300})(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


@dataclass(slots=True)
class _Container:
    """A mapping or list being read. ``size`` counts the values in it, those of aliases included."""

    value: Any
    anchor: str | None = None
    key: str | None = None
    merges: list[Any] = field(default_factory=list)
    size: int = 1


def parse_yaml(text: str) -> tuple[Any, bool]:
    """The value, and whether some mapping has a key twice (the last one is in the value). Raises SyntaxProblem."""
    reader = _YamlReader()
    for event in _events(text):
        reader.take(event)
    if not reader.root.value:
        raise SyntaxProblem("the document is empty", Mark(1, 1), "Write a workflow: a name and workers.")
    return reader.root.value[0], reader.repeated


class _YamlReader:
    """Builds the value that a stream of events stands for, without recursion."""

    def __init__(self) -> None:
        self.root = _Container([])
        self.open = [self.root]
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.aliases = self.expanded = self.documents = 0
        self.repeated = False

    def take(self, event: yaml.Event) -> None:
        """Go on by one event."""
        if isinstance(event, yaml.ScalarEvent):
            self._add(event, _scalar(event), 1, event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = self.open.pop()
            for merged in ended.merges:
                ended.value = {**merged, **ended.value}
            self._add(event, ended.value, ended.size, ended.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise SyntaxProblem(
                    "a second document starts here", _event_mark(event), "Put each workflow in a file of its own."
                )

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            raise SyntaxProblem(f"the tag {event.tag!r} is not supported", _event_mark(event), "Remove it.")
        if len(self.open) > MAX_DEPTH:
            raise too_deep(_event_mark(event))
        self._check_key(event)
        self.open.append(_Container({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))

    def _alias(self, event: yaml.AliasEvent) -> None:
        self._check_key(event)
        if event.anchor not in self.anchors:
            raise SyntaxProblem(f"the alias *{event.anchor} has no anchor before it", _event_mark(event))
        value, size = self.anchors[event.anchor]
        self.aliases += 1
        self.expanded += size
        if self.aliases > MAX_ALIASES or self.expanded > MAX_EXPANDED:
            limit = f"{MAX_ALIASES:,} aliases, or aliases for more than {MAX_EXPANDED:,} values"
            raise SyntaxProblem(f"more than {limit}", _event_mark(event), "Write the values out, or use JSON.")
        self._add(event, value, size, None)

    def _check_key(self, event: yaml.Event) -> None:
        into = self.open[-1]
        if isinstance(into.value, dict) and into.key is None:
            raise SyntaxProblem("a key must be a plain text", _event_mark(event), "Write 'key: value'.")

    def _add(self, event: yaml.Event, value: Any, size: int, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, size)
        into = self.open[-1]
        into.size += size
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is None:
            assert isinstance(event, yaml.ScalarEvent)  # _check_key has refused the others
            into.key = str(event.value)
        else:
            self._entry(into, event, value)

    def _entry(self, into: _Container, event: yaml.Event, value: Any) -> None:
        key, into.key = into.key, None
        if key == "<<":
            maps = value if isinstance(value, list) else [value]
            if not all(isinstance(each, dict) for each in maps):
                raise SyntaxProblem("'<<' merges mappings only", _event_mark(event), "Give it an alias of a mapping.")
            into.merges += maps
            return
        if key in into.value:
            self.repeated = True
        into.value[key] = value


def _scalar(event: yaml.ScalarEvent) -> Any:
    """The value of a scalar: what JSON would read where it is plain, a text otherwise."""
    if event.tag not in _TEXT_TAGS:
        raise SyntaxProblem(f"the tag {event.tag!r} is not supported", _event_mark(event), "Remove it.")
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    return float(text) if match[1] or match[2] else int(text)


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _no_yaml(text, error) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode("utf-8", "replace")
        found = f": the character U+{ord(text[len(before)]):04X} is not allowed" if len(before) < len(text) else ""
        fix = "Remove it, or write it as an escape in double quotes."
        raise SyntaxProblem(f"no valid YAML{found}", mark_at(text, len(before)), fix) from None


def _no_yaml(text: str, error: yaml.MarkedYAMLError) -> SyntaxProblem:
    message = ": ".join(part for part in ("no valid YAML", error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return SyntaxProblem(message)
    lines = text.split("\n")
    if mark.line >= len(lines):  # libyaml counts one more at the end
        return SyntaxProblem(message, mark_at(text, len(text)))
    fix = "YAML takes no tabs here; use spaces." if lines[mark.line][mark.column : mark.column + 1] == "\t" else None
    return SyntaxProblem(message, Mark(mark.line + 1, mark.column + 1), fix)


def _event_mark(event: yaml.Event) -> Mark:
    start = event.start_mark
    assert start is not None  # the parsers always set it
    return Mark(start.line + 1, start.column + 1)


def yaml_steps(text: str) -> Iterator[Step]:
    """The tokens of valid YAML; an alias is one, written ``*anchor``."""
    for event in _events(text):
        mark = _event_mark(event)
        if isinstance(event, yaml.ScalarEvent):
            yield Step("=", event.value, *mark)
        elif isinstance(event, yaml.AliasEvent):
            yield Step("=", f"*{event.anchor}", *mark)
        elif isinstance(event, yaml.CollectionStartEvent):
            yield Step("{" if isinstance(event, yaml.MappingStartEvent) else "[", "", *mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            yield Step("}", "", *mark)
