"""Nodes that are drained, told to leave, lose their coordinator, fall silent or lose their spawner: what becomes of their tasks, and what
people see of it. ``n1`` is an ``up``, the other node is ``n2``; tasks wait at gates, so that every step is an event."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.gates import Gates
from tests.network.processes import (
    Agent,
    Network,
    StockClient,
    commands_under,
    network,
    processes_under,
    stock_client,
    wait_until,
)

LONG = "300"


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path / "gates", "a", "b", "c")
    yield made
    made.close()


def submit(client: StockClient, run: str, *workers: dict[str, Any]) -> None:
    client.get("runs", {"document": {"name": "f", "workers": workers}, "run": run})


def attempts(client: StockClient, run: str, worker: str) -> list[tuple[str, str]]:
    """Node and status of every attempt."""
    found = client.get(f"runs/{run}/workers/{worker}")["attempts"]
    return [(attempt["node"], attempt["status"]) for attempt in found]


def shown(net: Network, client_of: Agent) -> dict[str, tuple[str, int, int]]:
    """What ``wattle nodes --json`` says: status, running and queued of every node."""
    listed = json.loads(net.wattle("nodes", "--json", "--connect", client_of.endpoint).stdout)
    return {node["name"]: (node["status"], node["running"], node["queued"]) for node in listed}


def drain(client: StockClient, node: str, verb: str = "drain") -> None:
    """Drain a node, or have it resume, and wait until the coordinator knows."""
    client.get(f"nodes/{node}/{verb}")
    status = "draining" if verb == "drain" else "ready"
    wait_until(lambda: client.get(f"nodes/{node}")["status"] == status, f"{node} is {status}")


def test_a_drained_node_finishes_what_runs_hands_back_what_waits_and_takes_nothing(gates: Gates) -> None:
    with network({"WATTLE_PREFETCH_WINDOW": LONG, "WATTLE_QUEUE_PATIENCE": LONG}) as net:
        up = net.start("up", "n1", "--slots", "4")
        net.start("runtime", "n2", "--slots", "1", connect=up)
        with stock_client(up.endpoint) as client:
            client.nodes(2)
            drain(client, "n1")
            client.run({"name": "warm", "workers": [{"name": "a", "command": "true"}]})  # short tasks are sent ahead
            submit(client, "r", *({"name": name, "script": gates.script} for name in "abc"))
            gates.arrived("a.1")
            wait_until(lambda: client.get("nodes/n2")["queued"] == 2, "the others wait in the node's queue")
            drain(client, "n1", "resume")
            drain(client, "n2")
            gates.arrived("b.2", "c.2")  # elsewhere: these attempts stand at their gates, and no others
            assert shown(net, up) == {"n1": ("ready", 2, 0), "n2": ("draining", 1, 0)}
            submit(client, "new", {"name": "a", "command": "true"})
            assert client.wait("new")["status"] == "succeeded"
            for gate in ("a.1", "b.2", "c.2"):
                gates.open(gate)
            assert client.wait("r")["status"] == "succeeded"
            assert attempts(client, "new", "a") == [("n1", "succeeded")]
            assert attempts(client, "r", "a") == [("n2", "succeeded")]
            for name in "bc":
                assert attempts(client, "r", name) == [("n2", "returned"), ("n1", "succeeded")]
                first = client.get(f"runs/r/workers/{name}")["attempts"][0]
                assert (first["error_message"], first["started_at"]) == ("the node takes no new work", None)
            drain(client, "n2", "resume")
            drain(client, "n1")
            assert shown(net, up) == {"n1": ("draining", 0, 0), "n2": ("ready", 0, 0)}
            submit(client, "last", {"name": "a", "command": "true"})
            assert client.wait("last")["status"] == "succeeded"
            assert attempts(client, "last", "a") == [("n2", "succeeded")]


STUBBORN = "trap '' TERM\n"


@pytest.mark.parametrize(
    ("signals", "stop_timeout", "kill_after"), [(1, "0.2", 0.2), (2, LONG, 300)], ids=["deadline", "second signal"]
)
def test_a_node_told_to_leave_stops_what_does_not_end_and_it_runs_elsewhere(
    gates: Gates, signals: int, stop_timeout: str, kill_after: float
) -> None:
    with network({"WATTLE_LOST_AFTER": "0.5"}) as net:
        up = net.start("up", "n1")
        node = net.start("runtime", "n2", "--stop-timeout", stop_timeout, connect=up)
        with stock_client(up.endpoint) as client:
            client.nodes(2)
            drain(client, "n1")
            submit(client, "r", {"name": "a", "script": STUBBORN + gates.script, "kill_after": kill_after})
            gates.arrived("a.1")
            drain(client, "n1", "resume")
            node.process.terminate()
            if signals == 2:
                wait_until(lambda: client.get("nodes/n2")["status"] == "draining", "it takes nothing new")
                assert shown(net, up)["n2"] == ("draining", 1, 0)
                node.process.terminate()
            assert node.process.wait(30) == 0
            wait_until(lambda: not processes_under(node.data), "nothing is left of it")
            gates.arrived("a.2")
            gates.open("a.2")
            assert client.wait("r")["status"] == "succeeded"
            assert attempts(client, "r", "a") == [("n2", "returned"), ("n1", "succeeded")]
            first = client.get("runs/r/workers/a")["attempts"][0]
            assert (first["signal"], first["error_message"]) == (signal.SIGKILL, "its node was told to leave")
            wait_until(lambda: client.get("nodes/n2")["status"] == "lost", "it is given up")


def test_a_second_signal_to_an_up_kills_what_runs_and_the_next_up_goes_on(gates: Gates) -> None:
    with network() as net:
        up = net.start("up", "n1", "--stop-timeout", LONG)
        with stock_client(up.endpoint) as client:
            client.nodes(1)
            submit(client, "r", {"name": "a", "script": STUBBORN + gates.script, "kill_after": 300})
            gates.arrived("a.1")
            up.process.send_signal(signal.SIGINT)
            wait_until(lambda: client.get("nodes/n1")["status"] == "draining", "it is told to stop")
            wait_until(lambda: client.get("runs/r/workers/a")["status"] == "running", "what runs goes on")
        assert "told to stop again, it is killed" in up.log
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(30) == 0
        wait_until(lambda: not processes_under(net.folder), "neither tasks nor the spawner are left")
        again = net.start("up", "n1")
        with stock_client(again.endpoint) as client:
            gates.arrived("a.2")
            gates.open("a.2")
            assert client.wait("r")["status"] == "succeeded"
            assert attempts(client, "r", "a") == [("n1", "returned"), ("n1", "succeeded")]


def test_without_a_coordinator_in_sight_tasks_go_on_or_stop_as_they_say(gates: Gates) -> None:
    with network() as net:
        coordinator = net.start("coordinator")
        node = net.start("runtime", "n2", "--slots", "2", connect=coordinator)
        gateway = net.start("gateway", connect=coordinator)
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            stopping = {"name": "a", "script": gates.script, "on_disconnect": "stop"}
            submit(client, "r", stopping, {"name": "b", "script": gates.script})
            gates.arrived("a.1", "b.1")
            coordinator.kill()
            wait_until(lambda: running(client, node) == 1, "the one is stopped, and the other goes on")
            net.start("coordinator", coordinator.name, connect=node)
            gates.arrived("a.2")
            for gate in ("a.2", "b.1"):
                gates.open(gate)
            wait_until(lambda: coordinators(client), "the gateway sees the coordinator")
            assert client.wait("r")["status"] == "succeeded"
            assert attempts(client, "r", "a") == [("n2", "returned"), ("n2", "succeeded")]
            assert attempts(client, "r", "b") == [("n2", "succeeded")]
            reason = client.get("runs/r/workers/a")["attempts"][0]["error_message"]
            assert "on_disconnect: stop" in reason


def running(client: StockClient, node: Agent) -> int:
    """What a node says itself."""
    (reply,) = client.session.get(f"wattle/default/state/runtime/{node.name}", timeout=10)
    assert reply.ok is not None
    found: int = json.loads(reply.ok.payload.to_bytes())["running"]
    return found


def coordinators(client: StockClient) -> list[Any]:
    return [peer for peer in client.get("health")["peers"] if peer["role"] == "coordinator"]


def test_a_node_silent_for_too_long_is_lost_and_the_first_finish_wins(gates: Gates) -> None:
    """Its runtime is stopped with SIGSTOP and goes on later; its tasks go on meanwhile."""
    with network({"WATTLE_LEASE": "0.5", "WATTLE_LOST_AFTER": "2"}) as net:
        up = net.start("up", "n1", "--slots", "4")
        node = net.start("runtime", "n2", "--slots", "4", connect=up)
        with stock_client(up.endpoint) as client:
            client.nodes(2)
            drain(client, "n1")
            say = gates.script + "echo $WATTLE_ATTEMPT"
            submit(client, "r", *({"name": name, "script": say} for name in "abc"))
            gates.arrived("a.1", "b.1", "c.1")
            drain(client, "n1", "resume")
            wait_until(lambda: known_to_run(client), "they are known to run")
            node.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: client.get("nodes/n2")["status"] == "unreachable", "it is out of sight")
            worker = client.get("runs/r/workers/a")
            assert (worker["status"], worker["unreachable"], worker["node"]) == ("running", True, "n2")
            gates.arrived("a.2", "b.2", "c.2")
            assert shown(net, up)["n2"][0] == "lost"
            assert [attempts(client, "r", name) for name in "abc"] == [[("n2", "lost"), ("n1", "running")]] * 3
            gates.open("a.1")  # ends before the second attempt, unseen
            gates.open("b.2")
            wait_until(lambda: client.get("runs/r/workers/b")["status"] == "succeeded", "the second attempt ends first")
            gates.open("b.1")  # ends after the second attempt, and by itself
            wait_until(lambda: len(tasks_of(node)) == 1, "only the third is at its gate")
            node.process.send_signal(signal.SIGCONT)
            wait_until(
                lambda: client.get("runs/r/workers/a")["status"] == "succeeded", "the first attempt's finish wins"
            )
            gates.open("c.2")  # while the first attempt, found alive, waits at its gate
            assert client.wait("r")["status"] == "succeeded"
            assert shown(net, up)["n2"][0] == "ready"
            ends = {
                "a": [("n2", "succeeded"), ("n1", "superseded")],
                "b": [("n2", "superseded"), ("n1", "succeeded")],
                "c": [("n2", "superseded"), ("n1", "succeeded")],
            }
            for name, expected in ends.items():
                wait_until(lambda n=name, e=expected: attempts(client, "r", n) == e, f"{name}: {expected}")  # type: ignore[misc]
                winner = [status for _, status in expected].index("succeeded") + 1
                assert client.raw(f"runs/r/workers/{name}/logs/stdout?attempt={winner}") == f"{winner}\n".encode()
            late = client.get("runs/r/workers/b")["attempts"][0]
            assert (late["exit_code"], late["signal"]) == (0, None), "what ended by itself is shown as it ended"


def known_to_run(client: StockClient) -> bool:
    return {worker["status"] for worker in client.workers("r").values()} == {"running"}


def tasks_of(agent: Agent) -> list[int]:
    """The processes of tasks on a node."""
    commands = commands_under(agent.data / "work")
    return [pid for pid, command in commands.items() if pid != agent.process.pid and "spawner" not in command]


ORPHAN = """
if [ $WATTLE_ATTEMPT = 1 ]; then
    echo $$ > {folder}/$WATTLE_WORKER.pid
    echo first >> {folder}/$WATTLE_WORKER.ledger
    {first}
fi
state=$(grep State: /proc/$(cat {folder}/$WATTLE_WORKER.pid)/status 2> /dev/null || echo gone)
case "$state" in gone | *Z*) ;; *) echo "beside:$state" >> {folder}/$WATTLE_WORKER.ledger ;; esac
echo second >> {folder}/$WATTLE_WORKER.ledger
"""
"""The second attempt notes when the first one's process is still there."""


def test_no_task_of_a_killed_spawner_succeeds_or_goes_on_beside_another_attempt(gates: Gates) -> None:
    """One ends well as an orphan, while nobody looks; one stays, with a child; one stays and has wiped the environment it is known by."""
    with network({"WATTLE_LEASE": "2", "WATTLE_LOST_AFTER": LONG}) as net:
        up = net.start("up", "n1", "--slots", "4", "--stop-timeout", "0")
        firsts = {
            "a": f"{gates.script} echo ended >> {net.folder}/a.ledger; exit 0",
            "b": f"(setsid sh -c 'echo $$ > {net.folder}/child.pid; exec sleep 1000' &)\n{gates.script}",
            "c": 'echo "$WATTLE_WORKER.1 1" > "$ARRIVALS"; exec env -i "$(command -v sleep)" 1000',
        }
        workers = [
            {"name": name, "script": ORPHAN.format(folder=net.folder, first=first), "env_vars": gates_at(gates)}
            for name, first in firsts.items()
        ]
        with stock_client(up.endpoint) as client:
            client.nodes(1)
            submit(client, "r", *workers)
            gates.arrived("a.1", "b.1", "c.1")
            wait_until(lambda: known_to_run(client), "they are known to run")
            wait_until(lambda: (net.folder / "child.pid").exists(), "one has a child outside its session")
            wait_until((net.folder / "child.pid").read_text, "which has said who it is")
            orphans = {name: int((net.folder / f"{name}.pid").read_text()) for name in ("a", "b", "c", "child")}
            wait_until(lambda: b"WATTLE" not in environ(orphans["c"]), "the third has wiped its environment")
            spawner = int((up.data / "spawner.lock").read_text())
            up.process.send_signal(signal.SIGSTOP)
            os.kill(spawner, signal.SIGKILL)
            gates.open("a.1")
            wait_until(lambda: "ended" in (net.folder / "a.ledger").read_text(), "an orphan ends well")
            wait_until(lambda: not alive(orphans["a"]), "and is gone")
            assert all(alive(orphans[name]) for name in ("b", "c", "child"))
            up.process.send_signal(signal.SIGCONT)
            wait_until(lambda: not any(map(alive, orphans.values())), "the orphans are killed")
        with stock_client(up.endpoint) as client:
            assert client.wait("r")["status"] == "succeeded"
            for name, worker in client.workers("r").items():
                first, second = worker["attempts"]
                assert (first["status"], second["status"]) == ("lost", "succeeded"), name
                assert (first["exit_code"], first["signal"]) == (None, None)
                assert "how the process ended is unknown" in first["error_message"]
        assert (net.folder / "a.ledger").read_text().split() == ["first", "ended", "second"]
        assert (net.folder / "b.ledger").read_text().split() == ["first", "second"]
        assert (net.folder / "c.ledger").read_text().split() == ["first", "second"]


def gates_at(gates: Gates) -> dict[str, str]:
    """Where to say that a gate is reached, for those that do not stop there."""
    return {"ARRIVALS": gates.script.split("> ")[1].split("\n")[0]}


def environ(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
