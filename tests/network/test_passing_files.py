"""Files that travel between nodes without a shared file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.network.processes import Agent, Network, StockClient, network, stock_client


def two_nodes(net: Network) -> tuple[Agent, Agent, Agent]:
    coordinator = net.start("coordinator")
    first, second = (net.start("runtime", name, connect=coordinator) for name in ("n1", "n2"))
    net.start("gateway", connect=coordinator)
    return coordinator, first, second


def on(node: str) -> dict[str, Any]:
    return {"place": {"node": node}}


def stdout(client: StockClient, run: str, worker: str) -> bytes:
    return client.raw(f"runs/{run}/workers/{worker}/logs/stdout")


def test_a_join_gets_the_input_that_its_node_lacks_byte_for_byte() -> None:
    with network() as net:
        coordinator, first, second = two_nodes(net)
        make = "head -c 300000 /dev/urandom > out.bin"
        workers = [
            {"name": "top", "script": "printf 'a\\0b\\377' > seed", "outputs": {"seed": "seed"}, **on("n1")},
            {"name": "left", "script": make, "inputs": {"s": "top/seed"}, "outputs": {"o": "out.bin"}, **on("n1")},
            {"name": "right", "script": make, "inputs": {"s": "top/seed"}, "outputs": {"o": "out.bin"}, **on("n2")},
            {
                "name": "join",
                "script": 'sha256sum < ${inputs.l} && sha256sum < "$WATTLE_INPUT_R" && pwd',
                "inputs": {"l": "left/o", "r": "right/o"},
                **on("n2"),
            },
        ]
        with stock_client(coordinator.endpoint) as client:
            client.nodes(2)
            run = client.run({"name": "diamond", "workers": workers})
            assert run["status"] == "succeeded", client.workers(run["id"])
            found = client.workers(run["id"])
            assert [found[w]["node"] for w in ("top", "left", "right", "join")] == ["n1", "n1", "n2", "n2"]
            left, right, folder = stdout(client, run["id"], "join").decode().split("\n")[:3]
            assert left.split()[0] == found["left"]["results"]["o"]["digest"]
            assert right.split()[0] == found["right"]["results"]["o"]["digest"]
            assert folder.startswith(str(second.data))
            original = first.data / "work" / run["id"] / "left.1" / "out.bin"
            copy = Path(folder) / "inputs" / "left" / "out.bin"
            assert copy.read_bytes() == original.read_bytes()


def peak_memory(agent: Agent) -> int:
    """The largest resident size of an agent's process so far, in bytes."""
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def test_200_mb_travel_with_flat_memory() -> None:
    with network() as net:
        coordinator, first, second = two_nodes(net)
        workers = [
            {"name": "make", "script": "head -c 200000000 /dev/urandom > big", "outputs": {"big": "big"}, **on("n1")},
            {"name": "take", "script": "sha256sum < ${inputs.big}", "inputs": {"big": "make/big"}, **on("n2")},
        ]
        with stock_client(coordinator.endpoint) as client:
            client.nodes(2)
            run = client.run({"name": "big", "workers": workers})
            assert run["status"] == "succeeded", client.workers(run["id"])
            digest = client.workers(run["id"])["make"]["results"]["big"]["digest"]
            assert stdout(client, run["id"], "take").split()[0].decode() == digest
            peaks = {agent.name: peak_memory(agent) / 1e6 for agent in (first, second)}
            print(f"peak resident memory in MB: {peaks}")
            assert max(peaks.values()) < 150
