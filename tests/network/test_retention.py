"""Runs that are pruned: gone at their owner, at followers and on nodes; what was away cleans up when it is back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, ApiError, Network, StockClient, network, stock_client, wait_until
from tests.network.test_adoption import mesh

TABLES = ("tasks", "worker_logs", "blobs", "blob_runs", "feed", "feed_runs", "copies")


def count(data: Path, file: str, table: str, run: str | None = None) -> int:
    where, values = ("", ()) if run is None else (" WHERE run = ?", (run,))
    connection = sqlite3.connect(f"file:{data / file}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}{where}", values).fetchone()[0])
    finally:
        connection.close()


def passing(name: str, outside: Path) -> dict[str, Any]:
    """One worker on each node, the second with the first one's file; the user's own folder and file besides."""
    workers = [
        {"name": "a", "script": "echo out; echo a > a.txt", "outputs": {"out": "a.txt"}, "place": {"node": "runtime1"}},
        {
            "name": "b",
            "script": f"cat $WATTLE_INPUT_A; mkdir -m 0 locked; echo b > {outside}/{name}.txt",
            "inputs": {"a": "a/out"},
            "outputs": {"mine": f"{outside}/{name}.txt"},
            "place": {"node": "runtime2"},
        },
        {"name": "c", "script": "echo c > c.txt", "working_dir": str(outside), "place": {"node": "runtime2"}},
    ]
    return {"name": name, "workers": workers}


def traces(agent: Agent, run: str) -> list[str]:
    """What there is of a run on a node."""
    found = [str(p) for p in (agent.data / "logs" / run, agent.data / "work" / run) if p.exists()]
    rows = ("tasks", "worker_logs", "blob_runs", "feed_runs", "copies")
    return found + [table for table in rows if count(agent.data, "runtime.db", table, run)]


def everything_of(client: StockClient, run: str) -> set[str]:
    return {worker["status"] for worker in client.workers(run).values()}


def test_a_pruned_run_is_gone_everywhere_and_the_others_are_untouched() -> None:
    with network() as net:
        outside = net.folder / "mine"
        outside.mkdir()
        first, second = mesh(net, "coordinator"), mesh(net, "coordinator")
        nodes = [mesh(net, "runtime"), mesh(net, "runtime")]
        gateway = mesh(net, "gateway")
        with stock_client(gateway.endpoint) as client:
            client.nodes(2)
            names = ["kept", "gone", "late"]
            finals = {name: client.run(passing(name, outside), run=name) for name in names}
            assert {view["status"] for view in finals.values()} == {"succeeded"}
            waiting = client.get(
                "runs", {"document": {"name": "w", "workers": [{"name": "w", "command": "sleep 600"}]}}
            )

            for payload, code in (
                ({"runs": ["gone", "unknown"]}, "RUN_NOT_FOUND"),
                ({"runs": ["gone", waiting["id"]]}, "RUN_NOT_FINAL"),
                ({"runs": ["gone"], "older_than": 5}, "INVALID_REQUEST"),
                ({"runs": []}, "INVALID_REQUEST"),
                ({"older_than": "7d"}, "INVALID_REQUEST"),
                ({"runs": None}, "INVALID_REQUEST"),
            ):
                with pytest.raises(ApiError) as refused:
                    client.get("prune", payload)
                assert refused.value.code == code
            assert client.get("prune", {"older_than": 3600}) == {"runs": [], "more": False}
            assert all(traces(node, "gone") for node in nodes)

            assert net.wattle("prune", "gone", "--connect", gateway.endpoint).stdout == "gone\n"
            assert {r["id"] for r in client.get("runs")["runs"]} == {"kept", "late", waiting["id"]}
            with pytest.raises(ApiError, match="RUN_NOT_FOUND"):
                client.get("runs/gone")
            with pytest.raises(ApiError, match="RUN_PRUNED"):
                client.get("runs", {"document": passing("gone", outside), "run": "gone"})
            for coordinator in (first, second):
                assert count(coordinator.data, "coordinator.db", "copies", "gone") == 0
                assert count(coordinator.data, "coordinator.db", "workers", "gone") == 0
            wait_until(lambda: not any(traces(node, "gone") for node in nodes), "the nodes have removed it")
            assert (outside / "gone.txt").read_text() == "b\n"
            assert (outside / "c.txt").exists()

            away = nodes[1]
            away.terminate()
            assert net.wattle("prune", "late", "--connect", gateway.endpoint).stdout == "late\n"
            wait_until(lambda: not traces(nodes[0], "late"), "the node in sight has removed it")
            assert traces(away, "late")
            again = mesh(net, "runtime", away.name)
            wait_until(lambda: not traces(again, "late"), "the node that was away has removed it")

            assert all(traces(node, "kept") for node in nodes)
            assert everything_of(client, "kept") == {"succeeded"}
            assert client.raw("runs/kept/workers/b/logs/stdout") == b"a\n"

            first.terminate()
            mesh(net, "coordinator", "coordinator1")  # goes on after holes, a new one starts before them
            newcomer = mesh(net, "coordinator", "coordinator3")
            wait_until(
                lambda: sum(p["role"] == "coordinator" for p in client.get("health")["peers"]) == 3, "all are there"
            )
            for name in ("n1", "n2", "n3", "n4"):
                assert client.run(passing(name, outside), run=name)["status"] == "succeeded"
            owners = {r["id"]: r["owner"] for r in client.get("runs")["runs"]}
            heads = {
                n["name"]: count(net.folder / n["name"], "runtime.db", "feed") for n in client.get("nodes")["nodes"]
            }
            assert all(heads.values())
            wait_until(
                lambda: _cursors(newcomer) == {node.name: _head(node) for node in (nodes[0], again)}, "it has read all"
            )
            assert set(owners) == {"kept", waiting["id"], "n1", "n2", "n3", "n4"}
            client.get(f"runs/{waiting['id']}/cancel")


def _head(agent: Agent) -> int:
    connection = sqlite3.connect(f"file:{agent.data / 'runtime.db'}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute("SELECT max(number) FROM feed").fetchone()[0])
    finally:
        connection.close()


def _cursors(agent: Agent) -> dict[str, int]:
    connection = sqlite3.connect(f"file:{agent.data / 'coordinator.db'}?mode=ro", uri=True, timeout=5)
    try:
        return dict(connection.execute("SELECT node, number FROM cursors"))
    finally:
        connection.close()


COORDINATOR = ("runs", "workers", "tasks", "holders", "documents", "workflows")
"""Tables that hold something of every run; what was pruned is remembered in ``forgotten``, and in ``copied_runs`` without rows."""


def test_stores_do_not_grow_with_the_runs_that_were() -> None:
    rounds, each = 4, 25
    with network() as net:
        coordinator = mesh(net, "coordinator", None, "--config", str(_tiny(net)))
        follower = mesh(net, "coordinator", None, "--config", str(_tiny(net)))
        node = mesh(net, "runtime")
        gateway = mesh(net, "gateway")
        with stock_client(gateway.endpoint) as client:
            client.nodes(1)
            for n in range(rounds):
                for i in range(each):
                    script = f"echo {n} {i} > out.txt"
                    worker = {"name": "w", "script": script, "outputs": {"o": "out.txt"}}
                    client.get("runs", {"document": {"name": f"p{n}-{i}", "workers": [worker]}, "run": f"r{n}-{i}"})
                wait_until(lambda: not client.get("runs")["runs"], "every run has ended and is pruned", 60)
                for agent in (coordinator, follower):
                    assert {t: count(agent.data, "coordinator.db", t) for t in COORDINATOR} == dict.fromkeys(
                        COORDINATOR, 0
                    )
                    assert count(agent.data, "coordinator.db", "copies") == 0
                wait_until(
                    lambda: not any(count(node.data, "runtime.db", t) for t in TABLES), "the node has removed all", 60
                )
                wait_until(
                    lambda: not [*(node.data / "logs").iterdir(), *(node.data / "work").iterdir()], "and its folders"
                )
                assert count(node.data, "runtime.db", "fences") == (n + 1) * each  # a few bytes each, for 90 days
            again = client.get("runs", {"document": {"name": "last", "workers": [{"name": "w", "command": "true"}]}})
            assert client.wait(again["id"])["status"] == "succeeded"


def _tiny(net: Network) -> Path:
    path = net.folder / "tiny.toml"
    path.write_text("[coordinator]\nretention = 1.0\n")
    return path
