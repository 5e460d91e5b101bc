"""How long runs are kept: final ones of one's own are removed when their time is over, or when somebody asks for it.

A removal is a commit like any other: the followers drop their copies with it. Once it is on as many stores as an acknowledgement needs, the
nodes in sight are told to remove what they have of the runs; those that are away ask when they are back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from wattle.bus.base import Bus, Query
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore
from wattle.core.events import CoordinatorEvent
from wattle.core.model import RunHead
from wattle.errors import Conflict, InvalidRequest, Unavailable
from wattle.logs import get_logger
from wattle.names import check_name
from wattle.peer.loop import wall_clock
from wattle.protocol.keys import Keys
from wattle.protocol.messages import Discard, PrunedQuestion, decode, encode
from wattle.store.coordinator import CoordinatorStore
from wattle.store.copies import PRUNED_REMEMBERED

AT_ONCE = 100
"""Runs that one commit removes, at most."""

PER_REQUEST = 1000
"""Runs that one request removes, at most; the answer says whether there are more."""

LOOK_MOST, LOOK_LEAST = 60.0, 0.1
"""Seconds between looks for runs whose time is over: a tenth of ``retention`` within these bounds."""

log = get_logger("wattle.coordinator")


class Retention:
    """See the module's docstring. ``retention`` in seconds, 0: for ever. ``pruning`` are the runs that are being removed."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        core: CoordinatorCore,
        store: CoordinatorStore,
        nursery: trio.Nursery,
        post: Callable[[CoordinatorEvent, Callable[[], None]], None],
        *,
        retention: float,
        timeout: float,
    ) -> None:
        self._bus, self._keys, self._core, self._store, self._nursery = bus, keys, core, store, nursery
        self._post, self._retention, self._timeout = post, retention, timeout
        self.pruning: set[str] = set()

    async def run(self) -> None:
        """Remove what has been kept long enough, and in time the memory of it, until cancelled."""
        look = min(max(self._retention / 10, LOOK_LEAST), LOOK_MOST) if self._retention else LOOK_MOST
        while True:
            await trio.sleep(look)
            self._trim()
            while self._retention:
                heads = self._old(wall_clock() - self._retention, AT_ONCE)
                pruned = await self.prune(heads)
                if pruned:
                    log.info("runs pruned", count=len(pruned), oldest=pruned[0])
                if len(pruned) < AT_ONCE:
                    break

    def _trim(self) -> None:
        before = wall_clock() - PRUNED_REMEMBERED
        with self._store.transaction():
            self._store.forgotten.trim(before)
            self._store.copies.trim(before)

    def _old(self, before: float, limit: int) -> list[RunHead]:
        found = self._store.forgotten.prunable(before, self._core.settled, limit + len(self.pruning))
        return [head for head in found if head.run not in self.pruning][:limit]

    async def prune(self, heads: Sequence[RunHead]) -> list[str]:
        """Remove final runs of one's own; gives those that are removed, here and on as many stores as an acknowledgement needs."""
        if not heads:
            return []
        runs = [head.run for head in heads]
        self.pruning.update(runs)
        settled = trio.Event()
        try:
            self._post(on.Prune(tuple(heads)), settled.set)
            await settled.wait()
        finally:
            self.pruning.difference_update(runs)
        gone = [head for head in map(self._store.forgotten.pruned, runs) if head is not None]
        if gone:
            self._nursery.start_soon(self._tell, Discard(tuple(gone)))
        return [head.run for head in gone]

    async def _tell(self, order: Discard) -> None:
        key = self._keys.cmd("*", "discard")
        await self._bus.get(key, encode(order), timeout=self._timeout, everyone=True)  # who misses it asks later

    # --- requests -----------------------------------------------------------------------------------------------------

    def answer(self, query: Query) -> bytes | None:
        """Which of the runs that a node asks about are pruned."""
        heads = [self._store.forgotten.pruned(run) for run in decode(PrunedQuestion, query.payload).runs]
        found = tuple(head for head in heads if head is not None)
        return encode(Discard(found)) if found else None

    async def asked(self, args: dict[str, Any]) -> Any:
        """``{"runs": [...]}`` or ``{"older_than": seconds}``: remove runs now. With ``check`` it is only said which ones are here.

        Raises Conflict for a run that is not final, before anything is removed.
        """
        if args.get("runs") is None:
            heads = self._old(wall_clock() - _seconds(args.get("older_than")), PER_REQUEST)
        else:
            found = [self._checked(run) for run in _names(args["runs"])]
            heads = [head for head in found if head is not None]
        if args.get("check"):
            return {"runs": [head.run for head in heads]}
        pruned: list[str] = []
        for start in range(0, len(heads), AT_ONCE):
            pruned += await self.prune(heads[start : start + AT_ONCE])
        if pruned:
            log.info("runs pruned on request", count=len(pruned), first=pruned[0])
        return {"runs": pruned, "more": args.get("runs") is None and len(heads) == PER_REQUEST}

    def _checked(self, run: str) -> RunHead | None:
        row = self._store.run(run)
        if row is None or row.owner != self._store.owner:
            return None
        head = self._store.owned.head(run)
        if head is None or not head.final:
            raise Conflict(
                f"run {run!r} is {row.status}: it can be pruned once it has ended; wattle cancel {run} ends it",
                code="RUN_NOT_FINAL",
            )
        if row.number > self._core.settled or run in self.pruning:
            raise Unavailable(
                f"run {run!r} has just changed, and that is not on other stores yet; ask again", code="BUSY"
            )
        return head


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not value or len(value) > PER_REQUEST:
        raise InvalidRequest(f"'runs' must be a list of 1 to {PER_REQUEST} run ids")
    return sorted({check_name(run, "run") for run in value})


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise InvalidRequest("'older_than' must be a number of seconds, 0 or more")
    return float(value)
