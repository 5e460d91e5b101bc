"""Making inputs out of seeds: bytes changed anywhere, and JSON changed value by value so that it stays JSON.

Both work on text alone, by slices, so that an input costs a few microseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

WORDS = (
    "", "a", "a-b", "..", "../../etc/passwd", "*", "**", "$*", "#", "?", "/", "//", "a/b", "/a", "~", "\0", "\n", "\t", " ", "é", "ż",
    "\u2028", "\ufeff", "\ud800", "\U0010ffff", "nan", "inf", "-inf", "1e999", "0x10", "1_000", "٣", "²", "-0", "00", "007", "1.5h",
    "90s", "8GiB", "yes", "<<", "&a", "*a", "!!str", "!!python/object/apply:os.system", "|", ">", "---", "...", "${", "}",
    "${params.x}", "${params.", "${inputs.k}", "${outputs.o}", "${run.id}", "$${", "${HOME}", "%00", "%2F", "%", "=", ";", "&", "true",
    "null", "default", "stdout", "x" * 64, "x" * 65, "9" * 25, "9" * 5000, "wattle/default/", "a'b", 'a"b', "a\\", "$(id)", "`id`",
)  # fmt: skip
"""Texts that have a meaning somewhere."""

VALUES = (
    "null", "true", "false", "0", "-0", "1", "-1", "0.5", "-0.0", "1e308", "1e-400", "1e999", "NaN", "-Infinity",
    "9223372036854775807", "9223372036854775808", "4611686018427387904", "4611686018427387905", "-4611686018427387905", "9" * 400,
    "9" * 5000, '""', '"a"', '"*"', '".."', '"\\u0000"', '"\\ud800"', '"\\u00e9"', '"a/b"', '"${params.x}"', '"a b \'"', "[]", "{}",
    "[null]", '[""]', "[[]]", '{"": null}', '{"a": "b"}', '{"a": "b/c"}', "[1, 2]", "[" * 70 + "]" * 70, '{"a":' * 66 + "1" + "}" * 66,
)  # fmt: skip
"""JSON values that are seldom what is wanted."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


class Span(NamedTuple):
    """Where a value stands in a text; ``whole`` begins with the key of a member."""

    start: int
    end: int
    whole: int


class Seed(NamedTuple):
    """A JSON text and where its values are."""

    text: str
    spans: tuple[Span, ...]


def seed_of(text: str) -> Seed:
    """The values of a JSON text, the whole one left out."""
    spans: list[Span] = []
    open_: list[tuple[int, int]] = []
    before, whole = "", -1  # the token before, and where the key of the member at hand starts
    for match in _TOKEN.finditer(text):
        token, at = match.group(), match.start()
        if token in "{[":
            open_.append((at, whole if whole >= 0 else at))
            whole = -1
        elif token in "}]":
            start, key = open_.pop()
            spans.append(Span(start, match.end(), key))
            whole = -1
        elif token == ",":
            whole = -1
        elif token != ":":
            if before in ("{", ",") and text[match.end() :].lstrip()[:1] == ":":
                whole = at
                spans.append(Span(at, match.end(), at))
            else:
                spans.append(Span(at, match.end(), whole if whole >= 0 else at))
        before = token
    return Seed(text, tuple(span for span in spans if span.end - span.start < len(text.strip())))


class Mutator:
    """Inputs from seeds, decided by ``random`` alone."""

    def __init__(self, random: Random, texts: Sequence[str] = (), jsons: Sequence[str] = ()) -> None:
        self.random = random.random
        self.texts = [text.encode("utf-8", "surrogatepass") for text in (*texts, *jsons)] or [b""]
        self.seeds = [seed_of(text) for text in jsons]
        self.words = [word.encode("utf-8", "surrogatepass") for word in WORDS]

    def below(self, number: int) -> int:
        """0 up to ``number``, that one left out."""
        return int(self.random() * number)

    def some_bytes(self, most: int = 5) -> bytes:
        """A seed with up to ``most`` changes of its bytes."""
        data = self.texts[self.below(len(self.texts))]
        for _ in range(self.below(most + 1)):
            data = self._changed(data)
        return data

    def some_text(self, most: int = 5) -> str:
        """The same as a text, whatever bytes there are."""
        return self.some_bytes(most).decode("utf-8", "surrogateescape" if self.random() < 0.1 else "replace")

    def some_json(self, most: int = 3) -> str:
        """A JSON seed with up to ``most`` of its values changed, taken out, put in twice or exchanged for others."""
        seed = self.seeds[self.below(len(self.seeds))]
        text, spans = seed
        if not spans:
            return VALUES[self.below(len(VALUES))]
        end = len(text)
        for start, stop, whole in sorted(
            (spans[self.below(len(spans))] for _ in range(self.below(most + 1))), reverse=True
        ):
            if stop > end:
                continue  # within a value that is another one by now
            end = whole
            text = self._exchanged(text, start, stop, whole)
        return text

    def _exchanged(self, text: str, start: int, stop: int, whole: int) -> str:
        choice = self.random()
        if choice < 0.45:
            return text[:start] + VALUES[self.below(len(VALUES))] + text[stop:]
        if choice < 0.6:
            other = self.seeds[self.below(len(self.seeds))]
            if other.spans:
                span = other.spans[self.below(len(other.spans))]
                return text[:start] + other.text[span.start : span.end] + text[stop:]
        if choice < 0.75:
            return text[:start] + json.dumps(WORDS[self.below(len(WORDS))]) + text[stop:]
        part = text[whole:stop]
        if choice < 0.85:
            return text[:stop] + "," + part + text[stop:]
        following = text[stop:].lstrip()
        if following[:1] == ",":
            return text[:whole] + following[1:]
        return text[:whole].rstrip().removesuffix(",") + text[stop:]

    def _changed(self, data: bytes) -> bytes:
        size, choice = len(data), self.below(9)
        at = self.below(size + 1)
        if choice == 0:
            return data[:at] + bytes((self.below(256),)) + data[at + 1 :]
        if choice == 1:
            return data[:at] + bytes((self.below(256),)) + data[at:]
        if choice == 2:
            return data[:at] + data[at + 1 + self.below(8) :]
        if choice == 3:
            return data[:at]
        if choice == 4:
            return data[:at] + data[self.below(size + 1) :][: self.below(64)] + data[at:]
        if choice == 5:
            other = self.texts[self.below(len(self.texts))]
            return data[:at] + other[self.below(len(other) + 1) :]
        if choice == 6 and self.random() < 0.1:
            return data[:at] + data[at : at + 1] * self.below(3000) + data[at:]
        word = self.words[self.below(len(self.words))]
        return data[:at] + word + data[at + (self.below(8) if choice == 8 else 0) :]
