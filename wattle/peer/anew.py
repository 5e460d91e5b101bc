"""What several peers serve under one key, told anew when one of them has gone.

Seen on Zenoh 1.10.2: two clients of two routers serve one key expression, and one of them stops. The other one's router goes on sending
it queries, but does not tell a router that joins (or restarts) later of it, whose clients then get no answer. So whoever shares a key
tells of it anew once another has gone. Subscribers and tokens are not affected.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from wattle.bus.base import Bus, Query

SETTLE = 1.0
"""Seconds between the end of another's token and the end of what it served, at most."""


class Anew:
    """Calls ``tell`` some time after ``needed``, once for all that came meanwhile."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._needed = trio.Event()

    def needed(self) -> None:
        """Another peer that served the same has gone."""
        self._needed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._needed.wait()
            await trio.sleep(SETTLE)
            self._needed = trio.Event()
            self._tell()


def tell_anew(bus: Bus, key: str) -> None:
    """Have the network hear again of a queryable for ``key`` that is not complete, and that goes on answering meanwhile.

    A complete one beside it, for a moment, changes what routers tell each other, and so has them tell it.
    """
    bus.serve(key, _leave_to_the_other).undeclare()


def _leave_to_the_other(query: Query) -> None:
    query.finish()
