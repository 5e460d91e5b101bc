"""What a gateway's questions come to when those who are asked die, or stand still."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from wattle.bus.base import Declaration, Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.core.hashing import ranked
from wattle.core.model import TaskId
from wattle.errors import NotFound, Unavailable
from wattle.gateway.backend import Backend
from wattle.gateway.request import LATE, MOMENT
from wattle.peer.presence import Presence
from wattle.protocol.keys import Keys

KEYS = Keys()
TIMEOUT = 10.0
MISSING = NotFound("there is no such run", code="RUN_NOT_FOUND")
TASK = TaskId("r1", "w", 1)


@dataclass
class Peer:
    """A peer that keeps every question, as if it died just when it was asked; ``answers`` gives what it says to the n-th after all."""

    bus: MemoryBus
    role: str
    name: str
    answers: Callable[[int], Any] = lambda _: None
    asked: list[Query] = field(default_factory=list)
    declared: list[Declaration] = field(default_factory=list)
    lives: int = 0

    def __post_init__(self) -> None:
        self.live()

    def live(self) -> None:
        """Be in sight, in a life of its own."""
        self.lives += 1
        self.declared = [
            self.bus.serve(KEYS.cmd(self.name, "*"), self._take),
            self.bus.serve(KEYS.log(TASK, "stdout"), self.asked.append),
            self.bus.declare_alive(KEYS.alive(self.role, self.name, f"life{self.lives}")),
        ]

    def die(self) -> None:
        """Be gone, and let nobody know of the questions that are open."""
        for declaration in self.declared:
            declaration.undeclare()

    async def die_after(self, seconds: float) -> None:
        """Be gone in a while."""
        await trio.sleep(seconds)
        self.die()

    def _take(self, query: Query) -> None:
        self.asked.append(query)
        answer = self.answers(len(self.asked))
        if answer is not None:
            self.answer(query, answer)

    def answer(self, query: Query, answer: Any) -> None:
        """Answer one of the questions."""
        query.reply(json.dumps(answer).encode(), key=KEYS.cmd(self.name, KEYS.cmd_verb(query.key)))
        query.finish()

    def waits(self) -> list[float]:
        """What the questions asked to wait."""
        return [json.loads(query.payload or b"")["wait"] for query in self.asked]


Jump = trio.testing.MockClock
"""Time passes when nothing else happens. Each test asks for this clock itself: pytest-trio does not look for one behind a fixture."""


@pytest.fixture
async def network() -> MemoryNetwork:
    """A network in memory."""
    return MemoryNetwork()


async def backend_on(network: MemoryNetwork) -> Backend:
    """A gateway's, that sees who is there."""
    bus = network.bus("gateway")
    backend = Backend(bus, KEYS, Presence(bus, KEYS), timeout=TIMEOUT)
    await trio.testing.wait_all_tasks_blocked()
    return backend


async def test_who_waits_is_answered_soon_after_what_he_asked_to_wait_though_nobody_answers(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    peer = Peer(network.bus(), "coordinator", "c1")
    backend = await backend_on(network)
    began = trio.current_time()
    with pytest.raises(Unavailable) as caught:
        await backend.owner("run", {"run": "r1", "wait": 20}, MISSING, backend.patience(20))
    assert caught.value.code == "TIMEOUT"
    assert 20 < trio.current_time() - began < 20 + LATE + 1
    assert peer.waits() == [pytest.approx(20, abs=0.5)]


async def test_a_question_that_was_lost_with_its_coordinator_is_asked_again_for_what_is_left_of_its_time(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    peer = Peer(network.bus(), "coordinator", "c1", lambda count: {"id": "r1"} if count == 2 else None)
    backend = await backend_on(network)

    async def restart() -> None:
        await trio.sleep(15)
        peer.die()
        peer.live()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(restart)
        answer = await backend.owner("run", {"run": "r1", "wait": 20}, MISSING, backend.patience(20))
    assert answer == {"id": "r1"}
    assert peer.waits() == [pytest.approx(20, abs=0.5), pytest.approx(5, abs=0.5)]


def owned(owner: str, epoch: int) -> dict[str, Any]:
    return {"id": "r1", "owner": owner, "epoch": epoch}


async def test_of_two_coordinators_that_show_a_run_the_later_owner_is_believed(network: MemoryNetwork) -> None:
    Peer(network.bus(), "coordinator", "c1", lambda _: owned("c1", 1))
    Peer(network.bus(), "coordinator", "c2", lambda _: owned("c2", 2))
    Peer(network.bus(), "coordinator", "c3", lambda _: owned("c3", 1))
    backend = await backend_on(network)
    assert await backend.run("r1", MISSING) == owned("c2", 2)


async def test_a_run_is_shown_though_another_coordinator_stands_still(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    Peer(network.bus(), "coordinator", "c1", lambda _: owned("c1", 1))
    Peer(network.bus(), "coordinator", "c2")
    backend = await backend_on(network)
    began = trio.current_time()
    assert await backend.run("r1", MISSING) == owned("c1", 1)
    assert trio.current_time() - began < 2 * MOMENT


async def test_an_owner_that_takes_longer_than_a_moment_is_waited_for(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    slow = Peer(network.bus(), "coordinator", "c1")
    Peer(network.bus(), "coordinator", "c2")
    backend = await backend_on(network)

    async def answer_late() -> None:
        await trio.sleep(10 * MOMENT)
        slow.answer(slow.asked[-1], owned("c1", 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_late)
        assert await backend.run("r1", MISSING) == owned("c1", 1)


async def test_a_question_that_was_lost_with_the_only_coordinator_is_over_with_it(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    peer = Peer(network.bus(), "coordinator", "c1")
    backend = await backend_on(network)

    for ask in (
        lambda: backend.owner("run", {"run": "r1", "wait": 20}, MISSING, backend.patience(20)),
        lambda: backend.everyone("runs", {}),
        lambda: backend.ask("c1", "start", b"{}"),
    ):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.die_after, 1)
            with pytest.raises(Unavailable) as caught:
                await ask()
        assert caught.value.code == "NO_COORDINATOR"
        assert trio.current_time() - began < TIMEOUT
        peer.live()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_submission_that_waited_at_a_coordinator_that_goes_waits_on_where_its_run_is(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    first = Peer(network.bus(), "coordinator", ranked(["c1", "c2"], "r1")[0])
    second = Peer(network.bus(), "coordinator", ranked(["c1", "c2"], "r1")[1], lambda count: {"id": "r1"})
    backend = await backend_on(network)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.die_after, 15)
        assert await backend.take("submit", "r1", b"{}", new="r1", wait=20) == {"id": "r1"}
    (asked,) = [query for query in first.asked if KEYS.cmd_verb(query.key) == "submit"]
    assert asked.parameters == "wait=20"
    (again,) = [query for query in second.asked if KEYS.cmd_verb(query.key) == "submit"]
    assert 4 < float(again.parameters.removeprefix("wait=")) < 5


async def test_what_must_not_be_asked_twice_is_not_asked_again_though_somebody_goes(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    other = Peer(network.bus(), "coordinator", "c1")
    owner = Peer(network.bus(), "coordinator", "c2")
    backend = await backend_on(network)

    async def go_on() -> None:
        await trio.sleep(1)
        other.die()
        await trio.sleep(1)
        owner.answer(owner.asked[0], {"id": "r1"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        assert await backend.owner("retry_run", {"run": "r1"}, MISSING, repeatable=False) == {"id": "r1"}
    assert len(owner.asked) == 1


async def test_a_listing_is_asked_for_again_when_one_goes_that_might_have_had_some(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    lost = Peer(network.bus(), "coordinator", "c1")
    peer = Peer(network.bus(), "coordinator", "c2", lambda _: {"runs": []})
    backend = await backend_on(network)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lost.die_after, 1)
        assert await backend.everyone("runs", {}) == [("c2", {"runs": []})]
    assert len(peer.asked) == 2


async def test_who_asks_for_a_log_hears_that_its_node_went_or_does_not_answer(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    peer = Peer(network.bus(), "runtime", "n1")
    backend = await backend_on(network)

    async def ask() -> object:
        return await backend.log(KEYS.log(TASK, "stdout"), {"offset": 0}, backend.patience(20), "n1")

    began = trio.current_time()
    with pytest.raises(Unavailable) as caught:
        await ask()
    assert caught.value.code == "NODE_UNREACHABLE"
    assert 20 < trio.current_time() - began < 20 + LATE + 1
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.die_after, 1)
        assert await ask() is None
    assert trio.current_time() - began < LATE


@pytest.mark.parametrize(
    ("status", "waits"), [("ready", True), ("draining", True), ("unreachable", False), ("lost", False)]
)
async def test_a_node_that_a_coordinator_sees_is_waited_for(
    network: MemoryNetwork, autojump_clock: Jump, status: str, waits: bool
) -> None:
    Peer(network.bus(), "coordinator", "c1", lambda _: {"nodes": [{"name": "n1", "status": status}]})
    backend = await backend_on(network)

    async def come() -> None:
        await trio.sleep(3)
        Peer(network.bus(), "runtime", "n1")

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        assert await backend.comes_back("n1", backend.patience()) is waits
        assert (3 <= trio.current_time() - began < 4) is waits
        assert not await backend.comes_back("n2", backend.patience())


async def test_a_node_that_only_coordinators_see_is_waited_for_no_longer_than_anything(
    network: MemoryNetwork, autojump_clock: Jump
) -> None:
    backend = await backend_on(network)
    assert not await backend.comes_back("n1", backend.patience())
    Peer(network.bus(), "coordinator", "c1", lambda _: {"nodes": [{"name": "n1", "status": "ready"}]})
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()
    assert not await backend.comes_back("n1", backend.patience())
    assert backend.timeout - 1 < trio.current_time() - began <= backend.timeout


@pytest.mark.parametrize("status", ["ready", "lost"])
async def test_a_node_that_only_coordinators_see_yet_is_waited_for_to_be_told_to_drain(
    network: MemoryNetwork, autojump_clock: Jump, status: str
) -> None:
    Peer(network.bus(), "coordinator", "c1", lambda _: {"nodes": [{"name": "n1", "status": status}]})
    backend = await backend_on(network)

    async def come() -> None:
        await trio.sleep(3 * MOMENT)
        Peer(network.bus(), "runtime", "n1", lambda _: {"name": "n1", "status": "draining"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        if status == "ready":
            assert await backend.runtime("n1", "drain") == {"name": "n1", "status": "draining"}
            return
        with pytest.raises(NotFound, match="wattle nodes lists"):
            await backend.runtime("n1", "drain")
