"""The config files that are shipped open, and the topologies they are for work; so do those of docs/zenoh.md that must not."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import zenoh

from wattle.bus.base import Query, Reply
from wattle.bus.config import ZenohOptions, zenoh_config
from wattle.bus.zenoh import ZenohBus, open_zenoh_bus
from wattle.peer.anew import tell_anew

CONFIGS = Path(__file__).parents[1] / "zenoh-configs"
FILES = ("client-of-router.json5", "embedded.json5", "lan-peer.json5", "public-router.json5", "router.json5")
PATIENCE = 20.0  # seconds after which a test that waits has failed
HERE = [Reply("service", b"here")]

Open = Callable[..., Awaitable[ZenohBus]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for unix sockets: pytest's own are too deep for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="w") as path:
        yield Path(path)


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Open]:
    """Opens a bus with a shipped file, listening on and connecting to sockets by short names; closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(
            file: str, listen: str = "", connect: tuple[str, ...] = (), gossip: bool | None = None
        ) -> ZenohBus:
            options = ZenohOptions(
                listen=(f"unixsock-stream/{folder}/{listen}",) if listen else (),
                connect=tuple(f"unixsock-stream/{folder}/{name}" for name in connect),
                gossip=gossip,
                config_file=CONFIGS / file,
            )
            bus = await open_zenoh_bus(options)
            stack.push_async_callback(bus.close)
            return bus

        yield start


def answer(query: Query) -> None:
    query.reply(b"here")
    query.finish()


def serve(bus: ZenohBus) -> None:
    """Answer on ``service``, and show it by a token."""
    bus.serve("service", answer)
    bus.declare_alive("alive/service")


async def seen(bus: ZenohBus, token: str, times: int = 1) -> None:
    """Wait until ``token`` has appeared as often."""
    appeared = 0
    enough = trio.Event()

    def watch(_: str, alive: bool) -> None:
        nonlocal appeared
        appeared += alive
        if appeared >= times:
            enough.set()

    watching = bus.watch_alive(token, watch)
    with trio.fail_after(PATIENCE):
        await enough.wait()
    watching.undeclare()


async def reaches(bus: ZenohBus) -> None:
    """Wait until ``bus`` sees who serves, and ask until it answers: its token may be seen a moment before what it serves."""
    await seen(bus, "alive/service")
    await answered(bus)


async def answered(bus: ZenohBus) -> None:
    """Ask until there is an answer."""
    with trio.fail_after(PATIENCE):
        while (replies := await bus.get("service", timeout=PATIENCE)) == []:
            pass
    assert replies == HERE


def test_every_file_is_known_here() -> None:
    assert sorted(path.name for path in CONFIGS.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_file_says_what_wattle_asks_of_zenoh(file: str) -> None:
    config = zenoh.Config.from_file(CONFIGS / file)
    own = zenoh_config(ZenohOptions())
    for path in (
        "transport/link/tx/lease",
        "transport/link/tx/keep_alive",
        "transport/link/tx/queue/congestion_control",
        "transport/shared_memory/enabled",
        "connect/retry",
    ):
        assert config.get_json(path) == own.get_json(path), path
    assert json.loads(config.get_json("scouting/multicast/enabled")) is (file == "lan-peer.json5")


async def test_embedded_peers_link_every_pair_by_gossip(start: Open) -> None:
    await start("embedded.json5", "first")
    second = await start("embedded.json5", "second", ("first",))
    third = await start("embedded.json5", "third", ("first",))
    serve(second)
    await reaches(third)


async def test_a_client_of_a_peer_reaches_what_linked_peers_serve(start: Open) -> None:
    await start("embedded.json5", "first")
    serve(await start("embedded.json5", "second", ("first",)))
    client = await start("client-of-router.json5", connect=("first",))
    await reaches(client)


async def test_clients_of_meshed_routers_reach_each_other(start: Open) -> None:
    await start("router.json5", "north")
    await start("router.json5", "south", ("north",))
    serve(await start("client-of-router.json5", connect=("north",)))
    await reaches(await start("client-of-router.json5", connect=("south",)))
    await reaches(await start("client-of-router.json5", connect=("north",)))


async def test_clients_of_one_public_router_reach_each_other(start: Open) -> None:
    await start("public-router.json5", "hub")
    serve(await start("client-of-router.json5", connect=("hub",)))
    await reaches(await start("client-of-router.json5", connect=("hub",)))


async def test_routers_relay_where_a_pair_has_no_link(start: Open) -> None:
    await start("router.json5", "middle", gossip=False)
    await start("router.json5", "north", ("middle",), gossip=False)
    await start("router.json5", "south", ("middle",), gossip=False)
    serve(await start("client-of-router.json5", connect=("north",)))
    await reaches(await start("client-of-router.json5", connect=("south",)))


@pytest.mark.parametrize("told_anew", [True, False])
async def test_a_router_that_joins_hears_of_what_somebody_else_served_as_well_only_if_told_anew(
    start: Open, told_anew: bool
) -> None:
    await start("router.json5", "north")
    await start("router.json5", "south", ("north",))
    first = await start("client-of-router.json5", connect=("north",))
    second = await start("client-of-router.json5", connect=("south",))
    first.serve("service", answer, complete=False)
    first.declare_alive("alive/service")
    served = second.serve("service", answer, complete=False)
    asking = await start("client-of-router.json5", connect=("north",))
    with trio.fail_after(PATIENCE):
        while await asking.get("service", timeout=PATIENCE, everyone=True) != HERE * 2:
            pass
        served.undeclare()
        while await asking.get("service", timeout=PATIENCE, everyone=True) != HERE:
            pass
    if told_anew:
        tell_anew(first, "service")
    await start("router.json5", "east", ("north",))
    late = await start("client-of-router.json5", connect=("east",))
    await seen(late, "alive/service")
    if told_anew:
        await answered(late)
    else:  # the fault of Zenoh that wattle/peer/anew.py is there for: when this fails, that is needed no more
        assert await late.get("service", timeout=PATIENCE) == []


async def test_clients_return_to_a_router_that_restarts(start: Open) -> None:
    router = await start("router.json5", "router")
    serving = await start("client-of-router.json5", connect=("router",))
    asking = await start("client-of-router.json5", connect=("router",))
    serve(serving)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seen, asking, "alive/service", 2)
        await seen(asking, "alive/service")
        await router.close()
        await start("router.json5", "router")
    await answered(asking)


@pytest.mark.parametrize("middle", ["embedded.json5", "router.json5"])
async def test_nothing_relays_between_peers(start: Open, middle: str) -> None:
    between = await start(middle, "middle", gossip=False)
    left = await start("embedded.json5", "left", ("middle",), gossip=False)
    right = await start("embedded.json5", "right", ("middle",), gossip=False)
    serve(right)
    await reaches(between)
    between.declare_alive("alive/between")  # had the service been passed on, it would have been before this
    await seen(left, "alive/between")
    assert await left.get("service", timeout=PATIENCE) == []


def multicast_problem() -> str | None:
    """Why multicast does not work on the loopback interface; None when it does."""
    group = socket.inet_aton("224.0.0.224") + socket.inet_aton("127.0.0.1")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(1.0)
            probe.bind(("", 0))
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group[4:])
            probe.sendto(b"", ("224.0.0.224", probe.getsockname()[1]))
            probe.recvfrom(1)
    except OSError as error:
        return f"no multicast on the loopback interface: {error}"
    return None


async def test_lan_peers_find_each_other_by_multicast(folder: Path) -> None:
    problem = multicast_problem()
    if problem is not None:
        pytest.skip(problem)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = zenoh.Config.from_file(CONFIGS / "lan-peer.json5")
    config.insert_json5("listen/endpoints", '["tcp/127.0.0.1:0"]')
    config.insert_json5("scouting/multicast/interface", '"lo"')
    config.insert_json5("scouting/multicast/address", f'"224.0.0.224:{port}"')  # apart from other tests
    config.insert_json5("scouting/gossip/enabled", "false")
    async with AsyncExitStack() as stack:
        buses = []
        for _ in range(2):
            buses.append(ZenohBus(await trio.to_thread.run_sync(zenoh.open, config)))
            stack.push_async_callback(buses[-1].close)
        serve(buses[0])
        await reaches(buses[1])
