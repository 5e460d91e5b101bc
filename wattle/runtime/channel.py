"""The socket between a runtime and its spawner: JSON objects, one a line. Standard library only: the spawner imports it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VERSION = 7
"""Of the messages; a spawner that still runs may be older than the runtime that finds it."""

LINE_MAX = 64 << 20
"""Bytes of the longest message that is accepted."""

BACKLOG_MAX = 64 << 20
"""Bytes that may wait for a runtime that does not read; beyond that the connection is dropped."""

_RECEIVE = 1 << 16
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps makes one for each message


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their ends; raises ValueError when a line is longer than LINE_MAX."""
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > LINE_MAX:
                raise ValueError(f"a message is longer than {LINE_MAX} bytes")
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return lines


def encode(message: dict[str, Any]) -> bytes:
    """One message as a line."""
    return _ENCODER.encode(message).encode() + b"\n"


class Connection:
    """The spawner's end, never blocking: what arrived and is no whole line yet, and what the other end has not read yet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.opened = False  # nothing is told before the runtime has said ``open``
        self.unsent = bytearray()
        self._lines = Lines()

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived; None when the other end is gone. Raises ValueError for what is no JSON object."""
        try:
            data = self.sock.recv(_RECEIVE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        messages = [json.loads(line.decode()) for line in self._lines.feed(data)]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("a message is no JSON object")
        return messages

    def tell(self, message: dict[str, Any]) -> None:
        """Add a message to what is to be sent."""
        self.unsent += encode(message)

    def send(self) -> bool:
        """Write what the socket takes now; False when the other end is gone or hopelessly behind."""
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            return len(self.unsent) <= BACKLOG_MAX
        except OSError:
            return False
        return True


@contextmanager
def address(path: str) -> Iterator[str]:
    """An address for the socket at ``path``, however long: an address has room for 107 bytes, so the folder goes by its descriptor."""
    folder, name = os.path.split(path)
    handle = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)


def listen(path: str) -> socket.socket:
    """Listen at ``path``, for this user only, in place of whatever socket an earlier process left there."""
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    with address(path) as bound:
        listener.bind(bound)
    os.umask(mask)
    listener.listen(16)
    listener.setblocking(False)
    return listener
