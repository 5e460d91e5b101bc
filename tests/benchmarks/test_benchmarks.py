"""The benchmark program runs and writes what it says. Nothing here is about how long anything takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cases import Round
from benchmarks.meter import Meter
from benchmarks.report import summary


def test_every_case_runs_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    assert (
        main(["fan", "chain", "latency", "core", "budget", "--rounds", "1", "--scale", "0.01", "--json", str(file)])
        == 0
    )
    found = json.loads(file.read_text())
    assert list(found["cases"]) == ["fan", "chain", "latency", "core", "budget"]
    fan = found["cases"]["fan"]
    assert set(fan["contenders"]) == {"wattle", "xargs", "spawn", "spawn with files"}
    assert all(len(seen["rounds"]) == 1 and seen["least"] > 0 for seen in fan["contenders"].values())
    assert {"runtime: core, us", "coordinator: all else, us"} <= set(found["cases"]["budget"]["details"])
    printed = capsys.readouterr().out
    assert "wattle/xargs" in printed
    assert found["machine"]["python"] in printed


def test_a_case_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sprint"])
    assert "no such case: sprint" in capsys.readouterr().err


def test_ratios_are_formed_within_a_round() -> None:
    rounds = [Round("s", {"wattle": w, "xargs": x}) for w, x in ((2.0, 1.0), (30.0, 10.0), (400.0, 100.0))]
    ratio = summary(rounds)["ratios"]["wattle/xargs"]
    assert (ratio["least"], ratio["median"], ratio["most"]) == (2.0, 3.0, 4.0)


def test_a_meter_counts_nested_time_for_the_inner_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 5.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr("benchmarks.meter.thread_time", lambda: next(clock))
    meter = Meter()
    inner = meter.wrap("inner", lambda: "done")
    outer = meter.wrap("outer", lambda: inner())
    assert outer() == "done"
    assert (meter.spent, meter.calls) == ({"outer": 2.0, "inner": 3.0}, {"outer": 1, "inner": 1})
