"""Whatever is sent, every peer goes on: bad requests get an error that helps, malformed messages between peers get nothing done.

docs/bad-input.md is the table of what each bad request got. To write it anew: WATTLE_WRITE_DOCS=1 pytest tests/network/test_bad_input.py
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.network.bad_inputs import GOOD, TABLE, Bad
from tests.network.processes import API, ApiError, Network, StockClient, network, stock_client

ROOT = "wattle/default/"
PAGE = Path(__file__).parents[2] / "docs" / "bad-input.md"
CASES = [pytest.param(bad, id=f"{bad.how} {bad.path[:40]} {bad.sent[:60]}") for part in TABLE.values() for bad in part]
answers: dict[Bad, dict[str, Any]] = {}


class Patient(StockClient):
    """A stock client that hears what is refused."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.rejected: queue.Queue[dict[str, Any]] = queue.Queue()
        self._subscriber = self.session.declare_subscriber(
            ROOT + "event/rejected", lambda sample: self.rejected.put(json.loads(sample.payload.to_bytes()))
        )

    def error(self, bad: Bad) -> dict[str, Any]:
        """What a bad request got."""
        if bad.how == "put":
            self.session.put(API + bad.path, bad.body)
        elif bad.how == "delete":
            self.session.delete(API + bad.path)
        else:
            with pytest.raises(ApiError) as caught:
                self.raw(bad.path, bad.body, timeout=30)
            return caught.value.error
        event = self.rejected.get(timeout=30)
        assert (event.pop("key"), event.pop("method")) == (API + bad.path, bad.how)
        return event


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        coordinator = made.start("coordinator")
        made.start("runtime", None, "--slots", "2", connect=coordinator)
        made.start("gateway", connect=coordinator)
        yield made


@pytest.fixture(scope="module")
def client(net: Network) -> Iterator[Patient]:
    """A client of a network with a run that has succeeded, ``good``, and one that goes on, ``open``."""
    made = Patient(net.agents[2].endpoint)
    try:
        made.nodes(1)
        made.get("runs", {"document": GOOD, "run": "good"})
        made.wait("good")
        fifo = net.folder / "fifo"
        os.mkfifo(fifo)
        made.get("runs/open", {"name": "open", "workers": [{"name": "a", "command": f"cat {fifo}"}]})
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("bad", CASES)
def test_a_bad_request_gets_an_error_and_the_peers_go_on(bad: Bad, client: Patient) -> None:
    error = answers[bad] = client.error(bad)
    assert error["code"] == bad.code
    assert bad.says in error["message"]
    assert len(error["message"]) > 20
    assert len(error["message"]) < 1000
    assert isinstance(error["detail"], list)
    if bad.code == "INVALID_DOCUMENT":
        assert error["detail"]
        assert all(problem["message"] for problem in error["detail"])
    assert [run["id"] for run in client.get("runs?limit=1;workflow=open")["runs"]] == ["open"]
    assert client.get("health")["status"] == "ok"


def test_after_all_of_them_the_same_processes_run_a_workflow(net: Network, client: Patient) -> None:
    assert client.run(GOOD)["status"] == "succeeded"
    assert [agent.process.poll() for agent in net.agents] == [None, None, None]
    for agent in net.agents:
        assert not errors_of(agent.log), agent.name


def test_the_documented_table_is_what_was_answered(client: Patient) -> None:
    if len(answers) < len(CASES):
        pytest.skip("needs the answers to all bad requests; run the whole file")
    assert len(answers) >= 40
    page = documentation()
    if os.environ.get("WATTLE_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "write it anew: WATTLE_WRITE_DOCS=1 pytest tests/network/test_bad_input.py"


# --- messages between peers ---------------------------------------------------------------------------------------------


def assign(**task: Any) -> dict[str, Any]:
    whole = {"run": "r", "worker": "w", "attempt": 1, "epoch": 1, "workflow": "x", "argv": ["true"]} | task
    return {"owner": "stranger", "tasks": [whole]}


def feed(**fact: Any) -> dict[str, Any]:
    whole = {"kind": "finished", "run": "open", "worker": "a", "attempt": 1, "at": 1.0, "status": "succeeded"} | fact
    return {"store": "s", "head": 1, "entries": [{"number": 1, "facts": [whole]}]}


def node(**info: Any) -> dict[str, Any]:
    return {"name": "runtime1", "incarnation": "i", "store": "s"} | info


JUNK: list[bytes | None] = [
    None,
    b"",
    b"\0",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"1e999",
    b"NaN",
    b'"' + b"x" * 100_000 + b'"',
    b"[" * 100_000,
    b'{"tasks": [{}], "owner": 1}',
    b'{"run": {}, "wait": NaN, "limit": -1}',
    b'{"run": "open", "wait": 1e999, "worker": [], "limit": 1e999, "after": [1]}',
    b'{"run": "open", "wait": "x", "worker": null, "limit": "1", "after": ["a", 2]}',
    b'{"name": "good", "limit": 100000000000000000000000, "after": [1e400, 2]}',
    b'{"store": "s", "head": 1e30, "entries": 3}',
]
COORDINATOR_VERBS = [
    "run", "runs", "workers", "worker", "workflow", "workflows", "retry_run", "nodes", "submit", "put_workflow", "start", "x", "*", "**",
]  # fmt: skip
RUNTIME_VERBS = ["assign", "cancel", "held", "x", "*", "**"]
QUERIES = [
    *(f"cmd/{peer}/{verb}" for peer in ("coordinator1", "*") for verb in COORDINATOR_VERBS),
    *(f"cmd/{peer}/{verb}" for peer in ("runtime1", "*") for verb in RUNTIME_VERBS),
    "feed/runtime1", "feed/*", "feed/*?after=x", "feed/runtime1?after=-1;after=2", "state/**", "state/*/*?x",
    "blob/x", "blob/*", f"blob/{'0' * 64}/*", f"blob/{'0' * 64}/runtime1?offset=-1", "log/**", "log/good/a/1/stdout?offset=x",
    "log/good/a/99999999999999999999999999/stdout", "log/../../../../etc/passwd", "**",
]  # fmt: skip
PUTS = [
    "cmd/runtime1/assign", "cmd/*/assign", "feed/runtime1", "feed/*", "state/runtime/runtime1", "state/**", "alive/runtime/x/y",
    "log/good/a/1/stdout",
]  # fmt: skip
WELL_FORMED = [
    ("cmd/*/assign", assign()),
    ("cmd/runtime1/assign", assign(run="../../x")),
    ("cmd/runtime1/assign", assign(worker="/etc/passwd")),
    ("cmd/runtime1/assign", assign(attempt=-5, worker="w2")),
    ("cmd/runtime1/assign", assign(attempt=1 << 70)),
    ("cmd/runtime1/assign", assign(argv=["${nope.x}"], worker="w3")),
    ("cmd/runtime1/assign", assign(argv=[], worker="w4")),
    ("cmd/runtime1/assign", assign(argv=["a\0b"], worker="w5")),
    ("cmd/runtime1/assign", assign(working_dir="/tmp/\0", worker="w6")),
    ("cmd/runtime1/assign", assign(working_dir="/dev/null/x", worker="w7")),
    ("cmd/runtime1/assign", assign(env={"": "", "A=B": "\0"}, worker="w8")),
    ("cmd/runtime1/assign", assign(timeout=-1.0, kill_after=-1.0, worker="w9")),
    ("cmd/runtime1/assign", assign(timeout=4e18, kill_after=4e18, priority=-(1 << 61), worker="w10")),
    ("cmd/runtime1/assign", assign(resources={"cpus": -1e18, "": 0}, worker="w11")),
    ("cmd/runtime1/assign", assign(outputs={"../x": "\0", "y": "/dev/null/y"}, worker="w12")),
    ("cmd/runtime1/assign", assign(inputs={"k": {"worker": "v", "output": "o", "path": "p", "digest": "../../x", "size": -1}})),
    ("cmd/runtime1/cancel", {"owner": "stranger", "tasks": [{"run": "", "worker": "", "attempt": 0, "epoch": 1 << 61}]}),
    ("feed/runtime1", feed()),
    ("feed/runtime1", feed(at=1e300)),
    ("feed/runtime1", feed(exit_code=1 << 70)),
    ("state/runtime/runtime1", node(slots=-1, resources={"cpus": 1e300})),
    ("state/runtime/runtime1", node(slots=1 << 61)),
    ("state/runtime/other", node(name="runtime1")),
]  # fmt: skip


def test_malformed_messages_between_peers_hurt_nobody(net: Network) -> None:
    with stock_client(net.agents[0].endpoint) as other:
        peers = other.get("health")["peers"]
        for key in QUERIES:
            for junk in JUNK:
                list(other.session.get(ROOT + key, payload=junk, timeout=20))
        for key in PUTS:
            for junk in JUNK:
                other.session.delete(ROOT + key) if junk is None else other.session.put(ROOT + key, junk)
        for key, message in WELL_FORMED:
            other.session.put(ROOT + key, json.dumps(message))
            list(other.session.get(ROOT + key, payload=json.dumps(message), timeout=20))
        token = other.session.liveliness().declare_token(ROOT + "alive/runtime/ghost/1")
        assert other.run(GOOD)["status"] == "succeeded"
        token.undeclare()
        now = other.get("health")["peers"]
        assert [peer for peer in now if peer["name"] != "ghost"] == peers
        assert other.get("runs/open")["status"] == "running"
    assert [agent.process.poll() for agent in net.agents] == [None, None, None]
    for agent in net.agents:
        assert not errors_of(agent.log), agent.name


def errors_of(log: str) -> list[str]:
    """Lines that tell of a fault in an agent."""
    return [line for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line]


# --- the page -------------------------------------------------------------------------------------------------------------


def documentation() -> str:
    """docs/bad-input.md."""
    lines = [
        "# Bad input",
        "",
        "What bad requests get: made and checked by `tests/network/test_bad_input.py`, which also sees good requests answered",
        "after each. Paths are what follows `wattle/<namespace>/api/v1/`. Puts and deletes are answered on `event/rejected`.",
        "Of messages with several lines the first is shown.",
    ]
    for title, part in TABLE.items():
        lines += ["", f"## {title}", "", "| request | payload | code | message |", "|---|---|---|---|"]
        lines += [_row(bad, answers[bad]) for bad in part]
    return "\n".join(lines) + "\n"


def _row(bad: Bad, error: dict[str, Any]) -> str:
    path = bad.path if len(bad.path) <= 60 else bad.path[:20] + "..."
    sent = bad.sent if bad.shown is not None or not bad.sent else _code(bad.sent)
    message = error["message"].splitlines()[0]
    return f"| {bad.how} {_code(path)} | {sent} | `{error['code']}` | {_cell(message)} |"


def _code(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')
    return f"`{shown}`".replace("|", "\\|")


def _cell(text: str) -> str:
    for character in "\\|*<_`[":
        text = text.replace(character, "\\" + character)
    return text
