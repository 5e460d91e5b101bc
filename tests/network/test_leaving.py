"""A runtime that leaves in the middle of a run, with files that nobody else has: they are made again, and everything is accounted for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client, wait_until

INSTANCE = (
    Path(__file__).resolve().parents[2].parent / "shared" / "wfinstances" / "1000genome-chameleon-2ch-100k-001.json"
)
TASKS = 52


@pytest.mark.skipif(not INSTANCE.is_file(), reason=f"no published execution at {INSTANCE}")
def test_what_only_a_leaving_runtime_had_is_made_again() -> None:
    with network({"WATTLE_LOST_AFTER": "1"}) as net:
        scales = ("--time-scale", "0.01", "--data-scale", "0.001")
        document = json.loads(net.wattle("import", "wfformat", str(INSTANCE), *scales).stdout)
        gate = net.folder / "gate"
        os.mkfifo(gate)
        readers = [worker for worker in document["workers"] if "inputs" in worker]
        for worker in readers:  # so that nobody reads what the leaving one has made before it has left
            worker["needs"] = [*worker.get("needs", []), "gate"]
        document["workers"].append(
            {"name": "gate", "command": "cat", "args": [str(gate)], "place": {"node": "n1"}, "priority": 1}
        )
        needed = {source.split("/")[0] for worker in readers for source in worker["inputs"].values()}
        first = net.start("up", "n1", "--slots", "4")
        leaving = net.start("runtime", "n2", "--slots", "4", connect=first)
        net.start("runtime", "n3", "--slots", "4", connect=first)
        with stock_client(first.endpoint) as client:
            client.nodes(3)
            run = client.get("runs", {"document": document})["id"]
            wait_until(
                lambda: len(made_by(client, run, leaving) & needed) >= 3, "the one to leave has files that others need"
            )
            assert leaving.terminate() == 0
            gate.write_text("open\n")
            view = client.wait(run)
            workers = client.workers(run)
            assert (view["status"], view["counts"]) == ("succeeded", {"succeeded": TASKS + 1}), workers
        check_history(net, run, workers)
        for worker in workers.values():
            check_files(net, run, worker)
        left = {
            n for n, w in workers.items() if ("n2", "succeeded") in [(a["node"], a["status"]) for a in w["attempts"]]
        }
        again = {n for n, w in workers.items() if statuses(w).count("succeeded") > 1}
        attempts = sum(len(w["attempts"]) for w in workers.values())
        print(f"{attempts} attempts of {TASKS} workers; made again: {len(again)}")
        assert len(left) >= 3
        assert again == left & needed


def made_by(client: StockClient, run: str, node: Agent) -> set[str]:
    done = client.get(f"runs/{run}/workers?status=succeeded;limit=1000")["workers"]
    return {w["name"] for w in done if w["node"] == node.name}


def statuses(worker: dict[str, Any]) -> list[str]:
    return [a["status"] for a in worker["attempts"]]


def check_history(net: Network, run: str, workers: dict[str, dict[str, Any]]) -> None:
    """Every attempt that a node has started, by the logs there, is in the history with that node; numbers have no gaps."""
    for worker in workers.values():
        assert [a["attempt"] for a in worker["attempts"]] == list(range(1, len(worker["attempts"]) + 1))
        assert set(statuses(worker)) <= {"succeeded", "returned", "lost"}
        assert statuses(worker)[-1] == "succeeded"
    told = {(a["node"], w["name"], a["attempt"]) for w in workers.values() for a in w["attempts"]}
    started = set()
    for log in net.folder.glob(f"*/logs/{run}/*.stdout"):
        name, attempt, _ = log.name.rsplit(".", 2)
        started.add((log.relative_to(net.folder).parts[0], name, int(attempt)))
    assert len(started) >= TASKS
    assert started <= told


def check_files(net: Network, run: str, worker: dict[str, Any]) -> None:
    """What the last attempt has made is what the run says, by its hash where it lies."""
    last = worker["attempts"][-1]
    assert worker["results"].keys() == worker["outputs"].keys()
    folder = net.folder / last["node"] / "work" / run / f"{worker['name']}.{last['attempt']}"
    for result in worker["results"].values():
        content = (folder / result["path"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (result["digest"], result["size"])
