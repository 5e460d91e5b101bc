"""Two thousand workers in one document: validated, started, and the network answers promptly while they wait and run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from processes import StockClient, network, stock_client

WORKERS = 2000


def fan(gate: Path) -> dict[str, Any]:
    """One worker that blocks on ``gate``, and as many as fit that wait for nothing but a slot."""
    first = {"name": "gate", "command": "cat", "args": [str(gate)], "priority": 1}
    rest = [{"name": f"w{number}", "command": "true"} for number in range(WORKERS - 2)]
    last = {"name": "last", "command": "echo all", "needs": [w["name"] for w in rest]}
    return {"name": "fan", "workers": [first, *rest, last]}


def asked(client: StockClient, path: str) -> tuple[Any, float]:
    """An answer, and the seconds it took."""
    begin = time.perf_counter()
    return client.get(path, timeout=20), time.perf_counter() - begin


def test_two_thousand_workers_and_prompt_answers_meanwhile(record_property: pytest.RecordProperty) -> None:
    with network() as net:
        coordinator = net.start("coordinator")
        net.start("runtime", None, "--slots", "8", connect=coordinator)
        gateway = net.start("gateway", connect=coordinator)
        gate = net.folder / "gate"
        os.mkfifo(gate)
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            begin = time.perf_counter()
            client.get("runs", {"document": fan(gate), "run": "fan"})
            record_property("submitted", time.perf_counter() - begin)
            times: dict[str, list[float]] = {}
            while True:  # the gate keeps the run open however quick the rest is
                for path in (
                    "runs",
                    "runs/fan",
                    "runs/fan/workers/last",
                    "runs/fan/workers?limit=100",
                    "nodes",
                    "health",
                ):
                    answer, took = asked(client, path)
                    times.setdefault(path, []).append(took)
                    if path == "runs/fan":
                        run = answer
                    elif path == "runs":
                        assert [r["id"] for r in answer["runs"]] == ["fan"]
                assert run["status"] in ("created", "running")
                assert sum(run["counts"].values()) == WORKERS
                if run["counts"].get("succeeded") == WORKERS - 1:
                    break
                client.get("runs/fan?wait=0.5")  # leaves them the processor for a while
            gate.write_text("go")
            assert client.wait("fan")["counts"] == {"succeeded": WORKERS}
            record_property("all_done", time.perf_counter() - begin)
            workers = client.workers("fan")
            assert list(workers)[-1] == "last"
            assert {len(w["attempts"]) for w in workers.values()} == {1}
            assert workers["gate"]["status"] == "succeeded"
    worst = {path: round(max(took), 3) for path, took in times.items()}
    record_property("worst_answers", json.dumps(worst))
    print(f"{len(times['runs'])} rounds of answers; the slowest of each, in seconds: {worst}")
