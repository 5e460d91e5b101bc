"""The target with a network: real coordinators and gateways on a bus in memory, asked and told anything on any key.

An input is a session of requests, each in a network of its own, so that one replays alone. What is looked for: an answer INTERNAL, no
answer, an error in an agent's log, an agent that ends.
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

import trio

from tests.bus.networks import PATIENCE, Inbox
from tests.coordinator.world import KEYS, World, world
from tests.fuzz import corpus
from tests.fuzz.engine import Target
from tests.fuzz.mutate import Mutator
from tests.network.bad_inputs import TABLE
from wattle.bus.base import TIMEOUT
from wattle.core.model import NodeInfo
from wattle.errors import InvalidRequest
from wattle.protocol.messages import FeedPage, encode

ROOT = "wattle/default/"
HOW = ("get", "get", "get", "put", "delete")
VERBS = (
    "run", "runs", "workers", "worker", "workflow", "workflows", "delete_workflow", "cancel_run", "retry_run", "nodes", "submit",
    "put_workflow", "start", "**", "x",
)  # fmt: skip
ARGS = (
    '{"run":"good","wait":0.01}', '{"run":"good","worker":"a"}', '{"workflow":"good","status":"running","limit":5,"after":[1.5,"good"]}',
    '{"name":"good","params":{},"run":"r"}', '{"run":"good","limit":3,"after":0,"status":"ready"}', '{"status":null,"after":"a","limit":2}',
    '{"document":{"name":"good","workers":[{"name":"a","command":"true"}]},"params":{},"run":"r2"}',
)  # fmt: skip


class _Errors(logging.Handler):
    """What agents log as errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


class Agents(Target):
    """Every public key, and the internal ones, with every verb, payload and parameter, on agents that really answer."""

    name = "agents"
    seconds = 20.0
    growth = 64 << 20
    weight = 200
    batch = 5

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        paths = [f"api/v1/{bad.path}" for part in TABLE.values() for bad in part if len(bad.path) < 100]
        paths += [f"cmd/{peer}/{verb}" for peer in ("c1", "*", "c2") for verb in VERBS] * 3
        paths += [
            "state/**",
            "state/*/*",
            "feed/*",
            "feed/node1?after=1",
            "event/rejected",
            "event/runs/good",
            "**",
            "*/**",
        ] * 3
        names = (
            "workflows/good",
            "workflows/good/start",
            "runs/good/retry",
            "runs/good/workers",
            "runs/good/workers/a",
            "nodes/node1",
        )
        paths += [f"api/v1/{name}" for name in names] * 3
        self.paths = Mutator(random, list(dict.fromkeys(paths)) + paths)
        told = [encode(sample).decode() for kind in (NodeInfo, FeedPage) for sample in corpus.samples(kind)]
        self.payloads = Mutator(random, corpus.documents(), [*ARGS, *ARGS, *corpus.json_documents(), *told])

    def make(self) -> Any:
        return [self._request() for _ in range(self.weight)]

    def _request(self) -> tuple[str, str, bytes]:
        how = HOW[self.paths.below(len(HOW))]
        path = self.paths.some_text(1 if self.random.random() < 0.5 else 0)
        choice = self.random.random()
        if choice < 0.3:
            return how, path, b""
        if choice < 0.5:
            return how, path, self.payloads.some_bytes()
        return how, path, self.payloads.some_json().encode("utf-8", "surrogatepass")

    def check(self, given: Any) -> Counter[str]:
        with _errors() as errors, _folder() as folder:
            outcomes = trio.run(self._session, folder, given)
        assert not errors.told, errors.told[0][-600:]
        return outcomes

    async def _session(self, folder: Path, requests: list[tuple[str, str, bytes]]) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        async with world(folder) as net:
            await net.coordinator("c1")
            await net.coordinator("c2")
            await net.gateway(max_wait=0.01)
            net.runtime()
            rejected = Inbox()
            net.client.subscribe(KEYS.event_rejected, rejected)
            await net.api("runs/good", {"name": "good", "workers": [{"name": "a", "command": "true"}]})
            for how, path, payload in requests:
                outcomes[await self._try(net, how, path, payload)] += 1
            # A put has no answer; what is asked about the same subject later is answered after it.
            await net.api("runs/good")
            assert (await net.api("health"))["status"] == "ok"
        for sample in rejected:
            told = _error(sample.payload)
            outcomes[f"rejected {told['code']}"] += 1
        return outcomes

    async def _try(self, net: World, how: str, path: str, payload: bytes) -> str:
        key, _, parameters = (ROOT + path).partition("?")
        try:
            if how == "put":
                net.client.put(key, payload)
            elif how == "delete":
                net.client.delete(key)
            else:
                # Between peers a question may ask for any wait, which no gateway has cut to a moment.
                timeout = PATIENCE if key.startswith(KEYS.api("")) else 0.05
                replies = await net.client.get(
                    key, payload or None, parameters=parameters, timeout=timeout, everyone=True
                )
                return self._became(key, replies)
        except InvalidRequest:
            return "no key"
        return how

    @staticmethod
    def _became(key: str, replies: list[Any]) -> str:
        if key.startswith(KEYS.api("")) and "*" not in key:
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


@contextmanager
def _folder() -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # commits to a disk would be most of the time
    with tempfile.TemporaryDirectory(prefix="wtl-fuzz-", dir=shared) as name:
        yield Path(name)
