"""What a peer sees of every other one, for ``wattle doctor``: whom it hears, whose answers it gets, how its clock compares, its links.

A gateway asks ``cmd/<peer>/probe`` with the peers that it sees itself. Each peer then asks each of them for its state, as peers do, and
says what came of it: what works for the one who asks may not work for another. With ``"ask": false`` it says of those alone that are
named whether it hears them, and asks nobody (wattle/peer/reunion.py).
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import trio
from pydantic_core import to_json

from wattle.bus.base import Bus, Priority, Query
from wattle.bus.queries import error_payload
from wattle.errors import InvalidRequest
from wattle.names import check_name
from wattle.peer.asking import parse_object
from wattle.peer.presence import Presence
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.records import seconds, timestamp
from wattle.protocol.verbs import PROBE

ANSWER_WAIT = 3.0
"""Seconds that another peer has to answer."""

AT_A_TIME = 50
"""Peers that are asked at a time."""

MOST = 1000
"""Peers that one question may name."""


async def probing(
    me: Alive, bus: Bus, keys: Keys, presence: Presence, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer who wants to know what this peer sees, until cancelled."""
    probe = Probe(me, bus, keys, presence)
    async with trio.open_nursery() as nursery:
        declaration = bus.serve(keys.cmd(me.peer, PROBE), lambda query: nursery.start_soon(probe.answer, query))
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            declaration.undeclare()


class Probe:
    """One peer's view."""

    def __init__(self, me: Alive, bus: Bus, keys: Keys, presence: Presence) -> None:
        self._me, self._bus, self._keys, self._presence = me, bus, keys, presence

    async def answer(self, query: Query) -> None:
        """Answer one question."""
        try:
            wanted, ask = _question(query.payload)
        except InvalidRequest as error:
            query.reply_error(error_payload(error))
        else:
            view = await self._view(wanted, ask)
            query.reply(to_json(view), key=self._keys.cmd(self._me.peer, PROBE))
        finally:
            query.finish()

    async def _view(self, wanted: set[tuple[str, str]], ask: bool) -> dict[str, Any]:
        heard = {(peer.role, peer.peer) for peer in self._presence.peers()}
        others = sorted((wanted | heard if ask else wanted) - {(self._me.role, self._me.peer)})
        asked: dict[tuple[str, str], dict[str, Any]] = {}
        limit = trio.CapacityLimiter(AT_A_TIME)
        async with trio.open_nursery() as nursery:
            for other in others if ask else ():
                nursery.start_soon(partial(self._ask, other, asked, limit))
        return {
            "role": self._me.role,
            "name": self._me.peer,
            "incarnation": self._me.incarnation,
            "time": timestamp(time.time()),
            "session": self._bus.id,
            "links": [{"session": link.id, "kind": link.kind, "address": link.address} for link in self._bus.links()],
            "others": [
                {"role": role, "name": name, "heard": (role, name) in heard, **asked.get((role, name), _NOT_ASKED)}
                for role, name in others
            ],
        }

    async def _ask(
        self, other: tuple[str, str], asked: dict[tuple[str, str], dict[str, Any]], limit: trio.CapacityLimiter
    ) -> None:
        async with limit:
            begin, clock = time.time(), trio.current_time()
            replies = await self._bus.get(
                self._keys.state(*other), timeout=ANSWER_WAIT, first=True, priority=Priority.CONTROL
            )
            took = trio.current_time() - clock
        told = next((reply.payload for reply in replies if reply.ok), None)
        if told is None:
            asked[other] = {"answered": False, "problem": "nobody serves it" if not replies else "no answer in time"}
        else:
            asked[other] = {"answered": True, "took": took, **_told(told, begin + took / 2)}


def read_view(payload: bytes) -> dict[str, Any]:
    """What a peer says that it sees; raises InvalidRequest for what is no view."""
    view = parse_object(payload)
    links, others = view.get("links"), view.get("others")
    known = all(isinstance(view.get(name), str) for name in ("role", "name", "session"))
    if not known or not isinstance(links, list) or not isinstance(others, list):
        raise InvalidRequest("a view names its peer and its session, and lists links and others")
    for link in links:
        if not isinstance(link, dict) or not {"session", "kind"} <= link.keys():
            raise InvalidRequest("each link of a view has a session and a kind")
    for other in others:
        if not isinstance(other, dict) or not {"role", "name", "heard", "answered"} <= other.keys():
            raise InvalidRequest("each other peer of a view has a role and a name, and is heard and answers or not")
        if not all(isinstance(other.get(number), float | int | None) for number in ("took", "clock")):
            raise InvalidRequest("times of a view are numbers")
    return view


_NOT_ASKED = {"answered": False, "problem": "not asked"}


def _question(payload: bytes | None) -> tuple[set[tuple[str, str]], bool]:
    """The peers that are named, and whether they and others are to be asked."""
    question = parse_object(payload)
    named, ask = question.get("peers"), question.get("ask", True)
    if not isinstance(ask, bool):
        raise InvalidRequest("'ask' is true or false")
    if not isinstance(named, list) or len(named) > MOST:
        raise InvalidRequest(f"a probe names its peers in a list of up to {MOST}")
    found = set()
    for item in named:
        if not isinstance(item, list) or len(item) != 2 or not all(isinstance(part, str) for part in item):
            raise InvalidRequest("each peer of a probe is a list of its role and its name")
        found.add((check_name(item[0], "role"), check_name(item[1], "peer")))
    return found, ask


def _told(payload: bytes, now: float) -> dict[str, Any]:
    """What another's state says: by how much its clock is ahead of ``now``, its version, and whether it takes orders from anybody."""
    try:
        state = parse_object(payload)
    except InvalidRequest:  # it is another's: whatever it is, it must not keep this peer from telling of all the others
        return {"clock": None}
    try:
        told = seconds(state["time"])
    except (ValueError, LookupError, TypeError, OverflowError):
        told = None
    about = {name: state.get(name) for name in ("version", "protocol", "insecure")}
    return {"clock": None if told is None else told - now, **about}
