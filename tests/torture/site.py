"""The network under torture: agents as real processes, each in a folder of its own, with a cable between every two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.network.processes import Agent, Network, processes_under
from tests.torture.links import Links, links

NODE_VARIABLE = "TORTURE_NODE"
"""Tasks inherit their runtime's environment, so this tells on which node a task really ran."""

ZENOH = {
    "mode": "peer",
    "connect": {
        "exit_on_failure": False,
        "retry": {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 1.5},
    },
    # By gossip peers would learn of each other's sockets, and link past the cables.
    "scouting": {"delay": 100, "multicast": {"enabled": False}, "gossip": {"enabled": False}},
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
SETTINGS = {"WATTLE_LOST_AFTER": "4", "WATTLE_LOG_LEVEL": "debug", "WATTLE_LOG_FORMAT": "json"}
STARTS = 5
"""How often a supervisor starts an agent that does not come up, before that counts as a failure."""


class Site:
    """Agents by name. A name says the role: coordinator1, runtime2, ..."""

    def __init__(self, folder: Path, names: Sequence[str], cables: Links, slots: int) -> None:
        self.folder, self.names, self.links = folder, list(names), cables
        self.agents: dict[str, Agent] = {}
        self.refusals: list[str] = []  # starts that did not succeed at once
        self._slots = slots
        self._network = Network(folder, SETTINGS)
        self._config = folder / "zenoh.json5"
        self._config.write_text(json.dumps(ZENOH))
        self._away: set[str] = set()  # down, or stopped
        self._lock = threading.Lock()

    def start(self, name: str) -> None:
        """Start an agent as a supervisor does: again when it does not come up, a few times."""
        role = name.rstrip("0123456789")
        options = ["--zenoh-config", str(self._config), "--listen", f"unixsock-stream/{self.links.listen(name)}"]
        options += [word for endpoint in self.links.endpoints(name) for word in ("--connect", endpoint)]
        environment = {}
        if role == "runtime":
            options += ["--slots", str(self._slots)]
            environment[NODE_VARIABLE] = name
        for left in reversed(range(STARTS)):
            try:
                self.agents[name] = self._network.start(role, name, *options, environment=environment)
                break
            except AssertionError as problem:
                self.refusals.append(str(problem))
                for agent in [a for a in self._network.agents if a.name == name and a.process.poll() is None]:
                    agent.kill()
                if not left:
                    raise
        self._is_away(name, False)

    def kill(self, name: str) -> None:
        """SIGKILL one agent. A runtime's spawner and tasks go on."""
        self._is_away(name, True)
        self.agents[name].kill()

    def power_off(self, name: str) -> None:
        """SIGKILL everything of one node: agent, spawner and tasks."""
        self.kill(name)
        while left := processes_under(self.agents[name].data):
            for pid in left:
                _signal(pid, signal.SIGKILL)

    def kill_spawner(self, name: str) -> None:
        """SIGKILL a runtime's spawner, if it has one just now."""
        for pid in processes_under(self.agents[name].data):
            if b"wattle.runtime.spawner" in _command_line(pid):
                _signal(pid, signal.SIGKILL)

    def stop(self, name: str) -> None:
        """SIGSTOP."""
        self._is_away(name, True)
        self.agents[name].process.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.agents[name].process.send_signal(signal.SIGCONT)
        self._is_away(name, False)

    def terminate(self, name: str) -> int:
        """SIGTERM, and the exit status."""
        self._is_away(name, True)
        return self.agents[name].terminate()

    def wipe(self, name: str) -> None:
        """Empty an agent's data folder."""
        for path in self.agents[name].data.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def doors(self) -> list[str]:
        """Endpoints of the gateways that are up."""
        with self._lock:
            up = [name for name in self.names if name.startswith("gateway") and name not in self._away]
        return [f"unixsock-stream/{self.links.listen(name)}" for name in up]

    def end(self) -> None:
        """Kill whatever is left."""
        self._network.stop()

    def _is_away(self, name: str, away: bool) -> None:
        with self._lock:
            (self._away.add if away else self._away.discard)(name)


@contextmanager
def site(folder: Path, *, coordinators: int, runtimes: int, gateways: int, slots: int) -> Iterator[Site]:
    """The agents, started and linked, until the block ends; ``folder`` must be short, as sockets lie in it."""
    counts = {"coordinator": coordinators, "runtime": runtimes, "gateway": gateways}
    names = [f"{role}{n + 1}" for role, count in counts.items() for n in range(count)]
    with links(folder, names) as cables:
        made = Site(folder, names, cables, slots)
        try:
            for name in names:
                made.start(name)
            yield made
        finally:
            made.end()


def wait_gone(folder: Path, timeout: float) -> list[int]:
    """Wait for the end of all processes below a folder; those that are still there after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (left := processes_under(folder)) and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    return left


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended meanwhile


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
