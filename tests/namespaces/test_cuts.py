"""Machines of a LAN that are cut off for a while and come back. The coordinator is on ``head``; ``near`` and ``far`` run tasks. The
test looks in through a gateway, on ``head`` or ``near``."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.events import Events, Token
from tests.namespaces.gates import PATIENCE, Gates
from tests.namespaces.hosts import Lan, lan, together
from tests.network.processes import ApiError, StockClient, stock_client

pytestmark = pytest.mark.namespaces

PEER = ("--zenoh-config", str(Path(__file__).parents[2] / "zenoh-configs" / "lan-peer.json5"))


@contextmanager
def site(lost_after: float, gateway: str = "head") -> Iterator[tuple[Lan, StockClient]]:
    """The network, and a client of the gateway on the host named."""
    with lan("head", "near", "far", environment={"WATTLE_LOST_AFTER": str(lost_after)}) as made:
        together(
            partial(made[gateway].network.start, "gateway", "door", *PEER, "--listen", "tcp/[::]:7447"),
            partial(made["head"].network.start, "coordinator", "chief", *PEER),
            partial(made["near"].network.start, "runtime", "near", *PEER, "--slots", "4"),
            partial(made["far"].network.start, "runtime", "far", *PEER, "--slots", "4"),
        )
        with stock_client(made[gateway].window(7447)) as client:
            client.nodes(2)
            yield made, client


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path / "gates", "first", "second", "third")
    yield made
    made.close()


def worker(name: str, script: str, node: str | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "script": script, "place": {"node": node}, **more}


def submit(client: StockClient, run: str, *workers: dict[str, Any]) -> Events:
    """Submit a run of these workers; its events."""
    events = Events(client, run)
    client.get("runs", {"document": {"name": "cut", "workers": workers}, "run": run})
    return events


def attempts(client: StockClient, run: str, worker: str) -> list[tuple[str, str]]:
    """Node and status of every attempt."""
    found = client.get(f"runs/{run}/workers/{worker}")["attempts"]
    return [(attempt["node"], attempt["status"]) for attempt in found]


def until(ask: Callable[[], Any], expected: Any) -> None:
    """Ask again until the answer is as expected, where no event tells."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask()) != expected:
        assert time.monotonic() < deadline, f"it is {answer} and does not become {expected}"


def idle(client: StockClient, node: str) -> bool:
    """Whether a node is in sight and has nothing to do."""
    seen = client.get(f"nodes/{node}")
    return bool(seen["status"] == "ready" and seen["running"] == seen["queued"] == 0)


def test_a_node_cut_off_for_a_moment_is_waited_for(gates: Gates) -> None:
    with site(lost_after=300) as (lan, client):
        script = gates.script + 'echo "on $(date +%N)" > out; cat out'
        workers = [worker(name, script, "far", outputs={"out": "out"}) for name in ("first", "second")]
        events = submit(client, "moment", *workers)
        gates.arrived("first.1", "second.1")
        events.wait(name="first", status="running")
        events.wait(name="second", status="running")
        lan.cut(lan["far"])
        events.wait(name="first", unreachable=True)
        shown = client.workers("moment")
        assert {(w["status"], w["unreachable"]) for w in shown.values()} == {("running", True)}
        assert client.get("nodes/far")["status"] == "unreachable"
        gates.open("first.1")  # ends while nobody can see it
        lan.heal(lan["far"])
        events.wait(name="first", status="succeeded")
        gates.open("second.1")
        assert client.wait("moment")["status"] == "succeeded"
        assert client.get("nodes/far")["status"] == "ready"
        for name in ("first", "second"):
            assert attempts(client, "moment", name) == [("far", "succeeded")]
            assert client.get(f"runs/moment/workers/{name}")["unreachable"] is False
            printed = client.raw(f"runs/moment/workers/{name}/logs/stdout")
            kept = lan["far"].network.folder / "far" / "work" / "moment" / f"{name}.1" / "out"
            assert printed == kept.read_bytes() != b""


def test_the_work_of_a_lost_node_is_done_elsewhere_and_the_first_finish_wins(gates: Gates) -> None:
    with site(lost_after=0.5) as (lan, client):
        client.get("nodes/near/drain")  # what comes now starts on the node that will be cut off
        script = gates.script + 'echo "$WATTLE_ATTEMPT"'
        events = submit(client, "lost", worker("first", script), worker("second", script))
        gates.arrived("first.1", "second.1")
        client.get("nodes/near/resume")
        lan.cut(lan["far"])
        gates.arrived("first.2", "second.2")
        gates.open("first.2")
        events.wait(name="first", status="succeeded")
        gates.open("second.1")  # ends while nobody can see it, and before the other attempt
        lan.heal(lan["far"])
        assert client.wait("lost")["status"] == "succeeded"
        winners = {"first": "2", "second": "1"}
        for name, winner in winners.items():
            assert client.raw(f"runs/lost/workers/{name}/logs/stdout?attempt={winner}").decode() == f"{winner}\n"
        both = ("near", "far")
        until(lambda: [idle(client, node) for node in both], [True, True])  # the losers were ended at their gates
        until(lambda: attempts(client, "lost", "first"), [("far", "superseded"), ("near", "succeeded")])
        until(lambda: attempts(client, "lost", "second"), [("far", "succeeded"), ("near", "superseded")])


def test_nodes_work_on_while_the_coordinator_is_cut_off(gates: Gates) -> None:
    with site(lost_after=300, gateway="near") as (lan, client):
        coordinator = Token(client, "coordinator", "chief")
        facts: queue.Queue[bytes] = queue.Queue()
        client.session.declare_subscriber(
            "wattle/default/feed/near", lambda sample: facts.put(sample.payload.to_bytes())
        )
        script = gates.script + "echo done"
        workers = [
            worker("first", script, "near"),
            worker("second", script, "far"),
            worker("third", script, "near", needs=["first"]),
        ]
        submit(client, "alone", *workers)
        gates.arrived("first.1", "second.1")
        lan.cut(lan["head"])
        coordinator.wait(False)
        with pytest.raises(ApiError) as refused:
            client.get("runs/alone")
        assert refused.value.code == "NO_COORDINATOR"
        gates.open("first.1")
        while b'"finished"' not in facts.get(timeout=PATIENCE):
            pass
        lan.heal(lan["head"])
        gates.arrived("third.1")
        coordinator.wait(True)
        gates.open("second.1")
        gates.open("third.1")
        assert client.wait("alone")["status"] == "succeeded"
        for name, node in {"first": "near", "second": "far", "third": "near"}.items():
            assert attempts(client, "alone", name) == [(node, "succeeded")]
