"""The units in config/systemd are what systemd understands, and start what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from wattle.cli.app import app
from wattle.settings.agents import AGENTS

UNITS = Path(__file__).parents[1] / "config" / "systemd"
PROGRAM = "/opt/wattle/bin/wattle"


@pytest.mark.parametrize("name", ["wattle@coordinator.service", "wattle@router.service", "wattle-runtime.service"])
def test_systemd_has_nothing_to_say_of_a_unit(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    source = UNITS / re.sub("@.*", "@.service", name)
    text = source.read_text().replace(PROGRAM, "/bin/true")  # which has to be there
    assert verified(tmp_path / name, text) == (0, "")
    _, said = verified(tmp_path / name, text.replace("ProtectSystem=strict", "ProtectSystem=tight"))
    assert "tight" in said


def verified(place: Path, text: str) -> tuple[int, str]:
    """What systemd-analyze ends with and says of a unit."""
    place.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def settings(unit: str) -> set[str]:
    return set(re.findall(r"^(\w+)=", (UNITS / unit).read_text(), re.MULTILINE))


def test_units_leave_what_agents_need_of_proc() -> None:
    """Stores read /proc/sys/kernel/random/boot_id; the kernel lets nobody mount a new /proc where parts of the old one are covered."""
    agents, runtime = settings("wattle@.service"), settings("wattle-runtime.service")
    assert {"ProtectProc", "ProtectKernelLogs"} <= agents
    assert "ProcSubset" not in agents
    covering = {"ProtectKernelLogs", "ProtectKernelTunables", "ProtectHostname", "ProtectProc", "ProcSubset"}
    assert not covering & runtime


def test_units_start_agents_with_options_that_they_have() -> None:
    started = {}
    for unit in UNITS.glob("*.service"):
        (line,) = re.findall(rf"^ExecStart={PROGRAM} (.*)$", unit.read_text(), re.MULTILINE)
        role, *options = line.split()
        started[role] = [option for option in options if option.startswith("--")]
    assert started.keys() == {"%i", "runtime"}
    group = typer.main.get_command(app)
    for role in AGENTS:
        known = {opt for one in group.commands[role].params for opt in one.opts}  # type: ignore[attr-defined]
        assert set(started.get(role, started["%i"])) <= known
