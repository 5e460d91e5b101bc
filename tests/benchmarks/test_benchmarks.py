"""The benchmark program runs and writes what it says. Nothing here is about how long anything takes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import peers
from benchmarks.__main__ import main
from benchmarks.agents import Network
from benchmarks.frame import Absent, Bench, Graph, Round, Sizes, layers_of, side_by_side
from benchmarks.meter import Meter
from benchmarks.report import summary

SMALL = ["--rounds", "1", "--scale", "0.01"]


@pytest.fixture(autouse=True)
def _no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is nowhere installed, in the place of those that may be."""
    monkeypatch.setattr(peers, "PACKAGES", {"nobody": "no_such_package"})


def test_cases_with_small_tasks_run_and_are_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, drawing = tmp_path / "found.json", tmp_path / "found.svg"
    cases = ["fan", "layered", "chain", "latency", "core", "budget"]
    assert main([*cases, *SMALL, "--json", str(file), "--svg", str(drawing)]) == 0
    found = json.loads(file.read_text())
    assert list(found["cases"]) == cases
    fan = found["cases"]["fan"]
    assert list(fan["contenders"]) == ["wattle", "xargs", "spawn", "spawn with files", "make"]
    assert all(len(seen["rounds"]) == 1 and seen["least"] > 0 for seen in fan["contenders"].values())
    assert fan["absent"] == {"nobody": "no_such_package is not installed; make bench does that"}
    assert {"runtime: core, us", "coordinator: all else, us"} <= set(found["cases"]["budget"]["details"])
    printed = capsys.readouterr().out
    assert "wattle/xargs" in printed
    assert "nobody was not measured: no_such_package is not installed" in printed
    assert found["machine"]["python"] in printed
    drawn = sum(len(c["contenders"]) for c in found["cases"].values() if len(c["contenders"]) > 1)
    assert len(ElementTree.parse(drawing).findall(".//{*}rect")) == 1 + drawn  # and the ground


def test_cases_with_bytes_and_the_idle_one_run(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert main(["files", "logs", "idle", *SMALL, "--json", str(file)]) == 0
    found = json.loads(file.read_text())["cases"]
    assert set(found["files"]["contenders"]) == {"wattle", "socket"}
    assert found["logs"]["details"]["skipped, MB"]["most"] == 0
    assert found["idle"]["details"]["memory of all, MiB"]["least"] > 0


def test_a_cold_start_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert main(["cold", *SMALL, "--json", str(file)]) == 0
    cold = json.loads(file.read_text())["cases"]["cold"]
    assert set(cold["contenders"]) == {"wattle", "python", "xargs"}
    assert list(cold["absent"]) == ["nobody"]


def test_every_other_round_goes_the_opposite_way(tmp_path: Path) -> None:
    order: list[str] = []

    def contender(name: str, number: float) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return number

        return run

    for turn in range(2):
        bench = Bench(Sizes(), tmp_path, _no_network, rounds=2, turn=turn)
        found = side_by_side(bench, "ms", 1e3, {"wattle": contender("wattle", 2), "xargs": contender("xargs", 1)}, {})
        assert found.numbers == {"wattle": 2000, "xargs": 1000}
        assert list(found.numbers) == ["wattle", "xargs"]
    assert order == ["wattle", "xargs", "xargs", "wattle"]


def _no_network() -> Network:
    raise AssertionError("nobody asked for a network")


def test_who_is_missing_in_one_round_has_the_ratios_of_the_others() -> None:
    rounds = [Round("s", {"wattle": 2.0}, absent={"x": "did not start"}), Round("s", {"wattle": 6.0, "x": 2.0})]
    found = summary(rounds)
    assert found["ratios"]["wattle/x"]["rounds"] == [3.0]
    assert found["absent"] == {"x": "did not start"}


@pytest.mark.parametrize("count", [1, 20, 45, 1000])
def test_layers_need_what_stands_before_them(count: int) -> None:
    graph = layers_of(count)
    width = max(1, count // 20)
    assert len(graph) == 20 * width
    assert all(not needs for needs in graph[:width])
    for n, needs in enumerate(graph[width:], width):
        assert len(set(needs)) == min(3, width)
        assert {k // width for k in needs} == {n // width - 1}


def test_a_peer_runs_what_it_is_given_and_says_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs: list[Graph] = []
    monkeypatch.setattr("sys.stdin", io.StringIO('{"graph": [[], [0]], "times": 2, "warm": 3}'))
    peers.main(lambda: nullcontext(graphs.append))
    assert graphs == [[[], [], []], [[], [0]], [[], [0]]]
    assert len(json.loads(capsys.readouterr().out)["seconds"]) == 2


def test_a_peer_that_fails_is_absent_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "PACKAGES", {"nobody": "json"})  # installed, but there is no program of that name
    with pytest.raises(Absent, match=r"nobody failed: .*No module named benchmarks\.peers\.nobody"):
        peers.seconds("nobody", [[]], tmp_path)


def test_the_cases_of_size_run_and_are_written(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    assert (
        main(["accept", "growth", "coordinator", "runs", "--rounds", "1", "--scale", "0.01", "--json", str(file)]) == 0
    )
    cases = json.loads(file.read_text())["cases"]
    assert set(cases["growth"]["contenders"]) == {"wattle", "a fiftieth"}
    assert set(cases["runs"]["contenders"]) == {"wattle", "fan"}
    memory = {"resident memory of its owner, most, MB", "of who keeps the copy, most, MB"}
    assert memory <= set(cases["accept"]["details"])
    assert cases["coordinator"]["details"]["tasks a second"]["least"] > 0


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
