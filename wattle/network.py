"""The embedded network: found, started and stopped by ``wattle run``; one child process on the data folder, forked (wattle/forked.py).

Who uses an embedded network *holds* it: the process that started it by the child's stdin, any later ``wattle run``
by a connection to ``hold.sock`` in the data folder. The kernel ends either when its process ends, in whatever way. When the last
hold is gone the child stops, and all tasks with it. So no run pulls the network from under another, and nothing outlives its user.

At most one network is on a data folder: ``up.lock`` is locked from before the child starts until it is gone (the lock is
handed on with its descriptor). A network that a person started with ``wattle up`` has no ``hold.sock`` and is left alone; where it
does not listen on the folder's socket, ``up.lock`` holds the endpoints it does listen on.

The process is given by the command line (wattle/cli/embedded.py), which may have forked it before it knew that there would be need for one.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from wattle.errors import InternalError, StoreError, Unavailable, error_from_dict
from wattle.forked import Forked
from wattle.settings import ClientSettings
from wattle.settings.values import SOCKET_NAME, socket_endpoint

HOLD_NAME = "hold.sock"
LOCK_NAME = "up.lock"
LOG_NAME = "wattle.log"
HELD = b"+"  # what the child greets a holder with: from then on it stays
KEPT = "kept"  # what it says to its parent when others still hold it

START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
_LOG_MAX = 10 << 20
_GREETING_TIMEOUT = 5.0


Fork = Callable[[], Forked]
"""Gives a process that serves a data folder until nobody holds it, once it is told which (``Child``) and handed the folder's lock."""


class Network:
    """The network that a command uses, as a context manager; leaving it gives up the hold, or stops what it started.

    Made by ``find_network``. A child that is starting is waited for by ``ready``, so that the caller can do other things first.
    """

    def __init__(
        self, endpoints: tuple[str, ...], child: Child | None = None, hold: socket.socket | None = None
    ) -> None:
        self.endpoints = endpoints
        self._child = child
        self._hold = hold

    @property
    def joined(self) -> bool:
        """Whether it is an embedded network that another process started, perhaps one at rest."""
        return self._hold is not None

    @property
    def embedded(self) -> bool:
        """Whether the network ends with those who use it."""
        return self._child is not None or self._hold is not None

    def ready(self) -> tuple[str, ...]:
        """Where to connect to, once somebody listens there; raises what kept the embedded network from starting."""
        if self._child is not None:
            self._child.wait_ready(START_TIMEOUT)
        return self.endpoints

    def close(self) -> None:
        """Let go of the network; waits for the child's end, unless others hold it still."""
        if self._hold is not None:
            self._hold.close()
        if self._child is not None:
            self._child.stop(STOP_TIMEOUT)

    def abandon(self) -> None:
        """Let go without waiting: the child kills everything by itself."""
        if self._child is not None:
            self._child.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_network(settings: ClientSettings, fork: Fork) -> Network:
    """The endpoints that were named, else the network on the data folder, else an embedded one, just started."""
    if settings.connect:
        return Network(settings.connect)
    data, endpoints = settings.data, (socket_endpoint(settings.data),)
    make_folder(data)
    ends = time.monotonic() + START_TIMEOUT
    while time.monotonic() < ends:
        if _listening(data / SOCKET_NAME):
            if not (data / HOLD_NAME).exists():
                return Network(endpoints)
            hold = _hold(data / HOLD_NAME)
            if hold is not None:
                return Network(endpoints, hold=hold)
        elif (lock := take_lock(data)) is not None:
            with lock:
                return Network(endpoints, child=Child(data, settings.namespace, lock.fileno(), fork()))
        elif elsewhere := (data / LOCK_NAME).read_text(errors="replace").split():
            raise Unavailable(
                f"the network on {data} does not listen on its {SOCKET_NAME} but on {' and '.join(elsewhere)}:"
                f" give --connect {elsewhere[0]}, or set WATTLE_CONNECT",
                code="NO_NETWORK",
            )
        time.sleep(0.05)  # another one is starting or ending there
    raise Unavailable(
        f"another wattle process has {data} locked and does not listen on its {SOCKET_NAME}: where it was given --listen, name that with"
        f" --connect; else see its log ({data / LOG_NAME}, if wattle run started it)",
        code="NO_NETWORK",
    )


def find_network_to_read(settings: ClientSettings, fork: Fork) -> Network:
    """The same for commands that only look: on a folder with a history and no network, one *at rest*, which starts no tasks.

    Elsewhere nothing is started: connecting then says that nobody is there.
    """
    data = settings.data
    if settings.connect or _listening(data / SOCKET_NAME) or not (data / "coordinator.db").exists():
        return Network(settings.connect or (socket_endpoint(data),))
    lock = take_lock(data)
    if lock is None:
        return find_network(settings, fork)  # somebody is starting one, or ending
    with lock:
        return Network(
            (socket_endpoint(data),), child=Child(data, settings.namespace, lock.fileno(), fork(), at_rest=True)
        )


def make_folder(data: Path) -> None:
    """Make a data folder that may not be there yet; raises StoreError where that cannot be."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the data folder {data}: {error.strerror}; choose another with --data") from None


def _listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _hold(path: Path) -> socket.socket | None:
    """A hold on an embedded network, or None when it is ending."""
    hold = socket.socket(socket.AF_UNIX)
    hold.settimeout(_GREETING_TIMEOUT)
    try:
        hold.connect(str(path))
        if hold.recv(1) == HELD:
            return hold
    except OSError:
        pass
    hold.close()
    return None


def take_lock(data: Path) -> BinaryIO | None:
    """The lock that says whose network the data folder is, held while the file is open (in a child too); None when taken."""
    try:
        lock = (data / LOCK_NAME).open("ab")
    except OSError as error:
        raise StoreError(f"cannot use the data folder {data}: {error.strerror}; choose another with --data") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.truncate(0)  # what the last one noted there
    return lock


def note_endpoints(lock: BinaryIO, endpoints: Sequence[str]) -> None:
    """For who looks for this network by its folder: where it listens, should that not be the folder's socket."""
    with suppress(OSError):  # a full disk: they are told less
        # Not by the file's buffer, which would fail once more as it is closed.
        os.write(lock.fileno(), "\n".join(endpoints).encode())


class Child:
    """The network as a child process, which is told at once what to serve."""

    def __init__(self, data: Path, namespace: str, lock: int, process: Forked, *, at_rest: bool = False) -> None:
        self._log = data / LOG_NAME
        self._process = process
        self._ready = False
        self._held = True
        self._unread = b""
        with self._open_log() as log:
            self._log_start = log.tell()
            process.tell({"data": str(data), "namespace": namespace, "at_rest": at_rest}, log.fileno(), lock)

    def _open_log(self) -> BinaryIO:
        if self._log.exists() and self._log.stat().st_size > _LOG_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))
        return self._log.open("ab")

    def wait_ready(self, timeout: float) -> None:
        """Wait for the child's first line; raises the error it tells, or says what its log ends with."""
        if self._ready:
            return
        line = self._line(timeout)
        word, _, rest = (line or "").partition(" ")
        if word == "ready":
            self._ready = True
        elif word == "error":
            error = error_from_dict(json.loads(rest))
            if (
                error.code == "STORE_IN_USE"
            ):  # by an agent that was not found by its socket: the client of a router has none
                raise Unavailable(
                    f"an agent runs on {self._log.parent} and does not listen on its {SOCKET_NAME}: name an endpoint of its network with"
                    " --connect, or a client's bundle with --bundle; or choose another folder with --data",
                    code="NO_NETWORK",
                )
            raise error
        else:
            what = "ended" if line is not None else f"was not ready after {timeout:g} s"
            raise Unavailable(f"the embedded network {what}; {self._last_words()}", code="NO_NETWORK")

    def stop(self, timeout: float) -> None:
        """Give up the hold and wait for the end; a child that others hold is left to them, one that does not end is killed."""
        self.let_go()
        ends = time.monotonic() + timeout
        while line := self._line(max(0.0, ends - time.monotonic())):
            if line == KEPT:
                return
        if not self._process.ended(max(0.0, ends - time.monotonic())):
            self._process.kill()
            raise InternalError(f"the embedded network did not stop within {timeout:g} s and was killed")

    def let_go(self) -> None:
        """Give up the hold."""
        if self._held:
            self._held = False
            self._process.link.shutdown(socket.SHUT_WR)

    def _line(self, timeout: float) -> str | None:
        """The next line without its end; "" at the end of the output, None after ``timeout``."""
        link = self._process.link
        ends = time.monotonic() + timeout
        while b"\n" not in self._unread:
            readable, _, _ = select.select([link], [], [], max(0.0, ends - time.monotonic()))
            if not readable:
                return None
            try:
                data = link.recv(65536)
            except ConnectionResetError:  # it ended before it heard what it was told
                data = b""
            if not data:
                return ""
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read(1 << 20).decode(errors="replace").splitlines()
        said = "".join(f"\n  {line}" for line in lines[-5:]) or " (it says nothing)"
        return f"its log is {self._log}:{said}"
