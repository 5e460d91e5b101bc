"""Fixtures of the command line's tests."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.client.fake_gateway import FakeGateway
from wattle.cli.app import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        yield Path(folder)


@pytest.fixture
def gateway(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A fake gateway where the commands look for a network."""
    monkeypatch.setenv("WATTLE_DATA", str(data))
    with FakeGateway(data) as gateway:
        yield gateway


@pytest.fixture
def wattle() -> Callable[..., Result]:
    """Runs a command in this process."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, prog_name="wattle")

    return invoke


@pytest.fixture
def document(tmp_path: Path) -> Callable[..., Path]:
    """Writes a document of a workflow with that name."""

    def write(name: str = "flow", **more: object) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"name": name, "workers": [{"name": "a", "command": "true"}], **more}))
        return path

    return write


@pytest.fixture
def spawn(data: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands as processes, whose ``wattle up`` serves the canned runs of fakehost."""
    started = []
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent / "fakehost")])
    environment = {**os.environ, "PYTHONPATH": path, "WATTLE_DATA": str(data)}

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "wattle", *map(str, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    wait_unlocked(data)


def wait_unlocked(data: Path) -> None:
    """Until no network is on the data folder any more."""
    with (data / "up.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
