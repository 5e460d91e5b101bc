"""Meeting peers: what a coordinator asks a runtime or another coordinator when it comes into sight, before it works with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from wattle import __version__
from wattle.bus.base import Bus
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore
from wattle.core.events import CoordinatorEvent
from wattle.core.model import Fact, NodeInfo, TaskId
from wattle.errors import InvalidRequest, Unavailable, WattleError
from wattle.logs import get_logger
from wattle.peer.asking import ask, parse_object
from wattle.peer.feeds import FeedFollower
from wattle.peer.presence import Presence
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import (
    PROTOCOL,
    FactsAnswer,
    FactsQuestion,
    HeldQuestion,
    HeldTasks,
    decode,
    encode,
)
from wattle.store.coordinator import CoordinatorStore

JOIN_RETRY = 2.0
"""Seconds between attempts to meet a peer that is in sight and does not answer."""

log = get_logger("wattle.coordinator")


class Neighbours:
    """Follows the liveliness tokens of runtimes and coordinators; what they answer goes to the core through ``post``."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        core: CoordinatorCore,
        store: CoordinatorStore,
        follower: FeedFollower,
        nursery: trio.Nursery,
        post: Callable[[CoordinatorEvent], None],
        *,
        timeout: float,
    ) -> None:
        self._bus, self._keys, self._core, self._store, self._follower = bus, keys, core, store, follower
        self._nursery, self._post, self._timeout = nursery, post, timeout
        self.presence = Presence(bus, keys, self._changed)

    def close(self) -> None:
        """Look no more."""
        self.presence.close()

    def _changed(self, peer: Alive, alive: bool) -> None:
        if peer.peer == self._core.name or peer.role not in ("runtime", "coordinator"):
            return
        if alive:
            self._nursery.start_soon(self._join, peer)
            return
        log.warning(f"{peer.role} unreachable", peer=peer.peer)
        left = self.presence.newest(peer.role, peer.peer)
        if peer.role == "runtime" and not left:
            self._follower.leave(peer.peer)
        self._post(_gone(peer))  # also when another life of it is in sight
        for life in left:
            if life < peer:  # it was not met, or not last, as long as the token of the one that has gone stood
                self._nursery.start_soon(self._join, life)

    async def _join(self, peer: Alive) -> None:
        """Get to know a peer in sight; again until it answers or is gone."""
        if self._in_sight(peer):
            self._post(on.TokenSeen(peer.peer, peer.incarnation))
        meet = self._meet_coordinator if peer.role == "coordinator" else self._meet_runtime
        while self._in_sight(peer):
            try:
                if await meet(peer):
                    return
            except _OtherProtocol as error:
                log.warning(f"{peer.role} is left alone", peer=peer.peer, reason=error.message)
                self._post(_gone(peer))  # what it has of others' runs cannot be read
                return
            except WattleError as error:
                log.warning(f"{peer.role} in sight does not answer", peer=peer.peer, reason=error.message)
            await trio.sleep(JOIN_RETRY)

    def _in_sight(self, peer: Alive) -> bool:
        return self.presence.incarnation(peer.role, peer.peer) == peer.incarnation

    async def _meet_coordinator(self, peer: Alive) -> bool:
        reply = await ask(self._bus, self._keys.state("coordinator", peer.peer), timeout=self._timeout)
        state: dict[str, Any] = parse_object(reply.payload)
        _check_protocol(state.get("protocol"), str(state.get("version")))
        if self._in_sight(peer):
            log.info("coordinator joined", peer=peer.peer)
            self._post(on.CoordinatorSeen(peer.peer, peer.incarnation, str(state.get("store"))))
        return True

    async def _meet_runtime(self, peer: Alive) -> bool:
        """Who it is, what it holds, what its feed tells, and what it knows of runs that were taken up."""
        reply = await ask(self._bus, self._keys.state("runtime", peer.peer), timeout=self._timeout)
        info = decode(NodeInfo, reply.payload)
        _check_protocol(info.protocol, info.version)
        claims = self._core.recall.claims()
        answer = await self._claim(peer.peer, claims)
        held = self._held(answer)
        if answer.refused:  # before its facts: what they say is another owner's concern
            self._post(on.RunsClaimed(peer.peer, {}, None, (), answer.refused))
        if not self._in_sight(peer):  # its next life may have been met already, and that one's feed is followed
            return False
        if not await self._follower.join(peer.peer, info.store):
            return False
        claimed = await self._claimed(peer.peer, claims, answer)
        if not self._in_sight(peer):
            return False
        log.info("node joined", node=info.name, slots=info.slots, held=len(held))
        if claims:
            self._post(on.RunsClaimed(peer.peer, claimed.runs, None, claimed.facts, claimed.refused))
        self._post(on.NodeSeen(info, held, claimed.runs))
        return True

    async def look(self, node: str) -> None:
        """Ask a runtime anew what it says of itself."""
        try:
            reply = await ask(self._bus, self._keys.state("runtime", node), timeout=self._timeout)
            self._post(on.NodeChanged(decode(NodeInfo, reply.payload)))
        except WattleError as error:
            log.info("node does not tell its state", node=node, reason=error.message)

    # --- claims -------------------------------------------------------------------------------------------------------

    def claim(self, effect: do.Claim) -> None:
        """Tell a node who owns runs now, and learn what it knows of them."""
        self._nursery.start_soon(self._claim_runs, effect.node, effect.runs)

    async def _claim_runs(self, node: str, runs: tuple[tuple[str, int], ...]) -> None:
        lives = self.presence.lives("runtime", node)
        try:
            claimed = await self._claimed(node, runs, await self._claim(node, runs))
            if self.presence.lives("runtime", node) != lives:
                raise Unavailable("a life of it that has gone may have answered")  # the next is asked as it is met
            self._post(claimed)
        except WattleError as error:
            log.info("claim not answered", node=node, runs=len(runs), reason=error.message)
            self._post(on.Undelivered(node))

    async def _claim(self, node: str, runs: tuple[tuple[str, int], ...]) -> HeldTasks:
        question = encode(HeldQuestion(self._core.name, runs))
        reply = await ask(self._bus, self._keys.cmd(node, "held"), question, timeout=self._timeout)
        return decode(HeldTasks, reply.payload)

    async def _claimed(self, node: str, runs: tuple[tuple[str, int], ...], answer: HeldTasks) -> on.RunsClaimed:
        epochs = dict(runs)
        facts: list[Fact] = []
        for run in sorted(epochs.keys() - {run for run, _, _ in answer.refused}):
            facts += await self._facts(node, run)
        held = {task: epoch for task, epoch in self._held(answer).items() if task.run in epochs}
        return on.RunsClaimed(node, epochs, held, tuple(facts), answer.refused)

    async def _facts(self, node: str, run: str) -> list[Fact]:
        facts: list[Fact] = []
        after: int | None = 0
        while after is not None:
            question = encode(FactsQuestion(run, after))
            reply = await ask(self._bus, self._keys.cmd(node, "facts"), question, timeout=self._timeout)
            answer = decode(FactsAnswer, reply.payload)
            facts += answer.facts
            if answer.after is not None and answer.after <= after:
                raise InvalidRequest(f"node {node!r} tells facts that do not go on after {after}")
            after = answer.after
        return facts

    def _held(self, answer: HeldTasks) -> dict[TaskId, int]:
        """The open tasks that concern this coordinator: its own, and those of runs that have ended here, whoever gave them.

        One given in a later epoch than the run ended in here may be of a retry that has not been heard of yet.
        """
        held = {ref.id: ref.epoch for ref in answer.tasks}
        for ref in answer.others:
            row = self._store.run(ref.run)
            if row is not None and ref.run not in self._core.runs and ref.epoch <= row.epoch:
                held[ref.id] = row.epoch
        return held


class _OtherProtocol(Unavailable):
    """A peer speaks another protocol, as all of its life."""


def _gone(peer: Alive) -> on.CoordinatorGone | on.NodeUnreachable:
    return (on.CoordinatorGone if peer.role == "coordinator" else on.NodeUnreachable)(peer.peer, peer.incarnation)


def _check_protocol(protocol: object, version: str) -> None:
    if protocol != PROTOCOL:
        raise _OtherProtocol(
            f"it speaks protocol {protocol} (Wattle {version}), this coordinator {PROTOCOL} ({__version__})"
        )
