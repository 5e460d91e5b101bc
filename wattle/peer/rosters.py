"""Members of a secured cluster tell each other of newer rosters, and notice when their own bundle is replaced.

Zenoh takes access rules when a session is opened and never again (1.10.2), so what changes them has this peer open its session anew.

Two members compare: one asks on ``wattle/<ns>/roster`` with its signed roster; who has a newer one answers with that, who has an older one
takes it. Any certificate of the cluster may take part, for a member that others do not know yet has to be able to introduce itself:
by a roster with its name on it. A question without a genuine roster of the namespace gets no answer, so that other namespaces learn
nothing here. A new member's first questions thus teach those it is linked to, which open their sessions anew and teach the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from wattle.bus.base import Bus, Query
from wattle.logs import get_logger
from wattle.protocol.keys import Keys
from wattle.security.bundle import KNOWN, TAKEN, Signed, read_signed, signed_payload
from wattle.security.membership import Membership, is_genuine, learn

FIRST, LONGEST = 0.5, 30.0
"""Seconds until the question is asked again: first, and at most."""

TIMEOUT = 2.0
LOOK = 2.0
"""Seconds between looks at the bundle's file."""

log = get_logger("wattle.rosters")


class Rosters:
    """A member's part in it. ``learned`` is called with each membership that is newer, on the trio thread."""

    def __init__(self, bus: Bus, membership: Membership, learned: Callable[[Membership], None]) -> None:
        self._bus, self.membership, self._learned = bus, membership, learned

    async def run(self) -> None:
        """Answer and ask until cancelled."""
        keys = [Keys(roster.namespace) for roster in self.membership.rosters]
        served = [self._bus.serve(key.roster, partial(self._answer, place)) for place, key in enumerate(keys)]
        pause = FIRST
        try:
            while True:
                for place, key in enumerate(keys):
                    await self._ask(place, key)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST)
        finally:
            for declaration in served:
                declaration.undeclare()

    async def _ask(self, place: int, keys: Keys) -> None:
        mine = signed_payload(self.membership.signed[place])
        for reply in await self._bus.get(keys.roster, mine, timeout=TIMEOUT, everyone=True):
            if reply.ok:
                self._take(read_signed(reply.payload))

    def _answer(self, place: int, query: Query) -> None:
        """Teach who asks, or be taught."""
        asked = read_signed(query.payload)
        mine = self.membership.signed[place]
        if asked is not None:
            answer = self._answered(asked, mine)
            if answer is not None:
                query.reply(answer)
        query.finish()

    def _answered(self, asked: Signed, mine: Signed) -> bytes | None:
        if asked == mine:
            return KNOWN
        if self._take(asked):
            return TAKEN
        return signed_payload(mine) if is_genuine(self.membership, asked) else None

    def _take(self, signed: Signed | None) -> bool:
        """Learn a roster, if it is newer."""
        newer = None if signed is None else learn(self.membership, signed)
        if newer is None:
            return False
        self.membership = newer
        log.info("newer roster", versions=[roster.version for roster in newer.rosters])
        self._learned(newer)
        return True


async def watch_file(path: Path, changed: Callable[[], None]) -> None:
    """Call ``changed`` whenever another file is in the place of this one, or its content was written anew."""
    before = _stamp(path)
    while True:
        await trio.sleep(LOOK)
        now = _stamp(path)
        if now is not None and now != before:
            before = now
            changed()


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
