"""Stores of real agents: damaged, on a full or read-only disk, in use, backed up and restored."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.network.processes import WATTLE, Agent, ApiError, Network, network, stock_client, wait_until
from tests.network.test_restart import open_gate, open_gate_and_see_it_end, started
from tests.store.damages import (
    KINDS,
    Damage,
    emptied,
    fill,
    log_overwritten,
    newer,
    torn_last_page,
)
from wattle.store.folder import FolderLock


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """A mount on ``folder`` for the time of the block; skips where that is not allowed."""
    done = subprocess.run(["mount", *arguments, str(folder)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wtl-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def start(role: str, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*WATTLE, role, "--data", str(data), "--name", "n"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")},
    )


def refusal(process: subprocess.Popen[str], file: Path) -> str:
    """What an agent says that does not start: one line, with the file's name."""
    said, complaint = process.communicate(timeout=120)
    assert process.returncode == 3, complaint
    assert said == ""
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1, complaint
    assert str(file) in complaint
    return complaint


def test_agents_refuse_what_they_cannot_use_in_one_line(folder: Path) -> None:
    damages: list[Damage] = [emptied, torn_last_page, log_overwritten, newer]  # tests/store/test_damage.py has them all
    processes: list[tuple[subprocess.Popen[str], Path]] = []
    with ExitStack() as stack:
        for number, damage in enumerate(damages):
            role = list(KINDS)[number % 2]
            data = folder / damage.__name__
            data.mkdir(mode=0o700)
            store = KINDS[role](data / f"{role}.db")
            fill(store)
            store.close()
            damage(store.path)
            process = start(role, data)
            stack.callback(process.kill)
            processes.append((process, store.path))
        for (process, path), damage in zip(processes, damages, strict=True):
            said = refusal(process, path)
            assert any(fix in said for fix in ("restore a backup", "move that away", "use that version")), damage
        locked = folder / "read-only"
        locked.mkdir()
        KINDS["runtime"](locked / "runtime.db").close()
        stack.enter_context(mounted(locked, "--bind", str(locked)))
        subprocess.run(["mount", "-o", "remount,ro,bind", str(locked)], check=True)
        assert "give a folder you may write to with --data" in refusal(start("runtime", locked), locked)
        done = subprocess.run(
            [*WATTLE, "store", "check", "--data", str(locked)], check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")  # looking needs no writing


def test_what_is_damaged_under_a_running_agent_ends_it(folder: Path) -> None:
    path = folder / "c" / "coordinator.db"
    path.parent.mkdir(mode=0o700)
    KINDS["coordinator"](path).close()
    with closing(sqlite3.connect(path)) as connection:  # more than an agent keeps in memory
        row = "'flow', 'succeeded', 'c', 1, ?, 0, '{}', '{}', ?"
        columns = "id, workflow_name, status, owner, epoch, created_at, cancel_requested, counts, params, document"
        connection.executemany(
            f"INSERT INTO runs ({columns}) VALUES (?, {row})",
            ((f"r{n}", float(n), 3500 * "x") for n in range(8000)),
        )
        connection.commit()
    with network() as net:
        shutil.move(path.parent, net.folder / "c")
        coordinator = net.start("coordinator", "c")
        gateway = net.start("gateway", connect=coordinator)
        with stock_client(gateway.endpoint) as client:
            assert len(client.get("runs?limit=5")["runs"]) == 5
            size = (coordinator.data / path.name).stat().st_size
            with (coordinator.data / path.name).open("r+b") as file:
                file.seek(size // 2 // 4096 * 4096)
                file.write(b"\xa5" * (size // 3))
            after = ""
            for _ in range(8):  # pages of the listing, until one has to be read from what was damaged
                try:
                    after = f";after={client.get(f'runs?limit=1000{after}')['next']}"
                except (ApiError, LookupError):  # an answer that came before its end, or none
                    break
            assert coordinator.process.wait(60) == 3
        last = coordinator.log.splitlines()[-1]
        assert last.startswith("error: ")
        assert f"{coordinator.data / path.name} is damaged" in last
        assert "restore a backup" in last
        assert "Traceback" not in coordinator.log
        checked = net.wattle("store", "check", "--data", str(coordinator.data), check=False)
        assert checked.returncode == 1
        assert "FAIL" in checked.stdout


# --- a full disk ------------------------------------------------------------------------------------------------------


def fill_disk(folder: Path) -> Path:
    ballast = folder / "ballast"
    with pytest.raises(OSError, match="space"):
        ballast.write_bytes(b"x" * (16 << 20))
    return ballast


def ended_for_want_of_room(agent: Agent) -> None:
    assert agent.process.wait(60) == 3
    last = agent.log.splitlines()[-1]
    assert last.startswith(f"error: {agent.data / agent.role}.db cannot be written: its disk is full; free some space")
    assert "Traceback" not in agent.log


def test_a_full_disk_ends_agents_clearly_and_nothing_acknowledged_is_lost(folder: Path) -> None:
    with ExitStack() as stack:
        net = stack.enter_context(network({"WATTLE_LOST_AFTER": "300"}))
        for name in ("coordinator1", "runtime1"):
            (net.folder / name).mkdir(mode=0o700)
            stack.enter_context(mounted(net.folder / name, "-t", "tmpfs", "-o", "size=8m", "tmpfs"))
        stack.callback(net.stop)
        agents, client, gate, ledger = stack.enter_context(started(net, "exit 0"))
        coordinator, runtime, _ = agents
        other = {"document": {"name": "g", "workers": [{"name": "one", "command": "true"}]}, "run": "s"}

        ballast = fill_disk(runtime.data)
        client.get("runs", other)
        ended_for_want_of_room(runtime)
        open_gate_and_see_it_end(gate, ledger)  # a task does not mind
        ballast.unlink()
        net.start("runtime", runtime.name, connect=coordinator)
        for run in ("r", "s"):
            assert client.wait(run)["status"] == "succeeded"
            assert {len(worker["attempts"]) for worker in client.workers(run).values()} == {1}
        assert ledger.read_text().count("\n") == 1

        ballast = fill_disk(coordinator.data)
        refused = {**other, "run": "t"}
        with pytest.raises((ApiError, LookupError)):  # whatever it is, it is no acknowledgement
            client.get("runs", refused, timeout=20)
        ended_for_want_of_room(coordinator)
        ballast.unlink()
        net.start("coordinator", coordinator.name, connect=agents[2])
        assert {run["id"] for run in client.get("runs")["runs"]} >= {"r", "s"}
        client.get("runs", refused)
        assert client.wait("t")["status"] == "succeeded"
        for agent in (coordinator, runtime):
            net.wattle("store", "check", "--data", str(agent.data))


def test_a_task_for_which_a_node_has_no_room_is_handed_back_until_it_has(folder: Path) -> None:
    document = {"name": "d", "working_dir": f"{folder}/w", "workers": [{"name": "a", "command": "true"}]}
    with mounted(folder, "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs"), network() as net:
        up = net.start("up", "n")
        with stock_client(up.endpoint) as client:
            client.get("runs", {"document": document, "run": "r"})

            def handed_back() -> bool:
                attempts = client.workers("r")["a"]["attempts"]
                return bool(attempts) and attempts[0]["status"] == "returned"

            wait_until(handed_back, "a task handed back")
            why = client.workers("r")["a"]["attempts"][0]["error_message"]
            assert f"No space left on device: '{folder}/w'; free some space" in why
            subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(folder)], check=True)
            assert client.wait("r")["status"] == "succeeded"


def test_where_an_agent_without_a_socket_uses_the_folder_commands_say_how_it_is_asked(folder: Path) -> None:
    """As on the machine of a member that is the client of a router."""
    lock = FolderLock(folder)
    (folder / "coordinator.db").touch()
    with network() as net:
        shown = net.wattle("status", "--data", str(folder), check=False)
    lock.close()
    assert (shown.returncode, f"an agent runs on {folder} and does not listen on its wattle.sock" in shown.stderr) == (
        3,
        True,
    )


def test_where_a_network_listens_elsewhere_than_in_its_folder_one_hears_at_once_where() -> None:
    with network() as net:
        endpoint = f"unixsock-stream/{net.folder}/elsewhere"
        file = net.folder / "f.json"
        file.write_text('{"name": "f", "workers": [{"name": "w", "command": "true"}]}')
        up = net.start("up", "n", "--listen", endpoint)
        began = time.monotonic()
        for command in (("status",), ("run", str(file))):
            shown = net.wattle(*command, "--data", str(up.data), check=False)
            assert (shown.returncode, f"but on {endpoint}: give --connect {endpoint}" in shown.stderr) == (3, True)
        assert time.monotonic() - began < 20  # one waits for 30 s for a network that is starting
        net.wattle("status", "--connect", endpoint)
        os.kill(up.process.pid, signal.SIGTERM)
        up.process.wait(20)
        net.wattle("status", "--data", str(up.data))


# --- backups ----------------------------------------------------------------------------------------------------------


def test_a_backup_made_while_agents_run_brings_back_what_it_holds(folder: Path) -> None:
    with network() as net:
        up = net.start("up", "n")
        gate, ledger = net.folder / "gate", net.folder / "ledger"
        os.mkfifo(gate)
        done = {"name": "d", "workers": [{"name": "one", "script": f"echo one >> {ledger}"}]}
        held = {"name": "h", "workers": [{"name": "two", "script": f"echo two >> {ledger}; read word < {gate}"}]}
        held["workers"].append({"name": "then", "command": "true", "needs": ["two"]})  # type: ignore[attr-defined]
        with stock_client(up.endpoint) as client:
            before = client.run(done, run="done")
            client.get("runs", {"document": held, "run": "held"})
            wait_until(lambda: "two" in ledger.read_text(), "the task runs")
            copy = net.folder / "copy"
            assert json.loads(net.wattle("store", "check", "--json", "--data", str(up.data)).stdout)[0]["ok"]
            net.wattle("backup", str(copy), "--data", str(up.data))
            busy = net.wattle("restore", str(copy), "--data", str(up.data), "--replace", check=False)
            assert busy.returncode == 3
            assert f"in use by process {up.process.pid}" in busy.stderr
            open_gate(gate)
            assert client.wait("held")["status"] == "succeeded"
            client.run({**done, "name": "later"}, run="later")
        assert up.terminate() == 0
        shutil.rmtree(up.data)

        restored = net.wattle("restore", str(copy), "--data", str(up.data))
        assert "its runs belong to n-coordinator" in restored.stderr
        up = net.start("up", "n")
        with stock_client(up.endpoint) as client:
            assert client.get("runs/done") == before
            with pytest.raises(ApiError, match="its command ran there, and what it wrote is gone"):
                client.raw("runs/done/workers/one/logs/stdout")
            assert len(client.workers("done")["one"]["attempts"]) == 1
            open_gate(gate)  # what ran when the backup was made is lost with its folder, and runs again
            assert client.wait("held")["status"] == "succeeded"
            with pytest.raises(ApiError, match="RUN_NOT_FOUND"):
                client.get("runs/later")
            assert client.run({**done, "name": "anew"}, run="anew")["status"] == "succeeded"
        assert ledger.read_text().split() == ["one", "two", "one", "two", "one"]


def _replaced(net: Network, agent: Agent, copy: Path) -> None:
    agent.kill()
    net.wattle("restore", str(copy), "--data", str(agent.data), "--replace")


def test_a_coordinator_restored_beside_runtimes_that_went_on_learns_what_it_missed(folder: Path) -> None:
    with network() as net, started(net, "exit 0") as (agents, client, gate, ledger):
        coordinator = agents[0]
        copy = net.folder / "copy"
        net.wattle("backup", str(copy), "--data", str(coordinator.data))
        open_gate(gate)
        assert client.wait("r")["status"] == "succeeded"
        _replaced(net, coordinator, copy)
        net.start("coordinator", coordinator.name, connect=agents[2])
        assert client.wait("r")["status"] == "succeeded"
        assert ledger.read_text().count("\n") == 1  # its result was learned again from the runtime's feed


def test_a_runtime_restored_under_a_coordinator_that_knows_more_is_heard_from_the_start(folder: Path) -> None:
    with network() as net, started(net, "exit 0") as (agents, client, gate, _):
        runtime = agents[1]
        copy = net.folder / "copy"
        net.wattle("backup", str(copy), "--data", str(runtime.data))
        open_gate(gate)
        before = client.wait("r")
        for number in range(5):  # its feed goes on well beyond what the backup has
            client.run({"name": "more", "workers": [{"name": "w", "command": "true"}]}, run=f"more{number}")
        assert runtime.terminate() == 0
        _restore_and_start(net, runtime, copy, agents[0])
        for number in range(5):
            run = {"name": "after", "workers": [{"name": "w", "command": "true"}]}
            assert client.run(run, run=f"after{number}")["status"] == "succeeded"
        assert client.get("runs/r") == before


def _restore_and_start(net: Network, runtime: Agent, copy: Path, coordinator: Agent) -> None:
    net.wattle("restore", str(copy), "--data", str(runtime.data), "--replace")
    net.start("runtime", runtime.name, connect=coordinator)
