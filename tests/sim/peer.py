"""What every simulated peer is: a process with a mailbox, a clock of its own and a store that outlives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tests.sim.stores import Copies
from tests.sim.world import NOTICED, START, Answer, World
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.copies import better
from wattle.core.model import CopyPage, RunHead

Item = tuple[Any, Callable[[], None] | None]


class Peer:
    """One peer. ``life`` counts its processes; ``doom`` says that it dies at its next commit: "before" it, or after with a share of
    its messages sent."""

    role: ClassVar[str] = ""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.up, self.life = False, 0
        self.tokens: dict[str, int] = {}
        self.offset = self.drift = 0.0
        self.slow = 0.0
        self.new_since = 0.0  # when its disk was replaced
        self.full = False
        self.doom: str | float | None = None
        self.mailbox: list[Item] = []
        self._woken = False
        self._timer = 0
        self._timer_at: float | None = None
        world.peers[name] = self

    # --- life -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its process from its store."""
        if self.up:
            return
        self.up, self.life = True, self.life + 1
        self.tokens, self.mailbox, self._woken, self.doom = {}, [], False, None
        self._timer, self._timer_at = self._timer + 1, None
        self.world.note(self.name, "starts, life", self.life)
        self.started()
        for other in self.world.peers:
            if other != self.name:
                self.world.later(0.01 + 0.05 * self.world.rng.random(), self.world.look, self.name, other)
        self.world.show(self.name, 0.05)

    def crash(self) -> None:
        """End its process; whatever was not committed is lost."""
        if not self.up:
            return
        self.world.note(self.name, "dies")
        self.up = False
        self.mailbox = []
        self.died()
        self.world.show(self.name, NOTICED)

    def started(self) -> None:
        """Take up what is stored."""

    def died(self) -> None:
        """Forget what was in memory."""

    # --- time and batches -------------------------------------------------------------------------------------------------

    def clock(self) -> float:
        """Its own clock's time."""
        world = self.world
        return round(world.now + self.offset + self.drift * (world.now - START), 6)

    def post(self, event: Any, done: Callable[[], None] | None = None) -> None:
        """Have an event handled with the next batch."""
        self.mailbox.append((event, done))
        if not self._woken:
            self._woken = True
            self.world.later(0.0002 + self.slow * self.world.rng.random(), self._wake, self.life)

    def _wake(self, life: int) -> None:
        if self.life != life or not self.up:
            return
        self._woken = False
        items, self.mailbox = self.mailbox, []
        if items:
            self._timer_at = None
            self.batch(items)

    def set_timer(self, at: float | None) -> None:
        """Have a Tick handled at a time of its clock."""
        if at == self._timer_at:
            return
        self._timer, self._timer_at = self._timer + 1, at
        if at is not None:
            self.world.later(max(1e-6, at - self.clock()), self._timer_due, self._timer)

    def _timer_due(self, timer: int) -> None:
        if self.up and timer == self._timer:
            self._timer_at = None
            self.batch([(on.Tick(), None)])

    def batch(self, items: list[Item]) -> None:
        """Handle a batch: core, commit, acts."""

    def dies_at_commit(self, saves: Sequence[Any], effects: Sequence[Any]) -> bool:
        """Whether this batch is never committed, and none of its effects carried out."""
        if self.full and saves:
            self.world.faults["disk full at a commit"] += 1
        elif self.doom != "before":
            return False
        else:
            self.world.faults["crash before a commit"] += 1
        self.crash()
        return True

    def sent(self, acts: Sequence[Any]) -> tuple[Sequence[Any], bool]:
        """What of a batch's acts is done before a crash, and whether there is one."""
        if not isinstance(self.doom, float):
            return acts, False
        self.world.faults["crash after a commit"] += 1
        return acts[: int(len(acts) * self.doom)], True

    # --- others -----------------------------------------------------------------------------------------------------------

    def ask(self, to: str, verb: str, body: Any, done: Answer) -> None:
        """Ask a peer something."""
        self.world.ask(self, to, verb, body, done)

    def serve(self, verb: str, body: Any, reply: Answer) -> None:
        """Answer a question: each verb is a method."""
        getattr(self, f"on_{verb}")(body, reply)

    def token_changed(self, other: Peer, before: int, life: int) -> None:
        """Another peer's token has come, gone or changed."""


class Keeper(Peer):
    """A peer that keeps copies."""

    core: Any  # a core of either kind, while it is up
    _keeping: dict[int, tuple[Answer, CopyPage]]  # pages to be answered

    def copies(self) -> Copies:
        """Its copies, in its store."""
        raise NotImplementedError

    def sees(self) -> frozenset[str]:
        """The coordinators in its sight."""
        return frozenset(name for name in self.tokens if self.world.peers[name].role == "coordinator")

    def heads(self, effect: do.AskCopies) -> list[Any]:
        """The states of runs that a question asks for."""
        return list(self.copies().tell(effect.owner, effect.store, effect.runs))

    def known(self, runs: list[str]) -> list[RunHead]:
        """The states of runs that are here."""
        return self.copies().heads_of(runs)

    def answer_keep(self, token: int, number: int) -> None:
        """Say how far an owner's copies go here, and which of the page's runs another has a better state of."""
        reply, page = self._keeping.pop(token)
        runs = [copied.run for copied in page.runs if copied.head is not None]
        for run in runs:
            self.world.checks.states.check(self.name, self.copies(), (page.owner, page.store, run))
        reply((number, better(page, self.known(runs))))

    def on_copies(self, effect: do.AskCopies, reply: Answer) -> None:
        """Which copies are here."""
        reply((tuple(self.heads(effect)), self.sees()))

    def on_copy(self, key: tuple[str, str, str], reply: Answer) -> None:
        """The rows of one."""
        self.world.checks.states.check(self.name, self.copies(), key)
        copy = self.copies().kept.get(key)
        reply(None if copy is None else dict(copy.rows))

    def on_forget(self, effect: do.Forget, reply: Answer) -> None:
        """Drop one."""
        head = effect.head
        self.copies().forget(head)
        self.world.checks.removed(head.run)
        self.core.copies.forget(head.owner, head.store)
        reply(True)
