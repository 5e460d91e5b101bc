"""``wattle run`` as a process: the embedded network, signals, and two runs that share one network."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import wait_unlocked

Spawn = Callable[..., "subprocess.Popen[str]"]
Write = Callable[..., Path]


def until(process: subprocess.Popen[str], text: str, stream: str = "stdout") -> str:
    """What the process says up to the line with ``text``."""
    lines = process.stdout if stream == "stdout" else process.stderr
    assert lines is not None
    said = ""
    for line in lines:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r} but {said!r}; {process.communicate()}")


def test_the_embedded_network_is_ready_without_what_only_people_and_other_commands_need() -> None:
    code = (
        "import sys; from wattle.cli import embedded; embedded.import_agents();"
        "print([m for m in ('typer', 'rich', 'structlog', 'asyncio', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_starts_a_network_shows_the_result_and_stops_it(spawn: Spawn, document: Write, data: Path) -> None:
    process = spawn("run", document("quick"))
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "a succeeded on n1" in out
    assert out.endswith("succeeded: 1 worker in 1.5 s\nthe result\n")
    assert (data / "stopped").read_text() == "True 1.0"  # its tasks would have died with it, and soon


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_does_its_work_where_streams_are_closed(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "touch.json"
    file.write_text(json.dumps({"name": "touch", "workers": [{"name": "w", "command": f"touch {tmp_path}/done"}]}))
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "wattle", "run", str(file)]
    done = subprocess.run([*command, "--data", str(tmp_path / "data")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("touch" in done.stdout) == (">&-" not in closed.split())
    assert (tmp_path / "done").exists()
    wait_unlocked(tmp_path / "data")


def test_a_failed_run_shows_why_and_exits_1(spawn: Spawn, document: Write) -> None:
    process = spawn("run", document("failing"))
    out, _ = process.communicate()
    assert process.returncode == 1
    assert "a failed on n1: exit status 3\n" in out
    assert "  | boom\n" in out
    assert " a --stderr\n" in out
    assert out.splitlines()[-1].endswith("failed: 1 failed in 1.5 s; a failed")


def test_an_invalid_document_exits_2_and_leaves_nothing_running(spawn: Spawn, tmp_path: Path, data: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: x\nworkers:\n- {name: a}\n")
    process = spawn("run", file)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert f"{file}:3:" in err
    wait_unlocked(data)


def test_a_network_that_cannot_start_says_why(spawn: Spawn, document: Write, data: Path) -> None:
    (data / "broken").touch()
    process = spawn("run", document("quick"))
    _, err = process.communicate()
    assert process.returncode == 3
    assert err == f"error: the store {data} is damaged\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_cancels_the_run_and_stops_the_network(
    spawn: Spawn, document: Write, data: Path, number: signal.Signals
) -> None:
    process = spawn("run", document("hanging"))
    until(process, "running")
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 4
    assert "is cancelled" in err
    assert (data / "stopped").exists()


def test_a_second_ctrl_c_leaves_at_once_and_the_network_ends_by_itself(
    spawn: Spawn, document: Write, data: Path
) -> None:
    process = spawn("run", document("stubborn"))
    until(process, "running")
    process.send_signal(signal.SIGINT)
    until(process, "cancelling", "stderr")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 4
    wait_unlocked(data)
    assert (data / "stopped").exists()


def test_a_killed_run_takes_its_network_along(spawn: Spawn, document: Write, data: Path) -> None:
    process = spawn("run", document("hanging"))
    until(process, "running")
    process.kill()
    wait_unlocked(data)
    assert (data / "stopped").exists()


def test_two_runs_share_a_network_and_the_last_one_stops_it(spawn: Spawn, document: Write, data: Path) -> None:
    first, second = spawn("run", document("hanging")), spawn("run", document("hanging"))
    until(first, "running")
    until(second, "running")
    first.send_signal(signal.SIGINT)
    assert first.wait() == 4
    assert not (data / "stopped").exists()
    third = spawn("run", document("quick"))
    assert third.wait() == 0
    second.send_signal(signal.SIGINT)
    assert second.wait() == 4
    wait_unlocked(data)
    assert (data / "stopped").exists()


def test_a_network_of_its_own_is_used_and_left_alone(spawn: Spawn, document: Write, data: Path) -> None:
    up = spawn("up")
    assert until(up, "ready") == f"ready unixsock-stream/{data}/wattle.sock\n"
    other = spawn("up")
    _, err = other.communicate()
    assert other.returncode == 3
    assert "another wattle up or wattle run uses the data folder" in err
    run = spawn("run", document("quick"))
    assert run.wait() == 0
    assert up.poll() is None
    up.send_signal(signal.SIGTERM)
    assert up.wait() == 0


def test_a_data_folder_that_is_a_file_is_refused_in_one_line(spawn: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    process = spawn("up", "--data", str(file))
    _, err = process.communicate()
    assert process.returncode == 3
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(file) in err


def test_a_timeout_cancels_and_exits_3(spawn: Spawn, document: Write) -> None:
    process = spawn("run", document("hanging"), "--timeout", "0.2")
    _, err = process.communicate()
    assert process.returncode == 3
    assert "not done after 0.2 s" in err
