"""What has become of the spawner's tasks: told to the runtime, and kept until that has acknowledged it.

Exits that nobody had acknowledged when their spawner ended are in a file. Standard library only: the spawner imports it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

LINGER = 0.05  # seconds; the runtime has nothing to do about what waits so long to be told
# Seconds that a start waits for its end, where nothing else keeps it: somebody may want to see what runs.
START_LINGER = 0.02


def load_exits(path: str) -> dict[str, list[Any]]:
    """The exits by task; a damaged file is reported on stderr and holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            return {record[0]: record for record in json.load(file)}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, LookupError) as error:
        print(f"{path} is damaged ({error}): the exits it held are lost", file=sys.stderr, flush=True)
        return {}


def save_exits(path: str, exits: list[list[Any]]) -> None:
    """Replace the file as a whole, durably; without exits there is no file."""
    if not exits:
        if os.path.exists(path):
            os.unlink(path)
        return
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(exits, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class Outcomes:
    """See the module's docstring. ``started``, ``failed``, ``skipped`` and ``exited`` are to be told next; ``path`` is the file's."""

    def __init__(self, path: str, log: Callable[[str], None]) -> None:
        self.path, self.log = path, log
        self.exits = load_exits(path)
        self.on_disk = set(self.exits)
        self.unfulfilled: dict[
            str, list[Any]
        ] = {}  # those that failed to start, and [id] of those skipped; not acknowledged yet
        self.started: list[list[Any]] = []
        self.failed: list[list[Any]] = []
        self.skipped: list[str] = []
        self.exited: list[list[Any]] = []
        self.tell_at: float | None = None  # when what happened is to be told, by the monotonic clock

    def tell(self, within: float) -> None:
        """Have what happened told after so many seconds at the latest."""
        at = time.monotonic() + within
        self.tell_at = at if self.tell_at is None else min(self.tell_at, at)

    def tell_unfulfilled(self, record: list[Any]) -> None:
        """Have a failure to start told, or, by a record of an id only, that one is not started; it is kept until acknowledged."""
        self.unfulfilled[record[0]] = record
        if len(record) > 1:
            self.failed.append(record)
        else:
            self.skipped.append(record[0])
        self.tell(0)

    def kept(self) -> dict[str, list[Any]]:
        """All that is not acknowledged."""
        failed = [record for record in self.unfulfilled.values() if len(record) > 1]
        skipped = [id for id, record in self.unfulfilled.items() if len(record) == 1]
        return {"failed": failed, "skipped": skipped, "exited": list(self.exits.values())}

    def news(self) -> dict[str, list[Any]]:
        """What is to be told now; the next news are what happens from here on."""
        told = {name: getattr(self, name) for name in ("started", "failed", "skipped", "exited")}
        self.started, self.failed, self.skipped, self.exited, self.tell_at = [], [], [], [], None
        return told

    def forget(self, id: str) -> None:
        """What became of a task is acknowledged."""
        self.exits.pop(id, None)
        self.unfulfilled.pop(id, None)
        if id in self.on_disk:
            self.on_disk.discard(id)
            if not self.on_disk:
                self.save([])

    def save(self, exits: list[list[Any]]) -> None:
        """Have these exits in the file."""
        try:
            save_exits(self.path, exits)
        except OSError as error:
            self.log(f"unacknowledged exits cannot be kept: {error}")
