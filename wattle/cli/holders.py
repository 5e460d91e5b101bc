"""The child's side of an embedded network (wattle/network.py): counts who holds it, and stops when nobody does."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path

from wattle.network import HELD, HOLD_NAME, KEPT

STOP_DEADLINE = 5.0
"""Seconds that the agents get to stop in order; then this process ends, and the kernel and the spawner end the rest."""

_STDIN = 0


class Holders:
    """Holds on this process: its stdin, and connections to ``hold.sock``. A thread of its own waits for their ends."""

    def __init__(self, data: Path) -> None:
        path = data / HOLD_NAME
        path.unlink(missing_ok=True)  # left by one that was killed: the caller has the lock, so nobody listens there
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(_STDIN, selectors.EVENT_READ)
        self._held: dict[int, socket.socket | None] = {_STDIN: None}

    def start(self) -> None:
        """Begin to wait; once the last hold is gone this process is asked to stop as by SIGTERM, and made to a while later."""
        threading.Thread(target=self._wait_and_stop, name="holders", daemon=True).start()

    def _wait_and_stop(self) -> None:
        self.wait()
        main = threading.main_thread().ident
        assert main is not None
        # To the main thread by name: newer kernels give a signal to the thread that sent it, and then nothing wakes the main one.
        signal.pthread_kill(main, signal.SIGTERM)
        threading.Event().wait(STOP_DEADLINE)
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(self) -> None:
        """Returns when nobody holds this process any more, and nobody new can."""
        while self._held:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._heard(key.fd)
            if not self._held:
                self._accept()  # one who connected just now was in time
        # The file stays: whoever finds it and is refused knows that this network is ending, and waits for the lock.
        self._listener.close()

    def _accept(self) -> None:
        try:
            holder, _ = self._listener.accept()
            holder.setblocking(False)
            holder.send(HELD)
        except OSError:
            return
        self._held[holder.fileno()] = holder
        self._selector.register(holder, selectors.EVENT_READ)

    def _heard(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            return
        self._selector.unregister(descriptor)
        holder = self._held.pop(descriptor)
        if holder is not None:
            holder.close()
        if descriptor == _STDIN and self._held:
            say(KEPT)


def say(line: str) -> None:
    """A line to the parent, which may be gone."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        # What is left in the buffer would be tried again, and complained about, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
