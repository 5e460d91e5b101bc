"""Limits and sandboxes on the real thing: each enforced, and beside the same without it; hogs beside a neighbour; what is left behind.

One network runs one document with all of it, and the tests look at what came of each worker.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.network.processes import (
    WATTLE,
    Agent,
    Network,
    StockClient,
    network,
    processes_under,
    stock_client,
    wait_until,
)
from wattle.core.model import Assignment
from wattle.runtime.confinement import base_name, confine
from wattle.runtime.layout import Folders, layout
from wattle.runtime.policy import Policy
from wattle.runtime.support import examine

SUPPORT = examine()
pytestmark = [
    pytest.mark.skipif(not SUPPORT.root, reason="needs root, for control groups and other users"),
    pytest.mark.skipif(bool(SUPPORT.no_sandbox), reason=f"needs a sandbox: {SUPPORT.no_sandbox}"),
    pytest.mark.skipif(
        not {"memory", "processes", "cpu"} <= set(SUPPORT.confines), reason=f"needs control groups: {SUPPORT.no_groups}"
    ),
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, whose /dev/tcp dials"),
]

BOMB = """
import os, time
first = os.getpid()
while True:
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        os.setsid()  # out of the task's group
if os.getpid() != first:
    time.sleep(1000)
open("bomb.on", "w").close()
while not os.path.exists("done"):
    time.sleep(0.02)
"""
MANY = """
mkdir -p sub {0}; touch {0}/$WATTLE_WORKER.on
for i in $(seq 20000); do head -c 100000 /dev/zero > sub/f$i; done
"""
PRINTS = """
mkdir -p {0}; touch {0}/$WATTLE_WORKER.on
for i in $(seq 20000); do head -c 100000 /dev/zero; done
"""
NEIGHBOUR = """
for hog in bomb memory disk many prints; do while [ ! -e $hog.on ]; do sleep 0.02; done; done
for i in 1 2 3 4 5 6 7 8 9 10; do sh -c true; done
head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null
head -c 5000000 /dev/zero > neighbour
touch done
"""
QUOTA = """
grep -E '^[0-9]+:([^:]*,)?cpu(,[^:]*)?:' /proc/self/cgroup | cut -d: -f3- > path || true
cat /sys/fs/cgroup/cpu$(cat path)/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/cpu.max
"""
LOOK = """
cat {data}/work/{run}/victim.*/secret 2>/dev/null || true
if [ -e {data}/wattle.sock ]; then echo socket; fi
if bash -c 'echo > /dev/tcp/127.0.0.1/{port}' 2>/dev/null; then echo network; fi
for place in /usr /etc /var /root {data}; do
  if touch $place/wattle-test-$WATTLE_WORKER 2>/dev/null; then echo wrote $place; rm $place/wattle-test-$WATTLE_WORKER; fi
done
if kill -0 {pid} 2>/dev/null; then echo process; fi
if [ -n "${{NODES_OWN-}}" ]; then echo environment; fi
if [ -e /tmp/{sign} ]; then echo tmp; fi
if [ -e /root ]; then echo home; fi
if grep -q 'CapEff:.*[1-9a-f]' /proc/self/status; then echo capabilities; fi
touch own /tmp/{sign}/$WATTLE_WORKER 2>/dev/null || touch own
"""


@dataclass
class Ended:
    """What came of the run: its workers by name, and what each said."""

    net: Network
    agent: Agent
    run: str
    workers: dict[str, dict[str, Any]]
    logs: dict[str, str]

    def error(self, name: str) -> str:
        worker = self.workers[name]
        assert worker["status"] == "failed", (name, worker["status"], self.logs[name])
        assert worker["attempts"][-1]["error_message"] == worker["error_message"]
        return str(worker["error_message"])

    def said(self, name: str) -> list[str]:
        worker = self.workers[name]
        assert worker["status"] == "succeeded", (name, worker["error_message"])
        return self.logs[name].splitlines()


def listener() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    return sock


def workers(net: Network, data: Path, run: str, port: int) -> list[dict[str, Any]]:
    look = LOOK.format(data=data, run=run, port=port, pid=os.getpid(), sign=net.folder.name)
    hogs = str(net.folder / "hogs")
    loop = "touch {0}.on; while [ ! -e done ]; do {1} || true; done"
    return [
        {"name": "oom", "command": "tail /dev/zero", "limits": {"memory": "32MiB"}},
        {"name": "oom-child", "script": "tail /dev/zero", "limits": {"memory": "32MiB"}, "sandbox": "strict"},
        {"name": "no-oom", "script": "exit 9", "limits": {"memory": "32MiB"}},
        {"name": "time", "script": "while :; do :; done", "limits": {"time": 1}},
        {"name": "size", "script": "exec head -c 3000000 /dev/zero > f", "limits": {"file_size": "1MiB"}},
        {"name": "files", "script": "ulimit -n", "limits": {"open_files": 20}},
        {"name": "cpu", "script": QUOTA, "limits": {"cpu": 0.5}},
        {"name": "bomb", "command": ["python3", "-c", BOMB], "working_dir": hogs, "limits": {"processes": 24}},
        {
            "name": "memory",
            "script": loop.format("memory", "tail /dev/zero"),
            "working_dir": hogs,
            "limits": {"memory": "32MiB"},
        },
        {
            "name": "disk",
            "script": loop.format("disk", "cat /dev/zero > big"),
            "working_dir": hogs,
            "limits": {"file_size": "1MiB"},
        },
        {"name": "many", "script": MANY.format(hogs), "limits": {"disk": "2MiB", "file_size": "1MiB"}},
        {"name": "prints", "script": PRINTS.format(hogs), "limits": {"disk": "2MiB"}},
        {"name": "neighbour", "script": NEIGHBOUR, "working_dir": hogs},
        {"name": "victim", "script": "echo secret > secret"},
        *(
            {"name": f"look-{level}", "script": look, "sandbox": level, "needs": ["victim"]}
            for level in ("none", "standard", "strict")
        ),
        {"name": "exit", "script": "exit 3", "sandbox": "strict"},
        {"name": "signal", "script": "kill -SEGV $$", "sandbox": "strict"},
        {"name": "missing", "command": "/root/no/such", "sandbox": "strict"},
        {"name": "daemon", "script": "setsid sleep 1000 & setsid sleep 1000 &", "sandbox": "strict"},
        {"name": "made", "script": "echo made > $WATTLE_OUTPUT_F", "outputs": {"f": "d/f"}, "sandbox": "strict"},
        {
            "name": "used",
            "script": "cat $WATTLE_INPUT_F; ! echo more 2>/dev/null >> $WATTLE_INPUT_F",
            "inputs": {"f": "made/f"},
            "sandbox": "strict",
        },
        {"name": "link", "script": "ln -s /etc/passwd f", "outputs": {"f": "f"}, "sandbox": "strict"},
        {"name": "user", "script": "id -u", "run_as": "nobody", "sandbox": "strict"},
        {"name": "system", "script": "true", "working_dir": "/usr/lib", "sandbox": "standard"},
    ]


def finished(client: StockClient, document: dict[str, Any], run: str) -> tuple[dict[str, Any], dict[str, str]]:
    client.run(document, run=run)
    views = client.workers(run)
    ran = [name for name, view in views.items() if any(a["started_at"] for a in view["attempts"])]
    logs = {name: client.raw(f"runs/{run}/workers/{name}/logs/stdout").decode() for name in ran}
    return views, logs


def end(agent: Agent) -> None:
    """Have an agent end in order, which leaves no groups either."""
    assert agent.terminate() == 0
    groups = [Path(folder, base_name(agent.data)) for folder in SUPPORT.groups.values()]
    wait_until(lambda: not any(group.exists() for group in groups), "the groups of its tasks are gone")


@pytest.fixture(scope="module")
def ended() -> Iterator[Ended]:
    with network({"NODES_OWN": "1"}) as net, listener() as server:
        agent = net.start("up", None, "--slots", "40")
        document = {
            "name": "f",
            "on_failure": "continue",
            "workers": workers(net, agent.data, "one", server.getsockname()[1]),
        }
        with stock_client(agent.endpoint) as client:
            client.nodes(1)
            views, logs = finished(client, document, "one")
        yield Ended(net, agent, "one", views, logs)
        end(agent)


def test_out_of_memory_is_told_apart_from_failure(ended: Ended) -> None:
    assert ended.error("oom") == "out of memory: limits.memory is 32 MiB (killed by signal SIGKILL)"
    assert ended.error("oom-child") == "out of memory: limits.memory is 32 MiB (killed by signal SIGKILL)"
    assert ended.error("no-oom") == "exit status 9"
    assert ended.workers["oom"]["attempts"][0]["signal"] == 9


def test_cpu_time_files_and_their_size_are_bounded(ended: Ended) -> None:
    assert ended.error("time").startswith("used up its CPU time: limits.time is 1 s")
    assert ended.error("size").startswith("wrote too large a file: limits.file_size is 1 MiB")
    assert ended.said("files") == ["20"]
    assert ended.said("cpu") in (["50000"], ["50000 100000"])


def test_hogs_are_contained_and_their_neighbour_is_not_disturbed(ended: Ended) -> None:
    for name in ("bomb", *(() if SUPPORT.unified else ("memory",)), "disk", "neighbour"):
        assert ended.workers[name]["status"] == "succeeded", (name, ended.workers[name]["error_message"])
    if SUPPORT.unified:  # version 2 kills all of a task, version 1 one process
        assert ended.error("memory").startswith("out of memory")
    for name in ("many", "prints"):
        assert ended.error(name) == "used up its disk space: limits.disk is 2 MiB (killed by signal SIGKILL)"
    hogs = ended.net.folder / "hogs"
    assert (hogs / "big").stat().st_size == 1 << 20
    assert (hogs / "neighbour").stat().st_size == 5_000_000


def test_nothing_is_left_of_any_task_or_group(ended: Ended) -> None:
    wait_until(lambda: not [pid for pid in processes_under(ended.net.folder) if is_task(pid)], "all tasks are gone")
    base = base_name(ended.agent.data)
    groups = [Path(folder, base) for folder in SUPPORT.groups.values()]
    wait_until(lambda: not any(folder.glob("t-*") for folder in groups if any(folder.glob("t-*"))), "groups are gone")
    assert all(folder.is_dir() for folder in groups)


def is_task(pid: int) -> bool:
    try:
        return b"\0WATTLE_TASK=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def test_without_a_sandbox_all_is_open(ended: Ended) -> None:
    wrote = [f"wrote {place}" for place in ("/usr", "/etc", "/var", "/root", str(ended.agent.data))]
    others = ["process", "environment", "tmp", "home", "capabilities"]
    assert ended.said("look-none") == ["secret", "socket", "network", *wrote, *others]


def test_a_standard_sandbox_shows_no_other_tasks_and_lets_nothing_be_written(ended: Ended) -> None:
    # The network's folder is on /tmp, and so the way to the task's own folder is there too, with nothing else on it.
    assert ended.said("look-standard") == ["network", "environment", "tmp", "home"]


def test_a_strict_sandbox_has_no_network_either(ended: Ended) -> None:
    assert ended.said("look-strict") == ["tmp"]
    assert [path.name for path in ended.net.folder.glob("look-*")] == ["look-none"]


def test_ends_keep_their_meaning_in_a_sandbox(ended: Ended) -> None:
    assert (ended.error("exit"), ended.error("signal")) == ("exit status 3", "killed by signal SIGSEGV")
    assert "does not exist" in ended.error("missing")
    assert ended.said("daemon") == []


def test_files_pass_and_links_do_not(ended: Ended) -> None:
    assert ended.said("used") == ["made"]
    assert "which leads out of the task's own folder" in ended.error("link")


def test_what_is_not_allowed_does_not_start(ended: Ended) -> None:
    assert ended.error("user") == "this node does not let tasks run as 'nobody'; its task_users: none"
    assert ended.error("system") == "working_dir /usr/lib is in /usr, which is the system's; choose another"
    assert ended.workers["user"]["attempts"][-1]["started_at"] is None


def test_a_node_tells_what_it_can(ended: Ended) -> None:
    with stock_client(ended.agent.endpoint) as client:
        wait_until(lambda: client.get("nodes")["nodes"][0]["confines"], "the node has looked")
        assert client.get("nodes")["nodes"][0]["confines"] == list(SUPPORT.confines)


@pytest.fixture(scope="module")
def demanding() -> Iterator[tuple[Network, Agent]]:
    """A node that has every task in a strict sandbox, as nobody."""
    demands = {
        "WATTLE_MIN_SANDBOX": "strict",
        "WATTLE_TASK_USERS": "nobody",
        "WATTLE_DEFAULT_LIMITS": "processes=20",
        "WATTLE_MAX_LIMITS": "memory=64MiB",
    }
    with network(demands) as net:
        agent = net.start("up")
        yield net, agent
        end(agent)


def test_a_node_demands_a_sandbox_a_user_and_limits(demanding: tuple[Network, Agent]) -> None:
    net, agent = demanding
    certificates = "! test -d /etc/ssl/certs || ls /etc/ssl/certs > /dev/null"
    script = (
        f"id -u; {certificates}; echo x > f; ! touch /usr/x 2>/dev/null; ! cat /proc/net/dev | grep -v lo: | grep :"
    )
    asked = [
        {"name": "plain", "script": script, "outputs": {"f": "f"}},
        {"name": "next", "script": "cat $WATTLE_INPUT_F", "inputs": {"f": "plain/f"}},
        {"name": "hungry", "script": "true", "limits": {"memory": "1GiB"}},
        {"name": "elsewhere", "script": "true", "working_dir": str(net.folder / "x")},
        {"name": "oom", "command": "tail /dev/zero"},
        {"name": "many", "script": MANY.format("/tmp"), "limits": {"disk": "1MiB"}},
    ]
    with stock_client(agent.endpoint) as client:
        client.nodes(1)
        views, logs = finished(client, {"name": "f", "on_failure": "continue", "workers": asked}, "demanded")
    errors = {name: view["error_message"] for name, view in views.items()}
    assert (errors["plain"], errors["next"]) == (None, None)
    assert (logs["plain"], logs["next"]) == ("65534\n", "x\n")
    assert errors["hungry"] == "limits.memory is 1 GiB; this node allows 64 MiB"
    assert "its sandbox_writable: none" in errors["elsewhere"]
    assert errors["oom"].startswith("out of memory")
    assert errors["many"].startswith("used up its disk space: limits.disk is 1 MiB")
    assert not (net.folder / "x").exists()


def test_term_reaches_a_command_in_a_sandbox_and_it_has_its_time(demanding: tuple[Network, Agent]) -> None:
    _, agent = demanding
    script = "trap 'echo bye; exit 5' TERM; sleep 1000 & touch up; wait"
    with stock_client(agent.endpoint) as client:
        client.nodes(1)
        client.get("runs", {"document": {"name": "f", "workers": [{"name": "w", "script": script}]}, "run": "term"})
        wait_until((agent.data / "work" / "term" / "w.1" / "up").exists, "the task runs")
        client.get("runs/term/cancel")
        assert client.wait("term")["status"] == "cancelled"
        wait_until(lambda: client.raw("runs/term/workers/w/logs/stdout") == b"bye\n", "it had its say")


def test_a_killed_spawner_leaves_no_group_behind(demanding: tuple[Network, Agent]) -> None:
    _, agent = demanding
    script = 'if [ "$WATTLE_ATTEMPT" = 1 ]; then touch started; setsid sleep 1000 & wait; fi'
    with stock_client(agent.endpoint) as client:
        client.nodes(1)
        client.get("runs", {"document": {"name": "f", "workers": [{"name": "w", "script": script}]}, "run": "killed"})
        wait_until((agent.data / "work" / "killed" / "w.1" / "started").exists, "the task runs")
        groups = [Path(path, base_name(agent.data), "t-killed@w.1") for path in SUPPORT.groups.values()]
        assert any(group.exists() for group in groups)
        subprocess.run(["kill", "-KILL", (agent.data / "spawner.lock").read_text().strip()], check=True)
        view = client.wait("killed")
        attempts = client.workers("killed")["w"]["attempts"]
        ends = [attempt["status"] for attempt in attempts]
        assert (view["status"], ends) == ("succeeded", ["lost", "succeeded"]), attempts
        assert not any(group.exists() for group in groups)


def test_wattle_run_killed_leaves_nothing_of_a_confined_task(demanding: tuple[Network, Agent]) -> None:
    net, _ = demanding
    worker = {
        "name": "w",
        "script": "setsid sleep 1000 & touch up; trap '' TERM; while :; do sleep 1000; done",
        "sandbox": "strict",
        "limits": {"memory": "64MiB"},
    }
    (net.folder / "f.json").write_text(json.dumps({"name": "f", "workers": [worker]}))
    data = net.folder / "run"
    command = [*WATTLE, "run", str(net.folder / "f.json"), "--data", str(data)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: list(data.glob("work/*/w.1/up")), "the task is up")
    groups = [Path(path, base_name(data)) for path in SUPPORT.groups.values()]
    assert any(group.exists() for group in groups)
    running.kill()
    running.wait(20)
    wait_until(lambda: not [pid for pid in processes_under(data) if is_task(pid)], "no task is left")
    wait_until(lambda: not any(group.exists() for group in groups), "no group is left")


def test_a_sandbox_takes_no_root() -> None:
    with TemporaryDirectory(dir="/tmp") as made:
        data = Path(made)
        os.chown(data, 65534, 65534)
        task = Assignment(
            "r", "w", 1, 1, "f", script="id -u; ls /; touch own; ! touch /usr/x 2>/dev/null", sandbox="strict"
        )
        folders = Folders(data)
        at = layout(task, folders)
        support = replace(SUPPORT, root=False, user="nobody", groups={})
        wrap = confine(task, at, folders, Policy(), support, None).request["wrap"]
        assert "--unshare-user" in wrap
        for folder in (data / "work", data / "work" / "r", Path(at.cwd)):
            folder.mkdir(exist_ok=True)
            os.chown(folder, 65534, 65534)
        opening = ["sh", "-c", 'exec 3>/dev/null; exec "$@"', "opening", *wrap, *at.argv]
        done = subprocess.run(
            opening, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False
        )
        if "namespace" in done.stderr:
            pytest.skip(f"needs user namespaces: {done.stderr}")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split()[0] == "65534"
        assert "work" not in done.stdout.split()
        assert "home" not in done.stdout.split()
        assert Path(at.cwd, "own").exists()
