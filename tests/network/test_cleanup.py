"""``wattle run`` and ``wattle up`` at a terminal: Ctrl-C as the terminal sends it, and what is left of processes and sockets."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.network.processes import WATTLE, Network, network, processes_under, wait_until

TERMINAL = [sys.executable, "-c", "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"]
"""Runs a command in a terminal of its own: what is written to this process's stdin is typed there."""

CTRL_C = b"\x03"

FAMILY = """
{trap}
sleep 1001 &
(setsid sh -c 'sleep 1002 & exec sleep 1003' &)
echo up > sign
while :; do sleep 1004; done
"""
"""A task with a child, and grandchildren that left its session and whose parent has ended (a double fork)."""


class Terminal:
    """A command in a terminal, and what it has shown so far."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [*TERMINAL, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.shown = b""

    def type(self, keys: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(keys)

    def until(self, text: bytes, timeout: float = 30.0) -> None:
        """Wait until the command has shown this."""
        ends = time.monotonic() + timeout
        while text not in self.shown:
            assert self._read(max(0.0, ends - time.monotonic())), f"it never showed {text!r} but {self.shown!r}"

    def exit_status(self, timeout: float = 40.0) -> int:
        ends = time.monotonic() + timeout
        while self._read(max(0.0, ends - time.monotonic())):
            pass
        return self._process.wait(max(0.1, ends - time.monotonic()))

    def _read(self, timeout: float) -> bool:
        """More of what is shown; False at its end, or when nothing comes."""
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout)[0]:
            return False
        data = os.read(stdout.fileno(), 65536)
        self.shown += data
        return bool(data)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def document(net: Network, trap: str = "", kill_after: float = 1) -> str:
    worker = {
        "name": "w",
        "script": FAMILY.format(trap=trap),
        "working_dir": str(net.folder / "w"),
        "kill_after": kill_after,
    }
    path = net.folder / "document.json"
    path.write_text(json.dumps({"name": "f", "workers": [worker]}))
    return str(path)


def served_sockets(folder: Path) -> list[str]:
    """Unix sockets below a folder that some process has bound."""
    return [line for line in Path("/proc/net/unix").read_text().splitlines() if str(folder) in line]


def nothing_is_left(net: Network) -> None:
    wait_until(lambda: not processes_under(net.folder), "no process is left")
    assert served_sockets(net.folder) == []


@pytest.mark.parametrize("trap", ["", "trap '' TERM"])
def test_ctrl_c_cancels_and_ends_whole_families(trap: str) -> None:
    with network() as net:
        data = str(net.folder / "data")
        terminal = Terminal(*WATTLE, "run", document(net, trap), "--data", data)
        try:
            wait_until((net.folder / "w/sign").exists, "the task is up")
            wait_until(lambda: len(processes_under(net.folder / "w")) >= 5, "the whole family is there")
            assert served_sockets(net.folder)
            terminal.type(CTRL_C)
            assert terminal.exit_status() == 4, terminal.shown
            assert b"is cancelled" in terminal.shown
            nothing_is_left(net)
        finally:
            terminal.close()
        (run,) = json.loads(net.wattle("runs", "--data", data, "--json").stdout)
        assert run["status"] == "cancelled"


def test_a_second_ctrl_c_leaves_at_once_and_the_family_ends_too() -> None:
    with network() as net:
        terminal = Terminal(*WATTLE, "run", document(net, "trap '' TERM", 60), "--data", str(net.folder / "data"))
        try:
            wait_until((net.folder / "w/sign").exists, "the task is up")
            terminal.type(CTRL_C)
            terminal.until(b"cancelling run")
            terminal.type(CTRL_C)
            assert terminal.exit_status() == 4, terminal.shown
            assert b"is cancelled" not in terminal.shown
            nothing_is_left(net)
        finally:
            terminal.close()


def test_ctrl_c_ends_an_up_with_all_its_tasks() -> None:
    with network() as net:
        data = str(net.folder / "data")
        terminal = Terminal(*WATTLE, "up", "--data", data, "--stop-timeout", "0.1")
        try:
            terminal.until(b"ready")
            run = net.wattle("submit", document(net), "--data", data).stdout.strip()
            wait_until((net.folder / "w/sign").exists, "the task is up")
            terminal.type(CTRL_C)
            assert terminal.exit_status() == 0, terminal.shown
            nothing_is_left(net)
        finally:
            terminal.close()
        (listed,) = json.loads(net.wattle("runs", "--data", data, "--json").stdout)
        assert (listed["id"], listed["status"]) == (run, "running")  # handed back: it goes on with the next up
