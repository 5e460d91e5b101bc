"""One network of three processes, seen by a client of each of them."""

from __future__ import annotations

from tests.network.processes import network, stock_client


def test_a_client_of_any_peer_reaches_all() -> None:
    with network() as net:
        coordinator = net.start("coordinator")
        net.start("runtime", connect=coordinator)
        net.start("gateway", connect=coordinator)
        for number, agent in enumerate(net.agents):
            with stock_client(agent.endpoint) as client:
                client.nodes(1)
                run = client.run({"name": "hello", "workers": [{"name": "greet", "command": f"echo hello {number}"}]})
                assert run["status"] == "succeeded", client.workers(run["id"])
                log = client.raw(f"runs/{run['id']}/workers/greet/logs/stdout")
                assert log == f"hello {number}\n".encode()
