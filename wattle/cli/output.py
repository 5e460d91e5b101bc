"""How results are printed: tables for people, tab-separated lines for pipes, JSON for programs, behind one interface."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import typer

V = TypeVar("V")

COLOURS = {
    "succeeded": typer.colors.GREEN,
    "ready": typer.colors.CYAN,
    "running": typer.colors.BLUE,
    "failed": typer.colors.RED,
    "lost": typer.colors.RED,
    "unreachable": typer.colors.YELLOW,
    "cancelled": typer.colors.YELLOW,
    "skipped": typer.colors.YELLOW,
    "draining": typer.colors.YELLOW,
}


class Column(NamedTuple, Generic[V]):
    """A column of a listing: its heading and what stands in it for a record."""

    heading: str
    cell: Callable[[V], object]


class Output(Protocol):
    """A way to print."""

    def listing(self, records: Iterable[V], columns: Sequence[Column[V]], empty: str) -> None:
        """Records, one a line; ``empty`` is said to people where there are none."""

    def record(self, record: Any, fields: Sequence[tuple[str, object]]) -> None:
        """One record, by field."""


class Json:
    """JSON: a listing is an array, a record an object, both with the field names of docs/api.md."""

    def listing(self, records: Iterable[V], columns: Sequence[Column[V]], empty: str) -> None:
        """Printed item by item, so that a long listing needs no memory."""
        from wattle.protocol.records import as_json

        separator = "["
        for item in records:
            sys.stdout.write(f"{separator}\n  {dumps(as_json(item))}")
            separator = ","
        sys.stdout.write("[]\n" if separator == "[" else "\n]\n")

    def record(self, record: Any, fields: Sequence[tuple[str, object]]) -> None:
        """The record as it is."""
        from wattle.protocol.records import as_json

        sys.stdout.write(json.dumps(record if isinstance(record, dict) else as_json(record), indent=2) + "\n")


class Plain:
    """Tab-separated lines under a heading, for cut and awk."""

    def listing(self, records: Iterable[V], columns: Sequence[Column[V]], empty: str) -> None:
        """A heading, then one line for each."""
        lines = ("\t".join(shown(column.cell(item)) for column in columns) for item in records)
        first = list(islice(lines, 1))  # asked for before the heading is printed: an error stands alone
        print("\t".join(column.heading for column in columns))
        for line in chain(first, lines):
            print(line)

    def record(self, record: Any, fields: Sequence[tuple[str, object]]) -> None:
        """One line for each field that has a value."""
        for name, value in fields:
            if value not in (None, ""):
                print(f"{name}\t{shown(value)}")


class Table:
    """Aligned columns for a terminal, with statuses in colour."""

    def listing(self, records: Iterable[V], columns: Sequence[Column[V]], empty: str) -> None:
        """All rows are collected first, since the widest decides."""
        rows = [[shown(column.cell(item)) for column in columns] for item in records]
        if not rows:
            print(empty)
            return
        headings = [column.heading.upper() for column in columns]
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        print(styled(_line(headings, widths), bold=True))
        for row in rows:
            print(_coloured(_line(row, widths), row))

    def record(self, record: Any, fields: Sequence[tuple[str, object]]) -> None:
        """One line for each field that has a value."""
        width = max((len(name) for name, _ in fields), default=0)
        for name, value in fields:
            if value not in (None, ""):
                print(f"{styled(name.ljust(width), bold=True)}  {coloured(shown(value))}")


def output_for(json: bool) -> Output:
    """JSON where it is asked for, a table on a terminal, lines elsewhere."""
    if json:
        return Json()
    return Table() if sys.stdout.isatty() else Plain()


def dumps(value: Any) -> str:
    """JSON on one line."""
    return _json_dumps(value, separators=(",", ":"), ensure_ascii=False)


_json_dumps = json.dumps  # `json` is also the name of a flag


def print_json_line(value: Any) -> None:
    """One JSON value on a line of its own, at once."""
    print(dumps(value), flush=True)


def shown(value: object) -> str:
    """A value in a cell: one line, no control characters, a hyphen for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={shown(item)}" for key, item in value.items()) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text).strip()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _coloured(line: str, row: Sequence[str]) -> str:
    for cell in row[:3]:
        if cell in COLOURS:
            return line.replace(f" {cell}", f" {coloured(cell)}", 1)
    return line


def coloured(status: str) -> str:
    """A status in its colour, where colours are wanted."""
    return styled(status, fg=COLOURS[status]) if status in COLOURS else status


def styled(text: str, **style: Any) -> str:
    """Text in a style, on a terminal without NO_COLOR."""
    return typer.style(text, **style) if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def local_time(stamp: str | None) -> str | None:
    """An RFC 3339 time as the clock on the wall shows it."""
    from wattle.protocol.records import seconds

    at = seconds(stamp)
    return None if at is None else datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(start: str | None, end: str | None) -> str | None:
    """The time between two RFC 3339 times, the second by default now."""
    from wattle.protocol.records import seconds

    began = seconds(start)
    if began is None:
        return None
    ended = seconds(end)
    return span((datetime.now(UTC).timestamp() if ended is None else ended) - began)


def span(value: float) -> str:
    """Seconds for people: 0.4 s, 12.3 s, 3m 20s, 2h 05m."""
    value = max(0.0, value)
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def counted(counts: dict[str, int]) -> str:
    """Counts by status in the order of a worker's life, zeros left out."""
    order = ("succeeded", "failed", "cancelled", "skipped", "running", "ready", "created")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts.get(status)) or "no workers"
