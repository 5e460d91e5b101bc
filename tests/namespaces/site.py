"""A LAN with two coordinators, two runtimes and three gateways, each on a host of its own but for the gateways: ``door`` is alone and, as
the first to start and the first by name, on duty wherever it is in sight; ``side`` shares a host with coordinator ``one``, ``rear`` one
with runtime ``far``.
The lease is one second. Of every two agents the later one in ``PORTS`` dials the other; or they find each other by multicast
(zenoh-configs/lan-peer.json5), which heals less soon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from tests.namespaces.hosts import Lan, lan, together
from tests.network.processes import Agent, StockClient, stock_client, wait_until
from wattle.core.hashing import ranked

MULTICAST = ("--zenoh-config", str(Path(__file__).parents[2] / "zenoh-configs" / "lan-peer.json5"))
DIALLED = {
    "mode": "peer",
    "connect": {
        "exit_on_failure": False,
        "retry": {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 1.5},
    },
    "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
    "transport": {
        "link": {
            "tx": {
                "lease": 1000,
                "keep_alive": 4,
                "queue": {"congestion_control": {"block": {"wait_before_close": 2_000_000}}},
            }
        }
    },
}
PORTS = {"door": 7447, "side": 7447, "rear": 7447, "one": 7448, "two": 7448, "near": 7448, "far": 7448, "mid": 7449}
COORDINATORS, RUNTIMES = ("one", "two"), ("near", "far")
GATEWAYS = {"door": "door", "side": "one", "rear": "far"}  # and the hosts they are on
PATIENCE = 60.0
_numbers = count(1)


@dataclass(frozen=True)
class Site:
    """The agents by name, and a client of each gateway that looks into its host from outside, whatever is cut."""

    lan: Lan
    agents: dict[str, Agent]
    clients: dict[str, StockClient]
    hosts: dict[str, str]  # by agent
    multicast: bool

    @property
    def door(self) -> StockClient:
        """The client of the gateway that is alone on its host."""
        return self.clients["door"]

    def cut(self, *hosts: str) -> None:
        """Cut hosts off: from all others, not from one another."""
        self.lan.split(*(self.lan[host] for host in hosts))

    def heal(self, *hosts: str) -> None:
        """Undo ``cut``, and wait until every gateway sees everybody again."""
        self.lan.heal(*(self.lan[host] for host in hosts))
        self.whole()

    def whole(self) -> None:
        """Wait until everybody sees everybody."""
        try:
            wait_until(self._complete, "every gateway sees everybody", PATIENCE)
        except AssertionError as error:
            error.add_note(f"what gateways say: {self.door.gateways()}")
            raise
        for agent in self.agents.values():
            if agent.role != "gateway":
                wait_until(lambda agent=agent: self._sees_all(agent), f"{agent.name} sees everybody", PATIENCE)  # type: ignore[misc]

    def _names(self, role: str) -> set[str]:
        return {agent.name for agent in self.agents.values() if agent.role == role}

    def _sees_all(self, agent: Agent) -> bool:
        """Whether a coordinator or runtime sees all coordinators, and a coordinator all runtimes."""
        seen = self._ask(agent, "copies").get("sees", ())
        nodes = self._ask(agent, "nodes")["nodes"] if agent.role == "coordinator" else []
        ready = {node["name"] for node in nodes if node["status"] == "ready"}
        return self._names("coordinator").issubset(seen) and (
            agent.role == "runtime" or self._names("runtime").issubset(ready)
        )

    def _ask(self, agent: Agent, verb: str) -> dict[str, Any]:
        """What an agent answers to a question that other agents ask."""
        for reply in self.door.session.get(f"wattle/default/cmd/{agent.name}/{verb}", payload=b"{}", timeout=5):
            if reply.ok is not None:
                answer: dict[str, Any] = json.loads(reply.ok.payload.to_bytes())
                return answer
        return {"nodes": []}

    def calm(self) -> None:
        """Lose no packets any more."""
        for host in self.lan.hosts.values():
            self.lan.lose(host, 0.0)

    def mend(self) -> None:
        """Undo every cut."""
        self.lan.rejoin()
        self.heal(*self.lan.hosts)

    def count(self, agent: str, event: str) -> int:
        """How often an agent's log tells of something."""
        return self.agents[agent].log.count(f'"event": "{event}"')

    def _complete(self) -> bool:
        """Whether every gateway sees everybody, and ``door`` is on duty alone."""
        states = self.door.gateways()
        everywhere = all(set(state["sees"]).issuperset(self.agents) for state in states.values())
        on_duty = [name for name, state in states.items() if state["serving"]]
        return len(states) == len(GATEWAYS) and everywhere and on_duty == ["door"]

    def start(self, role: str, name: str, *options: str) -> Agent:
        """Start an agent, or start it again."""
        made = self.agents[name] = self.lan[self.hosts[name]].network.start(role, name, *self._links(name), *options)
        return made

    def _links(self, name: str) -> list[str]:
        if self.multicast:
            return [*MULTICAST, *(["--listen", "tcp/[::]:7447"] if name in GATEWAYS else [])]
        dialled = self.lan[self.hosts[name]].network.folder / "dialled.json"
        dialled.write_text(json.dumps(DIALLED))
        options = ["--zenoh-config", str(dialled), "--listen", f"tcp/[::]:{PORTS[name]}"]
        for other in takewhile(lambda other: other != name, (n for n in PORTS if n in self.hosts)):
            options += ["--connect", f"tcp/{self.lan[self.hosts[other]].address}:{PORTS[other]}"]
        return options


@contextmanager
def site(environment: Mapping[str, str], *, multicast: bool = False, **more: str) -> Iterator[Site]:
    """The network, once everybody sees everybody. It ends with the block. ``more``: further runtimes, and the hosts they are on."""
    hosts = {name: name for name in (*COORDINATORS, *RUNTIMES)} | more | GATEWAYS
    with ExitStack() as stack:
        network = stack.enter_context(lan("one", "two", "near", "far", "door", environment=environment))
        made = Site(network, {}, {}, hosts, multicast)
        together(
            *(partial(made.start, "coordinator", name) for name in COORDINATORS),
            *(partial(made.start, "runtime", name, "--slots", "8") for name in RUNTIMES),
            *(partial(made.start, "runtime", name) for name in more),
            partial(made.start, "gateway", "door"),
        )
        together(
            *(partial(made.start, "gateway", name) for name in GATEWAYS if name != "door")
        )  # which leave it the duty
        for name, host in GATEWAYS.items():
            made.clients[name] = stack.enter_context(stock_client(network[host].window(7447)))
        made.whole()
        yield made


def run_of(owner: str) -> str:
    """A new run id that falls to one of the two coordinators."""
    return next(run for n in _numbers if ranked(COORDINATORS, run := f"run-{n}")[0] == owner)


def attempts(client: StockClient, run: str, worker: str) -> list[tuple[int, str, str]]:
    """Number, node and status of every attempt."""
    found: list[dict[str, Any]] = client.get(f"runs/{run}/workers/{worker}")["attempts"]
    return [(attempt["attempt"], attempt["node"], attempt["status"]) for attempt in found]


def owner(client: StockClient, run: str) -> tuple[str, int]:
    """Who owns a run as far as a client can see, and in which epoch."""
    shown = client.get(f"runs/{run}")
    return shown["owner"], shown["epoch"]
