"""Which gateway answers: of those that see each other one at a time is on duty, and the others stand by.

Zenoh gives a query to one queryable of each *region* of the process that it enters the network by: the session itself, its clients,
the peers linked to it, the routers beyond it. With gateways in several of these a query would be carried out more than once (seen on
1.10.2: by one for each router of a chain), and one that submits without an id has nothing by which gateways could tell that it is the
same. So only the gateway on duty declares the queryable; liveliness tokens say who that is.

A gateway takes the duty where it sees nobody that has it, and gives it up where it sees one that precedes it: after a repair there may be
two for a moment. A pair that does not see each other may both be on duty, which does no harm: they are then in one region of whoever
sees both.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from wattle.bus.base import Bus, Declaration, Priority, Query
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.peer.anew import Anew
from wattle.peer.presence import Presence
from wattle.protocol.keys import Alive, Keys

TURN = 0.1
"""Seconds that each gateway that stands by gives the one before it to take the duty, which may see somebody on duty that it does not."""

MEETING = 1.0
"""Seconds that a gateway which starts waits for the others to answer, at most."""

log = get_logger("wattle.gateway")


class Duty:
    """One gateway's part in it; ``run`` is its life. ``serving`` says whether it is on duty."""

    def __init__(self, me: Alive, bus: Bus, keys: Keys, presence: Presence, asked: Callable[[Query], None]) -> None:
        self._me, self._bus, self._keys, self._presence, self._asked = me, bus, keys, presence, asked
        self._declared: list[Declaration] = []
        self._others: set[Alive] = set()  # on duty, as far as can be seen
        self._left: Alive | None = None  # who was on duty last: its liveliness token may not have gone yet
        self._changed = trio.Event()
        self._anew = Anew(self._declare_anew)

    @property
    def serving(self) -> bool:
        """Whether this gateway is on duty."""
        return bool(self._declared)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take the duty and give it up, until cancelled. Started as soon as somebody is on duty."""
        watch = self._bus.watch_alive(self._keys.duty(), self._token)
        try:
            await self._meet()
            while not (self.serving or self._others):
                await self._take()
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._anew.run)
                await self._follow()
        finally:
            self._give_up()
            watch.undeclare()

    async def _follow(self) -> None:
        while True:
            if not self._others and not self.serving:
                await self._take()
            elif self.serving and any(other < self._me for other in self._others):
                self._give_up()
            else:
                await self._next_change()

    async def _meet(self) -> None:
        """Ask the other gateways anything: with their answers, what they declared before is known as well."""
        await self._bus.get(self._keys.state("gateway"), timeout=MEETING, everyone=True, priority=Priority.CONTROL)

    async def _take(self) -> None:
        """Take the duty, unless somebody else does within the time that those before this gateway are given."""
        standing_by = (peer for peer in self._presence.newest("gateway") if peer != self._left)
        with trio.move_on_after(TURN * sum(peer < self._me for peer in standing_by)):
            await self._next_change()
        if self._changed.is_set():
            return
        self._declared = [
            self._bus.declare_alive(self._keys.duty(self._me.peer, self._me.incarnation)),
            self._bus.serve(self._keys.api(), self._asked),
        ]
        log.info("on duty", api=self._keys.api())

    def _give_up(self) -> None:
        """Answer nothing new; what was asked before is still answered."""
        if self.serving:
            for declaration in reversed(self._declared):
                declaration.undeclare()
            self._declared = []
            log.info("off duty", others=sorted(other.peer for other in self._others))

    def _declare_anew(self) -> None:
        """After somebody else was on duty as well (wattle/peer/anew.py). Who asks in between is answered by nobody, and asks again."""
        if self.serving:
            self._declared.pop().undeclare()
            self._declared.append(self._bus.serve(self._keys.api(), self._asked))

    async def _next_change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    def _token(self, key: str, alive: bool) -> None:
        try:
            peer = self._keys.parse_duty(key)
        except InvalidRequest as error:
            log.warning("token not understood", key=key[:200], problem=error.message)
            return
        if peer == self._me:
            return
        if alive:
            self._others.add(peer)
        elif peer in self._others:
            self._others.remove(peer)
            self._left = peer
            self._anew.needed()
        self._changed.set()
