"""A node's secrets: a TOML file of its own, whose values tasks get in their environment and whoever reads their output does not see.

Values are in no document, message, fact, store or command line. What hides them in output is every value in the file, and every one that
was there since this process began: also of a task that has its secret from elsewhere, and of one whose secret has changed since.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from wattle.errors import InvalidRequest, SettingsError
from wattle.logs import get_logger
from wattle.names import name_problem
from wattle.runtime.masking import Mask
from wattle.security.private import read_private

SHORTEST = 8
"""Bytes of a value, at least: what is shorter stands in much that is no secret, and would be blanked there."""

LONGEST = 4096
"""Bytes of a value, at most: what is longer belongs in a file."""

log = get_logger("wattle.runtime.secrets")


class Secrets:
    """The secrets of a file, read again when it has changed; none where there is no file. Raises SettingsError for one that is unsound."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._values: dict[str, str] = {}
        self._seen: tuple[int, ...] = ()
        self._problem: str | None = None
        self.mask = Mask(())
        if file is not None:
            self._read(file)

    def environment(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The variables of a task that wants these secrets; raises InvalidRequest, naming them, where one is not here."""
        if not wanted:
            return {}
        if self._file is None:
            names = ", ".join(sorted(set(wanted.values())))
            raise InvalidRequest(
                f"it needs the secrets {names}, and this node has none: its runtime has no secrets_file"
            )
        self.refresh()
        if self._problem is not None:
            raise InvalidRequest(f"this node's secrets cannot be had: {self._problem}")
        missing = sorted({name for name in wanted.values() if name not in self._values})
        if missing:
            names = ", ".join(map(repr, missing))
            fix = "add it there, or place the worker on nodes that have it (place: {labels: ...})"
            raise InvalidRequest(f"secret {names} is not in this node's secrets file {self._file}; {fix}")
        return {variable: self._values[name] for variable, name in wanted.items()}

    def refresh(self) -> None:
        """Read the file if it has changed. What hides values never forgets any, whatever becomes of the file."""
        if self._file is None:
            return
        try:
            self._read(self._file)
        except SettingsError as error:
            if self._problem != error.message:
                log.error("secrets cannot be had", problem=error.message)
            self._problem = error.message

    def _read(self, file: Path) -> None:
        seen = _state(file)
        if seen == self._seen and self._problem is None:
            return
        self._values = _parse(read_private(file, "secrets file"), file)
        self._seen, self._problem = seen, None
        values = frozenset(value.encode() for value in self._values.values()) - self.mask.values
        if values:
            self.mask = Mask(values | self.mask.values)


def _state(file: Path) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise SettingsError(f"secrets file {file} cannot be read: {error.strerror or error}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid


def _parse(content: bytes, file: Path) -> dict[str, str]:
    """Names and values; what is wrong is told without any value."""
    try:
        entries = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"secrets file {file} is not UTF-8 (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        where = str(error).rpartition("(")[2].rstrip(")")
        raise SettingsError(f'secrets file {file} is no TOML ({where}); write lines such as: name = "value"') from None
    except RecursionError:
        raise SettingsError(f'secrets file {file} is nested too deeply; write lines such as: name = "value"') from None
    for name, value in entries.items():
        problem = name_problem(name) or _problem(value)
        if problem is not None:
            raise SettingsError(f"secrets file {file}: {name[:64]!r} {problem}")
    return entries


def _problem(value: object) -> str | None:
    if not isinstance(value, str):
        return 'is no text; write: name = "value"'
    if "\0" in value:
        return "holds a NUL, which no environment variable may"
    size = len(value.encode())
    if not SHORTEST <= size <= LONGEST:
        return f"has {size} bytes; {SHORTEST} to {LONGEST} are possible, for it is looked for in all output"
    return None
