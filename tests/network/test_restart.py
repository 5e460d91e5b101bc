"""What goes on while somebody is dead: tasks end without their runtime or coordinator, and clients wait at another gateway."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import (
    Agent,
    Network,
    StockClient,
    network,
    processes_under,
    stock_client,
    wait_until,
)
from wattle import Client


def three(net: Network) -> list[Agent]:
    coordinator = net.start("coordinator")
    return [coordinator, net.start("runtime", connect=coordinator), net.start("gateway", connect=coordinator)]


@contextmanager
def started(
    net: Network, script: str, agents: list[Agent] | None = None, run: str = "r"
) -> Iterator[tuple[list[Agent], StockClient, Path, Path]]:
    """A coordinator, a runtime and a gateway; a run whose first worker has told its process number and waits at a gate."""
    agents = agents or three(net)
    gate, ledger = net.folder / f"gate-{run}", net.folder / f"ledger-{run}"
    os.mkfifo(gate)
    first = {"name": "first", "script": f"echo $$ >> {ledger}; read word < {gate}; {script}"}
    then = {"name": "then", "command": "echo then", "needs": ["first"]}
    with stock_client(agents[2].endpoint) as client:
        client.nodes(1)
        client.get("runs", {"document": {"name": "f", "workers": [first, then]}, "run": run})
        wait_until(lambda: ledger.exists() and ledger.read_text(), "the first task runs")
        yield agents, client, gate, ledger


Site = tuple[Network, list[Agent]]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One for tests that start again what they kill."""
    with network() as net:
        yield net, three(net)


def open_gate(gate: Path) -> None:
    """Let the task go on."""

    def opened() -> bool:
        try:
            with open(os.open(gate, os.O_WRONLY | os.O_NONBLOCK), "w") as writer:
                writer.write("word\n")
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            return False
        return True

    wait_until(opened, "the task waits at the gate")


def open_gate_and_see_it_end(gate: Path, ledger: Path) -> None:
    """Let the task go on, and wait for the end of its process."""
    open_gate(gate)
    wait_until(lambda: not Path(f"/proc/{ledger.read_text().strip()}").exists(), "the task has ended")


@pytest.mark.parametrize(("script", "expected"), [("exit 7", (7, None)), ("kill -USR1 $$", (None, signal.SIGUSR1))])
def test_how_a_task_ended_while_its_runtime_was_dead_is_recorded(
    site: Site, script: str, expected: tuple[int | None, int | None]
) -> None:
    net, agents = site
    run = f"dead-{expected[0]}"
    with started(net, script, agents, run) as (_, client, gate, ledger):
        agents[1].kill()
        open_gate_and_see_it_end(gate, ledger)
        agents[1] = net.start("runtime", agents[1].name, connect=agents[0])
        assert client.wait(run)["status"] == "failed"
        (attempt,) = client.workers(run)["first"]["attempts"]
        assert (attempt["exit_code"], attempt["signal"]) == expected
        assert attempt["status"] == "failed"


def test_what_ends_while_the_coordinator_is_dead_counts_once(site: Site) -> None:
    net, agents = site
    with started(net, "echo $word", agents, "once") as (_, client, gate, ledger):
        agents[0].kill()
        open_gate_and_see_it_end(gate, ledger)
        agents[0] = net.start("coordinator", agents[0].name, connect=agents[1])
        wait_until(lambda: coordinators(client), "the gateway sees the coordinator")
        assert client.wait("once")["status"] == "succeeded"
        assert {name: len(w["attempts"]) for name, w in client.workers("once").items()} == {"first": 1, "then": 1}
        assert len(ledger.read_text().split()) == 1
        assert client.raw("runs/once/workers/first/logs/stdout") == b"word\n"


def coordinators(client: StockClient) -> list[Any]:
    return [peer for peer in client.get("health")["peers"] if peer["role"] == "coordinator"]


def open_requests(client: StockClient, gateway: Agent) -> int:
    (reply,) = client.session.get(f"wattle/default/state/gateway/{gateway.name}", timeout=10)
    assert reply.ok is not None
    found: int = json.loads(reply.ok.payload.to_bytes())["open_requests"]
    return found


def test_a_client_that_waits_at_a_killed_gateway_is_answered_by_another(site: Site) -> None:
    net, agents = site
    with started(net, "echo $word", agents, "waited") as (_, _, gate, _):
        coordinator, _, gateway = agents
        with (
            stock_client(coordinator.endpoint) as client,
            Client(connect=[coordinator.endpoint]) as waiting,
            ThreadPoolExecutor(1) as thread,
        ):
            answer = thread.submit(waiting.wait, "waited", 60)
            wait_until(lambda: open_requests(client, gateway) >= 1, "the client waits at the first gateway")
            agents[2] = net.start("gateway", "second", connect=coordinator)
            gateway.kill()
            wait_until(lambda: client.on_duty() == ["second"], "the second answers")
            assert not answer.done()
            open_gate(gate)
            assert answer.result(60).status == "succeeded"


def test_nothing_is_left_when_a_runtime_has_left() -> None:
    with network() as net, started(net, "echo $word") as (agents, client, gate, _):
        runtime = agents[1]
        assert client.get("nodes/runtime1")["running"] == 1
        runtime.process.terminate()
        wait_until(lambda: client.get("nodes/runtime1")["status"] == "draining", "it takes nothing new")
        open_gate(gate)
        assert runtime.process.wait(30) == 0
        wait_until(lambda: not processes_under(runtime.data), "the spawner has gone as well", timeout=5)
        first = client.workers("r")["first"]
        assert [(a["status"], a["node"]) for a in first["attempts"]] == [("succeeded", "runtime1")]


def test_a_name_is_refused_to_a_second_holder_and_waited_for_where_the_first_is_silent(tmp_path: Path) -> None:
    """A stopped process is to others what a machine is that was switched off: in sight until the lease is over, and silent."""
    with network() as net, ThreadPoolExecutor(1) as thread:
        home = net.start("runtime", "home")
        options = ("--mode", "client", "--lease", "60")  # clients see each other though one of them is silent
        former = net.start("coordinator", "c", *options, connect=home)
        other = ("--data", str(tmp_path), *options, "--connect", home.endpoint)
        refused = net.wattle("coordinator", "--name", "c", *other, check=False)
        assert refused.returncode != 0
        assert "a coordinator named 'c' is on this network already" in refused.stderr
        former.process.send_signal(signal.SIGSTOP)
        successor = thread.submit(net.start, "coordinator", "c", *other)
        wait_until(lambda: "does not answer: waiting for it to go" in former.log, "the successor waits")
        former.kill()
        assert successor.result().process.poll() is None


def test_of_two_that_find_out_later_that_they_have_one_name_the_earlier_stays() -> None:
    with network() as net:
        first, second = net.start("runtime", "twin"), net.start("runtime", "another", "--name", "twin")
        net.start("coordinator", "between", "--connect", second.endpoint, connect=first)
        assert second.process.wait(60) != 0
        assert "a runtime named 'twin' is on this network already" in second.log
        assert first.process.poll() is None
