"""The contract of wattle/bus/base.py, on both buses: publishing, liveliness, closing. Queries are in test_contract_queries.py."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
import trio

from tests.bus.networks import PATIENCE, Inbox, Net
from wattle.bus.base import Bus, Sample
from wattle.errors import InvalidRequest


async def test_a_put_reaches_who_subscribed_and_nobody_else(net: Net) -> None:
    publisher, subscriber = await net.bus(), await net.bus()
    exact, pattern, other = Inbox(), Inbox(), Inbox()
    subscriber.subscribe("a/b", exact)
    subscriber.subscribe("a/**", pattern)
    subscriber.subscribe("a/*/c", other)
    await net.settle()
    publisher.put("a/b", b"one", attachment=b"tag")
    publisher.put("a/d", b"two")
    assert await pattern.size(2) == [Sample("a/b", b"one", b"tag"), Sample("a/d", b"two")]
    assert await exact.size(1) == [Sample("a/b", b"one", b"tag")]
    assert other == []


async def test_a_put_reaches_the_subscriptions_of_its_own_bus(net: Net) -> None:
    bus, inbox = await net.bus(), Inbox()
    bus.subscribe("a", inbox)
    bus.put("a", b"")
    assert inbox == []  # never inside the call that causes it
    assert await inbox.size(1) == [Sample("a", b"")]


@pytest.mark.parametrize("ordered", [True, False])
async def test_samples_keep_their_order(net: Net, ordered: bool) -> None:
    publisher, subscriber, inbox = await net.bus(), await net.bus(), Inbox()
    subscriber.subscribe("n/*", inbox, ordered=ordered)
    await net.settle()
    numbers = [str(n) for n in range(1000)]
    for number in numbers:
        publisher.put(f"n/{number}", number.encode())
        if int(number) % 50 == 0:
            await trio.lowlevel.checkpoint()
    assert [sample.payload.decode() for sample in await inbox.size(1000)] == numbers


async def test_a_delete_has_no_payload(net: Net) -> None:
    publisher, subscriber, inbox = await net.bus(), await net.bus(), Inbox()
    subscriber.subscribe("a", inbox)
    await net.settle()
    publisher.delete("a", attachment=b"tag")
    publisher.put("a", b"")
    assert await inbox.size(2) == [Sample("a", None, b"tag"), Sample("a", b"")]


async def test_an_overflow_drops_the_oldest_and_marks_the_gap(net: Net) -> None:
    publisher, subscriber, inbox = await net.bus(), await net.bus(samples=3), Inbox()
    subscriber.subscribe("n", inbox)
    await net.settle()
    sent = 0
    with trio.fail_after(PATIENCE):
        while not any(sample.gap for sample in inbox):
            for _ in range(200):  # without a pause for the subscriber, who shares this thread
                publisher.put("n", str(sent := sent + 1).encode())
            await inbox.until(lambda seen: bool(seen) and int(seen[-1].payload) == sent)
    numbers = [0, *(int(sample.payload) for sample in inbox)]
    assert numbers == sorted(numbers)
    skipped = [after - before > 1 for before, after in pairwise(numbers)]
    assert all(sample.gap for sample, gap in zip(inbox, skipped, strict=True) if gap)
    assert any(skipped)


async def test_a_handler_that_raises_is_logged_and_called_again(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    publisher, subscriber, inbox = await net.bus(), await net.bus(), Inbox()

    def handler(sample: Sample) -> None:
        inbox(sample)
        raise RuntimeError("a bug")

    subscriber.subscribe("a", handler)
    await net.settle()
    publisher.put("a", b"1")
    publisher.put("a", b"2")
    assert [sample.payload for sample in await inbox.size(2)] == [b"1", b"2"]
    raised = [record for record in caplog.records if record.name == "wattle.bus" and record.levelno == logging.ERROR]
    assert raised
    assert raised[0].exc_info is not None


async def test_undeclared_means_silent(net: Net) -> None:
    publisher, subscriber, gone, inbox = await net.bus(), await net.bus(), Inbox(), Inbox()
    declaration = subscriber.subscribe("a", gone)
    subscriber.subscribe("a", inbox)
    await net.settle()
    publisher.put("a", b"1")
    await inbox.size(1)
    await gone.size(1)
    declaration.undeclare()
    declaration.undeclare()
    publisher.put("a", b"2")
    await inbox.size(2)
    assert [sample.payload for sample in gone] == [b"1"]


async def test_a_handler_may_undeclare_itself(net: Net) -> None:
    bus, inbox = await net.bus(), Inbox()

    def once(sample: Sample) -> None:
        inbox(sample)
        declaration.undeclare()

    declaration = bus.subscribe("a", once)
    last = Inbox()
    bus.subscribe("a", last)
    for payload in (b"1", b"2", b"3"):
        bus.put("a", payload)
    await last.size(3)
    assert [sample.payload for sample in await inbox.size(1)] == [b"1"]


# --- liveliness -----------------------------------------------------------------------------------------------------


async def test_tokens_appear_and_go(net: Net) -> None:
    peer, watcher, seen = await net.bus(), await net.bus(), Inbox()
    early = peer.declare_alive("alive/early")
    await net.settle()
    watcher.watch_alive("alive/*", seen)
    assert await seen.size(1) == [("alive/early", True)]
    peer.declare_alive("alive/late")
    peer.declare_alive("other/token")
    assert (await seen.size(2))[1:] == [("alive/late", True)]
    early.undeclare()
    early.undeclare()
    assert (await seen.size(3))[2:] == [("alive/early", False)]


async def test_tokens_go_with_their_bus(net: Net) -> None:
    peer, watcher, seen = await net.bus(), await net.bus(), Inbox()
    watcher.watch_alive("alive/**", seen)
    peer.declare_alive("alive/a/1")
    await seen.size(1)
    await net.leave(peer)
    assert await seen.size(2) == [("alive/a/1", True), ("alive/a/1", False)]


async def test_a_bus_sees_its_own_tokens(net: Net) -> None:
    bus, seen = await net.bus(), Inbox()
    bus.declare_alive("alive/me")
    bus.watch_alive("alive/me", seen)
    assert await seen.size(1) == [("alive/me", True)]


async def test_tokens_that_are_asked_for_are_those_in_sight_now(net: Net) -> None:
    peer, asker = await net.bus(), await net.bus()
    assert await asker.alive("alive/*", timeout=PATIENCE) == []
    early = peer.declare_alive("alive/early")
    peer.declare_alive("alive/late")
    peer.declare_alive("other/token")
    asker.declare_alive("alive/mine")
    await net.settle()
    assert sorted(await asker.alive("alive/*", timeout=PATIENCE)) == ["alive/early", "alive/late", "alive/mine"]
    early.undeclare()
    await net.settle()
    assert sorted(await asker.alive("alive/*", timeout=PATIENCE)) == ["alive/late", "alive/mine"]


# --- publishers -----------------------------------------------------------------------------------------------------


async def test_a_publisher_knows_whether_anybody_listens(net: Net) -> None:
    publishing, listening, changes = await net.bus(), await net.bus(), Inbox()
    publisher = publishing.publisher("log/**", changes)
    assert not publisher.matching
    first = listening.subscribe("log/run/worker", Inbox())
    await changes.size(1)
    assert publisher.matching
    second = listening.subscribe("log/*/other", Inbox())
    listening.subscribe("elsewhere", Inbox())
    first.undeclare()
    await net.settle()
    assert publisher.matching
    second.undeclare()
    await changes.size(2)
    assert not publisher.matching
    assert changes == [True, False]


async def test_a_publisher_made_late_knows_at_once(net: Net) -> None:
    publishing, listening, changes = await net.bus(), await net.bus(), Inbox()
    listening.subscribe("log/a", Inbox())
    await net.settle()
    publisher = publishing.publisher("log/*", changes)
    assert publisher.matching
    assert await changes.size(1) == [True]
    publisher.undeclare()
    with pytest.raises(trio.ClosedResourceError):
        _ = publisher.matching


# --- closing and mistakes -------------------------------------------------------------------------------------------


async def test_after_close_every_call_raises(net: Net) -> None:
    bus = await net.bus()
    publisher, token = bus.publisher("a"), bus.declare_alive("alive/a")
    await net.leave(bus)
    await bus.close()
    for call in (
        lambda: bus.put("a", b""),
        lambda: bus.delete("a"),
        lambda: bus.subscribe("a", Inbox()),
        lambda: bus.serve("a", Inbox()),
        lambda: bus.publisher("a"),
        lambda: bus.declare_alive("a"),
        lambda: bus.watch_alive("a", Inbox()),
        lambda: publisher.matching,
    ):
        with pytest.raises(trio.ClosedResourceError):
            call()
    with pytest.raises(trio.ClosedResourceError):
        await bus.get("a", timeout=1)
    with pytest.raises(trio.ClosedResourceError):
        await bus.alive("a", timeout=1)
    token.undeclare()


async def test_close_ends_what_is_under_way(net: Net) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()
    answerer.serve("a", asked)
    await net.settle()

    async def ask() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await asker.get("a", timeout=600)
        ended.set()

    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await asked.size(1)
        await net.leave(asker)
        with trio.fail_after(PATIENCE):
            await ended.wait()


async def test_close_completes_while_its_task_is_cancelled(net: Net) -> None:
    bus, watcher, seen = await net.bus(), await net.bus(), Inbox()
    watcher.watch_alive("alive/a", seen)
    bus.declare_alive("alive/a")
    await seen.size(1)
    completed = False
    with trio.CancelScope() as scope:
        scope.cancel()
        await net.leave(bus)
        completed = True
    assert completed
    await seen.size(2)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/**/**", "a/b*", "a?b", "a#"])
async def test_a_key_that_is_none_is_refused(net: Net, key: str) -> None:
    bus: Bus = await net.bus()
    for call in (
        lambda: bus.put(key, b""),
        lambda: bus.delete(key),
        lambda: bus.subscribe(key, Inbox()),
        lambda: bus.serve(key, Inbox()),
        lambda: bus.publisher(key),
        lambda: bus.declare_alive(key),
        lambda: bus.watch_alive(key, Inbox()),
    ):
        with pytest.raises(InvalidRequest):
            call()
    with pytest.raises(InvalidRequest):
        await bus.get(key, timeout=1)


async def test_linked_buses_know_each_other_by_their_ids(net: Net) -> None:
    one, other = await net.bus(), await net.bus()
    await net.settle()
    assert one.id != other.id
    assert other.id in {link.id for link in one.links()}
    assert one.id in {link.id for link in other.links()}
    assert one.id not in {link.id for link in one.links()}
