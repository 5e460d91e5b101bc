"""The contract of wattle/bus/base.py, on both buses: queries and their answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from threading import Semaphore
from typing import Any

import pytest
import trio

from tests.bus.networks import PATIENCE, Inbox, Net
from wattle.bus.base import TIMEOUT, Bus, Priority, Query, Reply
from wattle.bus.lanes import QueryLane
from wattle.bus.queries import OpenQuery
from wattle.errors import InvalidRequest

LONG = 600.0  # a timeout that no test waits for


def answer(text: str) -> Callable[[Query], None]:
    """A handler that answers every query with ``text`` and what it was asked."""

    def handler(query: Query) -> None:
        query.reply(f"{text} {query.parameters}".strip().encode())
        query.finish()

    return handler


async def ask(bus: Bus, key: str, *args: Any, timeout: float = LONG, **kwargs: Any) -> list[Reply]:
    """``bus.get`` that must end soon."""
    with trio.fail_after(PATIENCE):
        return await bus.get(key, *args, timeout=timeout, **kwargs)


async def test_a_query_carries_everything_there_and_back(net: Net) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()

    def handler(query: Query) -> None:
        asked((query.key, query.parameters, query.payload, query.attachment))
        query.reply(b"yes", attachment=b"tag")
        query.finish()

    answerer.serve("a/*", handler)
    await net.settle()
    for priority in Priority:
        replies = await ask(
            asker, "a/b", b"question", parameters="after=3;x=a%20b", attachment=b"mark", priority=priority
        )
        assert replies == [Reply("a/b", b"yes", attachment=b"tag")]
        assert asked.pop() == ("a/b", "after=3;x=a%20b", b"question", b"mark")


@pytest.mark.parametrize("payload", [None, b""])
async def test_no_payload_and_an_empty_one_are_told_apart(net: Net, payload: bytes | None) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()

    def handler(query: Query) -> None:
        asked(query.payload)
        query.finish()

    answerer.serve("a", handler)
    await net.settle()
    assert await ask(asker, "a", payload) == []
    assert asked == [payload]


async def test_a_get_that_nobody_serves_ends_at_once(net: Net) -> None:
    asker, other = await net.bus(), await net.bus()
    other.serve("b", answer("b"))
    await net.settle()
    assert await ask(asker, "a") == []


async def test_a_get_ends_with_its_time(net: Net) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()

    def handler(query: Query) -> None:
        query.reply(b"the first of two")
        asked(query)

    answerer.serve("a", handler)
    await net.settle()
    replies = await ask(asker, "a", timeout=0.5)
    assert replies == [Reply("a", b"the first of two"), Reply("", TIMEOUT, ok=False)]
    asked[0].reply(b"too late")
    asked[0].finish()
    assert (await ask(asker, "a", timeout=0))[-1] == Reply("", TIMEOUT, ok=False)


async def test_a_get_ends_when_who_was_asked_leaves(net: Net) -> None:
    asker, answerer, asked, ended = await net.bus(), await net.bus(), Inbox(), Inbox()
    answerer.serve("a", asked)
    await net.settle()

    async def wait() -> None:
        ended(await ask(asker, "a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await asked.size(1)
        await net.leave(answerer)
        assert await ended.size(1) == [[]]
    with pytest.raises(trio.ClosedResourceError):
        asked[0].reply(b"")
    asked[0].finish()


async def test_everyone_or_one_who_is_complete(net: Net) -> None:
    asker, first, second = await net.bus(), await net.bus(), await net.bus()
    first.serve("a/*", answer("first"))
    second.serve("a/*", answer("second"))
    await net.settle()
    assert len(await ask(asker, "a/b")) == 1
    both = await ask(asker, "a/b", everyone=True)
    assert sorted(reply.payload for reply in both) == [b"first", b"second"]


async def test_the_first_answer_that_is_no_error_is_enough(net: Net) -> None:
    asker, wrong, slow = [await net.bus() for _ in range(3)]
    asked = Inbox()

    def refuse(query: Query) -> None:
        query.reply_error(b"not here")
        query.finish()

    wrong.serve("a", refuse)
    slow.serve("a", asked)
    await net.settle()
    ended = Inbox()

    async def wait() -> None:
        ended(await ask(asker, "a", everyone=True, first=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        (query,) = await asked.size(1)
        assert await ask(asker, "c", first=True) == []
        assert ended == []
        query.reply(b"here")
        (replies,) = await ended.size(1)  # although nobody said that no more would come
    assert [reply.payload for reply in replies if reply.ok] == [b"here"]
    query.finish()


async def test_so_many_answers_are_enough_though_others_never_come(net: Net) -> None:
    asker, wrong, silent = await net.bus(), await net.bus(), await net.bus()
    asked = Inbox()

    def refuse(query: Query) -> None:
        query.reply_error(b"not here")
        query.finish()

    wrong.serve("a", refuse)
    silent.serve("a", asked)
    await net.settle()
    replies = await ask(asker, "a", everyone=True, most=1)
    assert replies == [Reply("", b"not here", ok=False)]
    (query,) = await asked.size(1)
    query.finish()


async def test_a_put_is_handled_before_a_query_behind_it(net: Net) -> None:
    peer, other, puts = await net.bus(), await net.bus(), Inbox()

    def last_put(query: Query) -> None:
        query.reply(puts[-1].payload)
        query.finish()

    other.serve("a/**", last_put)
    other.subscribe("a/**", puts)
    await net.settle()
    for number in range(300):
        peer.put("a/b", str(number).encode())
        (reply,) = await ask(peer, "a/b")
        assert reply.payload == str(number).encode()


async def test_who_is_not_complete_is_asked_together_with_others(net: Net) -> None:
    asker, first, second = await net.bus(), await net.bus(), await net.bus()
    first.serve("a", answer("first"), complete=False)
    partial_second = second.serve("a", answer("second"), complete=False)
    await net.settle()
    assert len(await ask(asker, "a")) == 2
    partial_second.undeclare()
    second.serve("a", answer("second"))
    await net.settle()
    assert [reply.payload for reply in await ask(asker, "a")] == [b"second"]


async def test_a_wider_query_reaches_all_who_hold_a_part(net: Net) -> None:
    asker, first, second = await net.bus(), await net.bus(), await net.bus()
    for bus, name in ((first, "x"), (second, "y")):

        def handler(query: Query, name: str = name) -> None:
            query.reply(name.encode(), key=f"a/{name}")
            query.finish()

        bus.serve(f"a/{name}", handler)
    await net.settle()
    replies = await ask(asker, "a/*")
    assert sorted((reply.key, reply.payload) for reply in replies) == [("a/x", b"x"), ("a/y", b"y")]


async def test_what_a_bus_serves_itself_is_asked_too(net: Net) -> None:
    asker, other = await net.bus(), await net.bus()
    asker.serve("a", answer("own"))
    assert [reply.payload for reply in await ask(asker, "a")] == [b"own"]
    other.serve("a", answer("other"))
    await net.settle()
    assert sorted(reply.payload for reply in await ask(asker, "a")) == [b"other", b"own"]


async def test_several_answers_on_one_key_all_arrive_in_order(net: Net) -> None:
    asker, answerer = await net.bus(), await net.bus()

    def handler(query: Query) -> None:
        for number in range(20):
            query.reply(str(number).encode(), key="a/b")
        query.reply_error(b"and that was all")
        query.finish()
        query.finish()

    answerer.serve("a/**", handler)
    await net.settle()
    replies = await ask(asker, "a/*")
    assert replies == [
        *(Reply("a/b", str(number).encode()) for number in range(20)),
        Reply("", b"and that was all", ok=False),
    ]


async def test_a_query_may_be_answered_later_by_another_task(net: Net) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()
    answerer.serve("a", asked)
    await net.settle()

    async def reply_later() -> None:
        (query,) = await asked.size(1)
        query.reply(b"thought about it")
        await trio.lowlevel.checkpoint()
        query.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply_later)
        assert await ask(asker, "a") == [Reply("a", b"thought about it")]


async def test_megabytes_go_both_ways(net: Net) -> None:
    asker, answerer = await net.bus(), await net.bus()
    large = bytes(range(256)) * 12_000

    def handler(query: Query) -> None:
        query.reply(query.payload or b"", attachment=b"small")
        query.finish()

    answerer.serve("a", handler)
    await net.settle()
    assert await ask(asker, "a", large, priority=Priority.BULK) == [Reply("a", large, attachment=b"small")]


async def test_many_queries_at_once(net: Net) -> None:
    asker, answerer, answers = await net.bus(), await net.bus(), Inbox()
    answerer.serve("a", answer("to"))
    await net.settle()

    async def one(number: int) -> None:
        (reply,) = await ask(asker, "a", parameters=f"n={number}")
        answers(reply.payload)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(one, number)
    assert sorted(answers) == sorted(f"to n={number}".encode() for number in range(200))


async def test_too_many_unfinished_queries_are_answered_busy(net: Net) -> None:
    asker, answerer, asked, ended = await net.bus(), await net.bus(queries=2), Inbox(), Inbox()
    answerer.serve("a", asked)
    await net.settle()

    async def wait() -> None:
        ended(await ask(asker, "a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        held = await asked.size(2)
        (busy,) = await ask(asker, "a")
        assert not busy.ok
        assert json.loads(busy.payload)["code"] == "BUSY"
        held[0].finish()
        assert await ended.size(1) == [[]]
        nursery.start_soon(wait)
        await asked.size(3)
        for query in asked:
            query.finish()
    assert len(asked) == 3


async def test_a_reply_must_fit_its_query(net: Net) -> None:
    asker, answerer, problems = await net.bus(), await net.bus(), Inbox()

    def handler(query: Query) -> None:
        for key in ("b/c", "a/*", "a//b", None):
            with pytest.raises(InvalidRequest) as caught:
                query.reply(b"", key=key)
            problems(caught.value.code)
        query.finish()
        for late in (partial(query.reply, b"", key="a/b"), partial(query.reply_error, b"")):
            with pytest.raises(trio.ClosedResourceError):
                late()
            problems("late")

    answerer.serve("a/*", handler)
    await net.settle()
    assert await ask(asker, "a/*") == []
    assert problems == ["INVALID_REQUEST"] * 4 + ["late"] * 2


async def test_a_query_whose_handler_raises_is_answered_internal(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    asker, answerer = await net.bus(), await net.bus()

    def handler(query: Query) -> None:
        raise RuntimeError(query.key)

    answerer.serve("a", handler)
    await net.settle()
    (reply,) = await ask(asker, "a")
    assert json.loads(reply.payload)["code"] == "INTERNAL"
    assert "a handler raised" in caplog.text


async def test_a_cancelled_get_leaves_nothing_behind(net: Net) -> None:
    asker, answerer, asked = await net.bus(), await net.bus(), Inbox()
    answerer.serve("a", asked)
    await net.settle()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, asker, "a"))
        await asked.size(1)
        nursery.cancel_scope.cancel()
    asked[0].reply(b"to nobody")
    asked[0].finish()
    answerer.serve("b", answer("still here"))
    await net.settle()
    assert [reply.payload for reply in await ask(asker, "b")] == [b"still here"]


async def test_an_undeclared_queryable_is_asked_no_more(net: Net) -> None:
    asker, answerer, asked, ended = await net.bus(), await net.bus(), Inbox(), Inbox()
    queryable = answerer.serve("a", asked)
    await net.settle()

    async def wait() -> None:
        ended(await ask(asker, "a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        (query,) = await asked.size(1)
        queryable.undeclare()
        queryable.undeclare()
        await net.settle()
        assert await ask(asker, "a") == []
        assert ended == []
        query.reply(b"what was asked before is answered")
        query.finish()
        assert [reply.payload for reply in (await ended.size(1))[0]] == [b"what was asked before is answered"]


async def test_what_was_not_delivered_before_undeclaring_is_ended(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    asker, answerer, asked, ended = await net.bus(), await net.bus(), Inbox(), Inbox()
    push, arrived = QueryLane.push, Semaphore(0)

    def note(lane: QueryLane, query: OpenQuery) -> None:
        push(lane, query)
        arrived.release()

    def once(query: Query) -> None:
        asked(query)
        for _ in range(10):  # Zenoh may lose one that meets the undeclaring on its way
            assert arrived.acquire(timeout=PATIENCE)
        queryable.undeclare()
        query.finish()

    async def wait() -> None:
        ended(await ask(asker, "a"))

    queryable = answerer.serve("a", once)
    await net.settle()
    monkeypatch.setattr(QueryLane, "push", note)
    async with trio.open_nursery() as nursery:
        for _ in range(10):  # all are sent in one tick, so before the first of them is handled
            nursery.start_soon(wait)
    assert ended == [[]] * 10
    assert len(asked) == 1


async def test_answers_given_just_before_close_arrive(net: Net) -> None:
    asker, answerer, asked, ended = await net.bus(), await net.bus(), Inbox(), Inbox()
    large = b"x" * 20_000_000
    answerer.serve("a", asked)
    await net.settle()

    async def wait() -> None:
        ended(await ask(asker, "a"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        (query,) = await asked.size(1)
        query.reply(large)
        query.finish()
        await net.leave(answerer)
        assert await ended.size(1) == [[Reply("a", large)]]


async def test_what_was_put_before_a_query_is_heard_before_it(net: Net) -> None:
    sender, receiver, heard = await net.bus(), await net.bus(), Inbox()

    def asked(query: Query) -> None:
        heard(query.parameters)
        query.finish()

    receiver.subscribe("a/*", lambda sample: heard((sample.payload or b"").decode()))
    receiver.serve("a/*", asked)
    await net.settle()
    for number in range(50):
        sender.put("a/b", f"put {number}".encode())
        await ask(sender, "a/b", parameters=f"query {number}")
    await heard.size(100)
    assert heard == [f"{what} {number}" for number in range(50) for what in ("put", "query")]
