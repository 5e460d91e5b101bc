"""Published executions of real workflows, run over three runtimes as stand-ins of the same shape."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client, wait_until

INSTANCES = Path(__file__).resolve().parents[2].parent / "shared" / "wfinstances"
pytestmark = pytest.mark.skipif(not INSTANCES.is_dir(), reason=f"no published executions at {INSTANCES}")


def convert(net: Network, instance: str, time_scale: str) -> dict[str, Any]:
    options = ("--time-scale", time_scale, "--data-scale", "0.001")
    document: dict[str, Any] = json.loads(net.wattle("import", "wfformat", str(INSTANCES / instance), *options).stdout)
    return document


def three_runtimes(net: Network) -> tuple[Agent, list[Agent]]:
    coordinator = net.start("coordinator")
    runtimes = [net.start("runtime", None, "--slots", "2", connect=coordinator) for _ in range(3)]
    net.start("gateway", connect=coordinator)
    return coordinator, runtimes


def check_files(net: Network, client: StockClient, run: str) -> int:
    """Hash every output where its task wrote it, and compare with what the run says; returns how many there were."""
    checked = 0
    for worker in client.workers(run).values():
        (attempt,) = (a for a in worker["attempts"] if a["status"] == "succeeded")
        work = net.folder / attempt["node"] / "work" / run / f"{worker['name']}.{attempt['attempt']}"
        assert worker["results"].keys() == worker["outputs"].keys()
        for result in worker["results"].values():
            content = (work / result["path"]).read_bytes()
            assert (hashlib.sha256(content).hexdigest(), len(content)) == (result["digest"], result["size"])
            checked += 1
    return checked


@pytest.mark.parametrize(
    ("instance", "tasks", "files"),
    [("montage-chameleon-2mass-005d-001.json", 58, 85), ("viralrecon-dirt02-001.json", 203, 864)],
)
def test_an_execution_succeeds_with_every_file_right(instance: str, tasks: int, files: int) -> None:
    with network() as net:
        document = convert(net, instance, "0.001")
        coordinator, _ = three_runtimes(net)
        with stock_client(coordinator.endpoint) as client:
            client.nodes(3)
            run = client.run(document)
            assert run["status"] == "succeeded", run
            workers = client.workers(run["id"])
            assert len(workers) == tasks
            assert all(len(w["attempts"]) == 1 for w in workers.values())
            assert len({w["node"] for w in workers.values()}) > 1
            assert check_files(net, client, run["id"]) == files


def test_a_runtime_told_to_leave_midway_is_done_without() -> None:
    with network({"WATTLE_LOST_AFTER": "2"}) as net:
        document = convert(net, "1000genome-chameleon-2ch-100k-001.json", "0.01")
        coordinator, runtimes = three_runtimes(net)
        with stock_client(coordinator.endpoint) as client:
            client.nodes(3)
            run = client.get("runs", {"document": document})["id"]
            leaving = runtimes[0]
            wait_until(lambda: midway(client, run, leaving), "the node to leave has done some work")
            assert leaving.terminate() == 0
            view = client.wait(run)
            assert view["status"] == "succeeded", view
            workers = client.workers(run)
            assert len(workers) == 52
            for worker in workers.values():  # every attempt is in the history, and what was handed back used up nothing
                assert [a["attempt"] for a in worker["attempts"]] == list(range(1, len(worker["attempts"]) + 1))
                assert {a["status"] for a in worker["attempts"]} <= {"succeeded", "returned", "lost"}
            assert leaving.name in {a["node"] for w in workers.values() for a in w["attempts"]}


def midway(client: StockClient, run: str, node: Agent) -> bool:
    done = client.get(f"runs/{run}/workers?status=succeeded")["workers"]
    return len(done) >= 12 and any(w["node"] == node.name for w in done)
