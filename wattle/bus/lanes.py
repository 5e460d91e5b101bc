"""The one bridge from other threads to trio: a lane per handler, filled from anywhere and emptied on the trio thread.

Filling a lane appends to a deque and wakes trio once per batch; nothing else happens on the threads of the network. Emptying
calls the handler in the order of arrival, a bounded number of times per tick, so that other tasks get their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar
from weakref import WeakSet, finalize

import trio

from wattle.bus.base import Sample
from wattle.bus.queries import OpenQuery
from wattle.logs import get_logger

SAMPLES = 100_000
"""How many undelivered samples a subscription keeps."""

QUERIES = 10_000
"""How many unfinished queries a queryable accepts."""

WAITING_BYTES = 128 << 20
"""Bytes that one lane keeps, payloads and attachments, at most: of undelivered samples, of queries that somebody holds. One alone may be
larger."""

COUNTED = 4096
"""Bytes from which a payload is counted: smaller ones are bounded by their number."""

CHANGES = 10_000
"""How many undelivered changes a watcher keeps before only the latest word on each thing remains."""

PER_TICK = 200  # items handled before other tasks run; at 10 us each, 2 ms

T = TypeVar("T")
log = get_logger("wattle.bus")


class Budget:
    """Bytes that may be held at a time; whatever holds some gives them back by being let go of. From any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._back: deque[int] = deque()  # a finalizer may run anywhere, also below the lock: it only appends
        self._lock = Lock()

    def take(self, holder: object, size: int) -> bool:
        """Count ``size`` bytes for as long as ``holder`` lives; False where there is no room beside what others hold."""
        with self._lock:
            while self._back:
                self._held -= self._back.popleft()
            if self._held and self._held + size > self._most:
                return False
            self._held += size
        finalize(holder, self._back.append, size).atexit = False
        return True


class _Large(Generic[T]):
    """A sample that counts."""

    __slots__ = ("__weakref__", "raw")

    def __init__(self, raw: T) -> None:
        self.raw = raw


class Lane(Generic[T]):
    """What waits for one handler. ``push`` may be called from any thread, the rest from the trio thread."""

    def __init__(self, key: str, handle: Callable[[T], None], token: trio.lowlevel.TrioToken) -> None:
        self.items: deque[T] = deque()
        self._key = key
        self._handle = handle
        self._token = token
        self._closed = False
        self._awake = False  # whether a drain is due: set before trio is told, cleared before the deque is emptied

    def push(self, item: T) -> None:
        """Add an item behind all others."""
        self.items.append(item)
        if not self._awake:
            self._wake()

    def close(self) -> None:
        """Deliver nothing any more."""
        self._closed = True
        self.items.clear()

    def step(self) -> None:
        """Hand over the oldest item; there is one. A handler that raises has a bug, which must stop no other call."""
        item = self.items.popleft()
        try:
            self._handle(item)
        except Exception:
            log.exception("a handler raised", key=self._key)
            self.failed(item)

    def failed(self, item: T) -> None:
        """What else to do about an item whose handler raised."""

    def _wake(self) -> None:
        self._awake = True
        try:
            self._token.run_sync_soon(self._drain, idempotent=True)
        except trio.RunFinishedError:  # the loop has ended and nobody closed the bus
            self.close()

    def _drain(self) -> None:
        self._awake = False
        for _ in range(PER_TICK):
            if self._closed:
                self.close()  # once more, for what was pushed meanwhile
            if not self.items:
                return
            self.step()
        self._wake()


class SampleLane(Lane[T | _Large[T]], Generic[T]):
    """A subscription's backlog: samples in any form that ``read(raw, gap)`` turns into a Sample; ``size(raw)`` is what it brings.

    Full, it loses its oldest sample for each new one and says so with the next that it delivers. A large one for which there is no
    room beside other large ones is lost itself.
    """

    def __init__(
        self,
        key: str,
        handler: Callable[[Sample], None],
        token: trio.lowlevel.TrioToken,
        *,
        read: Callable[[T, bool], Sample],
        bound: int,
        size: Callable[[T], int],
        most: int = WAITING_BYTES,
    ) -> None:
        super().__init__(key, lambda item: handler(read(_raw(item), self._marked or self._gap)), token)
        self.items = deque(maxlen=bound)
        self._bound = bound
        self._size = size
        self._budget = Budget(most)
        self._gap = False  # something was dropped since the last sample was handed over
        self._marked = False  # the mark as it was before the sample that is being handed over was taken

    def push(self, item: T | _Large[T]) -> None:
        """Add a sample behind all others, in the place of the oldest where there is no room."""
        raw = _raw(item)
        size = self._size(raw)
        if size >= COUNTED:
            item = _Large(raw)
            if not self._budget.take(item, size):
                self._gap = True
                return
        if len(self.items) == self._bound:
            self._gap = True
        super().push(item)

    def step(self) -> None:
        """Hand over the oldest sample."""
        # A push on another thread sets the mark before it drops. Cleared only where it was seen and read again after the sample
        # is taken, the mark may stand once too often but is never missing.
        self._marked = self._gap
        if self._marked:
            self._gap = False
        super().step()


def _raw(item: T | _Large[T]) -> T:
    return item.raw if isinstance(item, _Large) else item


class QueryLane(Lane[OpenQuery]):
    """A queryable's backlog; counts every query until it is finished, its bytes until it is let go of, and turns away what is too much."""

    def __init__(
        self,
        key: str,
        handler: Callable[[OpenQuery], None],
        token: trio.lowlevel.TrioToken,
        *,
        bound: int,
        most: int = WAITING_BYTES,
    ) -> None:
        super().__init__(key, handler, token)
        self._budget = Budget(most)
        self.open: WeakSet[OpenQuery] = WeakSet()  # weak, so that one forgotten unfinished takes no place for ever
        self._bound = bound

    def push(self, item: OpenQuery) -> None:
        """Add a query behind all others, or answer BUSY."""
        size = len(item.payload or b"") + len(item.attachment or b"")
        if len(self.open) >= self._bound or (size >= COUNTED and not self._budget.take(item, size)):
            item.refuse()
            return
        self.open.add(item)
        item.on_finish = self.open.discard
        super().push(item)

    def close(self) -> None:
        """Finish what was not delivered; what was may still be answered."""
        self._closed = True
        while self.items:  # one by one: others may come meanwhile, from another thread
            self.items.popleft().finish()

    def failed(self, item: OpenQuery) -> None:
        """Leave nobody waiting for an answer that will not come."""
        item.fail()


class ChangeLane(Lane[tuple[str, bool]]):
    """A backlog of things that come and go; too long, it keeps only the latest word on each of them."""

    def __init__(
        self,
        key: str,
        handler: Callable[[str, bool], None],
        token: trio.lowlevel.TrioToken,
        *,
        bound: int = CHANGES,
    ) -> None:
        super().__init__(key, lambda change: handler(*change), token)
        self._bound = bound

    def push(self, item: tuple[str, bool]) -> None:
        """Add a change behind all others."""
        if len(self.items) >= self._bound:
            latest = dict(self.items)
            self.items.clear()
            self.items.extend(latest.items())
        super().push(item)
