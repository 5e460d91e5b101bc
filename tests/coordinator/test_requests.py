"""What gateways ask of a coordinator: idempotent submissions, long polls that are bounded, arguments that make no sense."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.coordinator.world import KEYS, World, document
from wattle.coordinator import long_polls
from wattle.coordinator.requests import Requests
from wattle.errors import Conflict, InvalidDocument, InvalidRequest, NotFound, Unavailable, WattleError
from wattle.protocol.messages import NOT_HERE


async def test_the_same_submission_again_is_the_same_run(net: World) -> None:
    await net.coordinator()
    first = await net.submit("r1")
    assert await net.submit("r1") == first
    with pytest.raises(Conflict) as caught:
        await net.submit("r1", "other")
    assert caught.value.code == "RUN_EXISTS"
    assert [run["id"] for run in (await net.command("runs", {"limit": 10}))["runs"]] == ["r1"]


async def test_submissions_at_the_same_moment_make_one_run(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    views: list[Any] = []
    refused: list[WattleError] = []

    async def submit(*workers: str) -> None:
        try:
            views.append(await net.submit("r1", *workers))
        except WattleError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(submit, "another")
    assert len(views) == 5
    assert {view["created_at"] for view in views} == {views[0]["created_at"]}
    assert [error.code for error in refused] == ["RUN_EXISTS"]
    await node.next()
    await trio.testing.wait_all_tasks_blocked()
    assert len(node.assigned) == 1


def test_a_change_of_a_run_that_has_come_back_is_acknowledged_once_its_return_is_settled() -> None:
    """Its commit is on other stores, and they dropped it for another owner's state, which this one has taken over since."""
    waiting, answered = list[tuple[int, Any]](), list[str]()
    core = SimpleNamespace(begun=lambda run: {"r1": 9}[run], settled=8)
    requests = Requests.__new__(Requests)
    requests._agent = cast(Any, SimpleNamespace(core=core, when_settled=lambda *what: waiting.append(what)))
    vars(requests)["_answer_view"] = lambda query, run: answered.append(run)
    requests._acknowledge(cast(Any, None), "r1")
    assert ([number for number, _ in waiting], answered) == ([9], [])
    core.settled = 9
    waiting[0][1]()
    assert (len(waiting), answered) == (1, ["r1"])


async def test_a_submission_beyond_max_runs_is_turned_away(net: World) -> None:
    await net.coordinator(max_runs=2)
    await net.submit("r1")
    await net.submit("r2")
    with pytest.raises(Unavailable, match="max_runs") as caught:
        await net.submit("r3")
    assert caught.value.code == "BUSY"
    assert (await net.submit("r2"))["id"] == "r2"


async def test_a_long_poll_is_answered_when_the_run_ends_and_leaves_nothing_behind(net: World) -> None:
    agent = await net.coordinator()
    node = net.runtime()
    await net.submit("r1")
    answers: list[Any] = []

    async def poll() -> None:
        answers.append(await net.command("run", {"run": "r1", "wait": 3600}))

    await trio.testing.wait_all_tasks_blocked()
    tasks = len(agent._nursery.child_tasks)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(poll)
        await trio.testing.wait_all_tasks_blocked()
        assert len(agent._nursery.child_tasks) == tasks + 10
        node.finish((await node.next()).id)
    assert {view["status"] for view in answers} == {"succeeded"}
    await trio.testing.wait_all_tasks_blocked()
    assert len(agent._nursery.child_tasks) == tasks
    assert agent._requests._polls._waiting == {}
    assert agent._requests._polls._waiting_count == 0


async def test_a_long_poll_that_runs_out_is_answered_with_what_is(net: World) -> None:
    agent = await net.coordinator()
    await net.submit("r1")
    assert (await net.command("run", {"run": "r1", "wait": 0.01}))["status"] == "created"
    assert agent._requests._polls._waiting == {}
    assert agent._requests._polls._waiting_count == 0


async def test_a_submission_that_waits_is_answered_when_the_run_ends(net: World) -> None:
    agent = await net.coordinator()
    node = net.runtime()
    answers: list[Any] = []

    async def submit() -> None:
        body = {"document": document(), "run": "r1"}
        answers.append(await net.ask(KEYS.cmd("c1", "submit"), body, parameters="wait=3600"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        task = await node.next()
        nursery.start_soon(submit)  # as whoever lost the answer does
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        node.finish(task.id)
    assert [view["status"] for view in answers] == ["succeeded", "succeeded"]
    await submit()  # of a run that has ended long ago
    assert answers[-1] == answers[0]
    assert agent._requests._polls._waiting_count == 0


async def test_a_submission_that_waits_in_vain_is_answered_with_what_is(net: World) -> None:
    await net.coordinator()
    body = {"document": document(), "run": "r1"}
    assert (await net.ask(KEYS.cmd("c1", "submit"), body, parameters="wait=0.01"))["status"] == "created"
    assert (await net.ask(KEYS.cmd("c1", "submit"), body, parameters="wait=0.01"))["status"] == "created"


async def test_a_submission_that_cannot_wait_is_refused_before_anything_is_started(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_polls, "MAX_WAITING", 0)
    await net.coordinator()
    for parameters, kind in (("wait=3600", Unavailable), ("wait=soon", InvalidRequest)):
        with pytest.raises(kind):
            await net.ask(KEYS.cmd("c1", "submit"), {"document": document(), "run": "r1"}, parameters=parameters)
    assert (await net.command("runs", {"limit": 10}))["runs"] == []


async def test_long_polls_are_bounded_and_others_are_served_all_the_same(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_polls, "MAX_WAITING", 2)
    await net.coordinator()
    await net.submit("r1")
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(net.command, "run", {"run": "r1", "wait": 3600})
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable) as caught:
            await net.command("run", {"run": "r1", "wait": 1})
        assert caught.value.code == "BUSY"
        assert (await net.command("run", {"run": "r1"}))["status"] == "created"
        await net.command("cancel_run", {"run": "r1"})
    assert (await net.command("run", {"run": "r1", "wait": 1}))["status"] == "cancelled"


async def test_runs_of_other_owners_take_no_room_in_a_page(net: World) -> None:
    await net.coordinator()
    for number in range(6):
        await net.submit(f"r{number}")
    store = net.stores["c1"]
    for number in (1, 2, 4):
        row = store.run(f"r{number}")
        assert row is not None
        row.owner = "another"
        row.save()
    assert [run["id"] for run in (await net.command("runs", {"limit": 2}))["runs"]] == ["r5", "r3"]


async def test_workers_end_with_no_next_page(net: World) -> None:
    await net.coordinator()
    await net.submit("r1", "a", "b", "c", "d")
    page = await net.command("workers", {"run": "r1", "limit": 2})
    assert ([w["name"] for w in page["workers"]], page["next"]) == (["a", "b"], "1")
    page = await net.command("workers", {"run": "r1", "limit": 2, "after": 1})
    assert ([w["name"] for w in page["workers"]], page["next"]) == (["c", "d"], None)


async def test_a_definition_is_started_with_other_parameters(net: World) -> None:
    await net.coordinator()
    node = net.runtime()
    stored = document("w", params={"n": 1}) | {"workers": [{"name": "a", "command": "echo", "args": ["${params.n}"]}]}
    await net.command("put_workflow", {"document": stored})
    run = await net.command("start", {"name": "w", "params": {"n": 2}, "run": "w-2"})
    assert (await node.next()).params == {"n": "2"}
    assert (await net.command("start", {"name": "w", "params": {"n": 2}, "run": "w-2"}))["created_at"] == run[
        "created_at"
    ]
    assert (await net.command("workflow", {"name": "w"}))["latest_run"]["id"] == "w-2"


@pytest.mark.parametrize(
    "verb", ["run", "worker", "workers", "cancel_run", "retry_run", "workflow", "delete_workflow", "start"]
)
async def test_what_is_not_known_here_is_said_not_to_be(net: World, verb: str) -> None:
    c1 = await net.coordinator()
    args = {"run": "nothing", "name": "nothing", "worker": "a", "limit": 1}
    body = json.dumps(args).encode()
    (reply,) = await net.client.get(KEYS.cmd("c1", verb), body, timeout=5, everyone=True)
    error = json.loads(reply.payload)
    assert not reply.ok
    assert (error["code"], error["detail"]) == (NOT_HERE, [{"peer": "c1", "store": c1.store.id, "others": []}])


@pytest.mark.parametrize(
    ("verb", "payload", "error"),
    [
        ("run", b"\xff", InvalidRequest),
        ("run", b"[]", InvalidRequest),
        ("run", b'{"run": "r1", "wait": NaN}', InvalidRequest),
        ("run", b'{"run": "r1", "wait": 1e999}', InvalidRequest),
        ("run", b'{"run": "r1", "wait": "x"}', InvalidRequest),
        ("run", b'{"run": "r1", "wait": [1]}', InvalidRequest),
        ("runs", b"{}", None),
        ("runs", b'{"limit": 0}', InvalidRequest),
        ("runs", b'{"limit": -1}', InvalidRequest),
        ("runs", b'{"limit": 99999999999999999999}', InvalidRequest),
        ("runs", b'{"limit": 1, "after": 7}', InvalidRequest),
        ("runs", b'{"limit": 1, "after": ["x", "y"]}', InvalidRequest),
        ("runs", b'{"limit": 1, "status": {}}', InvalidRequest),
        ("workers", b'{"run": "r1", "limit": "1"}', InvalidRequest),
        ("workers", b'{"run": "r1", "limit": 1, "after": -9}', InvalidRequest),
        ("workflows", b'{"limit": 1, "after": [1]}', InvalidRequest),
        ("submit", b"", InvalidRequest),
        ("submit", b'{"document": {}, "x": 1}', InvalidRequest),
        ("submit", b'{"document": {}}', InvalidDocument),
        ("submit", b'{"document": "name: [", "run": "r2"}', InvalidDocument),
        ("put_workflow", b'{"document": []}', InvalidRequest),
        ("start", b'{"name": "p", "params": {"nope": 1}}', InvalidRequest),
        ("start", b'{"name": "p", "params": 7}', InvalidRequest),
        ("start", b'{"name": "p", "run": "*"}', InvalidRequest),
        ("nodes", b"\0", InvalidRequest),
    ],
)
async def test_arguments_that_make_no_sense(
    net: World, verb: str, payload: bytes, error: type[WattleError] | None
) -> None:
    agent = await net.coordinator()
    await net.submit("r1")
    if error is None:
        await net.command(verb, payload)
    else:
        with pytest.raises(error) as caught:
            await net.command(verb, payload)
        assert caught.value.code in ("INVALID_REQUEST", "INVALID_DOCUMENT")
    assert (await net.command("run", {"run": "r1"}))["id"] == "r1"
    assert agent._requests._polls._waiting_count == 0


async def test_a_fault_is_answered_and_others_are_served(net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await net.coordinator()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(agent._requests, "_store", None)
    with pytest.raises(WattleError) as caught:
        await net.command("run", {"run": "r1"})
    assert caught.value.code == "INTERNAL"
    monkeypatch.undo()
    monkeypatch.setattr(agent, "post", broken)
    with pytest.raises(WattleError) as caught:
        await net.submit("r1")
    assert caught.value.code == "INTERNAL"
    monkeypatch.undo()
    assert (await net.submit("r1"))["id"] == "r1"
    assert not isinstance(caught.value, NotFound)
