"""Waiting for what a network says: the events of one run, as a stock client receives them."""

from __future__ import annotations

import json
import queue
import time
from typing import Any

import zenoh

from tests.namespaces.gates import PATIENCE
from tests.network.processes import StockClient


class Events:
    """The status changes of a run and its workers. Made before the run is submitted, it misses nothing."""

    def __init__(self, client: StockClient, run: str) -> None:
        self._received: queue.Queue[dict[str, Any]] = queue.Queue()
        self._past: list[dict[str, Any]] = []
        client.session.declare_subscriber(f"wattle/default/event/runs/{run}/**", self._note)

    def _note(self, sample: zenoh.Sample) -> None:
        self._received.put(json.loads(sample.payload.to_bytes()))

    def wait(self, **expected: Any) -> dict[str, Any]:
        """The next event that holds these values."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                event = self._received.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no event with {expected}; there were {self._past}") from None
            self._past.append(event)
            if expected.items() <= event.items():
                return event


class Token:
    """Comings and goings of one peer, as the gateway's client sees them."""

    def __init__(self, client: StockClient, role: str, peer: str) -> None:
        self._seen: queue.Queue[bool] = queue.Queue()
        key = f"wattle/default/alive/{role}/{peer}/*"
        client.session.liveliness().declare_subscriber(key, self._note, history=True)
        self.wait(True)

    def _note(self, sample: zenoh.Sample) -> None:
        self._seen.put(sample.kind == zenoh.SampleKind.PUT)

    def wait(self, alive: bool) -> None:
        """Wait until the peer is in sight, or out of it."""
        while self._seen.get(timeout=PATIENCE) is not alive:
            pass
