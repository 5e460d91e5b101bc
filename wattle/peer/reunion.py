"""Peers that others still see, though this one does not, are linked with again.

A link that was made by gossip and is lost is not made again by Zenoh, as long as both its ends keep theirs to whoever could tell them of
each other (wattle/bus/introducer.py). So a peer that misses another asks some that it sees whether they see it. Where one of
them does, all are told of each other again. What nobody sees is gone: that costs a few questions, once.
"""

from __future__ import annotations

import math

import trio
from pydantic_core import to_json

from wattle.bus.base import Bus, Priority
from wattle.errors import InvalidRequest, Unavailable
from wattle.logs import get_logger
from wattle.peer.presence import Presence
from wattle.peer.probing import read_view
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.verbs import PROBE

SETTLE = 1.0
"""Seconds from the end of a peer's token until others are asked: of one that has died they know by then, mostly."""

MOST = 60.0
"""Seconds between two looks for one that is still apart, at most; they begin at SETTLE and double."""

ANSWER_WAIT = 3.0
"""Seconds that another peer has to say whom it sees."""

INTRODUCTION = 3.0
"""Seconds that those who are told of each other have to link."""

ASKED = 5
"""Peers that are asked, at most: coordinators first, whom everybody is linked with."""

REMEMBERED = 1000
"""Peers that are missed at a time, at most: as many as one question may name."""

log = get_logger("wattle.presence")


class Reunion:
    """Looks for the peers that one bus has lost; ``own`` are the names of those on it."""

    def __init__(self, bus: Bus, keys: Keys, own: set[str]) -> None:
        self._bus, self._keys, self._own = bus, keys, own
        self._missing: dict[tuple[str, str], None] = {}
        self._left = trio.Event()
        self._back = trio.Event()
        self._presence = Presence(bus, keys, self._changed)

    async def run(self) -> None:
        """Until cancelled."""
        due, pause = math.inf, SETTLE
        try:
            while True:
                with trio.move_on_at(due) as until_due:
                    await self._left.wait()
                self._left = trio.Event()
                if not until_due.cancelled_caught:
                    due, pause = min(due, trio.current_time() + SETTLE), SETTLE
                    continue
                await self._look()
                due = trio.current_time() + pause if self._missing else math.inf
                pause = min(2 * pause, MOST)
        finally:
            self._presence.close()

    def _changed(self, peer: Alive, alive: bool) -> None:
        who = (peer.role, peer.peer)
        if self._presence.incarnation(*who) is None:
            self._missing[who] = None
            if len(self._missing) > REMEMBERED:
                del self._missing[next(iter(self._missing))]
            self._left.set()
        elif who in self._missing:
            del self._missing[who]
            self._back.set()

    async def _look(self) -> None:
        seen, all_said = await self._ask_others()
        if all_said:
            self._missing = {who: None for who in self._missing if who in seen}
        apart = [f"{role} {name}" for role, name in self._missing if (role, name) in seen]
        if not apart:
            return
        log.warning("others see peers that are out of sight here: all are told of each other", peers=apart)
        try:
            async with self._bus.introducing():
                with trio.move_on_after(INTRODUCTION):
                    while self._missing:
                        self._back = trio.Event()
                        await self._back.wait()
        except Unavailable as error:
            log.warning("peers cannot be told of each other", reason=error.message)

    async def _ask_others(self) -> tuple[set[tuple[str, str]], bool]:
        """The peers that some others say they see, of those that are missing; and whether all that were asked have said so."""
        others = [peer for peer in self._presence.peers() if peer.peer not in self._own]
        others.sort(key=lambda peer: (peer.role != "coordinator", peer))
        question = to_json({"peers": list(self._missing), "ask": False})
        seen: set[tuple[str, str]] = set()
        said = []

        async def ask(name: str) -> None:
            replies = await self._bus.get(
                self._keys.cmd(name, PROBE), question, timeout=ANSWER_WAIT, first=True, priority=Priority.CONTROL
            )
            for reply in replies:
                try:
                    view = read_view(reply.payload) if reply.ok else None
                except InvalidRequest as error:
                    log.warning("not understood whom a peer sees", peer=name, reason=error.message)
                    continue
                if view is not None:
                    said.append(name)
                    seen.update((other["role"], other["name"]) for other in view["others"] if other["heard"])

        async with trio.open_nursery() as nursery:
            for peer in others[:ASKED]:
                nursery.start_soon(ask, peer.peer)
        return seen, bool(said) and len(said) >= len(others[:ASKED])
