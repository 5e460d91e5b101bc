"""The threads that make those Zenoh calls which may have to wait for a link.

A query or an answer is sent with congestion control BLOCK: where the receiver is stopped or its link is slow, the call waits until
the link takes the message, or for two leases (four where the message is cut into fragments), after which Zenoh closes the link. Seen
on 1.10.2: one stopped peer and a query of 10 kB were enough for that. On the trio thread this would hold up everything; here it holds
up one outlet, and others serve on.

Who asked is not to be seen, so one asker that reads no more can hold up all outlets that answer what it asked for, one after the
other. Each queryable therefore has outlets of its own: who floods one with questions holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import monotonic

import trio

from wattle.logs import get_logger

OUTLETS = 4
"""Threads for small messages, and as many again for large ones."""

LARGE = 32_768
"""Bytes from which a message counts as large: file chunks on a slow link must not hold up commands."""

UNSENT = 64 << 20
"""Bytes of one queryable's answers that may wait to be sent: those to somebody who reads no more must not fill the memory."""

_OVERHEAD = 1024  # bytes that a job costs beside its payload, about

log = get_logger("wattle.bus")


class Outlet:
    """A thread that does jobs in the order of submission. ``submit`` may be called from one thread only."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], None], int] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._submitted = 0
        self._done = 0  # written by the outlet's thread alone, as the other one by the submitting thread
        self._bytes_in = 0
        self._bytes_out = 0

    @property
    def idle(self) -> bool:
        """Whether a job submitted now would be done at once."""
        return self._submitted == self._done

    @property
    def waiting(self) -> int:
        """Bytes that are not sent yet."""
        return self._bytes_in - self._bytes_out

    def submit(self, job: Callable[[], None], size: int = 0) -> None:
        """Have ``job``, which sends ``size`` bytes, done after those before."""
        if self._thread is None:  # a daemon, so that a link that is stuck cannot keep a process from ending
            self._thread = Thread(target=self._work, name="wattle-outlet", daemon=True)
            self._thread.start()
        self._submitted += 1
        self._bytes_in += size + _OVERHEAD
        self._jobs.put((job, size))

    def close(self) -> None:
        """End the thread once what was submitted is done."""
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, for at most ``timeout`` seconds; from any thread."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, size = task
            del task
            try:
                job()
            except Exception:
                log.exception("sending failed")
            del job  # what it holds has left
            self._bytes_out += size + _OVERHEAD
            self._done += 1


class Outlets:
    """The outlets of one queryable, or of all queries that a bus asks; used from the trio thread."""

    def __init__(self) -> None:
        self._small = [Outlet() for _ in range(OUTLETS)]
        self._large = [Outlet() for _ in range(OUTLETS)]
        self._turn = 0
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether so much waits to be sent that no more answers should."""
        return sum(outlet.waiting for outlet in (*self._small, *self._large)) > UNSENT

    def pick(self, size: int) -> Outlet:
        """The outlet for a message of ``size`` bytes: the first idle one, or each in turn while all are busy.

        Raises trio.ClosedResourceError once closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("this bus is closed")
        outlets = self._large if size >= LARGE else self._small
        for outlet in outlets:
            if outlet.idle:
                return outlet
        self._turn += 1
        return outlets[self._turn % OUTLETS]

    def close(self) -> None:
        """Accept nothing more; the threads end once what was submitted is done."""
        self._closed = True
        for outlet in (*self._small, *self._large):
            outlet.close()

    def join(self, timeout: float) -> None:
        """Wait for all threads, for at most ``timeout`` seconds; from any thread."""
        until = monotonic() + timeout
        for outlet in (*self._small, *self._large):
            outlet.join(max(0.0, until - monotonic()))
