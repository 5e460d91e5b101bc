"""What docker-compose.yml promises: work goes on whoever is killed, cut off or replaced. One cluster for all; each test leaves it whole."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import PATIENCE, SERVICES, Cluster, lives, whole
from tests.cluster.conftest import Table
from tests.network.processes import wait_until
from wattle.cli.pairs import Views, findings
from wattle.client.blocking import Client
from wattle.document.wfformat import convert
from wattle.errors import Denied, Unavailable
from wattle.protocol.records import RunView

MONTAGE = Path(__file__).parents[3] / "shared" / "wfinstances" / "montage-chameleon-2mass-005d-001.json"
WORKERS = 58
NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def montage() -> dict[str, Any]:
    """58 workers that pass each other 4 MB and sleep for 22 s in all, 2 s of them one after the other."""
    if not MONTAGE.is_file():
        pytest.skip(f"there is no {MONTAGE}")
    return convert(MONTAGE.read_bytes(), time_scale=0.1, data_scale=0.02)


def midway(client: Client, run: str) -> None:
    """Wait until some of a run's workers have succeeded."""
    wait_until(lambda: client.run(run).counts.get("succeeded", 0) > 5, "the run is midway", PATIENCE)


def finished(client: Client, run: str) -> RunView:
    """The run, which has to succeed with all its workers."""
    view = client.wait(run, PATIENCE)
    assert (view.status, view.counts["succeeded"]) == ("succeeded", WORKERS), view
    return view


def told(client: Client, run: str) -> list[str]:
    """Where a run's workers ran, how many of their files came from elsewhere, and how many ran more than once."""
    workers = {worker.name: worker for worker in client.workers(run)}
    moved = sum(
        workers[source.split("/")[0]].node != worker.node
        for worker in workers.values()
        for source in worker.inputs.values()
    )
    again = sum(len(worker.attempts) > 1 for worker in workers.values())
    nodes = len({worker.node for worker in workers.values()})
    return [
        f"{len(workers)} workers on {nodes} nodes",
        f"{moved} files moved between nodes",
        f"{again} workers ran again",
    ]


def owned_by(client: Client, montage: dict[str, Any], owner: str) -> str:
    """A run of montage with this owner, midway."""
    while (run := client.submit(montage)).owner != owner:
        client.cancel(run.id)
    midway(client, run.id)
    return run.id


def test_montage_passes_its_files_from_node_to_node(client: Client, montage: dict[str, Any], table: Table) -> None:
    with table.row("montage") as seen:
        run = finished(client, client.submit(montage).id)
        seen += told(client, run.id)
    workers = list(client.workers(run.id))
    assert {worker.node for worker in workers} == set(NODES)
    assert all(len(worker.attempts) == 1 for worker in workers), "nothing failed, so nothing runs twice"


def test_doctor_proves_every_pair(client: Client, table: Table) -> None:
    with table.row("doctor") as seen:
        (reply,) = client.get("peers")
        found = list(findings(Views(json.loads(reply.payload))))
        seen += [finding.seen for finding in found if finding.what in ("pairs", "clocks")]
    assert [finding for finding in found if not finding.ok and finding.what != "pairs"] == []
    assert seen[0].startswith("90 of 90 hear and ask each other")


def owner(_: Cluster, client: Client, run: str) -> str:
    return client.run(run).owner


def on_duty(site: Cluster, *_: object) -> str:
    return next(gateway for gateway in ("gateway1", "gateway2") if site.state(gateway)["serving"])


@pytest.mark.parametrize(
    ("what", "which"),
    [
        ("the run's owner", owner),
        ("a router", lambda *_: "router2"),
        ("a runtime", lambda *_: "runtime1"),
        ("the gateway on duty", on_duty),
    ],
    ids=["owner", "router", "runtime", "gateway"],
)
def test_montage_goes_on_when_one_is_killed(
    site: Cluster,
    client: Client,
    montage: dict[str, Any],
    table: Table,
    what: str,
    which: Callable[[Cluster, Client, str], str],
) -> None:
    with table.row(f"montage, {what} killed midway") as seen:
        run = client.submit(montage).id
        midway(client, run)
        victim = which(site, client, run)
        site.kill(victim)
        finished(client, run)
        seen += [victim, *told(client, run)]
    with table.row(f"  {victim} is started again"):
        site.start(victim)
        whole(client)


def test_a_node_that_is_cut_off_and_comes_back(
    site: Cluster, client: Client, montage: dict[str, Any], table: Table
) -> None:
    """Its coordinator owns one run and a coordinator on the other side the second; both succeed without it."""
    with table.row("node 2 cut off midway, montage with an owner on each side") as seen:
        runs = [owned_by(client, montage, owner) for owner in ("coordinator1", "coordinator2")]
        site.cut(2)
        for run in runs:
            finished(client, run)
            seen += told(client, run)[-1:]
    with table.row("  node 2 healed") as seen:
        site.heal(2)
        whole(client)
        for run in runs:
            view = finished(client, run)
            seen.append(f"owner {view.owner}, epoch {view.epoch}")


class Load:
    """Small runs, one after the other, until told to stop; each passes a file from worker to worker."""

    def __init__(self, site: Cluster) -> None:
        self.site = site
        self.runs: list[str] = []
        self.refused = 0
        self._over = threading.Event()

    def document(self, number: int) -> dict[str, Any]:
        check = 'sleep 0.1; test "$(cat "${inputs.made}")" = ' + str(number)
        use = {"script": check, "inputs": {"made": "make/made"}}
        workers = [{"name": f"use{which}", **use} for which in range(4)]
        return {
            "name": "load",
            "workers": [{"name": "make", "script": f"echo {number} > made", "outputs": {"made": "made"}}, *workers],
        }

    def work(self) -> None:
        """Submit, again under the same id where there was no answer; each run that is acknowledged has to succeed."""
        with self.site.client() as client:
            while not self._over.is_set():
                run = f"load-{len(self.runs)}"
                try:
                    client.submit(self.document(len(self.runs)), run=run)
                except Unavailable:
                    self.refused += 1
                else:
                    self.runs.append(run)
                self._over.wait(0.2)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Have it work beside a block."""
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(self.work)
            try:
                yield
            finally:
                self._over.set()
            working.result()


def test_every_service_is_replaced_under_load_and_nothing_is_lost(site: Cluster, client: Client, table: Table) -> None:
    load = Load(site)
    with table.row("all ten services restarted one by one under load") as seen:
        with load.going_on():
            for service in SERVICES:
                before = set(lives(client.health()).values())
                site.restart(service)
                whole(client)
                assert set(lives(client.health()).values()) != before, f"{service} was not replaced"
        ends = [client.wait(run, PATIENCE) for run in load.runs]
        seen.append(f"{len(ends)} runs acknowledged meanwhile ({load.refused} submissions repeated)")
        seen.append(f"{sum(end.status == 'succeeded' for end in ends)} succeeded")
    assert ends
    assert [end for end in ends if end.status != "succeeded"] == []


def test_gateways_ask_for_tokens_and_have_recorded_all_of_it(
    site: Cluster, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After gateways were killed and replaced."""
    monkeypatch.delenv("WATTLE_TOKEN_FILE")
    with site.client() as nobody, pytest.raises(Denied) as caught:
        nobody.health()
    assert caught.value.code == "TOKEN_MISSING"
    for gateway in ("gateway1", "gateway2"):
        told = site.compose("exec", "-T", gateway, "wattle", "audit", "verify", "--data", f"/data/{gateway}", "--json")
        verdict = json.loads(told)
        assert verdict["problems"] == []
        table.add(f"the audit of {gateway}", 0.0, f"{verdict['rows']} records, sound")


def test_runtimes_scale_to_six(site: Cluster, client: Client, table: Table) -> None:
    with table.row("runtimes scaled to 6") as seen:
        site.up("--no-recreate", *(word for node in "123" for word in ("--scale", f"runtime{node}=2")))
        whole(client, 6)
        names = sorted(node.name for node in client.nodes() if node.status == "ready")
        seen.append(" ".join(names))
    document = {
        "name": "everywhere",
        "workers": [{"name": f"on-{name}", "command": "hostname", "place": {"node": name}} for name in names],
    }
    run = client.wait(client.submit(document).id, PATIENCE)
    assert run.status == "succeeded"
    hosts = {b"".join(client.logs(run.id, worker.name)) for worker in client.workers(run.id)}
    assert len(hosts) == 6
