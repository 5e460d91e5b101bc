"""Several coordinators as real processes: an owner that is killed, its disk with it, and what users see of that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client, wait_until


def mesh(net: Network, role: str, name: str | None = None, *options: str) -> Agent:
    """Start an agent that is linked to all others that run: peers do not relay."""
    others = [agent for agent in net.agents if agent.process.poll() is None]
    connects = [word for agent in others for word in ("--connect", agent.endpoint)]
    return net.start(role, name, *connects, *options)


def gate(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


def open_gate(path: Path) -> None:
    with path.open("w") as door:
        door.write("go\n")


def gated(folder: Path, name: str = "chain", node: str | None = None) -> tuple[Path, Path, dict[str, Any]]:
    """A chain of three that waits in its middle, on a node where one is named: ledger, gate, document."""
    ledger, door = folder / "ledger", gate(folder, f"gate-{name}")
    line = f'echo "$WATTLE_WORKER $WATTLE_ATTEMPT" >> {ledger}'
    workers: list[dict[str, Any]] = [
        {"name": "a", "script": f"{line}; echo a > a.txt", "outputs": {"out": "a.txt"}},
        {"name": "b", "script": f"{line}; read x < {door}", "needs": ["a"], "place": {"node": node}},
        {"name": "c", "script": f"{line}; cat $WATTLE_INPUT_A", "inputs": {"a": "a/out"}, "needs": ["b"]},
    ]
    return ledger, door, {"name": name, "workers": workers}


def attempts(client: StockClient, run: str) -> dict[str, list[str]]:
    return {name: [a["status"] for a in worker["attempts"]] for name, worker in client.workers(run).items()}


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_the_runs_of_a_killed_owner_go_on_with_another_coordinator(disk: str) -> None:
    with network() as net:
        coordinators = {c.name: c for c in (mesh(net, "coordinator"), mesh(net, "coordinator"))}
        for _ in range(2):
            mesh(net, "runtime")
        gateway = mesh(net, "gateway")
        ledger, door, document = gated(net.folder)
        with stock_client(gateway.endpoint) as client:
            client.nodes(2)
            done = client.run({"name": "before", "workers": [{"name": "w", "command": "true"}]})
            run = client.get("runs", {"document": document})
            wait_until(lambda: ledger.exists() and "b 1" in ledger.read_text(), "the middle one runs")
            owner = coordinators[run["owner"]]
            owner.kill()
            if disk == "lost":
                shutil.rmtree(owner.data)
            (other,) = coordinators.keys() - {owner.name}
            wait_until(lambda: client.get(f"runs/{run['id']}")["owner"] == other, "the run has another owner")
            assert client.get(f"runs/{run['id']}")["epoch"] == 2
            open_gate(door)
            final = client.wait(run["id"])
            assert (final["status"], final["owner"]) == ("succeeded", other)
            (last,) = client.workers(run["id"])["c"]["attempts"]
            assert ledger.read_text().splitlines() == ["a 1", "b 1", f"c {last['attempt']}"]
            assert attempts(client, run["id"]) == {"a": ["succeeded"], "b": ["succeeded"], "c": ["succeeded"]}
            listed = {r["id"]: r["status"] for r in client.get("runs")["runs"]}
            assert listed == {done["id"]: "succeeded", run["id"]: "succeeded"}
            if disk == "kept":
                mesh(net, "coordinator", owner.name)
                wait_until(
                    lambda: sum(p["role"] == "coordinator" for p in client.get("health")["peers"]) == 2, "it is back"
                )
                wait_until(lambda: client.get(f"runs/{run['id']}")["owner"] == other, "it has heard whose the run is")
                again = client.run({"name": "after", "workers": [{"name": "w", "command": "true"}]})
                assert again["status"] == "succeeded"


def test_the_only_coordinator_dies_with_its_disk_and_a_new_one_on_an_empty_folder_ends_every_run() -> None:
    with network() as net:
        coordinator = mesh(net, "coordinator")
        runtimes = [mesh(net, "runtime") for _ in range(3)]
        with stock_client(coordinator.endpoint) as client:
            gateway = mesh(net, "gateway")
            client.nodes(3)
        with stock_client(gateway.endpoint) as client:
            done = client.run({"name": "before", "workers": [{"name": "w", "command": "true"}]})
            doors, ledger = {}, net.folder / "ledger"
            for node in runtimes:
                _, doors[node.name], document = gated(net.folder, node.name, node.name)
                client.get("runs", {"document": document, "run": node.name})
            wait_until(lambda: ledger.exists() and ledger.read_text().count("b 1") == 3, "each node is in the middle")
            coordinator.kill()
            shutil.rmtree(coordinator.data)
            mesh(net, "coordinator", "new")
            wait_until(lambda: len(client.get("runs")["runs"]) == 4, "every run has an owner")
            for door in doors.values():
                open_gate(door)
            assert {client.wait(run)["status"] for run in doors} == {"succeeded"}
            assert sorted(ledger.read_text().split()[::2]) == [*"aaabbbccc"]
            for run in doors:
                assert attempts(client, run) == {name: ["succeeded"] for name in "abc"}
                assert client.workers(run)["b"]["node"] == run
            listed = {r["id"]: (r["status"], r["owner"]) for r in client.get("runs")["runs"]}
            assert listed == dict.fromkeys((done["id"], *doors), ("succeeded", "new"))
            shown = net.wattle("runs", "--connect", gateway.endpoint).stdout
            assert all(run in shown for run in listed)
