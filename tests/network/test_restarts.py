"""Processes killed and started again: what runs goes on, what is told once counts once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from threading import Thread
from typing import Any

from tests.namespaces.events import Token
from tests.network.processes import Agent, Network, network, processes_under, stock_client, wait_until


def gate(folder: Path, name: str = "gate") -> Path:
    """A FIFO that a task waits on until somebody writes to it."""
    path = folder / name
    os.mkfifo(path)
    return path


def three(net: Network) -> tuple[Agent, Agent, Agent]:
    coordinator = net.start("coordinator")
    return coordinator, net.start("runtime", connect=coordinator), net.start("gateway", connect=coordinator)


def test_a_runtime_killed_and_restarted_finds_its_task_running() -> None:
    with network() as net:
        coordinator, runtime, _ = three(net)
        door, ledger = gate(net.folder), net.folder / "ledger"
        worker = {"name": "w", "script": f"echo started >> {ledger}; read x < {door}; echo got $x; exit 7"}
        with stock_client(coordinator.endpoint) as client:
            client.nodes(1)
            run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
            wait_until(ledger.exists, "the task runs")
            runtime.kill()
            wait_until(lambda: client.workers(run)["w"]["unreachable"], "the node is seen to be gone")
            again = net.start("runtime", runtime.name, connect=coordinator)
            wait_until(lambda: not client.workers(run)["w"]["unreachable"], "the node is back")
            door.write_text("word\n")
            assert client.wait(run)["status"] == "failed"
            (attempt,) = client.workers(run)["w"]["attempts"]
            assert (attempt["exit_code"], attempt["node"], attempt["status"]) == (7, again.name, "failed")
            assert ledger.read_text() == "started\n"
            assert client.raw(f"runs/{run}/workers/w/logs/stdout") == b"got word\n"


def test_a_coordinator_killed_midway_goes_on_and_nothing_runs_twice() -> None:
    with network() as net:
        coordinator, _, gateway = three(net)
        ledger = net.folder / "ledger"
        workers: list[dict[str, Any]] = [{"name": f"w{n}", "script": f"echo w{n} >> {ledger}"} for n in range(200)]
        workers.append({"name": "last", "script": "true", "needs": [w["name"] for w in workers]})
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            run = client.get("runs", {"document": {"name": "f", "workers": workers}})["id"]
            wait_until(lambda: ledger.exists() and ledger.read_text().count("\n") >= 20, "it is midway")
            coordinator.kill()
            net.start("coordinator", coordinator.name)
            wait_until(lambda: run in {r["id"] for r in runs(client)}, "the coordinator answers again")
            assert client.wait(run)["status"] == "succeeded"
            assert sorted(ledger.read_text().split()) == sorted(f"w{n}" for n in range(200))
            assert all(len(w["attempts"]) == 1 for w in client.workers(run).values())


def runs(client: Any) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = client.get("runs", timeout=2)["runs"]
    except Exception as error:  # noqa: BLE001  # no coordinator, no answer: asked again
        print(error)
        return []
    return found


def test_another_gateway_answers_when_one_is_killed() -> None:
    with network() as net:
        coordinator, _, gateway = three(net)
        net.start("gateway", connect=coordinator)
        door = gate(net.folder)
        with stock_client(coordinator.endpoint) as client:
            client.nodes(1)
            worker = {"name": "w", "script": f"read x < {door}"}
            run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
            seen = Token(client, "gateway", gateway.name)
            gateway.kill()
            seen.wait(False)  # what is asked of one that dies meanwhile is answered by nobody
            opener = Thread(target=lambda: door.write_text("go\n"))
            opener.start()
            assert client.wait(run)["status"] == "succeeded"
            opener.join()


def test_tasks_of_a_killed_spawner_are_lost_and_run_again() -> None:
    with network() as net:
        coordinator, runtime, _ = three(net)
        door, ledger = gate(net.folder), net.folder / "ledger"
        worker = {
            "name": "w",
            "script": f"echo $WATTLE_ATTEMPT >> {ledger}; test $WATTLE_ATTEMPT = 2 || read x < {door}",
        }
        with stock_client(coordinator.endpoint) as client:
            client.nodes(1)
            run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
            wait_until(ledger.exists, "the task runs")
            os.kill(spawner_of(runtime), signal.SIGKILL)
            assert client.wait(run)["status"] == "succeeded"
            attempts = client.workers(run)["w"]["attempts"]
            assert [a["status"] for a in attempts] == ["lost", "succeeded"]
            assert ledger.read_text() == "1\n2\n"
            left = [p for p in processes_under(net.folder) if "read x" in Path(f"/proc/{p}/cmdline").read_text()]
            assert left == []


def spawner_of(runtime: Agent) -> int:
    for process in processes_under(runtime.data):
        if b"wattle.runtime.spawner" in Path(f"/proc/{process}/cmdline").read_bytes():
            return process
    raise AssertionError("there is no spawner")


def test_a_second_process_on_a_data_folder_is_refused() -> None:
    with network() as net:
        coordinator = net.start("coordinator")
        done = net.wattle("runtime", "--data", str(coordinator.data), "--name", "other", check=False)
        assert done.returncode != 0
        assert f"is in use by process {coordinator.process.pid}" in done.stderr
