"""Who is in sight: liveliness tokens, said and seen."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import trio

from wattle.bus.base import Bus, Declaration, Priority
from wattle.errors import Conflict, InvalidRequest, Unavailable
from wattle.logs import get_logger
from wattle.protocol.keys import Alive, Keys

log = get_logger("wattle.presence")


def new_incarnation() -> str:
    """An identity for one life of one process."""
    return uuid.uuid4().hex[:12]


class Presence:
    """The peers in sight, by (role, name), each with the incarnation seen last. ``changed`` hears of every coming and going."""

    def __init__(self, bus: Bus, keys: Keys, changed: Callable[[Alive, bool], None] | None = None) -> None:
        self._keys = keys
        self._changed = changed
        self._seen: dict[tuple[str, str], dict[str, None]] = {}
        self._watched: dict[trio.CancelScope, Collection[Alive]] = {}
        self._declaration: Declaration = bus.watch_alive(keys.alive(), self._token)

    def _token(self, key: str, alive: bool) -> None:
        try:
            peer = self._keys.parse_alive(key)
        except InvalidRequest as error:
            log.warning("token not understood", key=key[:200], problem=error.message)
            return
        lives = self._seen.setdefault((peer.role, peer.peer), {})
        if alive:
            lives[peer.incarnation] = None
        elif lives.pop(peer.incarnation, peer) is peer:
            return  # was not there
        if not lives:
            del self._seen[peer.role, peer.peer]
        if not alive:
            for scope in [scope for scope, watched in self._watched.items() if peer in watched]:
                scope.cancel()
        if self._changed is not None:
            self._changed(peer, alive)

    def names(self, role: str) -> list[str]:
        """Peers of a role in sight, sorted."""
        return sorted(name for r, name in self._seen if r == role)

    def peers(self) -> list[Alive]:
        """Everyone in sight, sorted."""
        return sorted(Alive(role, name, life) for (role, name), lives in self._seen.items() for life in lives)

    def incarnation(self, role: str, name: str) -> str | None:
        """The newest life of a peer that is in sight."""
        lives = self._seen.get((role, name))
        return next(reversed(lives)) if lives else None

    def newest(self, role: str, name: str | None = None) -> list[Alive]:
        """The newest life of each peer of a role in sight, or of the one so named."""
        return [
            Alive(role, peer, next(reversed(lives)))
            for (r, peer), lives in self._seen.items()
            if r == role and name in (None, peer)
        ]

    @contextmanager
    def while_in_sight(self, peers: Collection[Alive]) -> Iterator[None]:
        """Do something with peers that are in sight: it is cancelled, and the block left, when one of them goes.

        For questions: Zenoh ends those that were open when a peer died, but not always one that is sent in that very moment, which
        then stays open until its time is up (seen on 1.10.2: after 12 of 47 kills of a peer that was asked all the time).
        """
        with trio.CancelScope() as scope:
            self._watched[scope] = peers
            try:
                yield
            finally:
                del self._watched[scope]

    def close(self) -> None:
        """Look no more."""
        self._declaration.undeclare()


NAME_WAIT = 3.0
"""Seconds a starting peer waits for its own name to become free: for a predecessor that was killed, or is about to end."""

SILENT_WAIT = 10.0
"""Seconds it waits for a holder of its name that does not answer, at least: the lease of routers with Zenoh's own configuration."""

ANSWER_WAIT = 2.0
"""Seconds that the holder of a name has to answer, and those it is seen through to say that they see it."""

LOOK_AGAIN = 0.1
"""Seconds until it looks again whether a name that was taken is free."""


async def claim_name(bus: Bus, keys: Keys, role: str, name: str, *, lease: float) -> None:
    """Make sure nobody else in sight has this name; raises Conflict when somebody has it and stays.

    A holder that answers is another peer. One that does not may be this peer's own former life: after a power failure a machine may
    be back before the others have noticed that it was gone, which takes them ``lease`` seconds. Raises Unavailable when those that
    this peer is linked with have not said by then whom they see.
    """
    found = _Holders(bus, keys, name)
    if await found.are_gone(NAME_WAIT):
        return
    holder = await found.who_answers()
    if holder is None:
        wait = max(lease, SILENT_WAIT) + NAME_WAIT
        if found.seen:
            log.warning(
                "this name is in use by a peer that does not answer: waiting for it to go", name=name, seconds=wait
            )
        if await found.are_gone(wait):
            return
        holder = await found.who_answers()  # it may have been too busy before, or be known of only now
        if not found.seen:
            raise Unavailable(f"nobody has said in {wait:g} s whether a peer named {name!r} is on this network already")
    what = (
        f"a {holder.role}"
        if holder is not None
        else f"a {found.seen[0].role} that does not answer, and has not gone in {wait:g} s,"
    )
    raise Conflict(
        f"{what} named {name!r} is on this network already; give this {role} another name with --name",
        code="NAME_IN_USE",
    )


class _Holders:
    """Who in sight has a name. Those that it is seen through are asked: one that is busy says so late, and silence is no answer."""

    def __init__(self, bus: Bus, keys: Keys, name: str) -> None:
        self._bus, self._keys, self._name = bus, keys, name
        self.seen: list[Alive] = []  # as was said last

    async def are_gone(self, seconds: float) -> bool:
        """Whether nobody has it, or nobody has it any more within so many seconds."""
        with trio.move_on_after(seconds):
            while True:
                if await self._look():
                    return True
                await trio.sleep(LOOK_AGAIN)
        return False

    async def who_answers(self) -> Alive | None:
        """The first that says that it is there."""
        for peer in self.seen:
            key = self._keys.state(peer.role, peer.peer)
            replies = await self._bus.get(key, timeout=ANSWER_WAIT, priority=Priority.CONTROL)
            if any(reply.ok for reply in replies):
                return peer
        return None

    async def _look(self) -> bool:
        try:
            tokens = await self._bus.alive(self._keys.alive(peer=self._name), timeout=ANSWER_WAIT)
        except Unavailable as error:
            log.warning("cannot tell yet whether this name is free", name=self._name, reason=error.message)
            return False
        self.seen = []
        for token in tokens:
            try:
                self.seen.append(self._keys.parse_alive(token))
            except InvalidRequest as error:
                log.warning("token not understood", key=token[:200], problem=error.message)
        return not self.seen
