"""Several gateways on the networks of docs/zenoh.md, and clients of eclipse-zenoh alone: what they ask is carried out once, wherever they
are connected, and by another gateway as soon as one is gone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import zenoh

from tests.network.processes import API, Agent, ApiError, Network, StockClient, network, stock_client, wait_until

CONFIGS = Path(__file__).parents[2] / "zenoh-configs"
ROUTER = ("--zenoh-config", str(CONFIGS / "router.json5"))
CLIENT = ("--zenoh-config", str(CONFIGS / "client-of-router.json5"))
SUBMISSIONS = 50


def peers(net: Network) -> list[Agent]:
    """Peers that dial the coordinator, and each other by gossip."""
    head = net.start("coordinator")
    others = [net.start(role, connect=head) for role in ("runtime", "gateway", "gateway", "gateway")]
    return [head, *others]


def routers(net: Network) -> list[Agent]:
    """Three routers in a chain; a gateway is client of each, the coordinator of the last."""
    doors: list[Agent] = []
    for _ in range(3):
        dialled = doors[-1] if doors else None
        doors.append(net.start("router", None, *ROUTER, *_socket(net, f"router{len(doors) + 1}"), connect=dialled))
        net.start("gateway", None, *CLIENT, connect=doors[-1])
    net.start("coordinator", None, *CLIENT, connect=doors[-1])
    return doors


def mixed(net: Network) -> list[Agent]:
    """A router with clients and peers: a gateway among each, and one among the clients of a peer."""
    router = net.start("router", None, *ROUTER, *_socket(net, "router1"))
    head = net.start("coordinator", connect=router)
    peer = net.start("gateway", None, "--connect", router.endpoint, connect=head)
    net.start("gateway", None, *CLIENT, connect=router)
    net.start("gateway", None, *CLIENT, connect=head)
    return [router, head, peer]


def _socket(net: Network, name: str) -> Sequence[str]:
    return ("--listen", f"unixsock-stream/{net.folder}/{name}/wattle.sock")


Build = Callable[[Network], list[Agent]]


@contextmanager
def doors(build: Build) -> Iterator[tuple[Network, list[StockClient]]]:
    """A network, and a client of each agent that has clients, once everybody sees everybody and one gateway is on duty."""
    with network() as net, ExitStack() as stack:
        clients = [stack.enter_context(stock_client(agent.endpoint)) for agent in build(net)]
        for client in clients:
            wait_until(lambda client=client: settled(net, client), "one gateway is on duty")  # type: ignore[misc]
        yield net, clients


def settled(net: Network, client: StockClient) -> bool:
    gateways = {agent.name for agent in net.agents if agent.role == "gateway"}
    told = client.gateways()
    seen = [set(state["sees"]) for state in told.values() if state["serving"]]
    return set(told) == gateways and seen == [{agent.name for agent in net.agents}] and asked(client)


def workflow(name: str) -> dict[str, Any]:
    """One whose worker waits for a node that does not come."""
    return {"name": name, "workers": [{"name": "w", "command": "true", "place": {"node": "nowhere"}}]}


def runs(client: StockClient, prefix: str) -> Counter[str]:
    """How many runs there are of each workflow of a test."""
    found = client.get("runs?limit=1000")["runs"]
    return Counter(run["workflow"] for run in found if run["workflow"].startswith(prefix))


Doors = tuple[Network, list[StockClient]]


@pytest.fixture(scope="module")
def network_with_doors(request: pytest.FixtureRequest) -> Iterator[Doors]:
    """One for all tests of a kind of network, of which the last kills."""
    with doors(request.param) as made:
        yield made


def kinds(*builds: Build) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("network_with_doors", builds, indirect=True, scope="module")


@kinds(peers, routers, mixed)
def test_what_comes_without_an_id_is_carried_out_once_wherever_it_is_asked(network_with_doors: Doors) -> None:
    _, clients = network_with_doors
    for number, client in enumerate(islice(cycle(clients), SUBMISSIONS)):
        replies = list(client.session.get(API + "runs", payload=json.dumps(workflow(f"d-{number}")), timeout=30))
        assert [reply.ok is not None for reply in replies] == [True]
    assert runs(clients[0], "d-") == {f"d-{number}": 1 for number in range(SUBMISSIONS)}
    for number, client in enumerate(clients):
        client.get("workflows", workflow(f"w-{number}"))
        client.get(f"workflows/w-{number}/start")
        run = client.get("runs", workflow(f"r-{number}"))["id"]
        client.get(f"runs/{run}/cancel")
        client.get(f"runs/{run}/retry")
        client.get(f"runs/{run}/cancel")
        assert client.get("prune", {"runs": [run]})["runs"] == [run]
    assert runs(clients[-1], "w-") == {f"w-{number}": 1 for number in range(len(clients))}


@kinds(peers)
def test_a_peer_of_eclipse_zenoh_is_answered_by_one_gateway(network_with_doors: Doors) -> None:
    net, clients = network_with_doors
    config = {
        "mode": "peer",
        "connect": {"endpoints": [agent.endpoint for agent in net.agents]},
        "scouting": {"multicast": {"enabled": False}},
    }
    with zenoh.open(zenoh.Config.from_json5(json.dumps(config))) as session:
        wait_until(lambda: list(session.get(API + "health", timeout=5)), "a peer is answered")
        for number in range(SUBMISSIONS):
            assert len(list(session.get(API + "runs", payload=json.dumps(workflow(f"p-{number}"))))) == 1
    assert runs(clients[0], "p-") == {f"p-{number}": 1 for number in range(SUBMISSIONS)}


@kinds(peers, routers)
def test_when_the_gateway_on_duty_is_killed_another_answers_and_nothing_is_carried_out_twice(
    network_with_doors: Doors,
) -> None:
    net, clients = network_with_doors
    (on_duty,) = clients[0].on_duty()
    (gone,) = [agent for agent in net.agents if agent.name == on_duty]
    clients = [client for client in clients if client.endpoint not in gone.endpoints]
    answered = set()
    for number, client in enumerate(islice(cycle(clients), SUBMISSIONS)):
        if number == SUBMISSIONS // 2:
            gone.process.kill()
        if submitted(client, f"k-{number}"):
            answered.add(f"k-{number}")
    for client in clients:
        wait_until(lambda client=client: asked(client), "another gateway answers")  # type: ignore[misc]
        client.get("runs", workflow("k-last"))
    found = runs(clients[0], "k-")
    assert found.pop("k-last") == len(clients)
    assert set(found.values()) == {1}
    assert answered <= set(found)
    assert len(answered) > SUBMISSIONS // 2


def submitted(client: StockClient, name: str) -> bool:
    """Whether a submission was answered; one that was not may have been carried out all the same."""
    try:
        client.get("runs", workflow(name))
    except LookupError:
        return False
    except ApiError as error:
        if error.code != "Timeout":
            raise
        return False
    return True


def asked(client: StockClient) -> bool:
    try:
        client.get("health")
    except LookupError:
        return False
    return True
