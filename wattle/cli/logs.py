"""Printing workers' output: one worker's bytes as they are, several workers' by line with the name before each."""

from __future__ import annotations

import os
import queue
import sys
import threading
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from wattle.errors import InvalidRequest, NotFound, WattleError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wattle.client.blocking import Client

MOST_WORKERS = 50
"""Of how many workers the output is printed together; each one that is followed takes a thread and a long poll."""

_MAX_TAIL = 1 << 20
_BACKLOG = 1_000  # pieces of output that may wait to be printed


@dataclass(frozen=True, slots=True)
class Selection:
    """Which output: ``tail`` is in lines."""

    run: str
    stream: str
    follow: bool
    attempt: int | None
    tail: int | None


def show_one(client: Client, selection: Selection, worker: str) -> None:
    """The bytes of one worker, unchanged."""
    for data in pieces(client, selection, worker):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def pieces(client: Client, selection: Selection, worker: str) -> Iterator[bytes]:
    """The selected output. Lines of a tail are found in the last bytes: long lines may make it fewer."""
    tail = selection.tail
    size = None if tail is None else min(_MAX_TAIL, max(1 << 16, 256 * tail))
    chunks = client.logs(
        selection.run, worker, selection.stream, follow=selection.follow, attempt=selection.attempt, tail=size
    )
    for number, data in enumerate(chunks):
        yield data if number or tail is None else last_lines(data, tail)


def last_lines(data: bytes, count: int) -> bytes:
    """The last ``count`` lines of some bytes; an unfinished one counts."""
    lines = data.splitlines(keepends=True)
    return b"".join(lines[len(lines) - min(count, len(lines)) :])


def show_all(client: Client, selection: Selection) -> None:
    """Every worker's output; raises InvalidRequest where these are too many."""
    names = [worker.name for worker in islice(client.workers(selection.run), MOST_WORKERS + 1)]
    if len(names) > MOST_WORKERS:
        raise InvalidRequest(
            f"run {selection.run} has more than {MOST_WORKERS} workers: name one, as in wattle logs {selection.run} {names[0]}"
        )
    width = max(map(len, names), default=0)
    if selection.follow:
        _follow_all(client, selection, names, width)
        return
    for name in names:
        printer = Lines(f"{name.ljust(width)} | ".encode())
        try:
            for data in pieces(client, selection, name):
                printer.print(data)
        except NotFound as error:
            if error.code != "LOG_NOT_FOUND":  # that one has printed nothing yet
                raise
        printer.end()


class Lines:
    """Prints whole lines with a name before each, so that those of several workers do not mix."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._rest = b""

    def print(self, data: bytes) -> None:
        """Print the lines that are complete with ``data``; a very long one is broken."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_TAIL:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            sys.stdout.buffer.write(self._name + line + b"\n")
        sys.stdout.buffer.flush()

    def end(self) -> None:
        """Print a last line that has no end."""
        if self._rest:
            self.print(b"\n")


def _follow_all(client: Client, selection: Selection, names: list[str], width: int) -> None:
    """One thread per worker reads, this one prints."""
    news: queue.Queue[tuple[str, bytes | None]] = queue.Queue(_BACKLOG)
    printers = {name: Lines(f"{name.ljust(width)} | ".encode()) for name in names}

    def read(name: str) -> None:
        try:
            for data in pieces(client, selection, name):
                news.put((name, data))
        except WattleError as error:
            news.put((name, f"({error.message})\n".encode()))
        news.put((name, None))

    for name in names:
        threading.Thread(target=read, args=(name,), daemon=True).start()
    try:
        while printers:
            name, piece = news.get()
            if piece is not None:
                printers[name].print(piece)
            else:
                printers.pop(name).end()
    except (KeyboardInterrupt, BrokenPipeError):
        # The readers are in the middle of long polls, which closing the session would wait for.
        os._exit(130)
