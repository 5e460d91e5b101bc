"""One name, one peer: a name is claimed before its peer shows itself, and watched as long as it is there."""

from __future__ import annotations

from typing import NoReturn

import trio

from wattle.bus.base import Bus, Priority
from wattle.errors import Conflict, InvalidRequest, Unavailable
from wattle.logs import get_logger
from wattle.peer.asking import parse_object
from wattle.protocol.keys import Alive, Keys

log = get_logger("wattle.presence")

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
    _refuse(
        role,
        name,
        f"a {holder.role}"
        if holder is not None
        else f"a {found.seen[0].role} that does not answer, and has not gone in {wait:g} s,",
    )


def _refuse(role: str, name: str, holder: str) -> NoReturn:
    raise Conflict(
        f"{holder} named {name!r} is on this network already; give this {role} another name with --name",
        code="NAME_IN_USE",
    )


async def keep_name(me: Alive, bus: Bus, keys: Keys) -> None:
    """Watch for others with this peer's name, until cancelled; raises Conflict when one is there that began before.

    ``claim_name`` cannot see who claims in the same moment, or is behind a link that comes up later. The one that began later gives way,
    as both can tell by the tokens; so one of them stays. An earlier token alone tells nothing: it may be what is left of a former
    life. Whoever is alive answers, and one that does not is asked again as long as its token is there.
    """
    earlier: set[Alive] = set()
    changed = trio.Event()

    def seen(key: str, alive: bool) -> None:
        nonlocal changed
        try:
            other = keys.parse_alive(key)
        except InvalidRequest as error:
            log.warning("token not understood", key=key[:200], problem=error.message)
            return
        if other.incarnation > me.incarnation and alive:
            log.warning("another peer has begun with this name; it gives way", name=me.peer, role=other.role)
        elif other.incarnation < me.incarnation:
            (earlier.add if alive else earlier.discard)(other)
            changed.set()

    watch = bus.watch_alive(keys.alive(peer=me.peer), seen)
    try:
        while True:
            await changed.wait()
            changed = trio.Event()
            while earlier:
                other = min(earlier)
                if await _answers(bus, keys, other):
                    _refuse(me.role, me.peer, f"a {other.role}")
                with trio.move_on_after(ANSWER_WAIT):
                    await changed.wait()
                changed = trio.Event()
    finally:
        watch.undeclare()


async def _answers(bus: Bus, keys: Keys, peer: Alive) -> bool:
    """Whether this very life of a peer says that it is there; others of its name may answer, too."""
    replies = await bus.get(
        keys.state(peer.role, peer.peer), timeout=ANSWER_WAIT, everyone=True, priority=Priority.CONTROL
    )
    return any(_incarnation(reply.payload) == peer.incarnation for reply in replies if reply.ok)


def _incarnation(state: bytes) -> object:
    try:
        return parse_object(state).get("incarnation")
    except InvalidRequest:
        return None


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
