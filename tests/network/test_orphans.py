"""What ``wattle run`` leaves behind, however it ends: its data folder and nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import WATTLE, Network, commands_under, network, processes_under, wait_until

FAMILY = """
sleep 1000 &
sh -c 'sleep 1001 & wait' &
setsid sh -c 'sleep 1002 & exec sleep 1003' &
echo up > {sign}
wait
"""


def write(net: Network, **worker: Any) -> str:
    path = net.folder / "document.json"
    path.write_text(json.dumps({"name": "f", "workers": [{"name": "w", **worker}]}))
    return str(path)


def start(net: Network, file: str) -> subprocess.Popen[str]:
    command = [*WATTLE, "run", file, "--data", str(net.folder / "data")]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def nothing_left(net: Network) -> None:
    wait_until(lambda: not processes_under(net.folder), "no process is left")


def with_a_family(net: Network) -> subprocess.Popen[str]:
    """A run whose task has children, grandchildren, and some that left its session."""
    sign = net.folder / "sign"
    running = start(net, write(net, script=FAMILY.format(sign=sign), working_dir=str(net.folder), kill_after=2))
    wait_until(sign.exists, "the task is up")
    return running


@pytest.mark.parametrize(
    ("worker", "options", "status"),
    [
        ({"command": "true"}, (), 0),
        ({"command": "false"}, (), 1),
        ({"command": "true", "nope": 1}, (), 2),
        ({"command": "sleep 1000"}, ("--timeout", "1"), 3),
        ({"command": "true"}, ("--connect", "unixsock-stream//nowhere/wattle.sock"), 3),
    ],
)
def test_exit_statuses(worker: dict[str, Any], options: tuple[str, ...], status: int) -> None:
    with network() as net:
        done = net.wattle("run", write(net, **worker), "--data", str(net.folder / "data"), *options, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        nothing_left(net)
        assert {p.name for p in net.folder.iterdir()} <= {"document.json", "data"}


def test_sigterm_cancels_and_kills_process_trees() -> None:
    """As Ctrl-C does: test_cleanup.py."""
    with network() as net:
        running = with_a_family(net)
        running.send_signal(signal.SIGTERM)
        said, _ = running.communicate(timeout=40)
        assert running.returncode == 4, said
        assert "is cancelled" in said
        nothing_left(net)
        listed = json.loads(net.wattle("runs", "--data", str(net.folder / "data"), "--json").stdout)
        assert [r["status"] for r in listed] == ["cancelled"]


def test_sigkill_takes_everything_along() -> None:
    with network() as net:
        running = with_a_family(net)
        running.kill()
        running.wait(10)
        nothing_left(net)


def test_an_up_that_is_told_to_stop_leaves_nothing() -> None:
    with network() as net:
        up = net.start("up", "node", "--stop-timeout", "0")
        sign = net.folder / "sign"
        document = write(net, script=FAMILY.format(sign=sign), working_dir=str(net.folder), kill_after=2)
        net.wattle("submit", document, "--data", str(up.data))
        wait_until(sign.exists, "the task is up")
        assert up.terminate() == 0
        wait_until(lambda: tasks_under(net.folder) == [], "no task is left")


def tasks_under(folder: Path) -> list[int]:
    return [process for process, command in commands_under(folder).items() if "spawner" not in command]
