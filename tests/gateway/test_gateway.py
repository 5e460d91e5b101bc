"""Gateways between clients and several coordinators: order, listings, and coordinators that say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.bus.networks import Inbox
from tests.coordinator.world import KEYS, World, document
from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus
from wattle.core.hashing import ranked
from wattle.core.model import TaskId, TaskStatus
from wattle.errors import Conflict, InvalidRequest, NotFound, Unavailable, WattleError
from wattle.gateway import agent as gateway_agent
from wattle.gateway import routes
from wattle.protocol.records import WAITING_SUBMISSION


async def pages(net: World, path: str, listed: str) -> list[list[Any]]:
    """Every page of a listing."""
    found = []
    after = ""
    while True:
        page = await net.api(path + after)
        found.append(page[listed])
        if page["next"] is None:
            return found
        after = f";after={page['next']}"


def silence(net: World, name: str) -> None:
    """Have a peer get no query any more, and not be seen as gone: as a stopped process before its lease is over."""

    def lose(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        return kind == "query" and receiver is net.buses[name] and sender is not receiver

    net.network.lose = lose


async def three(net: World) -> None:
    for name in ("c1", "c2", "c3"):
        await net.coordinator(name)
    await net.gateway()


async def test_runs_of_several_coordinators_are_one_listing_page_by_page(net: World) -> None:
    await three(net)
    wanted = [f"r{number}" for number in range(11)]
    for run in wanted:
        await net.api(f"runs/{run}", document())
    listing = await pages(net, "runs?limit=3", "runs")
    assert [[r["id"] for r in page] for page in listing] == [
        wanted[:-4:-1],
        wanted[-4:-7:-1],
        wanted[-7:-10:-1],
        ["r1", "r0"],
    ]
    assert len({r["owner"] for page in listing for r in page}) > 1
    assert [r["id"] for r in (await net.api("runs?after=r3"))["runs"]] == ["r2", "r1", "r0"]
    assert [r["id"] for r in (await net.api("runs?limit=11"))["runs"]] == wanted[::-1]
    assert (await net.api("runs?limit=11"))["next"] is None
    assert (await net.api("runs?status=failed"))["runs"] == []


async def test_runs_made_in_one_moment_are_listed_once_each(net: World) -> None:
    await three(net)
    for number in range(7):
        run = await net.api(f"runs/r{number}", document())
        with net.stores[run["owner"]].transaction():
            row = net.stores[run["owner"]].run(run["id"])
            assert row is not None
            row.created_at = 1000.0
            row.save()
    listing = await pages(net, "runs?limit=2", "runs")
    assert [r["id"] for page in listing for r in page] == [f"r{n}" for n in reversed(range(7))]


@pytest.mark.parametrize("first", ["c1", "c2"])
async def test_a_run_that_two_coordinators_show_as_theirs_is_listed_as_the_later_owner_does(
    net: World, first: str
) -> None:
    for name in (first, "c1", "c2"):
        if name not in net.stores:
            await net.coordinator(name, replicas=0)
    await net.gateway()
    net.network.cut(net.buses["c1"], net.buses["c2"])
    for name in ("c1", "c2"):
        await net.command("submit", {"document": document(), "run": "r1"}, name)
    assert [run["owner"] for run in (await net.api("runs"))["runs"]] == ["c2"]
    assert (await net.api("runs/r1"))["owner"] == "c2"


async def test_a_definition_known_to_several_is_listed_and_shown_as_it_was_stored_last(net: World) -> None:
    await three(net)
    for name in ("c1", "c2", "c3"):  # the newest is not the first to answer for every name
        await net.command("put_workflow", {"document": document("w", name)}, name)
    for name in ("c3", "c2", "c1"):
        await net.command("put_workflow", {"document": document("v", name)}, name)
    listing = await pages(net, "workflows?limit=1", "workflows")
    assert [[w["name"] for w in page] for page in listing] == [["v"], ["w"]]
    assert [w["name"] for w in (await net.api("workflows/w"))["document"]["workers"]] == ["c3"]
    assert [w["name"] for w in (await net.api("workflows/v"))["document"]["workers"]] == ["c1"]


async def test_a_definition_known_to_several_is_started_once(net: World) -> None:
    await three(net)
    for name in ("c2", "c3", "c1"):
        await net.command("put_workflow", {"document": document("w", name)}, name)
    run = await net.api("workflows/w/start")
    assert run["owner"] == "c1"
    again = await net.api("workflows/w/start", {"run": "mine"})
    assert await net.api("workflows/w/start", {"run": "mine"}) == again
    assert sorted(r["id"] for r in (await net.api("runs"))["runs"]) == sorted([run["id"], "mine"])


async def test_a_deleted_definition_is_gone_everywhere(net: World) -> None:
    await three(net)
    for name in ("c1", "c2", "c3"):
        await net.command("put_workflow", {"document": document("w")}, name)
    net.client.delete(KEYS.api("workflows/w"))
    with pytest.raises(NotFound) as caught:
        await net.api("workflows/w")
    assert caught.value.code == "WORKFLOW_NOT_FOUND"
    assert (await net.api("workflows"))["workflows"] == []


async def test_a_run_told_again_goes_to_who_has_it_however_many_coordinators_there_are_by_then(net: World) -> None:
    await net.coordinator("c1")
    await net.gateway()
    runs = {f"r{n}": await net.api(f"runs/r{n}", document()) for n in range(8)}
    await net.coordinator("c2")
    await net.coordinator("c3")
    for run, view in runs.items():
        assert await net.api(f"runs/{run}", document()) == view
        with pytest.raises(Conflict):
            await net.api(f"runs/{run}", document("p", "other"))
    await net.command("put_workflow", {"document": document("w")}, "c2")
    with pytest.raises(Conflict, match="at another coordinator"):
        await net.api("workflows/w/start", {"run": "r0"})
    assert len((await net.api("runs"))["runs"]) == 8


async def test_one_that_says_nothing_does_not_keep_the_owner_from_answering(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_agent, "REQUEST_TIMEOUT", 3600.0)  # would be waited for
    await net.coordinator("c1")
    await net.gateway()
    node = net.runtime()
    await net.api("runs/r1", document())
    await net.coordinator("c2")
    silence(net, "c2")
    task = await node.next()
    assert (await net.api("runs/r1"))["id"] == "r1"
    assert (await net.api("runs/r1/workers"))["workers"][0]["name"] == "a"
    assert (await net.api("runs/r1", document()))["id"] == "r1"
    node.finish(task.id, TaskStatus.FAILED)
    assert (await net.api("runs/r1?wait=3600"))["status"] == "failed"
    assert (await net.api("runs/r1/retry"))["id"] == "r1"


async def test_what_the_owner_refuses_is_refused_at_once_though_another_has_a_copy(net: World) -> None:
    await net.coordinator("c1")
    await net.coordinator("c2")
    await net.gateway()
    asked = Inbox()
    spy = net.network.bus("spy")

    def listen(query: Query) -> None:
        asked(KEYS.cmd_verb(query.key))
        query.finish()

    spy.serve(KEYS.cmd("spy", "*"), listen)
    node = net.runtime()
    await net.api("runs/r1", document())
    task = await node.next()
    with pytest.raises(Conflict, match="can be retried once it has ended"):
        await net.api("runs/r1/retry")
    node.finish(task.id)
    await net.api("runs/r1?wait=20")
    with pytest.raises(Conflict, match="nothing to cancel"):
        await net.api("runs/r1/cancel")
    assert (asked.count("retry_run"), asked.count("cancel_run")) == (1, 1)


async def test_who_cannot_be_asked_may_have_what_is_not_found(net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_agent, "REQUEST_TIMEOUT", 0.05)
    await net.coordinator("c1")
    await net.coordinator("c2")
    await net.gateway()
    with pytest.raises(NotFound):
        await net.api("runs/nothing")
    silence(net, "c2")
    with pytest.raises(Unavailable) as caught:
        await net.api("runs/nothing")
    assert caught.value.code == "TIMEOUT"


async def test_without_coordinators_and_runtimes(net: World) -> None:
    await net.gateway()
    for path, payload in [
        ("runs", None),
        ("runs/r1", document()),
        ("runs/r1?wait=9", None),
        ("workflows/w/start", None),
    ]:
        with pytest.raises(Unavailable) as caught:
            await net.api(path, payload)
        assert caught.value.code == "NO_COORDINATOR"
    assert (await net.api("nodes")) == {"nodes": []}
    assert (await net.api("health"))["status"] == "degraded"
    with pytest.raises(NotFound, match="there are none"):
        await net.api("nodes/n")


async def test_a_put_and_what_follows_it_keep_their_order(net: World) -> None:
    await net.coordinator()
    await net.gateway()
    rejected = Inbox()
    net.client.subscribe(KEYS.event_rejected, rejected)
    body = json.dumps(document()).encode()
    for number in range(10):
        key = KEYS.api(f"runs/r{number}")
        net.client.put(key, body)
        net.client.delete(key)
        net.client.put(key, body)
        assert (await net.api(f"runs/r{number}"))["status"] == "cancelled"
    assert rejected == []
    assert (await net.api("runs/r1?wait=5"))["status"] == "cancelled"


async def test_changes_of_one_thing_do_not_wait_for_another(net: World) -> None:
    await net.coordinator("c1")
    gateway = await net.gateway()
    lost = Inbox()

    def lose(kind: str, sender: MemoryBus, receiver: MemoryBus, key: str) -> bool:
        if kind == "query" and key.endswith("/submit") and not lost:
            lost(key)
            return True
        return False

    net.network.lose = lose
    net.client.put(KEYS.api("runs/stuck"), json.dumps(document()).encode())
    await lost.size(1)
    assert (await net.api("runs/free", document()))["id"] == "free"
    assert (await net.api("runs"))["runs"][0]["id"] == "free"
    assert len(gateway._changing) == 1
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_submission_to_a_coordinator_that_goes_unanswering_is_sent_to_the_next_as_the_same_run(
    noticed: bool, net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network does not always notice that a question was lost with whom it was for."""
    falls_to_c2 = next(n for n in map("p-{}".format, range(100)) if ranked(["c1", "c2"], n)[0] == "c2")
    monkeypatch.setattr(routes, "new_run_id", lambda *_: falls_to_c2)
    await net.coordinator("c1")
    await net.gateway()
    asked: list[Query] = []
    token = net.client.declare_alive(KEYS.alive("coordinator", "c2", "life"))

    def go(query: Query) -> None:
        asked.append(query)
        token.undeclare()
        if noticed:
            query.finish()

    net.client.serve(KEYS.cmd("c2", "submit"), go)
    submitted = await net.api("runs", document())
    assert [json.loads(query.payload or b"")["run"] for query in asked] == [submitted["id"]] == [falls_to_c2]
    assert submitted["owner"] == "c1"
    assert [run["id"] for run in (await net.api("runs"))["runs"]] == [submitted["id"]]


async def test_the_log_of_an_attempt_is_had_from_its_node_when_nobody_knows_the_run(net: World) -> None:
    await net.gateway()
    path = "runs/r1/workers/w/logs/stdout"
    task = TaskId("r1", "w", 2)

    def answer(query: Query) -> None:
        query.reply(b"printed", key=KEYS.log(task, "stdout"), attachment=b'{"size": 7}')
        query.finish()

    net.client.serve(KEYS.log(task, "stdout"), answer)
    (reply,) = await net.client.get(KEYS.api(path), parameters="attempt=2", timeout=5)
    assert (reply.payload, json.loads(reply.attachment or b"")) == (b"printed", {"attempt": 2, "size": 7})
    for missing in ("attempt=1", ""):
        (reply,) = await net.client.get(KEYS.api(path), parameters=missing, timeout=5)
        assert json.loads(reply.payload)["code"] == "NO_COORDINATOR"


async def test_who_says_where_a_log_is_has_it_from_there_without_a_coordinator(net: World) -> None:
    await net.gateway()
    path = "runs/r1/workers/w/logs/stdout"
    task = TaskId("r1", "w", 2)

    def answer(query: Query) -> None:
        query.reply(b"printed", key=KEYS.log(task, "stdout"), attachment=b'{"size": 7}')
        query.finish()

    net.client.serve(KEYS.log(task, "stdout"), answer)
    token = net.client.declare_alive(KEYS.alive("runtime", "n1", "life"))
    await trio.testing.wait_all_tasks_blocked()
    (reply,) = await net.client.get(KEYS.api(path), parameters="attempt=2;node=n1", timeout=5)
    assert reply.payload == b"printed"
    assert json.loads(reply.attachment or b"") == {"attempt": 2, "node": "n1", "size": 7}
    token.undeclare()
    await trio.testing.wait_all_tasks_blocked()
    (reply,) = await net.client.get(KEYS.api(path), parameters="attempt=2;node=n1", timeout=5)
    assert json.loads(reply.attachment or b"") == {"attempt": 2, "size": 7}  # looked up: nobody knows the run
    (reply,) = await net.client.get(KEYS.api(path), parameters="attempt=2;node=*", timeout=5)
    assert json.loads(reply.payload)["code"] == "INVALID_REQUEST"


async def test_nothing_is_called_unknown_while_somebody_who_may_know_it_is_silent(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattle.gateway.agent.REQUEST_TIMEOUT", 0.5)
    await net.coordinator("c1")
    await net.gateway()
    token = net.client.declare_alive(KEYS.alive("coordinator", "c2", "life"))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(Unavailable, match="'c2' may know it") as refused:
        await net.api("runs/r1")
    assert refused.value.code == "OWNER_UNREACHABLE"
    token.undeclare()
    with pytest.raises(NotFound) as missing:
        await net.api("runs/r1")
    assert missing.value.code == "RUN_NOT_FOUND"


async def test_without_a_quorum_changes_are_refused_and_questions_answered(net: World) -> None:
    await net.coordinator("c1", quorum=2)
    await net.gateway()
    node = net.runtime()
    await trio.testing.wait_all_tasks_blocked()
    await net.submit("r1")
    node.bus.vanish()
    await trio.testing.wait_all_tasks_blocked()
    for path, payload in (("runs", document()), ("runs/r1/cancel", None), ("workflows", document())):
        with pytest.raises(Unavailable, match="1 of 2 peers are in sight") as refused:
            await net.api(path, payload)
        assert refused.value.code == "NO_QUORUM"
    assert (await net.api("runs/r1"))["id"] == "r1"


async def test_nothing_is_remembered_of_changes_that_are_done(net: World) -> None:
    await net.coordinator()
    gateway = await net.gateway()
    rejected = Inbox()
    net.client.subscribe(KEYS.event_rejected, rejected)
    for number in range(5):
        net.client.put(KEYS.api(f"runs/r{number}"), json.dumps(document()).encode())
        net.client.delete(KEYS.api(f"workflows/w{number}"))
    await rejected.size(5)
    for number in range(5):
        await net.api(f"runs/r{number}")
    assert gateway._changing == {}
    assert gateway._open == 0


async def test_who_waits_for_a_run_sees_it_though_its_put_comes_through_another_gateway(net: World) -> None:
    await net.coordinator()
    await net.gateway()
    view: dict[str, Any] = {}

    async def wait() -> None:
        view.update(await net.api("runs/late?wait=20"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await net.submit("late")
        await net.command("cancel_run", {"run": "late"})
    assert view["status"] == "cancelled"


async def test_what_starts_a_run_may_wait_for_its_end(net: World) -> None:
    await net.coordinator()
    await net.gateway()
    node = net.runtime()
    await net.api("workflows", document())
    views: dict[str, Any] = {}

    async def start(path: str, payload: Any) -> None:
        views[path] = await net.api(f"{path}?wait=3600", payload)

    async with trio.open_nursery() as nursery:
        for path, payload in (
            ("runs", {"document": document(), "params": {}}),
            ("runs/r1", document()),
            ("workflows/p/start", None),
        ):
            nursery.start_soon(start, path, payload)
        for count in (1, 2, 3):
            node.finish((await node.next(count)).id)
    assert [view["status"] for view in views.values()] == ["succeeded"] * 3
    assert views["runs/r1"]["id"] == "r1"
    assert (await net.api("runs?wait=0.01", document()))["status"] in ("created", "running")


async def test_a_large_submission_does_not_wait_and_is_told_how_to(net: World) -> None:
    await net.coordinator()
    await net.gateway()
    large = document(padding="x" * WAITING_SUBMISSION)
    with pytest.raises(InvalidRequest, match=r"get runs/<run>\?wait="):
        await net.api("runs/r1?wait=1", large)
    assert (await net.api("runs"))["runs"] == []


async def test_a_run_that_never_comes_is_not_found_after_a_short_grace(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "GRACE", 0.02)
    await net.coordinator()
    await net.gateway()
    with pytest.raises(NotFound) as caught:
        await net.api("runs/never?wait=3600")
    assert caught.value.code == "RUN_NOT_FOUND"


async def test_requests_beyond_max_waiting_are_turned_away(net: World) -> None:
    await net.coordinator()
    gateway = await net.gateway(max_waiting=2)
    await net.api("runs/r1", document())
    rejected = Inbox()
    net.client.subscribe(KEYS.event_rejected, rejected)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(net.api, "runs/r1?wait=3600")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable) as caught:
            await net.api("health")
        assert caught.value.code == "BUSY"
        net.client.put(KEYS.api("runs/r2"), json.dumps(document()).encode())
        (event,) = await rejected.size(1)
        assert json.loads(event.payload)["code"] == "BUSY"
        await net.command("cancel_run", {"run": "r1"})
    assert (await net.api("health"))["namespace"] == "default"
    assert gateway._open == 0


async def test_a_fault_in_one_request_is_answered_and_the_gateway_goes_on(
    net: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await net.gateway()

    async def broken(request: Any) -> Any:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(gateway._routes, "find", lambda method, path: (broken, {}))
    with pytest.raises(WattleError) as caught:
        await net.api("health")
    assert caught.value.code == "INTERNAL"
    rejected = Inbox()
    net.client.subscribe(KEYS.event_rejected, rejected)
    net.client.delete(KEYS.api("runs/r1"))
    (event,) = await rejected.size(1)
    assert json.loads(event.payload) | {"message": ""} == {
        "key": KEYS.api("runs/r1"),
        "method": "delete",
        "code": "INTERNAL",
        "message": "",
        "detail": [],
    }
    monkeypatch.undo()
    assert (await net.api("health"))["status"] == "degraded"


async def test_errors_with_any_text_can_be_told(net: World) -> None:
    await net.gateway()
    with pytest.raises(InvalidRequest, match="no JSON"):
        await net.ask(KEYS.api("workflows/w/start"), b'{"\\ud800": 1}')
    with pytest.raises(NotFound):
        await net.api("żółw/" + "x" * 10_000)


async def test_a_node_speaks_for_itself_and_coordinators_for_those_out_of_sight(net: World) -> None:
    await net.coordinator()
    await net.gateway()
    net.runtime("node1", slots=3)
    gone = net.runtime("node2")
    await net.api("runs/r1", document("p", "a", "b", "c", "d", "e", "f"))
    await gone.next()
    gone.bus.vanish()
    await trio.testing.wait_all_tasks_blocked()
    nodes = (await net.api("nodes"))["nodes"]
    assert [(n["name"], n["status"]) for n in nodes] == [("node1", "ready"), ("node2", "unreachable")]
    with pytest.raises(NotFound, match="in sight"):
        await net.api("nodes/node2/drain")
