"""Links between agents that break while both ends keep theirs to others."""

from __future__ import annotations

import pytest
import zenoh

from tests.links import shut_down
from tests.network.bad_inputs import GOOD
from tests.network.processes import network, stock_client, wait_until


def test_a_gateway_and_a_node_that_lose_their_link_find_each_other_again() -> None:
    """Gossip linked them; the coordinator, which both were told of, sees both all the time."""
    with network() as net:
        coordinator = net.start("coordinator")
        runtime = net.start("runtime", connect=coordinator)
        gateway = net.start("gateway", connect=coordinator)
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            run = client.run(GOOD)["id"]
            worker = next(iter(client.workers(run)))
            seen: list[zenoh.SampleKind] = []  # of the node's token, by a client of the gateway
            token = f"wattle/default/alive/runtime/{runtime.name}/*"
            client.session.liveliness().declare_subscriber(token, lambda s: seen.append(s.kind), history=True)
            wait_until(lambda: len(seen) == 1, "the node is in the gateway's sight")
            at = [agent.data / "wattle.sock" for agent in (runtime, gateway)]
            try:
                assert sum(shut_down(agent.process.pid, *at) for agent in (runtime, gateway)) > 0
            except PermissionError as error:
                pytest.skip(str(error))
            wait_until(lambda: len(seen) == 3, "it went out of sight and is back")
            assert seen == [zenoh.SampleKind.PUT, zenoh.SampleKind.DELETE, zenoh.SampleKind.PUT]
            assert client.raw(f"runs/{run}/workers/{worker}/logs/stdout") is not None
