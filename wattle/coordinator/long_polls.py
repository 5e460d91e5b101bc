"""Long polls: queries that wait for the end of a run, or until their time is over."""

from __future__ import annotations

from collections.abc import Callable

import trio

from wattle.bus.base import Query
from wattle.errors import Unavailable

MAX_WAITING = 5_000
"""Long polls kept at a time: half of the queries a bus keeps open, so that there is always room for others."""


class LongPolls:
    """See the module's docstring. ``answer`` is given those whose time is over, with their run."""

    def __init__(self, nursery: trio.Nursery, answer: Callable[[Query, str], None]) -> None:
        self._nursery, self._answer = nursery, answer
        self._waiting: dict[
            str, dict[Query, trio.CancelScope]
        ] = {}  # run -> long polls that end with it, and their ends
        self._waiting_count = 0

    def check_room(self) -> None:
        """Raise Unavailable when there are too many. Those that are let in together may all be added."""
        if self._waiting_count >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING} requests wait for runs already; ask again without wait", code="BUSY")

    def add(self, query: Query, run: str, wait: float) -> None:
        """Keep a query until its run has ended, or for so many seconds."""
        scope = self._waiting.setdefault(run, {})[query] = trio.CancelScope()
        self._waiting_count += 1
        self._nursery.start_soon(self._answer_after, wait, run, query, scope)

    async def _answer_after(self, wait: float, run: str, query: Query, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(wait)
        self._waiting_count -= 1
        waiting = self._waiting.get(run, {})
        if query not in waiting:
            return  # answered when the run became final
        del waiting[query]
        if not waiting:
            del self._waiting[run]
        self._answer(query, run)

    def end(self, run: str) -> list[Query]:
        """Let go of the queries that wait for a run; the caller answers them."""
        waiting = self._waiting.pop(run, {})
        for scope in waiting.values():
            scope.cancel()
        return list(waiting)
