"""The target with a network: real coordinators, a gateway and a runtime on a bus in memory, asked and told anything on any key.

An input is a session in a network of its own, so that one replays alone: requests, and what a stranger answers to what it is asked.
Then coordinator and runtime start again on what they have stored. What is looked for: an answer INTERNAL, no answer, an exception in an
agent's log, an agent that ends, or that does not start again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import trio

from tests.bus.networks import PATIENCE, Inbox
from tests.coordinator.world import KEYS, World, world
from tests.fuzz.cast import Stranger, no_processes, start_runtime
from tests.fuzz.engine import Target
from tests.fuzz.mutate import Mutator
from tests.fuzz.ways import DONE, GOOD, answers, ways
from wattle.bus.base import TIMEOUT
from wattle.errors import InvalidRequest
from wattle.gateway import agent as gateway

ROOT = "wattle/default/"
SESSION = 120.0  # seconds it may take on a busy machine
TIMEOUT_THERE = 1.0  # the gateway's: some of those it asks are only names
AT_ONCE = 8  # requests under way together
ANSWERS = 12  # that a stranger gives, in turns by question
MOMENT = 0.3  # seconds for the agents to make something of a stranger


class _Errors(logging.Handler):
    """What agents log of exceptions, and of messages that were lost in one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.told.append(self.format(record))


class Agents(Target):
    """Every public key and every internal one, with every verb, payload and parameter, on agents that really answer."""

    name = "agents"
    seconds = 30.0
    growth = 64 << 20
    weight = 100
    batch = 5

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.ways = [
            (way, Mutator(random, [way.path]), Mutator(random, jsons=way.payloads or ["{}"])) for way in ways(random)
        ]
        self.answers = answers(random)

    def make(self) -> Any:
        verbs = sorted(self.answers)
        told = [(verb, self._payload(self.answers[verb])) for verb in verbs for _ in range(ANSWERS)]
        return [self._request() for _ in range(self.weight)], told

    def _request(self) -> tuple[str, str, bytes]:
        way, paths, payloads = self.ways[int(self.random.random() * len(self.ways))]
        path = paths.some_text(2) if self.random.random() < 0.2 else way.path
        if not way.payloads:
            return way.how, path, payloads.some_bytes(2) if self.random.random() < 0.1 else b""
        return way.how, path, self._payload(payloads)

    def _payload(self, payloads: Mutator) -> bytes:
        choice = self.random.random()
        if choice < 0.02:
            return b""
        if choice < 0.12:
            return payloads.some_bytes(2)
        return payloads.some_json(3 if choice < 0.6 else 1).encode("utf-8", "surrogatepass")

    def check(self, given: Any) -> Counter[str]:
        requests, told = given
        with _errors() as errors, _folder() as folder, no_processes(), _impatient():
            outcomes = trio.run(self._session, folder, requests, told)
        assert not errors.told, errors.told[0][-600:]
        return outcomes

    async def _session(
        self, folder: Path, requests: list[tuple[str, str, bytes]], told: list[tuple[str, bytes]]
    ) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        async with world(folder, SESSION) as net:
            await self._begin(net)
            rejected = Inbox()
            net.client.subscribe(KEYS.event_rejected, rejected)
            for start in range(0, len(requests), AT_ONCE):
                async with trio.open_nursery() as nursery:
                    for request in requests[start : start + AT_ONCE]:
                        nursery.start_soon(self._try, net, outcomes, *request)
            if told:
                stranger = Stranger(net, told)
                with trio.move_on_after(MOMENT):
                    await stranger.asked.size(len(told))
            await self._end(net)
        for sample in rejected:
            outcomes[f"rejected {_error(sample.payload)['code']}"] += 1
        return outcomes

    @staticmethod
    async def _begin(net: World) -> None:
        await net.coordinator("c1", adopt_after=0.01)
        await net.coordinator("c2", adopt_after=0.01)
        await net.gateway(max_wait=0.01)
        node = net.runtime()
        await start_runtime(net, "node2")
        for document in (GOOD, DONE):  # not by way of the gateway, which has no patience here
            await net.command("submit", {"document": document, "run": document["name"]})
        await node.next()

    @staticmethod
    async def _end(net: World) -> None:
        """Those who were there still are, and start again on what they have."""
        for name in ("c1", "c2", "g1", "node2"):
            assert not net.ended[name].is_set(), f"{name} has ended"
        assert (await net.api("health"))["status"] == "ok"
        for name in ("c1", "node2"):
            await net.stop(name)
        await net.coordinator("c1", adopt_after=0.01)
        await start_runtime(net, "node2")
        assert (await net.api("health"))["status"] == "ok"

    async def _try(self, net: World, outcomes: Counter[str], how: str, path: str, payload: bytes) -> None:
        key, _, parameters = (ROOT + path).partition("?")
        try:
            match how:
                case "put":
                    net.client.put(key, payload)
                case "delete":
                    net.client.delete(key)
                case "alive":
                    net.client.declare_alive(key)
                case _:
                    how = await self._ask(net, key, parameters, payload)
        except InvalidRequest:
            how = "no key"
        outcomes[how] += 1

    @staticmethod
    async def _ask(net: World, key: str, parameters: str, payload: bytes) -> str:
        # Between peers a question may ask for any wait, which no gateway has cut to a moment.
        public = key.startswith(KEYS.api(""))
        timeout = PATIENCE if public else 0.05
        replies = await net.client.get(key, payload or None, parameters=parameters, timeout=timeout, everyone=True)
        if public and "*" not in key:
            assert len(replies) == 1, f"{len(replies)} answers to a public request"
            assert replies[0].payload != TIMEOUT, "no answer in time"
        codes = [_error(reply.payload)["code"] for reply in replies if not reply.ok and reply.payload != TIMEOUT]
        return codes[0] if codes else "accepted" if replies else "no answer"


def _error(payload: bytes | None) -> dict[str, Any]:
    """What an error reply says; a fault of Wattle's own is a finding."""
    try:
        told: dict[str, Any] = json.loads(payload or b"")
        code, message = told["code"], told["message"]
    except (ValueError, TypeError, KeyError):
        return {"code": "of the test's own", "message": ""}  # a put on event/rejected
    assert code != "INTERNAL", f"INTERNAL: {message[:300]}"
    return told


@contextmanager
def _errors() -> Iterator[_Errors]:
    handler, root = _Errors(), logging.getLogger("wattle")
    root.addHandler(handler)
    before, root.propagate = root.propagate, False
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.propagate = before


def _impatient() -> Any:
    return mock.patch.object(gateway, "REQUEST_TIMEOUT", TIMEOUT_THERE)


@contextmanager
def _folder() -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # commits to a disk would be most of the time
    with tempfile.TemporaryDirectory(prefix="wtl-fuzz-", dir=shared) as name:
        yield Path(name)
