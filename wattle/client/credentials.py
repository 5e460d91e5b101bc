"""What a client says of itself with each public request, in its attachment: ``{"token": "...", "session": "..."}``.

The token says who asks, and gateways check it. The session is the client's own in Zenoh, which by itself tells nobody who asks; it is
for the audit, and nothing depends on it.
"""

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
        self._token = _checked(settings.token, "WATTLE_TOKEN") if settings.token else None
        self._seen: tuple[int, ...] = ()

    def attachment(self, session: str) -> bytes:
        """What goes with a request of this session; raises SettingsError for a file that is not there, or not this user's alone."""
        if self._file is not None:
            seen = _state(self._file)
            if seen != self._seen:
                text = read_private(self._file, "token file").decode(errors="replace")
                self._token = _checked(text, f"token file {self._file}")
                self._seen = seen
        token = {} if self._token is None else {"token": self._token}
        return json.dumps(token | {"session": session}).encode()


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise SettingsError(f"token file {path} cannot be read: {error.strerror or error}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid


def _checked(text: str, source: str) -> str:
    token = text.strip()
    if _TOKEN.fullmatch(token) is None or len(token) > _MOST:
        raise SettingsError(f"{source} holds no token; wattle token issue makes one")
    return token
