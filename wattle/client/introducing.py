"""How a client of a secured cluster makes itself known: the roster in its bundle may be newer than what those it talks to have.

They open their sessions anew then, which takes a moment; a client that is known already spends one question on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wattle.bus.base import Reply
from wattle.security.bundle import TAKEN, Bundle, signed_payload

PATIENCE = 10.0
"""Seconds for all of it."""

MOMENT, TIMEOUT = 0.2, 2.0
"""Seconds between questions, and for an answer."""


class Introduction:
    """``question`` is asked on the roster's key until what it ``taught`` is at work: those that learned from it answer again."""

    def __init__(self, bundle: Bundle, clock: Callable[[], float]) -> None:
        self.question = signed_payload(bundle.rosters[0])
        self._clock, self._until, self._taught = clock, clock() + PATIENCE, False

    def goes_on(self, replies: Sequence[Reply]) -> bool:
        """Whether to ask again in a moment."""
        answers = [reply.payload for reply in replies if reply.ok]
        if TAKEN in answers:
            self._taught = True
        elif answers or not self._taught:
            return False
        return self._clock() < self._until
