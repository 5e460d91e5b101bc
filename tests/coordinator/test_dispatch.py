"""Commands on their way to nodes: batches, order, and what becomes of those that nobody answers."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.bus.networks import Inbox
from wattle.bus.base import Query
from wattle.bus.memory import MemoryNetwork
from wattle.coordinator.dispatch import MOST_TASKS, Dispatch
from wattle.core import events as on
from wattle.core.effects import Assign, Cancel, Withdraw
from wattle.core.model import Assignment, TaskId
from wattle.errors import InvalidRequest
from wattle.peer.asking import refuse
from wattle.protocol.keys import Keys
from wattle.protocol.messages import AssignBatch, CancelBatch, TaskAnswer, TaskAnswers, decode, encode

KEYS = Keys()


class Scene:
    """A dispatch, what came back through it, and a node that keeps the commands it gets."""

    def __init__(self, nursery: trio.Nursery) -> None:
        network = MemoryNetwork()
        here, self.there = network.bus(), network.bus()
        self.events = Inbox()
        self.queries = Inbox()
        self.cancelled: list[str] = []
        self.dispatch = Dispatch(here, KEYS, "me", nursery, self.events, self.cancelled.append, timeout=5.0)
        self.there.serve(KEYS.cmd("n", "*"), self.queries)

    def assign(self, *workers: str, node: str = "n") -> None:
        for worker in workers:
            self.dispatch.assign(Assign(node, Assignment("r", worker, 1, 7, "w")))

    async def batch(self, number: int = 1) -> list[str]:
        """The workers in the ``number``-th command, once it is there."""
        await self.queries.size(number)
        batch = self._newest()
        assert batch.owner == "me"
        return [task.worker for task in batch.tasks]

    def _newest(self) -> AssignBatch | CancelBatch:
        query: Query = self.queries[-1]
        if query.key.endswith("assign"):
            return decode(AssignBatch, query.payload)
        return decode(CancelBatch, query.payload)

    def answer(self, **codes: str) -> None:
        """Answer the newest command; OK for those not named."""
        answers = [
            TaskAnswer(task.run, task.worker, task.attempt, codes.get(task.worker, "OK"), "so", 9, "x")
            for task in self._newest().tasks
        ]
        self.queries[-1].reply(encode(TaskAnswers(tuple(answers))))
        self.queries[-1].finish()


@pytest.fixture
async def scene(nursery: trio.Nursery) -> Scene:
    return Scene(nursery)


def task(worker: str) -> TaskId:
    return TaskId("r", worker, 1)


async def test_what_piles_up_meanwhile_travels_together(scene: Scene) -> None:
    scene.assign("a", "b")
    assert await scene.batch(1) == ["a", "b"]
    scene.assign("c")
    scene.assign("d")
    await trio.testing.wait_all_tasks_blocked()
    assert len(scene.queries) == 1
    scene.answer()
    assert await scene.batch(2) == ["c", "d"]
    scene.answer()
    assert await scene.events.size(2) == [
        on.Delivered("n", (task("a"), task("b"))),
        on.Delivered("n", (task("c"), task("d"))),
    ]


async def test_a_batch_is_bounded(scene: Scene) -> None:
    names = [f"w{n}" for n in range(MOST_TASKS + 3)]
    scene.assign(*names)
    assert await scene.batch(1) == names[:MOST_TASKS]
    scene.answer()
    assert await scene.batch(2) == names[MOST_TASKS:]


async def test_cancels_follow_the_assignments_before_them(scene: Scene) -> None:
    scene.assign("a")
    scene.dispatch.cancel(Cancel("n", task("a"), 7))
    assert await scene.batch(1) == ["a"]
    assert scene.queries[0].key == KEYS.cmd("n", "assign")
    scene.answer()
    assert await scene.batch(2) == ["a"]
    assert scene.queries[1].key == KEYS.cmd("n", "cancel")
    scene.answer()
    assert scene.cancelled == []
    assert (await scene.events.size(2))[1] == on.CancelAnswered("n", (task("a"),))
    await trio.testing.wait_all_tasks_blocked()
    assert scene.cancelled == ["n"], "its end may have been told in a hint that was lost"


async def test_refusals_are_told_one_by_one(scene: Scene) -> None:
    scene.assign("a", "b", "c")
    await scene.batch()
    scene.answer(a="FENCED", c="UNFIT")
    assert await scene.events.size(3) == [
        on.Delivered("n", (task("b"),)),
        on.Refused("n", task("a"), "FENCED", "so", 9, "x"),
        on.Refused("n", task("c"), "UNFIT", "so", 9, "x"),
    ]


async def test_who_orders_an_end_is_told_where_there_is_none_to_come(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.dispatch.cancel(Cancel("n", task(name), 7))
    await scene.batch()
    scene.answer(a="FENCED", b="PASSED")
    assert await scene.events.size(3) == [
        on.CancelAnswered("n", (task("c"),)),
        on.Refused("n", task("a"), "FENCED", "so", 9, "x"),
        on.Refused("n", task("b"), "PASSED", "so", 9, "x"),
    ]


async def test_what_waits_is_withdrawn_and_later_commands_are_not(scene: Scene) -> None:
    scene.dispatch.withdraw(Withdraw("n"))
    scene.assign("a")
    await scene.batch(1)
    scene.assign("b")
    scene.dispatch.cancel(Cancel("n", task("a"), 7))
    scene.dispatch.withdraw(Withdraw("n"))
    scene.assign("c")
    scene.answer()
    assert await scene.batch(2) == ["c"]
    scene.answer()
    await scene.events.size(2)
    await trio.testing.wait_all_tasks_blocked()
    assert len(scene.queries) == 2


async def test_nodes_do_not_wait_for_each_other(scene: Scene) -> None:
    others = Inbox()
    scene.there.serve(KEYS.cmd("m", "*"), others)
    scene.assign("a")
    await scene.batch()
    scene.assign("b", node="m")
    await others.size(1)


async def test_a_command_that_is_not_answered_is_undelivered(
    scene: Scene, autojump_clock: trio.testing.MockClock
) -> None:
    scene.assign("a")
    assert await scene.events.size(1) == [on.Undelivered("n")]
    scene.assign("b", node="nowhere")
    assert (await scene.events.size(2))[1] == on.Undelivered("nowhere")


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff", b'{"tasks": [{"run": 1}]}'])
async def test_an_answer_that_is_none_is_undelivered(scene: Scene, junk: bytes) -> None:
    scene.assign("a")
    await scene.batch()
    scene.queries[0].reply(junk)
    scene.queries[0].finish()
    assert await scene.events.size(1) == [on.Undelivered("n")]
    scene.assign("b")
    assert await scene.batch(2) == ["b"]


async def test_a_command_that_is_refused_whole_is_undelivered(scene: Scene) -> None:
    scene.assign("a")
    await scene.batch()
    refuse(scene.queries[0], InvalidRequest("no"))
    assert await scene.events.size(1) == [on.Undelivered("n")]
