"""Which function a request finds, with which names, and what helps where there is none; the table of docs/api.md is the table here."""

from __future__ import annotations

import inspect
import re
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from wattle.bus.memory import MemoryNetwork
from wattle.core.model import RunStatus
from wattle.errors import InvalidRequest
from wattle.gateway.backend import Backend
from wattle.gateway.request import Method, Request
from wattle.gateway.routes import Routes
from wattle.peer.presence import Presence
from wattle.protocol.keys import Keys
from wattle.settings import GatewaySettings

API = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture
async def routes(tmp_path: Path) -> Routes:
    bus, keys = MemoryNetwork().bus(), Keys()
    presence = Presence(bus, keys)
    settings = GatewaySettings.build({"data": tmp_path, "name": "g"})
    return Routes(Backend(bus, keys, presence, timeout=1), presence, settings)


async def test_the_documented_requests_are_the_ones_there_are(routes: Routes) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (get with a payload|get|put|delete) \|", API.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted((path, str(method)) for method, path, *_ in routes.table)


async def test_the_documented_parameters_are_the_ones_there_are(routes: Routes) -> None:
    for method, path, _, handler in routes.table:
        source = inspect.getsource(handler.func if isinstance(handler, partial) else handler)
        taken = "".join(re.findall(r"request\.only\((.*?)\)", source, re.DOTALL))
        (row,) = re.findall(rf"^\| `{re.escape(path)}` \| {method} \| (.*) \|$", API.read_text(), re.MULTILINE)
        told = set(re.findall(r"`(\w+)(?:=<\w+>)?`", row)) & PARAMETERS
        assert told == set(re.findall(r'"(\w+)"', taken)), path


PARAMETERS = {"limit", "after", "status", "workflow", "wait", "offset", "attempt", "tail", "node"}


async def test_every_request_is_found_by_its_path(routes: Routes) -> None:
    for method, pattern, action, handler in routes.table:
        path = re.sub(r"<(\w+)>", r"the-\1", pattern)
        found = routes.find(method, path)
        assert found is not None
        assert (found.action, found.handler) == (action, handler)
        assert found.names == {name: f"the-{name}" for name in re.findall(r"<(\w+)>", pattern)}


@pytest.mark.parametrize(
    "path", ["", "run", "runs/", "/runs", "runs/x/", "runs//workers", "runs/x/y/z", "schema/x", "RUNS", "runs/<run>/x"]
)
async def test_other_paths_are_not_found(routes: Routes, path: str) -> None:
    if path in ("runs/", "runs//workers"):  # the name is empty
        with pytest.raises(InvalidRequest, match="is empty"):
            routes.find(Method.GET, path)
    else:
        assert routes.find(Method.GET, path) is None


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "a*", "é", "x" * 65])
async def test_names_in_paths_follow_the_grammar(routes: Routes, name: str) -> None:
    with pytest.raises(InvalidRequest, match="run "):
        routes.find(Method.GET, f"runs/{name}")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("rnus", "did you mean 'runs'?"),
        ("workflow/x/strat", "did you mean 'workflows/<workflow>/start'?"),
        ("runs/x", "it has: get, put, get with a payload, delete"),
        ("zzzzzzzz", "see docs/api.md"),
    ],
)
async def test_hints(routes: Routes, path: str, hint: str) -> None:
    assert routes.near(path) == hint


def test_unknown_parameters_are_refused_with_what_there_is() -> None:
    Request({}, {"limit": "1"}, None).only("limit", "after")
    with pytest.raises(InvalidRequest, match="did you mean 'limit'"):
        Request({}, {"limt": "1"}, None).only("limit", "after")
    with pytest.raises(InvalidRequest, match="it takes limit, after"):
        Request({}, {"zzz": "1"}, None).only("limit", "after")
    with pytest.raises(InvalidRequest, match="it takes none"):
        Request({}, {"zzz": "1"}, None).only()


def test_a_choice_is_one_of_the_words() -> None:
    assert Request({}, {}, None).choice("status", RunStatus) is None
    assert Request({}, {"status": "failed"}, None).choice("status", RunStatus) == "failed"
    with pytest.raises(InvalidRequest, match="must be one of created, running"):
        Request({}, {"status": "FAILED"}, None).choice("status", RunStatus)


@given(
    path=st.lists(st.sampled_from(["runs", "workers", "logs", "x", "..", "", "*", "\0", "start", "stdout"]), max_size=7)
)
def test_no_path_raises_anything_but_what_is_meant(path: list[str]) -> None:
    async def scenario() -> None:
        bus, keys = MemoryNetwork().bus(), Keys()
        presence = Presence(bus, keys)
        routes = Routes(Backend(bus, keys, presence, timeout=1), presence, GatewaySettings.build({"name": "g"}))
        text = "/".join(path)
        for method in Method:
            try:
                found = routes.find(method, text)
            except InvalidRequest:
                continue
            assert found is not None or routes.near(text)

    trio.run(scenario)
