"""Short tasks that follow each other on a node, while somebody is killed; a ledger that the tasks write says what ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client, wait_until

LENGTH = 150
WIDTH = 10


def _layers(names: list[str], place: int) -> list[str]:
    """Three of the layer before."""
    first = place // WIDTH * WIDTH - WIDTH
    return [names[first + (place + near) % WIDTH] for near in range(3)] if first >= 0 else []


SHAPES: dict[str, Callable[[list[str], int], list[str]]] = {
    "chain": lambda names, place: names[max(place - 1, 0) : place],
    "fan": lambda names, place: names[:1][:place],
    "layers": _layers,
}
"""What a worker needs, of those before it."""


class Site:
    """One coordinator, one runtime whose tasks are known to be short, and one gateway."""

    def __init__(self, net: Network, agents: dict[str, Agent], client: StockClient) -> None:
        self.net, self.agents, self.client = net, agents, client
        self._ledgers = (net.folder / f"ledger{number}" for number in count())

    def start_over(self) -> None:
        """Have a ledger of its own for the next test."""
        self.ledger = next(self._ledgers)

    def worker(self, name: str, *needs: str, script: str = "", **keys: Any) -> dict[str, Any]:
        note = f"echo $WATTLE_WORKER $WATTLE_ATTEMPT >> {self.ledger}"
        return {"name": name, "script": f"{note}; {script}", "needs": list(needs), **keys}

    def document(self, shape: str, length: int = LENGTH) -> dict[str, Any]:
        names = [f"w{i}" for i in range(length)]
        return {"name": shape, "workers": [self.worker(name, *SHAPES[shape](names, i)) for i, name in enumerate(names)]}

    def lines(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def has_run(self, count: int) -> bool:
        return len(self.lines()) >= count

    def coordinator_in_sight(self) -> bool:
        return any(peer["role"] == "coordinator" for peer in self.client.get("health")["peers"])

    def restart(self, role: str) -> None:
        other = self.agents["runtime" if role == "coordinator" else "coordinator"]
        self.agents[role] = self.net.start(role, self.agents[role].name, connect=other)

    def check(self, run: str) -> dict[str, dict[str, Any]]:
        """What ran is what the history tells of: each attempt once, and a second one only where an earlier was lost."""
        workers = self.client.workers(run)
        ran = Counter((name, int(attempt)) for name, attempt in map(str.split, self.lines()))
        told = {(name, a["attempt"]): a["status"] for name, w in workers.items() for a in w["attempts"]}
        assert set(ran.values()) <= {1}
        assert set(ran) <= set(told)
        assert {attempt for attempt, status in told.items() if status == "succeeded"} <= set(ran)
        for name in workers:
            runs = sum(of == name for of, _ in ran)
            lost = sum(status == "lost" for (of, _), status in told.items() if of == name)
            assert runs <= 1 + lost, (name, runs, workers[name]["attempts"])
        return workers


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One for all tests, of which each restarts what it kills."""
    with network() as net:
        coordinator = net.start("coordinator")
        agents = {
            "coordinator": coordinator,
            "runtime": net.start("runtime", None, "--slots", "2", connect=coordinator),
            "gateway": net.start("gateway", connect=coordinator),
        }
        with stock_client(agents["gateway"].endpoint) as client:
            client.nodes(1)
            warm = [{"name": f"s{i}", "command": "true"} for i in range(20)]
            assert client.run({"name": "warm", "workers": warm})["status"] == "succeeded"
            yield Site(net, agents, client)


@pytest.fixture
def here(site: Site) -> Site:
    site.start_over()
    return site


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("role", ["runtime", "coordinator"])
def test_whoever_is_killed_midway_every_worker_runs_once(here: Site, shape: str, role: str) -> None:
    run = here.client.get("runs", here.document(shape))["id"]
    for part in (1, 2):
        wait_until(partial(here.has_run, part * LENGTH // 4), "a part has run")
        here.agents[role].kill()
        here.restart(role)
        wait_until(here.coordinator_in_sight, "the gateway sees the coordinator")
        here.client.nodes(1)
    assert here.client.wait(run)["status"] == "succeeded"
    assert len(here.check(run)) == LENGTH
    order = [line.split()[0] for line in here.lines()]
    last = {name: place for place, name in enumerate(order)}
    names = [f"w{i}" for i in range(LENGTH)]
    for place, name in enumerate(names):
        assert all(order.index(need) < last[name] for need in SHAPES[shape](names, place)), (name, order)


@pytest.mark.parametrize(
    "keys",
    [{"script": "exit 3"}, {"working_dir": "/dev/null/x"}, {"script": "kill -KILL $$"}],
    ids=["exit status", "no folder", "signal"],
)
def test_after_a_link_that_fails_nothing_of_its_chain_runs(here: Site, keys: dict[str, Any]) -> None:
    names = [f"w{i}" for i in range(40)]
    workers = [
        here.worker(name, *names[max(i - 1, 0) : i], **(keys if i == 20 else {})) for i, name in enumerate(names)
    ]
    ended = here.client.run({"name": "f", "workers": workers})
    assert ended["status"] == "failed"
    statuses = [worker["status"] for worker in here.check(ended["id"]).values()]
    assert Counter(statuses) == {"succeeded": 20, "failed": 1, "skipped": 19}
    assert not {line.split()[0] for line in here.lines()} & set(names[21:])
