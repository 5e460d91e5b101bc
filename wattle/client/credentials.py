"""What a client says who it is with: a token, sent with each public request in its attachment, ``{"token": "..."}``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from wattle.errors import SettingsError
from wattle.security.private import read_private
from wattle.settings import ClientSettings

_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
_MOST = 8192  # characters of a token


class Credentials:
    """The token of ``token`` or ``token_file``, if there is one; the file is read again when it has changed."""

    def __init__(self, settings: ClientSettings) -> None:
        self._file = None if settings.token else settings.token_file
        self._attachment = _attachment(settings.token, "WATTLE_TOKEN") if settings.token else None
        self._seen: tuple[int, ...] = ()

    def attachment(self) -> bytes | None:
        """What goes with a request; raises SettingsError for a file that is not there, or not this user's alone."""
        if self._file is not None:
            seen = _state(self._file)
            if seen != self._seen:
                text = read_private(self._file, "token file").decode(errors="replace")
                self._attachment = _attachment(text, f"token file {self._file}")
                self._seen = seen
        return self._attachment


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise SettingsError(f"token file {path} cannot be read: {error.strerror or error}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid


def _attachment(text: str, source: str) -> bytes:
    token = text.strip()
    if _TOKEN.fullmatch(token) is None or len(token) > _MOST:
        raise SettingsError(f"{source} holds no token; wattle token issue makes one")
    return json.dumps({"token": token}).encode()
