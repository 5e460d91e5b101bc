"""Parameters and payloads as strangers write them, and one answer from one peer."""

from __future__ import annotations

import contextlib
import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from wattle.bus.base import Query
from wattle.bus.memory import MemoryNetwork
from wattle.errors import InvalidRequest, NotFound, Unavailable
from wattle.peer.asking import ask, parse_number, parse_object, parse_parameters, parse_seconds, refuse


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        (";;", {}),
        ("a=1;b=x%20y", {"a": "1", "b": "x y"}),
        ("a=1&b", {"a": "1", "b": ""}),
        ("a==1", {"a": "=1"}),
        ("a=%ff", {"a": "\ufffd"}),
    ],
)
def test_parameters(text: str, found: dict[str, str]) -> None:
    assert parse_parameters(text) == found


@pytest.mark.parametrize(("text", "says"), [("a=1;a=2", "given twice"), ("=1", "without a name")])
def test_wrong_parameters(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse_parameters(text)


def test_numbers() -> None:
    assert parse_number({}, "n", 7, 0, 9) == 7
    assert parse_number({"n": "-3"}, "n", 7, -5, 9) == -3
    for text in ("", "-", "--1", "+1", "1.0", "1e3", "٣", " 1", "10", "-6", "9" * 30):
        with pytest.raises(InvalidRequest, match="whole number from -5 to 9"):
            parse_number({"n": text}, "n", 7, -5, 9)


def test_seconds() -> None:
    assert parse_seconds({}, "wait", 10) == 0
    assert parse_seconds({"wait": "2.5"}, "wait", 10) == 2.5
    assert parse_seconds({"wait": "1e9"}, "wait", 10) == 10
    for text in ("", "-1", "nan", "inf", "1e999", "soon", "1;2"):
        with pytest.raises(InvalidRequest, match="must be seconds"):
            parse_seconds({"wait": text}, "wait", 10)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (None, "is empty"),
        (b"", "is empty"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "not a list"),
        (b"3", "not a number"),
        (b"null", "not null"),
        (b'{"a": NaN}', "no JSON"),
        (b'{"a": 1e999}', "no JSON"),
        (b'{"a": 1' + b"0" * 400 + b".5}", "no JSON"),
        (b'{"a": "\\ud800"}', "no JSON"),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, "no JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "no JSON"),
        *((b'{"' + b"x" * n + b'": ' + b"9" * 299 + b"e10}", "no JSON") for n in range(20)),
    ],
)
def test_payloads_that_are_no_object(payload: bytes | None, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        parse_object(payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_every_json_object_is_read_as_it_is(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=60))
def test_no_payload_raises_anything_else(payload: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_object(payload), dict)


async def test_ask_gives_the_first_answer() -> None:
    network = MemoryNetwork()
    here, there = network.bus(), network.bus()

    def serve(query: Query) -> None:
        query.reply((query.payload or b"") + query.parameters.encode())
        query.finish()

    there.serve("a/b", serve)
    assert (await ask(here, "a/b", b"x", parameters="y=1", timeout=5)).payload == b"xy=1"


async def test_ask_says_why_nobody_answers(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    here, there = network.bus(), network.bus()
    with pytest.raises(Unavailable, match="no answer on a/b: nobody serves it"):
        await ask(here, "a/b", timeout=5)
    there.serve("a/b", lambda query: refuse(query, NotFound("not here")))
    with pytest.raises(Unavailable, match="not here"):
        await ask(here, "a/b", timeout=5)
    kept: list[Query] = []
    there.serve("a/c", kept.append)
    with pytest.raises(Unavailable, match="Timeout"):
        await ask(here, "a/c", timeout=5)
    assert trio.current_time() > 0
    assert len(kept) == 1
