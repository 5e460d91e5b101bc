"""What every peer says of every other one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import trio
import trio.testing

from wattle.bus.base import Query
from wattle.bus.memory import MemoryBus, MemoryNetwork
from wattle.errors import InvalidRequest
from wattle.peer.presence import Presence
from wattle.peer.probing import probing, read_view
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.records import timestamp
from wattle.protocol.verbs import PROBE

KEYS = Keys()
NAMES = {"a", "b", "c"}


class Peers:
    """Three peers that do nothing else."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.asker = self.network.bus("asker")
        self.buses: dict[str, MemoryBus] = {}
        self.strange: dict[str, bytes] = {}  # what some say of themselves

    async def start(self, name: str, nursery: trio.Nursery) -> None:
        bus = self.buses[name] = self.network.bus(name)

        def state(query: Query) -> None:
            ahead = 100.0 if name == "c" else 0.0
            told = json.dumps({"time": timestamp(time.time() + ahead)}).encode()
            query.reply(self.strange.get(name, told))
            query.finish()

        bus.serve(KEYS.state("runtime", name), state)
        bus.declare_alive(KEYS.alive("runtime", name, "i"))
        await nursery.start(probing, Alive("runtime", name, "i"), bus, KEYS, Presence(bus, KEYS))

    async def views(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What each says of the others, by their names."""
        question = json.dumps({"peers": [["runtime", name] for name in sorted(NAMES)]}).encode()
        replies = await self.asker.get(KEYS.cmd("*", PROBE), question, timeout=10, everyone=True)
        views = [json.loads(reply.payload) for reply in replies]
        return {view["name"]: {other["name"]: other for other in view["others"]} for view in views}


@pytest.fixture
async def peers(nursery: trio.Nursery) -> Peers:
    made = Peers()
    for name in sorted(NAMES):
        await made.start(name, nursery)
    await trio.testing.wait_all_tasks_blocked()
    return made


async def test_every_peer_hears_and_asks_every_other_one(peers: Peers) -> None:
    views = await peers.views()
    assert {name: set(view) for name, view in views.items()} == {name: NAMES - {name} for name in NAMES}
    assert all(other["heard"] and other["answered"] for view in views.values() for other in view.values())


async def test_a_clock_that_is_ahead_is_told_by_the_others(peers: Peers) -> None:
    views = await peers.views()
    assert 90 < views["a"]["c"]["clock"] < 110
    assert -10 < views["a"]["b"]["clock"] < 10


@pytest.mark.parametrize(
    "said",
    [
        b"[" * 200_000,
        b'{"time": 5}',
        b'{"time": "9999-99-99"}',
        b'{"version": NaN}',
        b'{"version": "\\ud800"}',
        b"\xff",
        b"",
    ],
)
async def test_what_one_says_of_itself_keeps_nobody_from_telling_of_the_others(peers: Peers, said: bytes) -> None:
    peers.strange["c"] = said
    views = await peers.views()
    assert set(views) == NAMES
    assert (views["a"]["c"]["answered"], views["a"]["c"]["clock"]) == (True, None)
    assert views["a"]["b"]["clock"] is not None


async def test_a_view_is_read_as_it_is_told_and_nothing_else_is_one(peers: Peers) -> None:
    (reply,) = await peers.asker.get(KEYS.cmd("a", PROBE), b'{"peers": []}', timeout=5)
    view = read_view(reply.payload)
    assert {other["name"] for other in view["others"]} == {"b", "c"}
    strange: list[dict[str, Any]] = [
        {"session": 5},
        {"links": {}},
        {"links": [{}]},
        {"others": None},
        {"others": ["b"]},
        {"others": [{"role": "runtime", "name": "b"}]},
        {"others": [view["others"][0] | {"clock": "late"}]},
    ]
    for change in strange:
        with pytest.raises(InvalidRequest):
            read_view(json.dumps(view | change).encode())


async def test_a_pair_that_is_cut_is_told_of_by_both(peers: Peers) -> None:
    peers.network.cut(peers.buses["a"], peers.buses["b"])
    await trio.testing.wait_all_tasks_blocked()
    views = await peers.views()
    apart = {
        (name, other)
        for name, view in views.items()
        for other, seen in view.items()
        if not seen["heard"] and not seen["answered"]
    }
    assert apart == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"peers": [["runtime"]]}', b'{"peers": [["runtime", "*"]]}'])
async def test_a_probe_that_is_none_is_refused(peers: Peers, payload: bytes) -> None:
    (reply,) = await peers.asker.get(KEYS.cmd("a", PROBE), payload, timeout=5)
    assert json.loads(reply.payload)["code"] == "INVALID_REQUEST"
