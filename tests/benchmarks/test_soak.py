"""The soak tells a leak from what is flat, and runs. Nothing here is about how much memory anything takes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import soak
from benchmarks.series import BY_DESIGN, FLAT, GROWS, Series, draw, judge, table


def series(**columns: list[float]) -> Series:
    """Samples of one process every minute, while it finished 100 tasks a minute."""
    made = Series()
    for n, values in enumerate(zip(*columns.values(), strict=True)):
        made.add({"seconds": 60.0 * n, "tasks": 100.0 * n})
        made.add({f"a.{what}": value for what, value in zip(columns, values, strict=True)})
    return made


def verdict(what: str, values: list[float]) -> str:
    return judge(series(**{what: values}), f"a.{what}").verdict


MINUTES = range(30)


@pytest.mark.parametrize(
    ("what", "values", "expected"),
    [
        ("rss", [100.0 + 0.1 * (n % 3) for n in MINUTES], FLAT),
        ("rss", [50.0 + 7 * min(n, 7) for n in MINUTES], FLAT),  # warms up in the first quarter
        ("rss", [100.0 + 0.3 * n for n in MINUTES], GROWS),
        ("rss", [100.0 + 0.01 * n for n in MINUTES], FLAT),  # 0.6% an hour
        ("fds", [30.0 + n % 2 for n in MINUTES], FLAT),
        ("fds", [30.0 + n // 5 for n in MINUTES], GROWS),
        ("threads", [20.0 - n // 5 for n in MINUTES], FLAT),
        ("processes", [float(n // 4) for n in MINUTES], GROWS),
        ("store", [float(n) for n in MINUTES], BY_DESIGN),
    ],
)
def test_growth_is_told_from_what_is_flat(what: str, values: list[float], expected: str) -> None:
    assert verdict(what, values) == expected


def test_growth_is_shown_per_task() -> None:
    found = judge(series(store=[0.5 * n for n in MINUTES]), "a.store")
    assert found.per_task == pytest.approx(5.0)  # MiB per 1,000 tasks
    assert found.slope == pytest.approx(100 * 30 / found.early)
    with pytest.raises(ValueError, match="too few"):
        judge(series(rss=[1.0] * 7), "a.rss")


def test_a_short_soak_runs_and_is_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, drawing = tmp_path / "soak.csv", tmp_path / "soak.svg"
    arguments = ["--minutes", "0.1", "--every", "0.5", "--fill", "1", "--csv", str(samples), "--svg", str(drawing)]
    assert soak.main(arguments) in (0, 1)  # so short a time cannot say what is flat
    printed = capsys.readouterr()
    assert printed.err == ""
    found = Series.load(samples)
    assert found.columns["tasks"][-1] > 0
    assert "descriptors" in table(found)
    kinds = {name.partition(".")[2] for name in found.names() if name.startswith("runtime1.")}
    assert kinds == {"rss", "fds", "threads", "processes", "store"}
    assert len(ElementTree.parse(drawing).findall(".//{*}polyline")) == len(found.names())
    assert len(draw(found)) > 1000
