"""The one loop of every agent: drain the mailbox, let the core think, commit, then act.

It batches by itself: under load a wake-up finds many events and pays for one commit; when idle an event is handled at once.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

E = TypeVar("E")

MAX_BATCH = 4096
"""Events handled in one transaction, at most: bounds how long one wake-up keeps the thread (about 0.1 s)."""


LINGER = 0.005
"""Seconds that an event which hardly anybody waits for may wait for company."""


def wall_clock() -> float:
    """Seconds since the epoch, in whole microseconds: times survive being written as RFC 3339 and read back."""
    return round(time.time(), 6)


class Loop(Generic[E]):
    """``post`` events from anywhere on the trio thread; ``step(events, now)`` handles a batch, commits and acts, without awaiting."""

    def __init__(
        self, step: Callable[[list[E], float], None], tick: Callable[[], E], clock: Callable[[], float]
    ) -> None:
        self._step, self._tick, self._clock = step, tick, clock
        self._mailbox: deque[E] = deque()
        self._due = math.inf  # when what is in the mailbox is to be handled, by trio's clock
        self._wake = trio.Event()
        self._sleep = trio.CancelScope()  # what ends the wait for an event by itself
        self._at: float | None = None
        self._stopping = False

    def post(self, event: E, *, within: float = 0.0) -> None:
        """Have an event handled after those before, ``within`` so many seconds: it may wait for company until then."""
        self._mailbox.append(event)
        due = trio.current_time() + within if within else -math.inf
        if due >= self._due:
            return
        self._due = due
        if within:
            self._sleep.deadline = min(self._sleep.deadline, due)
        else:
            self._wake.set()

    def set_timer(self, at: float | None) -> None:
        """Have a tick handled at a time of ``clock``; replaces what was set before."""
        self._at = at

    def stop(self) -> None:
        """End ``run`` after the batch at hand."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Handle events until stopped. What ``step`` raises ends the agent: its state in memory can no longer be trusted."""
        while not self._stopping:
            while (seconds := min(self._due - trio.current_time(), self._patience())) > 0 and not self._stopping:
                self._wake = trio.Event()
                with trio.move_on_after(seconds) as self._sleep:
                    await self._wake.wait()
            batch = [self._mailbox.popleft() for _ in range(min(len(self._mailbox), MAX_BATCH))]
            self._due = -math.inf if self._mailbox else math.inf
            if batch or self._patience() <= 0:
                now = self._clock()
                self._at = None
                self._step(batch or [self._tick()], now)
            await trio.lowlevel.checkpoint()

    def _patience(self) -> float:
        """Seconds until the timer."""
        return math.inf if self._at is None else max(0.0, self._at - self._clock())
