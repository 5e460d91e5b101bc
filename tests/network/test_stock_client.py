"""What a person does with eclipse-zenoh alone: puts, gets, deletes and subscriptions on the public keys, and no Wattle code."""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import ApiError, Network, StockClient, network, stock_client

DEADLINE = 30.0


class Watcher(StockClient):
    """A client that keeps every event it hears as (key after ``event/``, payload)."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.seen: list[tuple[str, Any]] = []
        self._subscriber = self.session.declare_subscriber("wattle/default/event/**", self._on_event)

    def _on_event(self, sample: Any) -> None:
        self.events.put((str(sample.key_expr).split("/event/")[1], json.loads(sample.payload.to_bytes())))

    def until(self, wanted: Callable[[str, Any], bool]) -> Any:
        """The first event, from now or before, that is wanted."""
        for key, event in self.seen:
            if wanted(key, event):
                return event
        while True:
            self.seen.append(self.events.get(timeout=DEADLINE))
            if wanted(*self.seen[-1]):
                return self.seen[-1][1]

    def rejection(self, key: str) -> Any:
        return self.until(lambda at, event: at == "rejected" and event["key"].endswith(key))


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        coordinator = made.start("coordinator")
        made.start("runtime", None, "--slots", "4", connect=coordinator)
        made.start("gateway", connect=coordinator)
        with stock_client(coordinator.endpoint) as client:
            client.nodes(1)
        yield made


@pytest.fixture
def client(net: Network) -> Iterator[Watcher]:
    made = Watcher(net.agents[-1].endpoint)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> dict[str, Any]:
    """The JSON form of the design, word for word but for its folder, and its programs."""
    (tmp_path / "fetch.py").write_text(
        "import os, sys\nprint('fetching', *sys.argv[1:], os.environ['A'])\nopen('raw.json', 'w').write('[1, 2]')\n"
    )
    (tmp_path / "use.py").write_text(
        "import json, os\ndata = json.load(open(os.environ['WATTLE_INPUT_DATA']))\n"
        "json.dump(sum(data), open(os.environ['WATTLE_OUTPUT_OUT'], 'w'))\n"
    )
    text = """{"name": "p", "working_dir": "/tmp/p", "workers": [
     {"name": "fetch", "command": "python fetch.py", "args": ["--source", "db"], "env_vars": {"A": "1"}, "outputs": {"raw": "raw.json"}},
     {"name": "use", "workflow_name": "p", "command": "python use.py",
      "inputs": {"data": "fetch/raw"}, "outputs": {"out": "/tmp/p/out.json"}}]}
    """
    document: dict[str, Any] = json.loads(text.replace("/tmp/p", str(tmp_path)))
    return document


def blocking(name: str, fifo: Path) -> dict[str, Any]:
    """A workflow that runs until somebody writes to ``fifo``, which must not exist yet."""
    os.mkfifo(fifo)
    return {"name": name, "workers": [{"name": "a", "command": "cat", "args": [str(fifo)]}]}


def test_put_get_logs_and_events(client: Watcher, pipeline: dict[str, Any], tmp_path: Path) -> None:
    client.put("runs/p-1", pipeline)
    run = client.get("runs/p-1?wait=30")
    assert (run["id"], run["workflow"], run["status"]) == ("p-1", "p", "succeeded"), client.workers("p-1")
    assert run["counts"] == {"succeeded": 2}
    times = [datetime.fromisoformat(run[key]) for key in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)
    assert (tmp_path / "out.json").read_text() == "3"

    assert client.raw("runs/p-1/workers/fetch/logs/stdout") == b"fetching --source db 1\n"
    assert client.raw("runs/p-1/workers/fetch/logs/stdout?offset=9;limit=8") == b"--source"
    assert client.raw("runs/p-1/workers/fetch/logs/stdout?tail=2") == b"1\n"
    assert client.raw("runs/p-1/workers/fetch/logs/stderr") == b""

    fetch = client.get("runs/p-1/workers/fetch")
    assert {key: fetch[key] for key in ("command", "args", "outputs", "status")} == {
        "command": "python fetch.py",
        "args": ["--source", "db"],
        "outputs": {"raw": "raw.json"},
        "status": "succeeded",
    }
    assert [(a["attempt"], a["node"], a["exit_code"]) for a in fetch["attempts"]] == [(1, "runtime1", 0)]

    client.until(lambda key, event: key == "runs/p-1" and event["status"] == "succeeded")
    client.until(lambda key, event: key == "runs/p-1/workers/use" and event["status"] == "succeeded")
    statuses = [event["status"] for key, event in client.seen if key == "runs/p-1/workers/fetch"]
    assert statuses == sorted(set(statuses), key=["created", "ready", "running", "succeeded"].index)
    assert statuses[-1] == "succeeded"


def test_a_get_right_after_the_put_knows_the_run(client: Watcher) -> None:
    document = {"name": "quick", "workers": [{"name": "a", "command": "true"}]}
    for number in range(20):
        client.put(f"runs/quick-{number}", document)
        assert client.get(f"runs/quick-{number}")["id"] == f"quick-{number}"
        client.put(f"workflows/quick{number}", document | {"name": f"quick{number}"})
        assert client.get(f"workflows/quick{number}")["name"] == f"quick{number}"


def test_delete_cancels_and_kills(client: Watcher, tmp_path: Path) -> None:
    client.put("runs/long", blocking("long", tmp_path / "fifo"))
    client.until(lambda key, event: key == "runs/long/workers/a" and event["status"] == "running")
    client.delete("runs/long")
    assert client.get("runs/long?wait=30")["status"] == "cancelled"
    worker = client.get("runs/long/workers/a")
    assert (worker["status"], worker["attempts"][0]["status"]) == ("cancelled", "cancelled")
    assert worker["attempts"][0]["signal"] == 15


def test_a_delete_right_after_the_put_cancels(client: Watcher, tmp_path: Path) -> None:
    client.put("runs/short", blocking("short", tmp_path / "fifo"))
    client.delete("runs/short")
    assert client.get("runs/short?wait=30")["status"] == "cancelled"


def test_the_same_put_again_changes_nothing_and_another_is_rejected(client: Watcher) -> None:
    document = {"name": "twice", "workers": [{"name": "a", "command": "echo once"}]}
    client.put("runs/twice", document)
    first = client.get("runs/twice?wait=30")
    client.put("runs/twice", document)
    assert client.get("runs/twice?wait=30") == first
    assert client.get("runs", {"document": document, "run": "twice"}) == first
    assert len(client.get("runs/twice/workers/a")["attempts"]) == 1
    client.put("runs/twice", document | {"mode": "levels"})
    refused = client.rejection("runs/twice")
    assert (refused["code"], refused["method"]) == ("RUN_EXISTS", "put")
    client.put("runs/broken", {"name": "broken", "workers": [{"name": "a"}]})
    refused = client.rejection("runs/broken")
    assert refused["code"] == "INVALID_DOCUMENT"
    assert refused["detail"][0]["worker"] == "a"


def test_yaml_is_taken_with_params_and_errors_name_their_line(client: Watcher) -> None:
    text = "name: y\nparams: {who: you}\nworkers:\n  - {name: a, command: echo, args: ['hello ${params.who}']}\n"
    client.put("runs/y-1", text)
    assert client.get("runs/y-1?wait=30")["status"] == "succeeded"
    assert client.raw("runs/y-1/workers/a/logs/stdout") == b"hello you\n"
    run = client.get("runs?wait=30", {"document": text, "params": {"who": "me"}})
    assert (run["status"], run["params"]) == ("succeeded", {"who": "me"})
    assert client.raw(f"runs/{run['id']}/workers/a/logs/stdout") == b"hello me\n"
    with pytest.raises(ApiError) as caught:
        client.get("runs", text.replace("command", "comand"))
    (problem,) = (p for p in caught.value.error["detail"] if "'comand'" in p["message"])
    assert (problem["line"], problem["worker"]) == (4, "a")
    assert "'command'" in problem["fix"]


def test_workflows_are_stored_listed_started_and_deleted(client: Watcher) -> None:
    for name in ("w1", "w2", "w3"):
        client.put(
            f"workflows/{name}",
            {"name": name, "params": {"n": 1}, "workers": [{"name": "a", "command": "echo ${params.n}"}]},
        )
        assert client.get(f"workflows/{name}")["status"] == "created"
    page = client.get("workflows?limit=2;after=w0")
    assert ([w["name"] for w in page["workflows"]], page["next"]) == (["w1", "w2"], "w2")
    page = client.get(f"workflows?limit=2;after={page['next']};status=created")
    assert ([w["name"] for w in page["workflows"]], page["next"]) == (["w3"], None)

    run = client.get("workflows/w1/start", {"params": {"n": 7}, "run": "w1-seven"})
    assert run["id"] == "w1-seven"
    assert client.wait("w1-seven")["status"] == "succeeded"
    assert client.raw("runs/w1-seven/workers/a/logs/stdout") == b"7\n"
    assert client.get("workflows/w1/start", {"params": {"n": 7}, "run": "w1-seven"})["created_at"] == run["created_at"]
    plain = client.get("workflows/w1/start")
    assert client.wait(plain["id"])["workflow"] == "w1"
    known = client.get("workflows/w1")
    assert (known["latest_run"]["id"], known["document"]["params"]) == (plain["id"], {"n": "1"})

    client.delete("workflows/w1")
    with pytest.raises(ApiError, match="WORKFLOW_NOT_FOUND"):
        client.get("workflows/w1")
    assert client.get("runs/w1-seven")["status"] == "succeeded"
    client.put("workflows/w1", known["document"])
    assert client.get("workflows/w1")["name"] == "w1"


def test_a_failed_run_is_retried_from_its_failure(client: Watcher, tmp_path: Path) -> None:
    document = {
        "name": "mend",
        "workers": [
            {"name": "first", "command": "echo done"},
            {"name": "second", "needs": ["first"], "command": "cat", "args": [str(tmp_path / "later")]},
        ],
    }
    assert client.run(document, run="mend-1")["status"] == "failed"
    assert "No such file" in client.raw("runs/mend-1/workers/second/logs/stderr").decode()
    (tmp_path / "later").write_text("here")
    client.get("runs/mend-1/retry")
    assert client.wait("mend-1")["status"] == "succeeded"
    workers = client.workers("mend-1")
    assert {name: len(w["attempts"]) for name, w in workers.items()} == {"first": 1, "second": 2}
    assert client.raw("runs/mend-1/workers/second/logs/stdout") == b"here"
    assert b"No such file" in client.raw("runs/mend-1/workers/second/logs/stderr?attempt=1")


def test_runs_and_workers_page_by_page(client: Watcher) -> None:
    document = {"name": "many", "workers": [{"name": f"w{n}", "command": "true"} for n in range(7)]}
    wanted = [f"many-{n}" for n in range(5)]
    for run in wanted:
        client.get("runs", {"document": document, "run": run})
        client.wait(run)
    found: list[str] = []
    after = ""
    while True:
        page = client.get(f"runs?workflow=many;limit=2{after}")
        found += [run["id"] for run in page["runs"]]
        if page["next"] is None:
            break
        assert len(page["runs"]) == 2
        after = f";after={page['next']}"
    assert found == wanted[::-1]
    assert [r["id"] for r in client.get("runs?workflow=many;after=many-2")["runs"]] == ["many-1", "many-0"]
    assert client.get("runs?workflow=many;status=failed") == {"runs": [], "next": None}

    names: list[str] = []
    sizes = []
    after = ""
    while True:
        page = client.get(f"runs/many-0/workers?limit=3{after}")
        names += [worker["name"] for worker in page["workers"]]
        sizes.append(len(page["workers"]))
        if page["next"] is None:
            break
        after = f";after={page['next']}"
    assert names == [f"w{n}" for n in range(7)]
    assert sizes == [3, 3, 1]
    assert client.get("runs/many-0/workers?limit=7")["next"] is None


def test_nodes_drain_and_resume(client: Watcher) -> None:
    node = client.get("nodes/runtime1")
    assert (node["status"], node["slots"]) == ("ready", 4)
    assert client.get("nodes/runtime1/drain")["status"] == "draining"
    assert [n["status"] for n in client.get("nodes")["nodes"]] == ["draining"]
    client.put("runs/parked", {"name": "parked", "workers": [{"name": "a", "command": "true"}]})
    assert client.get("runs/parked?wait=0.3")["status"] == "created"
    assert "drain" in client.get("runs/parked/workers/a")["waiting_for"]
    assert client.get("nodes/runtime1/resume")["status"] == "ready"
    assert client.wait("parked")["status"] == "succeeded"


def test_health_and_schema(client: Watcher, net: Network) -> None:
    health = client.get("health")
    assert (health["status"], health["namespace"]) == ("ok", "default")
    assert [(p["role"], p["name"]) for p in health["peers"]] == sorted((a.role, a.name) for a in net.agents)
    schema = client.get("schema")
    assert {"name", "workers"} <= set(schema["properties"])
    for agent in net.agents:
        (reply,) = list(client.session.get(f"wattle/default/state/{agent.role}/{agent.name}", timeout=DEADLINE))
        assert reply.ok is not None
        assert json.loads(reply.ok.payload.to_bytes())["name"] == agent.name
