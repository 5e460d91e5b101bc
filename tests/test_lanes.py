"""Lanes of tests beside each other: what a lane says and how it ended is not lost, and no lane outlives the others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import lanes


def test_every_test_is_in_a_lane() -> None:
    named = {*lanes.COMPUTING, lanes.NETWORKS, lanes.CLUSTER}
    assert all((lanes.FOLDER / name).exists() for name in named)
    assert {*lanes.others(), *named} >= {file.name for file in lanes.FOLDER.glob("test_*.py")} | {"cli", "namespaces"}


def test_a_lane_shows_what_it_has_said_and_how_it_ended(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print(os.nice(0), flush=True); print('FAILED', file=sys.stderr); sys.exit(3)"
    before = os.nice(0)
    with lanes._beside([sys.executable, "-c", code], lanes._step_back) as finish:
        assert finish() == 3
    assert capfd.readouterr().out == f"{min(before + 10, 19)}\nFAILED\n"


def test_a_lane_is_interrupted_with_the_others(tmp_path: Path) -> None:
    gate, ended = tmp_path / "gate", tmp_path / "ended"
    os.mkfifo(gate)
    script = f"trap 'touch {ended}; exit 0' INT; read word < {gate}; while :; do sleep 0.01; done"

    def interrupt() -> None:
        gate.write_text("go\n")  # once the lane reads
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lanes._beside(["sh", "-c", script]):
        interrupt()
    assert ended.exists()
