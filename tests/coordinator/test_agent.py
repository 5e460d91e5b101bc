"""A coordinator on a network in memory: restarts, lost messages, nodes that come back as others."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import trio
import trio.testing

from tests.bus.networks import Inbox
from tests.coordinator.world import KEYS, World
from wattle.bus.base import Sample
from wattle.bus.memory import MemoryBus
from wattle.coordinator import agent as coordinator_agent
from wattle.coordinator import neighbours
from wattle.core import events as on
from wattle.core.model import NodeInfo, RunHead, TaskStatus
from wattle.errors import Conflict
from wattle.protocol.messages import CopiesAnswer, CopiesQuestion, decode, encode
from wattle.store.coordinator import CoordinatorStore
from wattle.store.coordinator_tables import Documents


async def test_a_run_goes_its_way(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    run = await net.submit("r1", "a", "b")
    assert (run["status"], run["owner"], run["epoch"]) == ("created", "c1", 1)
    await node.assigned.size(2)
    for task in list(node.held):
        node.finish(task)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert [a["node"] for a in (await net.command("worker", {"run": "r1", "worker": "a"}))["attempts"]] == ["node1"]


async def test_a_batch_that_changes_nothing_is_no_commit(net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await net.coordinator()
    commits: list[object] = []
    transaction = CoordinatorStore.transaction

    def counted(store: CoordinatorStore) -> AbstractContextManager[None]:
        commits.append(store)
        return transaction(store)

    monkeypatch.setattr(CoordinatorStore, "transaction", counted)
    handled = trio.Event()
    agent.post(on.Tick(), handled.set)
    await handled.wait()
    assert not commits
    await net.submit("r1")
    assert commits


async def test_news_that_leave_a_node_without_work_are_not_kept_waiting(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_agent, "COLLECTED", 1e6)
    monkeypatch.setattr(coordinator_agent, "WORK_AHEAD", 0.0)
    agent = await net.coordinator()
    node = net.runtime(slots=1)
    await net.submit("r1", "a")
    task = await node.next()
    agent.core.nodes["node1"].learn_duration(0.001)
    node.finish(task.id)
    await net.final("r1")
    await net.submit("r2", "a", "b", "c")
    await node.assigned.size(4)
    for held in list(node.held):
        node.finish(held)
    await net.final("r2")


async def test_after_a_restart_running_tasks_go_on_and_are_not_assigned_again(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1", "a", "b")
    await node.assigned.size(2)
    await net.stop("c1")
    await net.coordinator()
    first, second = node.held
    node.finish(first)
    node.finish(second)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len(node.assigned) == 2


async def test_what_ended_while_it_was_away_is_learned_from_the_feed(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1", "a", "b")
    await node.assigned.size(2)
    await net.stop("c1")
    first, second = node.held
    node.finish(first)
    node.finish(second, TaskStatus.FAILED)
    await net.coordinator()
    run = await net.final("r1")
    assert (run["status"], run["counts"]) == ("failed", {"succeeded": 1, "failed": 1})


async def test_a_run_submitted_before_a_restart_starts_after_it(net: World) -> None:
    await net.coordinator()
    await net.submit("r1")
    await net.stop("c1")
    await net.coordinator()
    node = net.runtime()
    node.finish((await node.next()).id)
    assert (await net.final("r1"))["status"] == "succeeded"


async def test_a_stored_run_that_is_no_longer_understood_keeps_no_other_from_going_on(net: World) -> None:
    await net.coordinator()
    await net.submit("broken", params=None)
    await net.command("submit", {"document": {"name": "q", "workers": [{"name": "a", "command": "x"}]}, "run": "sound"})
    store = net.stores["c1"]
    digest = store.run("broken").document  # type: ignore[union-attr]  # it was submitted a line ago
    with store.transaction():
        Documents.update(body='{"name": "p"}').where(Documents.digest == digest).execute()
    await net.stop("c1")
    await net.coordinator()
    node = net.runtime()
    assert (await node.next()).run == "sound"
    node.finish((await node.next()).id)
    assert (await net.final("sound"))["status"] == "succeeded"
    assert (await net.command("run", {"run": "broken"}))["status"] == "created"


async def test_an_assignment_that_was_lost_is_sent_again_with_the_same_identity(net: World) -> None:
    lost: list[str] = []

    def lose(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind != "query" or not key.endswith("/assign") or lost:
            return False
        lost.append(key)
        return True

    await net.coordinator()
    node = net.runtime()
    net.network.lose = lose
    await net.submit("r1")
    task = await node.next()
    assert (lost, task.attempt) == ([KEYS.cmd("node1", "assign")], 1)
    node.finish(task.id)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len(node.assigned) == 1


async def test_an_answer_that_was_lost_makes_no_second_attempt(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    node.answer = False
    await net.submit("r1")
    await node.next(1)
    node.answer = True
    again = await node.next(2)  # told twice
    assert again.attempt == 1
    node.finish(again.id)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len((await net.command("worker", {"run": "r1", "worker": "a"}))["attempts"]) == 1


async def test_a_finish_of_which_every_hint_was_lost_is_found_by_asking(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_agent, "FEED_CHECK", 0.05)
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    node.finish((await node.next()).id, tell=False)
    assert (await net.final("r1"))["status"] == "succeeded"


def answers_of_feed(net: World) -> Inbox:
    """The answers about node1's feed from now on."""
    answers = Inbox()

    def look(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind == "reply" and key == KEYS.feed("node1"):
            answers(key)
        return False

    net.network.lose = look
    return answers


async def test_what_became_of_an_attempt_that_only_another_owner_knew_is_found_by_asking(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given out when the run had ended here, and the hint of how it ended is lost."""
    monkeypatch.setattr(coordinator_agent, "FEED_CHECK", 0.01)
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    first = await node.next()
    node.finish(first.id)
    await net.final("r1")
    other = replace(first, attempt=2)
    node.held[other.id] = other
    asked = answers_of_feed(net)
    node.finish(other.id, tell=False)
    await asked.size(2)
    await trio.testing.wait_all_tasks_blocked()
    attempts = (await net.command("worker", {"run": "r1", "worker": "a"}))["attempts"]
    assert [(attempt["attempt"], attempt["status"]) for attempt in attempts] == [(1, "succeeded"), (2, "superseded")]


async def test_an_ordered_end_of_which_the_only_hint_was_lost_is_found_by_asking(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has ended without it: another node's attempt was quicker."""
    monkeypatch.setattr(coordinator_agent, "FEED_CHECK", 0.05)
    await net.coordinator(lost_after=0.05)
    node = net.runtime()
    await net.submit("r1")
    lost = (await node.next()).id
    net.network.cut(net.buses["c1"], net.buses["node1"])
    other = net.runtime("node2")
    other.finish((await other.next()).id)
    await net.final("r1")
    answers = answers_of_feed(net)
    node.ends = False
    net.network.heal()
    await node.cancelled.size(1)
    await answers.size(2)  # as it is met, and once it has taken the order
    node.finish(lost, TaskStatus.CANCELLED, tell=False)
    await answers.size(len(answers) + 1)
    await trio.testing.wait_all_tasks_blocked()
    attempts = (await net.command("worker", {"run": "r1", "worker": "a"}))["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["superseded", "succeeded"]


async def test_a_feed_that_is_to_be_read_again_is_asked_again_when_the_answer_was_lost(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt was given up, and its end told before the run, which has ended, was taken over by who had heard it."""
    monkeypatch.setattr(coordinator_agent, "FEED_CHECK", 0.05)
    answers = Inbox()

    def lose(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind != "reply" or key != KEYS.feed("node1") or receiver is not net.buses["c2"]:
            return False
        answers(key)
        return len(answers) == 2

    net.network.lose = lose
    await net.coordinator(lost_after=0.05)
    await net.coordinator("c2", adopt_after=0.05)
    node = net.runtime()
    await net.submit("r1")
    lost = (await node.next()).id
    await answers.size(1)  # as it is met
    net.network.cut(net.buses["c1"], net.buses["node1"])
    other = net.runtime("node2")
    other.finish((await other.next()).id)
    await net.final("r1")
    node.finish(lost)
    await net.stop("c1")
    await answers.size(3)  # once the run is taken over, and again since that was lost
    await trio.testing.wait_all_tasks_blocked()
    attempts = (await net.command("worker", {"run": "r1", "worker": "a"}, "c2"))["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["superseded", "succeeded"]


async def test_a_node_that_does_not_answer_at_first_joins_later(net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "JOIN_RETRY", 0.05)
    deaf = Inbox()

    def lose(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind == "query" and key.endswith("/held") and len(deaf) < 2:
            deaf(key)
            return True
        return False

    await net.coordinator()
    net.network.lose = lose
    node = net.runtime()
    await net.submit("r1")
    node.finish((await node.next()).id)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len(deaf) == 2


async def test_a_node_that_comes_back_with_an_empty_folder_gets_a_new_attempt(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    assert (await node.next()).attempt == 1
    node.bus.vanish()
    node = net.runtime(store="s2")
    task = await node.next()
    assert task.attempt == 2
    node.finish(task.id)
    assert (await net.final("r1"))["status"] == "succeeded"
    attempts = (await net.command("worker", {"run": "r1", "worker": "a"}))["attempts"]
    assert [a["status"] for a in attempts] == ["lost", "succeeded"]


async def test_a_node_is_unreachable_while_its_token_is_gone(net: World) -> None:
    await net.coordinator()
    events = Inbox()
    net.client.subscribe(KEYS.events, events)
    node = net.runtime()
    await net.submit("r1")
    task = await node.next()
    net.network.cut(net.buses["c1"], net.buses["node1"])
    await events.until(lambda seen: any(b'"unreachable":true' in (s.payload or b"") for s in seen))
    assert (await net.command("worker", {"run": "r1", "worker": "a"}))["unreachable"] is True
    assert [n["status"] for n in (await net.command("nodes"))["nodes"]] == ["unreachable"]
    node.finish(task.id)
    net.network.heal()
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len(node.assigned) == 1


async def test_nobody_speaks_for_another_node(net: World) -> None:
    agent = await net.coordinator()
    node = net.runtime(slots=1)
    await net.submit("r1")
    await node.next()
    told = NodeInfo("node1", node.incarnation, "s1", slots=50)
    net.client.put(KEYS.state("runtime", "stranger"), encode(told))
    net.client.put("wattle/default/**", encode(told))
    net.client.put(KEYS.state("runtime", "node1"), b'{"slots": 1e300}')
    await trio.testing.wait_all_tasks_blocked()
    assert agent.core.nodes["node1"].info.slots == 1
    net.client.put(KEYS.state("runtime", "node1"), encode(told))
    await trio.testing.wait_all_tasks_blocked()
    assert agent.core.nodes["node1"].info.slots == 50


async def test_events_tell_of_every_change_once_somebody_listens(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    events = Inbox()
    net.client.subscribe(KEYS.events, events)
    await net.submit("r1")
    task = await node.next()
    node.start(task.id)
    await events.until(
        lambda seen: any(s.key == KEYS.event_run("r1") and b'"running"' in (s.payload or b"") for s in seen)
    )
    node.finish(task.id)
    await net.final("r1")

    def statuses(key: str) -> list[str]:
        heard: list[Sample] = [s for s in events if s.key == key]
        return [(s.payload or b"").split(b'"status":"')[1].split(b'"')[0].decode() for s in heard]

    await events.until(lambda _: "succeeded" in statuses(KEYS.event_run("r1")))
    assert statuses(KEYS.event_run("r1")) == ["created", "running", "succeeded"]
    assert statuses(KEYS.event_worker("r1", "a"))[-2:] == ["running", "succeeded"]


async def test_cancelling_reaches_the_node(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    task = await node.next()
    assert (await net.command("cancel_run", {"run": "r1"}))["status"] in ("created", "running", "cancelled")
    assert await node.cancelled.size(1) == [task.id]
    assert (await net.final("r1"))["status"] == "cancelled"
    assert (await net.command("cancel_run", {"run": "r1"}))["status"] == "cancelled"  # told twice


async def test_who_is_asked_about_a_run_looks_for_the_cancel_that_its_former_owner_left_behind(net: World) -> None:
    await net.coordinator(adopt_after=0.01)
    node = net.runtime()
    await net.submit("r1")
    await node.next()  # so it has been met, and asked which copies it has
    node.copied = (RunHead("r1", "gone", "gone-store", 0, number=4, cancelled=True),)
    question = CopiesQuestion("gone", "gone-store", ("r1",))
    (reply,) = await net.client.get(KEYS.cmd("c1", "copies"), encode(question), timeout=20.0)
    assert [(head.owner, head.cancelled) for head in decode(CopiesAnswer, reply.payload).heads] == [("c1", False)]
    assert (await net.final("r1"))["status"] == "cancelled"


async def test_a_retry_asked_for_twice_happens_once(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    node.finish((await node.next()).id, TaskStatus.FAILED)
    await net.final("r1")
    outcomes: list[str] = []

    async def retry() -> None:
        try:
            outcomes.append((await net.command("retry_run", {"run": "r1"}))["status"])
        except Conflict as error:
            outcomes.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(retry)
    task = await node.next(2)
    assert task.attempt == 2
    node.finish(task.id)
    assert (await net.final("r1"))["status"] == "succeeded"
    assert len(node.assigned) == 2
    assert len(outcomes) == 3


async def test_under_another_name_it_tells_of_the_runs_that_it_does_not_serve(
    net: World, caplog: pytest.LogCaptureFixture
) -> None:
    await net.coordinator("c1")
    await net.submit("r1", "a")
    await net.stop("c1")
    (net.folder / "c1").rename(net.folder / "c2")
    caplog.clear()
    await net.coordinator("c2")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("another name" in line and "owner='c1'" in line and "--name" in line for line in told), told
    assert (await net.command("runs", peer="c2"))["runs"] == []
