"""Processes killed and started again: what runs goes on, what is told once counts once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.namespaces.events import Token
from tests.network.processes import (
    Agent,
    ApiError,
    Network,
    StockClient,
    commands_under,
    network,
    stock_client,
    wait_until,
)


class Site:
    """A coordinator, a runtime and a gateway, for all tests here: each starts again what it kills, and has a folder of its own."""

    def __init__(self, net: Network, client: StockClient, coordinator: Agent, runtime: Agent, gateway: Agent) -> None:
        self.net, self.client = net, client
        self.coordinator, self.runtime, self.gateway = coordinator, runtime, gateway

    def gate(self, folder: Path) -> Path:
        """A FIFO that a task waits on until somebody writes to it."""
        path = folder / "gate"
        os.mkfifo(path)
        return path


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with network() as net:
        coordinator = net.start("coordinator")
        runtime, gateway = (net.start(role, connect=coordinator) for role in ("runtime", "gateway"))
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            yield Site(net, client, coordinator, runtime, gateway)


def test_a_runtime_killed_and_restarted_finds_its_task_running(site: Site, tmp_path: Path) -> None:
    client, door, ledger = site.client, site.gate(tmp_path), tmp_path / "ledger"
    worker = {"name": "w", "script": f"echo started >> {ledger}; read x < {door}; echo got $x; exit 7"}
    run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
    wait_until(ledger.exists, "the task runs")
    site.runtime.kill()
    wait_until(lambda: client.workers(run)["w"]["unreachable"], "the node is seen to be gone")
    site.runtime = site.net.start("runtime", site.runtime.name, connect=site.coordinator)
    wait_until(lambda: not client.workers(run)["w"]["unreachable"], "the node is back")
    door.write_text("word\n")
    assert client.wait(run)["status"] == "failed"
    (attempt,) = client.workers(run)["w"]["attempts"]
    assert (attempt["exit_code"], attempt["node"], attempt["status"]) == (7, site.runtime.name, "failed")
    assert ledger.read_text() == "started\n"
    assert client.raw(f"runs/{run}/workers/w/logs/stdout") == b"got word\n"


def test_a_coordinator_killed_midway_goes_on_and_nothing_runs_twice(site: Site, tmp_path: Path) -> None:
    client, ledger = site.client, tmp_path / "ledger"
    workers: list[dict[str, Any]] = [{"name": f"w{n}", "script": f"echo w{n} >> {ledger}"} for n in range(200)]
    workers.append({"name": "last", "script": "true", "needs": [w["name"] for w in workers]})
    run = client.get("runs", {"document": {"name": "f", "workers": workers}})["id"]
    wait_until(lambda: ledger.exists() and ledger.read_text().count("\n") >= 20, "it is midway")
    site.coordinator.kill()
    site.coordinator = site.net.start("coordinator", site.coordinator.name, connect=site.runtime)
    wait_until(lambda: run in {r["id"] for r in runs(client)}, "the coordinator answers again")
    assert client.wait(run)["status"] == "succeeded"
    assert sorted(ledger.read_text().split()) == sorted(f"w{n}" for n in range(200))
    for worker in client.workers(run).values():  # what was handed back, as its owner was away, had not been started
        assert [a["status"] for a in worker["attempts"] if a["status"] != "returned"] == ["succeeded"], worker


def runs(client: StockClient) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = client.get("runs", timeout=2)["runs"]
    except (ApiError, LookupError) as error:  # no coordinator, no answer: asked again
        print(error)
        return []
    return found


def test_tasks_of_a_killed_spawner_are_lost_and_run_again(site: Site, tmp_path: Path) -> None:
    client, door, ledger = site.client, site.gate(tmp_path), tmp_path / "ledger"
    worker = {
        "name": "w",
        "script": f"echo $WATTLE_ATTEMPT >> {ledger}; test $WATTLE_ATTEMPT = 2 || read x < {door}",
    }
    client.nodes(1)
    run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
    wait_until(ledger.exists, "the task runs")
    os.kill(spawner_of(site.runtime), signal.SIGKILL)
    assert client.wait(run)["status"] == "succeeded"
    attempts = client.workers(run)["w"]["attempts"]
    assert [a["status"] for a in attempts] == ["lost", "succeeded"]
    assert ledger.read_text() == "1\n2\n"
    left = [process for process, command in commands_under(site.net.folder).items() if "read x" in command]
    assert left == []


def spawner_of(runtime: Agent) -> int:
    for process, command in commands_under(runtime.data).items():
        if "wattle.runtime.spawner" in command:
            return process
    raise AssertionError("there is no spawner")


def test_a_second_process_on_a_data_folder_is_refused(site: Site) -> None:
    done = site.net.wattle("runtime", "--data", str(site.coordinator.data), "--name", "other", check=False)
    assert done.returncode != 0
    holder = f"the data folder {site.coordinator.data} is in use by process {site.coordinator.process.pid}"
    assert f"{holder}; stop it, or give another folder with --data" in done.stderr


def test_another_gateway_answers_when_one_is_killed(site: Site, tmp_path: Path) -> None:
    second = site.net.start("gateway", connect=site.coordinator)
    door = site.gate(tmp_path)
    with stock_client(site.coordinator.endpoint) as client:
        worker = {"name": "w", "script": f"read x < {door}"}
        run = client.get("runs", {"document": {"name": "f", "workers": [worker]}})["id"]
        wait_until(lambda: set(client.gateways()) == {site.gateway.name, second.name}, "both gateways are in sight")
        seen = Token(client, "gateway", site.gateway.name)
        site.gateway.kill()
        seen.wait(False)  # what is asked of one that dies meanwhile is answered by nobody, as until the next is on duty
        wait_until(lambda: client.gateways()[second.name]["serving"], "the other one is on duty")
        opener = Thread(target=lambda: door.write_text("go\n"))
        opener.start()
        assert client.wait(run)["status"] == "succeeded"
        opener.join()
