"""A short torture, and what it stands on: schedules that repeat, and cables that are truly cut."""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.__main__ import report
from tests.torture.faults import KINDS, schedule
from tests.torture.links import links
from tests.torture.run import Options, torture

NAMES = ["coordinator1", "coordinator2", "runtime1", "runtime2", "runtime3", "gateway1", "gateway2"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: sockets lie in it."""
    made = Path(tempfile.mkdtemp(prefix="wtt-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_thirty_seconds_of_torture() -> None:
    folder = Path(tempfile.mkdtemp(prefix="wtt-", dir="/tmp"))
    seed = int(os.environ.get("TORTURE_SEED", "1"))
    outcome = torture(folder, Options(seconds=30, seed=seed, runs=9, workers=60))
    assert not outcome.bad, f"seed {seed} is bad; everything is kept in {folder}\n{report(outcome)}"
    assert outcome.figures["acknowledged runs"] == 9
    assert outcome.figures["ledger lines"] >= 9 * 60
    assert sum(outcome.figures["faults"].values()) >= 10
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_repeats_and_lets_an_agent_suffer_one_thing_at_a_time(seed: int) -> None:
    faults = schedule(seed, 300, NAMES, wipe=True, down=True)
    assert faults == schedule(seed, 300, NAMES, wipe=True, down=True)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert len(faults) >= 100
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    until = dict.fromkeys(NAMES, 0.0)
    for fault in faults:
        for name in {fault.agent, fault.peer or fault.agent}:
            assert until[name] <= fault.at, fault
            until[name] = fault.at + fault.lasting
    assert [fault.agent for fault in faults if fault.lasting == math.inf] == [
        fault.agent for fault in faults if fault.kind == "down"
    ]


def test_a_cut_cable_is_silent_until_it_is_healed(folder: Path) -> None:
    (folder / "a").mkdir()
    with links(folder, ["a", "b"]) as cables, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(cables.listen("a")))
        listener.listen()
        (endpoint,) = cables.endpoints("b")
        assert cables.endpoints("a") == []
        with socket.socket(socket.AF_UNIX) as b:
            b.connect(endpoint.removeprefix("unixsock-stream/"))
            a, _ = listener.accept()
            with a:
                b.sendall(b"one")
                assert a.recv(10) == b"one"
                cables.cut("a")
                cables.cut("a", "b")  # cut twice: one heal is not enough
                b.sendall(b"two")
                a.setblocking(False)
                cables.heal("a")
                for _ in range(100):  # each call goes through the relay's loop, which would have passed it on
                    with pytest.raises(BlockingIOError):
                        a.recv(10)
                    cables.pairs()
                    cables.cut("b")
                    cables.heal("b")
                cables.heal("b", "a")
                a.settimeout(10)
                assert a.recv(10) == b"two"
                b.close()
                assert a.recv(10) == b""
