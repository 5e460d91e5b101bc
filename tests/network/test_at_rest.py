"""Looking at a data folder where nothing runs: everything can be read, and nothing is started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.network.processes import WATTLE, Network, network, processes_under, wait_until


def write(folder: Path, document: dict[str, object]) -> str:
    path = folder / f"{document['name']}.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_what_an_embedded_run_left_can_be_read_afterwards() -> None:
    with network() as net:
        data = str(net.folder / "data")
        worker = {"name": "w", "script": "echo out; echo err >&2; exit 3"}
        done = net.wattle("run", write(net.folder, {"name": "f", "workers": [worker]}), "--data", data, check=False)
        assert done.returncode == 1
        listed = json.loads(net.wattle("runs", "--data", data, "--json").stdout)
        (run,) = listed
        assert (run["workflow"], run["status"]) == ("f", "failed")
        assert net.wattle("logs", run["id"], "w", "--stderr", "--data", data).stdout == "err\n"
        assert "exit status 3" in net.wattle("status", run["id"], "--data", data).stdout
        wait_until(lambda: not processes_under(net.folder), "nothing is left running")


def test_runs_of_a_former_name_are_not_passed_over_in_silence() -> None:
    """As after a move of the folder, or beside a bundle, which gives a name."""
    with network() as net:
        file = write(net.folder, {"name": "f", "workers": [{"name": "w", "command": "echo hi"}]})
        net.wattle("run", file, "--data", str(net.folder / "first"))
        (net.folder / "first").rename(net.folder / "second")
        looked = net.wattle("runs", "--json", "--data", str(net.folder / "second"))
        assert json.loads(looked.stdout) == []
        assert f"not shown: 1 of the runs in {net.folder}/second" in looked.stderr
        name = looked.stderr.strip().rpartition("WATTLE_NAME=")[2]
        named = Network(net.folder, {"WATTLE_NAME": name})
        again = named.wattle("runs", "--json", "--data", str(net.folder / "second"))
        assert ([run["workflow"] for run in json.loads(again.stdout)], again.stderr) == (["f"], "")
        run = json.loads(again.stdout)[0]["id"]
        assert named.wattle("logs", run, "w", "--data", str(net.folder / "second")).stdout == "hi\n"


def test_a_folder_without_history_is_not_served() -> None:
    with network() as net:
        done = net.wattle("runs", "--data", str(net.folder / "data"), check=False)
        assert done.returncode == 3
        assert "no network" in done.stderr
        assert not (net.folder / "data" / "coordinator.db").exists()


def test_looking_starts_no_tasks_and_the_next_run_wakes_the_network() -> None:
    with network() as net:
        data, ledger, gate = str(net.folder / "data"), net.folder / "ledger", net.folder / "gate"
        os.mkfifo(gate)
        worker = {"name": "w", "script": f"echo $WATTLE_ATTEMPT >> {ledger}; cat {gate}"}
        file = write(net.folder, {"name": "interrupted", "workers": [worker]})
        first = start_run(net, file, data)
        wait_until(ledger.exists, "the task runs")
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        wait_until(lambda: not processes_under(net.folder), "all of the killed command's network is gone")

        (run,) = json.loads(net.wattle("runs", "--data", data, "--json").stdout)
        assert run["status"] == "running"
        assert ledger.read_text() == "1\n"  # looking has not started it again

        other = write(net.folder, {"name": "other", "workers": [{"name": "w", "command": "echo hi"}]})
        assert "hi" in net.wattle("run", other, "--data", data).stdout
        (kept,) = (r for r in json.loads(net.wattle("runs", "--data", data, "--json").stdout) if r["id"] == run["id"])
        assert kept["status"] == "running"


def start_run(net: Network, file: str, data: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*WATTLE, "run", file, "--data", data],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
