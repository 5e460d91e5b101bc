"""Two thousand workers in one document: validated, started, and the network answers promptly while they run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.network.processes import StockClient, network, stock_client

WORKERS = 2000
ENOUGH = 400  # workers that have to succeed before the rest is cancelled


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


def test_two_thousand_workers_and_prompt_answers_meanwhile(record_property: Callable[[str, object], None]) -> None:
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
            submitted = time.perf_counter() - begin
            times: dict[str, list[float]] = {}
            while True:
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
                if run["counts"].get("succeeded", 0) >= ENOUGH:
                    break
                client.get("runs/fan?wait=0.3")  # leaves them the processor for a while
            client.delete("runs/fan")
            run = client.wait("fan")
            assert run["status"] == "cancelled"
            assert sum(run["counts"].values()) == WORKERS
            workers = client.workers("fan")
            assert list(workers)[-1] == "last"
            assert len(workers) == WORKERS
            ran = [w for w in workers.values() if w["status"] == "succeeded"]
            assert len(ran) == run["counts"]["succeeded"]
            for worker in ran:  # a task that waited too long on its node was handed back unstarted, and placed anew
                ended = [a["status"] for a in worker["attempts"]]
                if len(ended) > 1: print("TWICE", ended, [a["error_message"] for a in worker["attempts"]])
                assert [status for status in ended if status != "returned"] == ["succeeded"], worker
            assert workers["last"]["attempts"] == []
    worst = {path: round(max(took), 3) for path, took in times.items()}
    record_property("seconds", json.dumps({"submit": round(submitted, 3), **worst}))
    print(
        f"submitted in {submitted:.2f} s; {len(times['runs'])} rounds of answers; the slowest of each, in seconds: {worst}"
    )
