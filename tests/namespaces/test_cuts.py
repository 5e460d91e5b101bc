"""Machines of a LAN that are cut off for a while and come back. The coordinator and a gateway are on ``head``, which the test watches; ``near`` and ``far`` run tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from events import Events
from gates import Gates
from hosts import Lan, lan, together
from processes import StockClient, stock_client

pytestmark = pytest.mark.namespaces

PEER = ("--zenoh-config", str(Path(__file__).parents[2] / "zenoh-configs" / "lan-peer.json5"))


@contextmanager
def site(lost_after: float, gateway: str = "head") -> Iterator[tuple[Lan, StockClient]]:
    """The network, and a client of the gateway on the host named."""
    with lan("head", "near", "far", environment={"WATTLE_LOST_AFTER": str(lost_after)}) as made:
        together(
            partial(made[gateway].network.start, "gateway", "door", *PEER, "--listen", "tcp/[::]:7447"),
            partial(made["head"].network.start, "coordinator", "chief", *PEER),
            partial(made["near"].network.start, "runtime", "near", *PEER),
            partial(made["far"].network.start, "runtime", "far", *PEER),
        )
        with stock_client(made[gateway].window(7447)) as client:
            client.nodes(2)
            yield made, client


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[Lan, StockClient]]:
    """A network that waits for cut off nodes as long as the tests take."""
    with site(lost_after=300) as made:
        yield made


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path / "gates", "first", "second", "third")
    yield made
    made.close()


def submit(client: StockClient, run: str, workers: dict[str, str], script: str, **more: Any) -> Events:
    """Submit independent workers, each for the node or labels given; the events from then on."""
    events = Events(client, run)
    made = [{"name": name, "script": script, "place": {"node": node}, **more} for name, node in workers.items()]
    client.get("runs", {"document": {"name": "cut", "workers": made}, "run": run})
    return events


def attempts(client: StockClient, run: str, worker: str) -> list[tuple[str, str]]:
    """Node and status of every attempt."""
    found = client.get(f"runs/{run}/workers/{worker}")["attempts"]
    return [(attempt["node"], attempt["status"]) for attempt in found]


def test_a_node_cut_off_for_a_moment_is_waited_for(patient: tuple[Lan, StockClient], gates: Gates) -> None:
    lan, client = patient
    script = gates.script + 'echo "on $(date +%N)" > out; cat out'
    events = submit(client, "moment", {"first": "far", "second": "far"}, script, outputs={"out": "out"})
    gates.arrived("first.1", "second.1")
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
    for worker in ("first", "second"):
        assert attempts(client, "moment", worker) == [("far", "succeeded")]
        assert client.get(f"runs/moment/workers/{worker}")["unreachable"] is False
        printed = client.raw(f"runs/moment/workers/{worker}/logs/stdout")
        kept = lan["far"].network.folder / "far" / "work" / "moment" / f"{worker}.1" / "out"
        assert printed == kept.read_bytes() != b""
