"""Waiting for what a network says: the events of one run, as a stock client receives them."""

from __future__ import annotations

import json
import queue
import time
from typing import Any

import zenoh
from gates import PATIENCE
from processes import StockClient


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
