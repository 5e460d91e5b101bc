"""What a node answers to a claim, and what of it still counts when the node has begun another life meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.bus.networks import PATIENCE, Inbox
from wattle.bus.base import Query
from wattle.bus.memory import MemoryNetwork
from wattle.coordinator.neighbours import Neighbours
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.effects import Claim
from wattle.core.model import Fact, FactKind, NodeInfo, TaskId
from wattle.peer.feeds import FeedFollower
from wattle.protocol.keys import Keys
from wattle.protocol.messages import PROTOCOL, FactsAnswer, FeedEntry, FeedPage, HeldTasks, TaskRef, encode
from wattle.store.coordinator import CoordinatorStore

KEYS = Keys()
TASK = TaskId("r", "a", 1)
STARTED = Fact(FactKind.STARTED, *TASK, at=5.0, pid=7)


class Scene:
    """A coordinator's neighbours, what came back through them, and a node that keeps the questions it gets."""

    def __init__(self, nursery: trio.Nursery, store: CoordinatorStore, *lives: str) -> None:
        network = MemoryNetwork()
        here, self.there = network.bus(), network.bus()
        self.events, self.questions, self.met, self.seen = Inbox(), Inbox(), Inbox(), Inbox()
        core = CoordinatorCore("me", CoordinatorOptions(), lambda: 0.5)
        self.learned = Inbox()
        follower = FeedFollower(here, KEYS, nursery, {}, lambda *entry: self.learned(entry), timeout=PATIENCE)
        self.there.serve(KEYS.state("runtime", "n"), self.met)  # asked for by who sees a new life of it
        self.there.serve(KEYS.cmd("n", "*"), self.questions)
        self.tokens = {life: self.there.declare_alive(KEYS.alive("runtime", "n", life)) for life in lives}
        self.neighbours = Neighbours(here, KEYS, core, store, follower, nursery, self._post, timeout=PATIENCE)

    def _post(self, event: on.CoordinatorEvent) -> None:
        (self.seen if isinstance(event, on.TokenSeen) else self.events)(event)

    async def asked(self, number: int) -> Query:
        """The ``number``-th question, once it is there."""
        query: Query = (await self.questions.size(number))[number - 1]
        return query

    async def claim(self) -> Query:
        """Claim a run and have the node say what it holds: the question that follows, for all it has said of the run."""
        self.neighbours.claim(Claim("n", (("r", 3),)))
        _answer(await self.asked(1), HeldTasks((TaskRef(*TASK, 3),)))
        return await self.asked(2)

    async def looked_up(self, number: int, disk: str) -> None:
        """Have the node say at the ``number``-th meeting that it is on this disk."""
        query: Query = (await self.met.size(number))[number - 1]
        _answer(query, NodeInfo("n", str(number), disk, protocol=PROTOCOL))


def _answer(query: Query, answer: HeldTasks | FactsAnswer | FeedPage | NodeInfo) -> None:
    query.reply(encode(answer))
    query.finish()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoordinatorStore]:
    made = CoordinatorStore(tmp_path / "coordinator.db")
    yield made
    made.close()


@pytest.fixture
async def scene(nursery: trio.Nursery, store: CoordinatorStore) -> Scene:
    made = Scene(nursery, store, "1")
    await made.met.size(1)
    return made


async def test_a_peers_token_is_told_before_it_is_met(scene: Scene) -> None:
    scene.there.declare_alive(KEYS.alive("coordinator", "c", "1"))
    scene.there.declare_alive(KEYS.alive("gateway", "g", "1"))
    await trio.testing.wait_all_tasks_blocked()
    assert scene.seen == [on.TokenSeen("n", "1"), on.TokenSeen("c", "1")]
    assert scene.events == []


async def test_a_peer_of_another_protocol_is_left_alone(scene: Scene) -> None:
    """What it has of others' runs cannot be read: it is not asked, nor met again."""
    _answer(scene.met[0], NodeInfo("n", "1", "disk", protocol=PROTOCOL + 1))
    assert await scene.events.size(1) == [on.NodeUnreachable("n", "1")]


async def test_a_claim_tells_what_the_node_holds_and_has_said(scene: Scene) -> None:
    _answer(await scene.claim(), FactsAnswer((STARTED,)))
    assert await scene.events.size(1) == [on.RunsClaimed("n", {"r": 3}, {TASK: 3}, (STARTED,))]


async def test_what_two_lives_of_a_node_say_to_one_claim_is_no_answer(scene: Scene) -> None:
    """The first may have lost its disk since it said what it holds, and the coordinator may have met the second already."""
    question = await scene.claim()
    scene.tokens["1"].undeclare()
    scene.there.declare_alive(KEYS.alive("runtime", "n", "2"))
    await scene.met.size(2)
    _answer(question, FactsAnswer(()))
    assert await scene.events.size(2) == [on.NodeUnreachable("n", "1"), on.Undelivered("n")]


async def test_who_was_gone_while_it_was_met_does_not_take_the_place_of_its_next_life(scene: Scene) -> None:
    """Its feed would be followed on a disk that is lost, and none of what the node tells be heard (seed 9104521)."""
    scene.there.serve(KEYS.feed("n"), lambda query: _answer(query, FeedPage("second", 0, (), 0)))
    await scene.looked_up(1, "first")
    late = await scene.asked(1)
    scene.tokens["1"].undeclare()
    scene.there.declare_alive(KEYS.alive("runtime", "n", "2"))
    await scene.looked_up(2, "second")
    _answer(await scene.asked(2), HeldTasks(()))
    await scene.events.size(2)  # the first is gone, the second seen

    _answer(late, HeldTasks(()))
    await trio.testing.wait_all_tasks_blocked()
    scene.there.put(KEYS.feed("n"), encode(FeedPage("second", 1, (FeedEntry(1, (STARTED,)),))))
    assert await scene.learned.size(1) == [("n", "second", 1, (STARTED,), True)]


async def test_of_two_lives_in_sight_both_may_have_answered_a_claim(scene: Scene) -> None:
    """The second has a clock that went back, and the token of the first has not gone."""
    question = await scene.claim()
    scene.there.declare_alive(KEYS.alive("runtime", "n", "0"))
    await trio.testing.wait_all_tasks_blocked()
    _answer(question, FactsAnswer(()))
    assert await scene.events.size(1) == [on.Undelivered("n")]


@pytest.mark.parametrize(("new", "former"), [("2", "1"), ("1", "2")])
async def test_who_is_seen_beside_its_former_life_is_met(
    nursery: trio.Nursery, store: CoordinatorStore, new: str, former: str
) -> None:
    """Its machine crashed, and was back before that was missed; the clock may have gone back."""
    scene = Scene(nursery, store, new, former)
    scene.there.serve(KEYS.feed("n"), lambda query: _answer(query, FeedPage("disk", 0, (), 0)))
    await scene.met.size(1)
    scene.tokens[former].undeclare()
    await trio.testing.wait_all_tasks_blocked()
    info = NodeInfo("n", new, "disk", protocol=PROTOCOL)
    for query in scene.met:
        _answer(query, info)
    await trio.testing.wait_all_tasks_blocked()
    for query in scene.questions:
        _answer(query, HeldTasks(()))
    assert await scene.events.size(2) == [on.NodeUnreachable("n", former), on.NodeSeen(info)]
    assert scene.seen[-1] == on.TokenSeen("n", new)


async def test_a_coordinator_is_met_once_the_token_of_its_former_life_has_gone(scene: Scene) -> None:
    def answer(query: Query) -> None:
        query.reply(json.dumps({"protocol": PROTOCOL, "store": "c-store"}).encode())
        query.finish()

    scene.there.serve(KEYS.state("coordinator", "c"), answer)
    former = scene.there.declare_alive(KEYS.alive("coordinator", "c", "2"))
    scene.there.declare_alive(KEYS.alive("coordinator", "c", "1"))
    assert await scene.events.size(1) == [on.CoordinatorSeen("c", "2", "c-store")]
    former.undeclare()
    assert (await scene.events.size(3))[1:] == [on.CoordinatorGone("c", "2"), on.CoordinatorSeen("c", "1", "c-store")]
