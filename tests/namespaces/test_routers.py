"""Two sites with a router each: the routers are linked, the agents are clients of their own site's router and cannot dial those of the
other site. zenoh-configs/router.json5 and client-of-router.json5."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.namespaces.gates import Gates
from tests.namespaces.hosts import lan, together
from tests.network.processes import stock_client

pytestmark = pytest.mark.namespaces

CONFIGS = Path(__file__).parents[2] / "zenoh-configs"
ROUTER = ("--zenoh-config", str(CONFIGS / "router.json5"))
CLIENT = ("--zenoh-config", str(CONFIGS / "client-of-router.json5"))


def test_sites_whose_agents_cannot_dial_each_other_are_one_network(tmp_path: Path) -> None:
    gates = Gates(tmp_path / "gates", "use")
    with lan("east", "eastrouter", "west", "westrouter") as made:
        east, west = made["east"], made["west"]
        made.part(east, west)  # nothing goes between the agents but over the routers
        port = {name: f"tcp/{made[name].address}:7447" for name in ("eastrouter", "westrouter")}
        made["westrouter"].network.start("router", "westrouter", *ROUTER)
        made["eastrouter"].network.start("router", "eastrouter", *ROUTER, connect=port["westrouter"])
        together(
            partial(east.network.start, "coordinator", "head", *CLIENT, connect=port["eastrouter"]),
            partial(east.network.start, "runtime", "e", *CLIENT, connect=port["eastrouter"]),
            partial(west.network.start, "runtime", "w", *CLIENT, connect=port["westrouter"]),
            partial(west.network.start, "gateway", "door", *CLIENT, connect=port["westrouter"]),
        )
        with stock_client(made["westrouter"].window(7447)) as client:
            assert client.nodes(2) == ["e", "w"]
            document = {
                "name": "sites",
                "workers": [
                    {
                        "name": "make",
                        "script": "head -c 3000000 /dev/zero | tr '\\0' x > big",
                        "outputs": {"big": "big"},
                        "place": {"node": "e"},
                    },
                    {
                        "name": "use",
                        "script": gates.script + 'tr -d "\\n" < "${inputs.big}" | wc -c',
                        "inputs": {"big": "make/big"},
                        "place": {"node": "w"},
                    },
                ],
            }
            run = client.get("runs", {"document": document})["id"]
            gates.arrived("use.1")
            gates.open("use.1")
            assert client.wait(run)["status"] == "succeeded"
            assert client.raw(f"runs/{run}/workers/use/logs/stdout").decode().strip() == "3000000"
    gates.close()
