"""What ``wattle run`` begins before it reads its options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wattle.cli import ahead


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setenv("WATTLE_DATA", str(data))


@pytest.mark.parametrize(
    "arguments",
    [["flow.yaml"], ["-q", "flow.yaml", "--data", "/nowhere"], ["flow.yaml", "--data=/nowhere"], ["--data"]],
)
def test_a_run_where_nothing_runs_will_need_a_network(arguments: list[str]) -> None:
    assert ahead.likely(arguments)


@pytest.mark.parametrize("option", ["--connect", "--connect=tcp/a:1", "--bundle", "--bundle=b", "--help"])
def test_a_run_elsewhere_will_not(option: str) -> None:
    assert not ahead.likely(["flow.yaml", option])


@pytest.mark.parametrize("variable", ["WATTLE_CONNECT", "WATTLE_BUNDLE", "WATTLE_TIMEOUT"])
def test_nor_where_a_variable_says_so_or_is_wrong(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "tcp/a:1")
    assert not ahead.likely(["flow.yaml"])


def test_nor_where_a_network_seems_to_be(data: Path) -> None:
    (data / "wattle.sock").touch()
    assert not ahead.likely(["flow.yaml"])
    assert not ahead.likely(["--data", str(data)])
    assert not ahead.likely([f"--data={data}"])
    assert ahead.likely(["--data=/nowhere", "flow.yaml"])


def test_nor_is_it_begun_on_the_only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert not ahead.likely(["flow.yaml"])


AHEAD = """
import os
from wattle.cli import embedded

def forked():
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [int(pid) for pid in children]

embedded.fork_ahead()
first = forked()
with embedded.process() as process:
    if TAKEN:
        taken = process()
        print(first == [taken.pid], len(forked()))
        taken.kill()
        other = process()
        print(forked() == [other.pid] != first)
        other.kill()
print(forked())
"""


@pytest.mark.parametrize(("taken", "said"), [(True, ["True 1", "True", "[]"]), (False, ["[]"])])
def test_the_process_that_was_forked_is_taken_or_ended(taken: bool, said: list[str]) -> None:
    code = AHEAD.replace("TAKEN", repr(taken))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines(), done.stderr) == (said, "")
