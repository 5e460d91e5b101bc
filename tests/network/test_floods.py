"""Floods: huge payloads, thousands of puts, thousands of long polls, readers that stop. Others are answered, memory stays bounded.

What a process may come to: 100 MiB for itself; a gateway and a coordinator 128 MiB of queries' payloads and as much of puts, held up to
five times on the way (Zenoh's buffer, bytes, text, values, what is handed on); a runtime 128 MiB of unsent answers, as much as Zenoh
takes of them, and what its threads have read. docs/operations.md has the limits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import zenoh

from tests.network.bad_inputs import GOOD
from tests.network.processes import Agent, ApiError, Network, network, stock_client, wait_until

ROOT = "wattle/default/"
MIB = 1 << 20
BOUNDS = {"gateway": 1380 * MIB, "coordinator": 1380 * MIB, "runtime": 512 * MIB}
POLLS = 2_000
PUTS = 600  # of each kind
EVENTS, ROUNDS = 3_000, 4  # workers of a run, and runs: 24,000 events of some 200 bytes
GROWTH = 256 * MIB  # of a process for those that wait, listen and follow: 20 to 100 MiB are seen
BLOBS = 600  # of a MiB, nearly ten times what a node keeps of unsent answers
FOLLOWERS = 1_500  # more than a node lets wait at a time

READER = """
import json, sys, zenoh
config = {"mode": "client", "connect": {"endpoints": [sys.argv[1]]}, "scouting": {"multicast": {"enabled": False}}}
session = zenoh.open(zenoh.Config.from_json5(json.dumps(config)))
received = []
subscriptions = [session.declare_subscriber(key, received.append) for key in json.loads(sys.argv[2])]
print("listening", flush=True)
for line in sys.stdin:
    for key in json.loads(line):
        session.get(key, received.append, timeout=60)
    print("asked", flush=True)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        coordinator = made.start("coordinator")
        made.start("runtime", None, "--slots", "4", connect=coordinator)
        made.start("gateway", connect=coordinator)
        with stock_client(made.agents[2].endpoint) as client:
            client.nodes(1)
            fifo = made.folder / "fifo"
            os.mkfifo(fifo)
            client.get("runs/open", {"name": "open", "workers": [{"name": "a", "command": f"cat {fifo}"}]})
            wait_until(lambda: client.get("runs/open")["status"] == "running", "the open run runs")
        yield made


def memory(agent: Agent, what: str) -> int:
    """``VmRSS`` or ``VmHWM`` of an agent, in bytes."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) * 1024


class Other:
    """A second user, who asks, submits and looks at nodes again and again until told to stop. Every answer is awaited."""

    def __init__(self, endpoint: str) -> None:
        self.rounds = 0
        self.problem: Exception | None = None
        self._stop = threading.Event()
        self._endpoint = endpoint
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            with stock_client(self._endpoint) as client:
                while not self._stop.is_set():
                    assert client.get("runs/open")["status"] == "running"
                    assert [node["name"] for node in client.get("nodes")["nodes"]] == ["runtime1"]
                    run = client.get("runs", GOOD)["id"]
                    assert client.wait(run)["status"] == "succeeded"
                    self.rounds += 1
        except (AssertionError, ApiError, LookupError, zenoh.ZError) as error:
            self.problem = error

    def end(self) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the other user waits"
        if self.problem is not None:
            raise self.problem
        assert self.rounds > 0


@contextmanager
def bounded(net: Network, growth: int = GROWTH) -> Iterator[None]:
    """No process grows by more than that during the block, not even for a moment."""
    before = {}
    for agent in net.agents:
        Path(f"/proc/{agent.process.pid}/clear_refs").write_text("5")  # the peak is what it has now
        before[agent.name] = memory(agent, "VmRSS")
    yield
    for agent in net.agents:
        peak = memory(agent, "VmHWM")
        told = f"{agent.name}: {before[agent.name] // MIB} MiB before, {peak // MIB} at its peak"
        print(told)
        assert peak - before[agent.name] < growth, told


@contextmanager
def others_are_answered(net: Network) -> Iterator[Other]:
    """A second user works during the block; after it every process is there and within its bound."""
    other = Other(net.agents[2].endpoint)
    try:
        wait_until(lambda: other.rounds > 0 or other.problem, "the other user is answered before the flood", 60)
        yield other
        rounds = other.rounds
        wait_until(lambda: other.rounds > rounds or other.problem, "the other user is answered after the flood", 120)
    finally:
        other.end()
    for agent in net.agents:
        assert agent.process.poll() is None, agent.log[-3000:]
        assert memory(agent, "VmHWM") < BOUNDS[agent.role], (
            f"{agent.name}: {memory(agent, 'VmHWM') // MIB} MiB at its peak"
        )
        assert "Traceback" not in agent.log, agent.log[-3000:]


def submission(size: int) -> bytes:
    """A payload of so many bytes that is a document but for a key that there is not."""
    whole = json.dumps(GOOD | {"pad": ""}).encode()
    return whole[:-2] + b"x" * (size - len(whole)) + whole[-2:]


def test_huge_payloads_are_refused_one_by_one(net: Network) -> None:
    limit = 64 * MIB
    with others_are_answered(net), stock_client(net.agents[2].endpoint) as client:

        def ask(size: int) -> str:
            with pytest.raises(ApiError) as caught:
                client.raw("runs", submission(size), timeout=120)
            return caught.value.code

        with ThreadPoolExecutor(3) as pool:
            codes = list(pool.map(ask, [limit, limit + 1, limit // 2]))
        assert set(codes) <= {"INVALID_DOCUMENT", "INVALID_REQUEST", "BUSY"}
        assert "INVALID_REQUEST" in codes or "BUSY" in codes
        for _ in range(2):
            client.session.put(
                ROOT + "api/v1/runs/huge", submission(limit), congestion_control=zenoh.CongestionControl.BLOCK
            )
        assert client.get("health", timeout=120)["status"] == "ok"


def test_a_flood_of_puts_hurts_nobody(net: Network) -> None:
    good, entry = json.dumps(GOOD).encode(), json.dumps({"store": "s", "head": 2**60, "entries": []}).encode()
    node = json.dumps({"name": "runtime1", "incarnation": "i", "store": "s"}).encode()
    puts = [
        ("api/v1/runs/flood", good), ("api/v1/runs/flood", b"{"), ("api/v1/nowhere", b""), ("api/v1/workflows/good", good),
        ("feed/runtime1", entry), ("feed/runtime1", b"\xff"), ("feed/**", entry), ("state/runtime/runtime1", node + b" "),
        ("state/runtime/stranger", node), ("state/**", b"{}"), ("cmd/runtime1/assign", b"{}"), ("cmd/**", b"{}"),
        ("event/runs/open", b"{}"), ("event/rejected", b"{}"), ("event/**", b"x"),
    ]  # fmt: skip
    with others_are_answered(net), stock_client(net.agents[2].endpoint) as client:
        for number in range(PUTS):
            for key, payload in puts:
                client.session.put(ROOT + key, payload, congestion_control=zenoh.CongestionControl.BLOCK)
            if number % 10 == 0:
                client.session.delete(ROOT + "api/v1/runs/none")
    with stock_client(net.agents[2].endpoint) as client:
        assert client.wait("flood")["status"] in ("succeeded", "cancelled")


def test_thousands_of_long_polls_wait_and_others_do_not(net: Network) -> None:
    with bounded(net), others_are_answered(net), stock_client(net.agents[2].endpoint) as client:
        answers: list[zenoh.Reply] = []
        ended = threading.Semaphore(0)
        for _ in range(POLLS):
            handler = zenoh.handlers.Callback(answers.append, ended.release, indirect=False)
            client.session.get(ROOT + "api/v1/runs/polled?wait=300", handler, timeout=300)
            if _ == 0:
                fifo = net.folder / "polled"
                os.mkfifo(fifo)
                client.get("runs/polled", {"name": "polled", "workers": [{"name": "a", "command": f"cat {fifo}"}]})
        state = ROOT + "state/gateway/gateway1"

        def open_requests() -> int:
            (reply,) = client.session.get(state, timeout=30)
            assert reply.ok is not None
            return int(json.loads(reply.ok.payload.to_bytes())["open_requests"])

        wait_until(lambda: open_requests() >= POLLS, "all polls are open", 60)
        with fifo.open("w"):
            pass
        for number in range(POLLS):
            assert ended.acquire(timeout=120), f"only {number} polls ended"
    statuses = [json.loads(reply.ok.payload.to_bytes())["status"] for reply in answers if reply.ok is not None]
    assert statuses == ["succeeded"] * POLLS


@contextmanager
def stopped_reader(agent: Agent, subscribe: list[str], ask: list[str]) -> Iterator[None]:
    """A client that subscribes, asks, and reads no more."""
    process = subprocess.Popen(
        [sys.executable, "-c", READER, agent.endpoint, json.dumps([ROOT + key for key in subscribe])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        if ask:
            process.stdin.write(json.dumps([ROOT + key for key in ask]) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def test_readers_that_stop_hold_up_nobody(net: Network) -> None:
    runtime = net.agents[1]
    script = "head -c 30000000 /dev/zero | tee big >&2; cat big"
    with stock_client(net.agents[2].endpoint) as client:
        noisy = {"name": "noisy", "workers": [{"name": "w", "script": script, "outputs": {"big": "big"}}]}
        client.get("runs/noisy", noisy)
        assert client.wait("noisy")["status"] == "succeeded"
        digest = client.workers("noisy")["w"]["results"]["big"]["digest"]
    blobs = [f"blob/{digest}/runtime1?offset={n % 28 * MIB};limit={MIB}" for n in range(BLOBS)]
    with (
        others_are_answered(net),
        stopped_reader(runtime, ["log/**", "event/**"], blobs),
        stock_client(net.agents[2].endpoint) as client,
    ):
        again = client.get("runs", noisy)["id"]
        assert client.wait(again)["status"] == "succeeded"
        log = client.raw(f"runs/{again}/workers/w/logs/stdout?limit=1000")
        assert log == b"\0" * 1000


def test_event_subscribers_long_polls_and_log_followers_that_stop_hold_up_nobody(net: Network) -> None:
    coordinator, runtime, gateway = net.agents
    nowhere = [{"name": f"w{number}", "command": "true", "place": {"node": "nowhere"}} for number in range(EVENTS)]
    follow = "api/v1/runs/open/workers/a/logs/stdout?wait=300"
    fifo = net.folder / "held"
    os.mkfifo(fifo)
    with stock_client(gateway.endpoint) as client:
        client.get("runs/held", {"name": "held", "workers": [{"name": "a", "command": f"cat {fifo}"}]})
    polls = ["api/v1/runs/held?wait=300"] * POLLS
    with (
        bounded(net),
        stopped_reader(coordinator, ["event/**"], []),
        stopped_reader(gateway, ["event/**"], [follow] * FOLLOWERS + polls),
        stopped_reader(runtime, ["log/**", "event/**"], ["log/open/a/1/stdout?wait=300"] * FOLLOWERS),
        others_are_answered(net),
        stock_client(gateway.endpoint) as client,
    ):
        for number in range(ROUNDS):  # twice an event of each worker: it is ready, it is cancelled
            run = f"events{number}"
            client.get(f"runs/{run}", {"name": "events", "workers": nowhere}, timeout=120)
            client.get(f"runs/{run}/cancel", timeout=120)
            assert client.wait(run)["status"] == "cancelled"
        with fifo.open("w"):  # and all that wait for it are answered, though they do not listen
            pass
        assert client.wait("held")["status"] == "succeeded"


def test_afterwards_memory_is_given_back_and_a_run_succeeds(net: Network) -> None:
    with stock_client(net.agents[2].endpoint) as client:
        assert client.run(GOOD)["status"] == "succeeded"
        assert client.get("runs/open")["status"] == "running"
    for agent in net.agents:
        print(f"{agent.name}: {memory(agent, 'VmRSS') // MIB} MiB, {memory(agent, 'VmHWM') // MIB} at its peak")
        assert memory(agent, "VmRSS") < BOUNDS[agent.role]
