"""Settings files: TOML, with the keys that all roles share at the top level and each role's own in a table of its name.

A role's table may also hold shared keys, which then count for that role alone. Every key and every table is checked,
whoever reads the file; values are checked for the role that reads.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wattle.errors import SettingsError
from wattle.settings.agents import KINDS, SHARED
from wattle.settings.base import Complaint, Contents, Problem, Settings, closest

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*(["']?)([\w-]+)\1\s*[=.]""")


def read_file(path: Path, kind: type[Settings], given_by: str) -> Contents:
    """What the file says for ``kind``; raises SettingsError when it cannot be read or is no TOML.

    ``given_by`` is what named the file, for errors.
    """
    text = _text(path, f"settings file {path} (from {given_by})")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path} cannot be read: what stands in it is nested too deeply") from None
    kinds: dict[str, type[Settings]] = {**KINDS, kind.role: kind}
    reader = _Reader(path, _lines(text), kinds)
    own = document.get(kind.role)
    tables: list[tuple[str, Mapping[str, Any]]] = [("", document), (kind.role, own if isinstance(own, dict) else {})]
    for table, keys in tables:
        for key, value in keys.items():
            if key in kind.setting_names():
                reader.contents.values[key] = value
                reader.contents.places[key] = reader.place(table, key)
    reader.check(document)
    return reader.contents


class _Reader:
    def __init__(
        self,
        path: Path,
        lines: Mapping[tuple[str, str], int],
        kinds: Mapping[str, type[Settings]],
    ) -> None:
        self.path, self.lines, self.kinds = path, lines, kinds
        self.contents = Contents()

    def place(self, table: str, key: str) -> str:
        """``file:line: key``, with the table where there is one; without the line where that was not found."""
        line = self.lines.get((table, key))
        at = str(self.path) if line is None else f"{self.path}:{line}"
        return f"{at}: [{table}] {key}" if table else f"{at}: {key}"

    def check(self, document: Mapping[str, Any]) -> None:
        """Complain of every unknown key and table."""
        for key, value in document.items():
            if key not in self.kinds:
                if key not in SHARED:
                    self._complain("", key, self._hint(key))
            elif not isinstance(value, dict):
                self._complain("", key, f"should be a table: write [{key}], then its keys")
            else:
                self._check_table(key, value)

    def _check_table(self, role: str, table: Mapping[str, Any]) -> None:
        names = self.kinds[role].setting_names()
        for key in table:
            if key not in names:
                self._complain(role, key, f"is not a setting of the {role}{_meant(closest(key, names))}")

    def _hint(self, key: str) -> str:
        roles = [f"[{role}]" for role, kind in self.kinds.items() if key in kind.setting_names()]
        if roles:
            return f"is not a setting of every role; write it below {' or '.join(roles)}"
        return f"is not a setting{_meant(closest(key, [*SHARED, *self.kinds]))}"

    def _complain(self, table: str, key: str, text: str) -> None:
        self.contents.complaints.append(Complaint("file", self.place(table, key), Problem(key, None, text)))


def _meant(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{what} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{what} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line numbers by table and key, for keys that start a line; tomllib tells no positions."""
    table = ""
    found: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = header[1].strip("\"'")
            found.setdefault(("", table), number)
        elif key := _KEY.match(line):
            found.setdefault((table, key[2]), number)
    return found
