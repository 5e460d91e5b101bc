"""The trio client against a fake gateway over real sockets."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, cast

import pytest
import trio

from tests.client.fake_gateway import FakeGateway, node
from wattle.client.answers import WorkerChange
from wattle.client.client import TrioClient
from wattle.errors import InvalidDocument, NotFound, Unavailable


async def test_submit_and_wait(gateway: FakeGateway) -> None:
    gateway.on_submit = lambda run: gateway.finish(run)
    async with TrioClient(gateway.endpoint) as client:
        view = await client.submit({"name": "flow", "workers": []})
        assert (await client.wait(view.id)).status == "succeeded"
        assert (await client.submit_and_wait({"name": "flow", "workers": []}, run="r")).id == "r"


async def test_watch_and_other_requests_at_once(gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    told = []
    async with TrioClient(gateway.endpoint) as client:
        async for update in client.watch("r"):
            told.append(f"{type(update).__name__} {update.status}")
            if len(told) == 1:
                assert (await client.worker("r", "a")).status == "created"
                gateway.set_worker("r", "a", "running")
                gateway.set_worker("r", "a", "succeeded")
                gateway.set_run("r", "succeeded")
    assert told == ["RunView running", "WorkerChange running", "WorkerChange succeeded", "RunView succeeded"]


async def test_leaving_a_watch_withdraws_its_subscription(gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    async with TrioClient(gateway.endpoint) as client:
        updates = cast(Any, client.watch("r"))
        async with aclosing(updates):
            assert not isinstance(await anext(updates), WorkerChange)
        with pytest.raises(StopAsyncIteration):
            await anext(updates)


async def test_two_logs_are_followed_at_once(gateway: FakeGateway) -> None:
    gateway.add_run("r", "a", "b")
    read: dict[str, bytes] = {}

    async def follow(client: TrioClient, name: str) -> None:
        read[name] = b"".join([data async for data in client.logs("r", name, follow=True)])

    for name in "ab":
        gateway.set_worker("r", name, "running")
    async with TrioClient(gateway.endpoint) as client, trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(follow, client, name)
        await trio.to_thread.run_sync(gateway.wait_asked, "runs/r/workers/a/logs/stdout")
        await trio.to_thread.run_sync(gateway.wait_asked, "runs/r/workers/b/logs/stdout")
        for name in "ab":
            gateway.append_log("r", name, name.encode())
            gateway.set_worker("r", name, "succeeded")
    assert read == {"a": b"a", "b": b"b"}


async def test_the_rest(gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    gateway.nodes["n"] = node("n")
    async with TrioClient(gateway.endpoint) as client:
        assert [run.id async for run in client.runs()] == ["r"]
        assert [worker.name async for worker in client.workers("r")] == ["a"]
        assert (await client.cancel("r")).status == "cancelled"
        assert (await client.retry("r")).status == "running"
        assert (await client.drain("n")).status == "draining"
        assert [one.name for one in await client.nodes()] == ["n"]
        assert (await client.put_workflow("flow", b"name: flow")).name == "flow"
        await client.delete_workflow("flow")
        with pytest.raises(NotFound):
            await client.workflow("flow")
        with pytest.raises(InvalidDocument):
            await client.put("runs/x", b"{}")
        assert (await client.get("health"))[0].ok


async def test_nobody_there(gateway: FakeGateway) -> None:
    with pytest.raises(Unavailable) as caught:
        async with TrioClient(gateway.endpoint + "x"):
            pass
    assert caught.value.code == "NO_NETWORK"
