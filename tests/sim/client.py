"""Simulated users: they submit, cancel and retry through the coordinators that their gateway sees, until it is acknowledged."""

from __future__ import annotations

from tests.sim.coordinator import Located
from tests.sim.peer import Peer
from tests.sim.world import World
from wattle.core.hashing import ranked
from wattle.core.model import Workflow

POLL = 3.0
"""Seconds between questions whether a run has ended."""

TRIES_MOST = 15
"""How often a cancel or a retry is tried."""


class Client(Peer):
    """A user with a gateway. ``wanted``: the runs whose submission is not acknowledged yet; ``orders``: cancels and retries under way."""

    role = "client"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.wanted: dict[str, Workflow] = {}
        self.orders = 0
        self.ended: set[str] = set()
        self.known: set[str] = set()  # coordinators that were ever in sight

    def submit(self, run: str, workflow: Workflow) -> None:
        """Submit a run, again until it is acknowledged."""
        self.wanted[run] = workflow
        self._try("submit", run, 0)

    def order(self, verb: str, run: str) -> None:
        """Cancel or retry a run."""
        self.orders += 1
        self._try(verb, run, 0)

    def _try(self, verb: str, run: str, tries: int) -> None:
        if not self.up:
            return
        if verb != "submit" and tries >= TRIES_MOST:
            self.orders -= 1
            return
        seen = sorted(name for name in self.tokens if self.world.peers[name].role == "coordinator")
        waiting, having = set(seen), set()
        unheard = set(seen)  # these may know the run, and those whom the others name, as in wattle/gateway/backend.py
        heard: set[tuple[str, str]] = set()
        named: set[tuple[str, str]] = set()
        self.known |= unheard

        def again() -> None:
            self.world.later(0.3 + self.world.rng.random(), self._try, verb, run, tries + 1)

        def located(name: str, answer: Located | None) -> None:
            waiting.discard(name)
            if answer is not None and answer.here:
                having.add(name)
            elif answer is not None and answer.peer is not None:
                unheard.discard(name)
                heard.add(answer.peer)
                named.update(answer.others)
            if waiting:
                return
            if having:
                send(min(having))
            elif verb == "submit" and not (tries and len(self.known) > 1 and (unheard or named - heard)):
                send(ranked(seen, run)[0])
            else:
                again()  # what was submitted before must not be created beside itself

        def send(name: str) -> None:
            self.ask(name, verb, (run, self.wanted[run]) if verb == "submit" else run, answered)

        def answered(good: bool | None) -> None:
            if not good:
                again()
            elif verb == "submit":
                del self.wanted[run]
                self._poll(run)
            else:
                self.orders -= 1

        if not seen:
            again()
        for name in seen:
            self.ask(name, "locate", run, lambda answer, name=name: located(name, answer))  # type: ignore[misc]

    def _poll(self, run: str) -> None:
        if run in self.ended or not self.up:
            return
        for name in sorted(self.tokens):
            if self.world.peers[name].role == "coordinator":
                self.ask(name, "locate", run, lambda answer: self._located(run, answer))
        self.world.later(POLL, self._poll, run)

    def _located(self, run: str, answer: Located | None) -> None:
        if answer is not None and answer.end is not None:
            self.ended.add(run)
