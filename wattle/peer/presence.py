"""Who is in sight: liveliness tokens, said and seen."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import trio

from wattle.bus.base import Bus, Declaration
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.protocol.keys import Alive, Keys

log = get_logger("wattle.presence")


def new_incarnation() -> str:
    """An identity for one life of one process. Those of one name sort by when they began, as their clocks had it."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


class Presence:
    """The peers in sight, by (role, name), each with its incarnations. ``changed`` hears of every coming and going.

    There are two of a peer that died and is back until its former life is missed; who begins to look meanwhile sees them in any order.
    The newest is the one that began last by its own clock: where that went back, the former one, for as long as its token stands.
    """

    def __init__(self, bus: Bus, keys: Keys, changed: Callable[[Alive, bool], None] | None = None) -> None:
        self._keys = keys
        self._changed = changed
        self._seen: dict[tuple[str, str], set[str]] = {}
        self._watched: dict[trio.CancelScope, Collection[Alive]] = {}
        self._declaration: Declaration = bus.watch_alive(keys.alive(), self._token)

    def _token(self, key: str, alive: bool) -> None:
        try:
            peer = self._keys.parse_alive(key)
        except InvalidRequest as error:
            log.warning("token not understood", key=key[:200], problem=error.message)
            return
        who = (peer.role, peer.peer)
        if alive:
            self._seen.setdefault(who, set()).add(peer.incarnation)
        elif peer.incarnation not in self._seen.get(who, ()):
            return  # was not there
        else:
            self._seen[who].remove(peer.incarnation)
            if not self._seen[who]:
                del self._seen[who]
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
        return max(self.lives(role, name), default=None)

    def lives(self, role: str, name: str) -> frozenset[str]:
        """All lives of a peer that are in sight."""
        return frozenset(self._seen.get((role, name), ()))

    def newest(self, role: str, name: str | None = None) -> list[Alive]:
        """The newest life of each peer of a role in sight, or of the one so named."""
        return [
            Alive(role, peer, max(lives))
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
