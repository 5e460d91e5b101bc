"""Files that hold something secret: read only where nobody else can have read or written them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from wattle.errors import SettingsError

MOST_BYTES = 1 << 20
"""Bytes of a private file, at most."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: Path, what: str) -> bytes:
    """The content of a file that is this user's or root's, and that nobody else may read or write; raises SettingsError."""
    try:
        # Not to wait for the other end of a pipe; what is checked is the very file that is read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            problem = _problem(path, os.fstat(descriptor))
            if problem is not None:
                raise SettingsError(f"{what} {path} {problem}")
            return file.read(MOST_BYTES + 1)[:MOST_BYTES]
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read: {error.strerror or error}") from None


def write_private(path: Path, content: bytes, what: str) -> None:
    """Make a file that only this user may read; raises SettingsError where there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError:
        raise SettingsError(f"{what} {path} is there already; choose another name, or remove it first") from None
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be written: {error.strerror or error}") from None


def replace_private(path: Path, text: str) -> None:
    """Put a file in place, or in the place of another, whole or not at all; only this user may read it from its first byte on."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_private(aside, text.encode(), "private file")
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SettingsError(f"private file {path} cannot be written: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def _problem(path: Path, found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file"
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}; it must be yours (user {os.geteuid()}) or root's"
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"may be used by others (mode {mode:04o}); run: chmod 600 {path}"
    if found.st_size > MOST_BYTES:
        return f"has {found.st_size} bytes; at most {MOST_BYTES} are read"
    return None
