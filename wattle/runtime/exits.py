"""The file of exits that nobody had acknowledged when their spawner ended. Standard library only: the spawner imports it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


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
