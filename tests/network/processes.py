"""Whole networks of real processes, for tests: agents as they are started by people, and a client with no Wattle code in it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zenoh

WATTLE = [sys.executable, "-m", "wattle"]
START_TIMEOUT = 30.0
API = "wattle/default/api/v1/"


@dataclass
class Agent:
    """One agent process. ``endpoint`` is its socket; ``log`` collects its stderr."""

    role: str
    name: str
    data: Path
    process: subprocess.Popen[str]
    endpoints: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return self.endpoints[0]

    @property
    def log(self) -> str:
        return _log_of(self.data).read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 30.0) -> int:
        """SIGTERM, and wait for its end."""
        self.process.terminate()
        return self.process.wait(timeout)


class Network:
    """Agents of one network, each with a folder of its own below ``folder`` (short: socket paths are limited)."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.agents: list[Agent] = []
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("WATTLE_")} | dict(
            environment or {}
        )
        self._prefix = list(prefix)

    def start(
        self,
        role: str,
        name: str | None = None,
        *options: str,
        connect: Agent | str | None = None,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Agent:
        """Start an agent and wait until it says that it is ready. The same name again uses the same folder."""
        name = name or f"{role}{sum(a.role == role for a in self.agents) + 1}"
        data = self.folder / name  # which the agent makes
        peer = [] if connect is None else ["--connect", connect if isinstance(connect, str) else connect.endpoint]
        command = [*self._prefix, *prefix, *WATTLE, role, "--data", str(data), "--name", name, *peer, *options]
        with _log_of(data).open("a") as log:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment | dict(environment or {}),
                start_new_session=True,
            )
        agent = Agent(role, name, data, process)
        self.agents.append(agent)
        line = _first_line(process, START_TIMEOUT)
        if not line.startswith("ready"):
            raise AssertionError(f"{role} {name} did not start: {line!r}\n{agent.log[-3000:]}")
        agent.endpoints = line.split()[1:]
        return agent

    def wattle(self, *arguments: str, timeout: float = 60.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line to its end."""
        done = subprocess.run(
            [*self._prefix, *WATTLE, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"wattle {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def stop(self) -> None:
        """End everything, the spawners and tasks included."""
        for agent in self.agents:
            if agent.process.poll() is None:
                agent.process.send_signal(signal.SIGCONT)
                agent.process.kill()
                agent.process.wait(10)
        for process in processes_under(self.folder):
            os.kill(process, signal.SIGKILL)


def _log_of(data: Path) -> Path:
    return data.with_name(f"{data.name}.stderr")


def _first_line(process: subprocess.Popen[str], timeout: float) -> str:
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout)
    except queue.Empty:
        return "(nothing was said)"


def processes_under(folder: Path) -> list[int]:
    """Processes whose command line or working folder names a path below ``folder``: what must not be left over."""
    return list(commands_under(folder))


def commands_under(folder: Path) -> dict[int, str]:
    """The same processes with their command lines, which may be gone by the time they are asked for again."""
    found = {}
    needle = str(folder)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            folders = command + "\0" + os.readlink(entry / "cwd")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if needle in folders and state != "Z":
            found[int(entry.name)] = command
    return found


@contextmanager
def network(environment: Mapping[str, str] | None = None) -> Iterator[Network]:
    """A network that ends with the block, in a short temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="wtl-", dir="/tmp"))
    made = Network(folder, environment)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


class ApiError(Exception):
    """An error reply."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        try:
            self.error: dict[str, Any] = json.loads(payload)
        except ValueError:
            self.error = {"code": payload.decode(errors="replace")}
        super().__init__(str(self.error))

    @property
    def code(self) -> str:
        return str(self.error["code"])


class StockClient:
    """What a person writes with eclipse-zenoh alone."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        config = {"mode": "client", "connect": {"endpoints": [endpoint]}, "scouting": {"multicast": {"enabled": False}}}
        self.session = zenoh.open(zenoh.Config.from_json5(json.dumps(config)))

    def raw(self, path: str, payload: bytes | str | None = None, timeout: float = 60.0) -> bytes:
        """The answer to a get; raises ApiError for an error reply, LookupError when nobody answers."""
        for reply in self.session.get(API + path, payload=payload, timeout=timeout):
            if reply.ok is None:
                assert reply.err is not None
                raise ApiError(reply.err.payload.to_bytes())
            return reply.ok.payload.to_bytes()
        raise LookupError(f"nobody answered {path}")

    def get(self, path: str, payload: Any = None, timeout: float = 60.0) -> Any:
        """The same, with JSON both ways; text and bytes go as they are."""
        body = json.dumps(payload) if isinstance(payload, dict | list) else payload
        return json.loads(self.raw(path, body, timeout))

    def put(self, path: str, payload: Any) -> None:
        self.session.put(API + path, json.dumps(payload) if isinstance(payload, dict | list) else payload)

    def delete(self, path: str) -> None:
        self.session.delete(API + path)

    def run(self, document: dict[str, Any], *, timeout: float = 120.0, **more: Any) -> dict[str, Any]:
        """Submit a document and wait for the run to be final."""
        run = self.get("runs", {"document": document, **more})
        return self.wait(run["id"], timeout)

    def wait(self, run: str, timeout: float = 120.0) -> dict[str, Any]:
        view: dict[str, Any] = self.get(f"runs/{run}?wait={timeout}", timeout=timeout + 10)
        assert view["status"] in ("succeeded", "failed", "cancelled"), f"not final after {timeout} s: {view}"
        return view

    def workers(self, run: str) -> dict[str, dict[str, Any]]:
        """All workers of a run by name."""
        found: dict[str, dict[str, Any]] = {}
        after = ""
        while True:
            page = self.get(f"runs/{run}/workers?limit=1000{after}")
            found |= {w["name"]: w for w in page["workers"]}
            if page["next"] is None:
                return found
            after = f";after={page['next']}"

    def nodes(self, count: int, timeout: float = 20.0) -> list[str]:
        """The names of nodes that are ready, once there are ``count``: the peer asked here may have yet to learn of a gateway."""
        deadline = time.monotonic() + timeout
        while True:
            ready: list[str] = []
            with suppress(LookupError):
                ready = [n["name"] for n in self.get("nodes")["nodes"] if n["status"] == "ready"]
            if len(ready) >= count:
                return ready
            assert time.monotonic() < deadline, f"only {ready} are ready"

    def gateways(self) -> dict[str, dict[str, Any]]:
        """What gateways say of themselves, whether they are on duty or not."""
        key = f"{API.removesuffix('api/v1/')}state/gateway/*"
        answers = self.session.get(key, target=zenoh.QueryTarget.ALL, timeout=10)
        states = [json.loads(reply.ok.payload.to_bytes()) for reply in answers if reply.ok is not None]
        return {state["name"]: state for state in states}

    def on_duty(self) -> list[str]:
        """The gateways that say that they are on duty."""
        return [name for name, state in self.gateways().items() if state["serving"]]

    def close(self) -> None:
        self.session.close()


@contextmanager
def stock_client(endpoint: str) -> Iterator[StockClient]:
    client = StockClient(endpoint)
    try:
        yield client
    finally:
        client.close()


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Wait for something that nothing announces, such as the end of another process's children."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        threading.Event().wait(0.02)
