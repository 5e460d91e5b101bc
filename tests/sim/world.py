"""Time, links and messages of a simulated network: one heap of what is to happen, and one source of chance.

Nothing here is real: time is a number, and a message is a call that comes due, late, twice or never. Peers (peer.py) ask each other,
and see each other's liveliness tokens: gone at once where a process died, after the lease where a link was cut, and back after it heals.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

from wattle.core.model import Assignment, CopyPage, TaskId, Workflow

if TYPE_CHECKING:
    from tests.sim.checks import Checks
    from tests.sim.peer import Peer

START = 1000.0
"""When the world begins, in seconds."""

TIMEOUT = 2.0
"""Seconds until a question counts as not answered."""

NOTICED = 0.003
"""Seconds until the death of a process is noticed."""

UNSAID: tuple[Any, ...] = (None, "", 0, False, (), {}, frozenset(), [])

Answer = Callable[[Any], None]


def brief(what: Any) -> str:
    """What something is, in a line of a story: fields that say nothing are left out."""
    if isinstance(what, (TaskId, Enum)):
        return str(what)
    if isinstance(what, frozenset | set):
        return brief(tuple(sorted(what)))
    if isinstance(what, Assignment):
        return f"{what.id}@{what.epoch}"
    if isinstance(what, Workflow):
        return "workflow"
    if isinstance(what, CopyPage):
        return f"{what.owner}/{what.store} {what.after}..{what.number} " + brief(what.runs)
    if isinstance(what, tuple | list):
        return "(" + ", ".join(map(brief, what)) + ")"
    if isinstance(what, dict):
        return "{" + ", ".join(f"{brief(key)}: {brief(value)}" for key, value in what.items()) + "}"
    if is_dataclass(what):
        told = ((field.name, getattr(what, field.name)) for field in fields(what))
        said = " ".join(f"{name}={brief(value)}" for name, value in told if value not in UNSAID)
        return f"{type(what).__name__}({said})"
    return str(what)


class Query:
    """A question that is out; ``done`` gets the answer, or None."""

    __slots__ = ("asker", "done", "life", "open")

    def __init__(self, asker: Peer, done: Answer) -> None:
        self.asker, self.life, self.done, self.open = asker, asker.life, done, True

    def end(self, answer: Any) -> None:
        """Hand over the answer, once, to the life that asked."""
        if self.open and self.asker.up and self.asker.life == self.life:
            self.open = False
            self.done(answer)


class World:
    """See the module's docstring. ``drop``, ``repeat`` and ``lag`` are the shares of messages lost, carried twice, and late."""

    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.rng = Random(seed)
        self.now = START
        self.peers: dict[str, Peer] = {}
        self.cuts: dict[tuple[str, str], float] = {}  # since when
        self.drop = self.repeat = self.lag = 0.0
        self.lease = 1.0
        self.events = self.messages = 0
        self.looks = 0  # questions, asked from time to time, which copies a peer has
        self.faults: Counter[str] = Counter()
        self.checks: Checks
        self.tracing = tracing
        self.trace: list[str] = []
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def note(self, who: str, *what: object) -> None:
        """Add a line to the story, where one is told."""
        if self.tracing:
            self.trace.append(f"{self.now - START:10.4f} {who:>3}  " + " ".join(map(brief, what)))

    # --- time ---------------------------------------------------------------------------------------------------------

    def later(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        """Have something happen in some time."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, what, args))

    def run(self, until: float, most_events: int, done: Callable[[], bool] | None = None) -> bool:
        """Let things happen up to a time; False when nothing is left to happen, or ``done`` says so. Raises when there is no end to it."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, what, args = heapq.heappop(heap)
            what(*args)
            self.events += 1
            if self.events > most_events:
                raise AssertionError(f"no rest: {self.events} events, {self.messages} messages")
            if done is not None and done():
                return False
        if not heap:
            return False
        self.now = until
        return True

    # --- messages -----------------------------------------------------------------------------------------------------

    def linked(self, one: str, other: str) -> bool:
        """Whether two peers can talk."""
        return ((one, other) if one < other else (other, one)) not in self.cuts

    def carry(self, sender: str, to: str, what: Callable[..., None], *args: Any) -> None:
        """Send a message: ``what`` is called when it arrives, if it does."""
        self.messages += 1
        rng = self.rng
        if self.drop and rng.random() < self.drop:
            self.faults["message lost"] += 1
            return
        life = self.peers[to].life
        self.later(self._latency(), self._arrive, sender, to, life, what, args)
        if self.repeat and rng.random() < self.repeat:
            self.faults["message repeated"] += 1
            self.later(self._latency(), self._arrive, sender, to, life, what, args)

    def _latency(self) -> float:
        rng = self.rng
        seconds = 0.0005 + 0.003 * rng.random()
        if self.lag and rng.random() < self.lag:
            self.faults["message late"] += 1
            seconds += rng.choice((0.02, 0.2, 1.0, 3.0)) * rng.random()
        return seconds

    def _arrive(self, sender: str, to: str, life: int, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        peer = self.peers[to]
        if peer.up and peer.life == life and self.linked(sender, to):
            what(*args)

    def ask(self, asker: Peer, to: str, verb: str, body: Any, done: Answer) -> None:
        """Ask a peer something; ``done`` gets the answer, or None when none came in time."""
        query = Query(asker, done)
        peer = self.peers[to]
        if not peer.up and self.linked(asker.name, to):
            self.later(NOTICED, query.end, None)
            return

        def reply(answer: Any) -> None:
            self.carry(to, asker.name, query.end, answer)

        self.carry(asker.name, to, peer.serve, verb, body, reply)
        self.later(TIMEOUT, query.end, None)

    # --- who sees whom --------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between two peers any more."""
        pair = (one, other) if one < other else (other, one)
        if pair in self.cuts:
            return
        self.cuts[pair] = self.now
        for observer, observed in (pair, pair[::-1]):
            self.later(self.lease * (1 + 0.2 * self.rng.random()), self.look, observer, observed)

    def mend(self, one: str, other: str) -> None:
        """Two peers can talk again."""
        pair = (one, other) if one < other else (other, one)
        if self.cuts.pop(pair, None) is None:
            return
        for observer, observed in (pair, pair[::-1]):
            self.later(0.02 + self.rng.random() * 0.8, self.look, observer, observed)

    def show(self, name: str, seconds: float) -> None:
        """A process came or went: the others notice within so many seconds."""
        for other in self.peers:
            if other != name:
                self.later(seconds * (0.5 + self.rng.random()), self.look, other, name)

    def look(self, observer: str, observed: str) -> None:
        """Have a peer see another's token as it is now."""
        peer, other = self.peers[observer], self.peers[observed]
        if not peer.up:
            return
        since = self.cuts.get((observer, observed) if observer < observed else (observed, observer))
        if since is not None and self.now < since + self.lease:
            self.later(since + self.lease - self.now + 1e-6, self.look, observer, observed)
            return
        life = other.life if other.up and since is None else 0
        before = peer.tokens.get(observed, 0)
        if life == before:
            return
        if life:
            peer.tokens[observed] = life
        else:
            del peer.tokens[observed]
        self.note(observer, "sees" if life else "misses", observed, life or before)
        peer.token_changed(other, before, life)

    def blink(self, observer: str, observed: str, seconds: float) -> None:
        """A false alarm: a peer misses another's token for some time although nothing is wrong."""
        peer, other = self.peers[observer], self.peers[observed]
        before = peer.tokens.pop(observed, 0)
        if before and peer.up:
            self.note(observer, "misses", observed, before, "by mistake")
            peer.token_changed(other, before, 0)
        self.later(seconds, self.look, observer, observed)
