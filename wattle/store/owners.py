"""Whose runs a coordinator's store holds: asked by commands, beside whoever has it open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def runs_by_owner(file: Path) -> dict[str, int]:
    """How many runs of each owner, by name, are in a ``coordinator.db``; empty where it cannot be read, which whoever serves it says."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as store:
            return dict(store.execute("SELECT owner, COUNT(*) FROM runs GROUP BY owner ORDER BY owner"))
    except sqlite3.Error:
        return {}
