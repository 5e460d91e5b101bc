"""Series of samples over time: whether they are flat, a table of them, and a drawing."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FLAT, GROWS, BY_DESIGN = "flat", "GROWS", "grows by design"

VERDICT = """How it is judged: early is the median of the second quarter of all samples, late that of the last; the first quarter warms up.
Memory grows when its least-squares slope over the second half is more than 10% an hour and late is more than 2% above early.
Descriptors, threads and processes grow when late is more than 1 above early. Stores keep what finished, by design: MiB per 1,000 tasks."""

UNITS = {
    "rss": "memory, MiB",
    "fds": "descriptors",
    "threads": "threads",
    "processes": "child processes",
    "store": "stores, MiB",
}


@dataclass(slots=True)
class Series:
    """Samples by name; ``seconds`` and ``tasks`` (finished so far) are among the names, all others are ``<process>.<what>``."""

    columns: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, read: dict[str, float]) -> None:
        """One sample of everything."""
        for name, value in read.items():
            self.columns[name].append(value)

    @classmethod
    def load(cls, file: Path) -> Series:
        """What ``soak`` wrote."""
        made = cls()
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                made.add({name: float(value) for name, value in row.items()})
        return made

    def names(self) -> list[str]:
        """Everything that is judged."""
        return [name for name in self.columns if "." in name]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is said of one series. ``slope`` is in percent of the early median per hour; ``per_task`` in units per 1,000 tasks."""

    early: float
    late: float
    slope: float
    per_task: float
    verdict: str


def judge(series: Series, name: str) -> Finding:
    """Whether a series is flat, by the rule that VERDICT tells. Needs eight samples."""
    values, seconds, tasks = series.columns[name], series.columns["seconds"], series.columns["tasks"]
    count = len(values)
    if count < 8:
        raise ValueError(f"{count} samples are too few to judge; soak longer, or sample more often")
    early, late = statistics.median(values[count // 4 : count // 2]), statistics.median(values[3 * count // 4 :])
    half = slice(count // 2, None)
    slope = _slope(seconds[half], values[half]) * 3600
    slope = 100 * slope / early if early else 0.0
    per_task = _slope(tasks[half], values[half]) * 1000
    what = name.partition(".")[2]
    if what == "store":
        verdict = BY_DESIGN
    elif what == "rss":
        verdict = GROWS if slope > 10 and late > 1.02 * early else FLAT
    else:
        verdict = GROWS if late > early + 1 else FLAT
    return Finding(early, late, slope, per_task, verdict)


def _slope(xs: list[float], ys: list[float]) -> float:
    """Least squares; 0 where all xs are one."""
    return statistics.linear_regression(xs, ys).slope if len(set(xs)) > 1 else 0.0


def table(series: Series) -> str:
    """All findings in lines of text, what belongs together beside each other."""
    lines = [f"{'':<26}{'early':>9}{'late':>9}{'%/hour':>9}{'/1000 tasks':>13}"]
    for what, unit in UNITS.items():
        lines.append(unit)
        for name in (n for n in series.names() if n.endswith(f".{what}")):
            found = judge(series, name)
            numbers = f"{found.early:>9.1f}{found.late:>9.1f}{found.slope:>9.1f}{found.per_task:>13.3f}"
            lines.append(f"  {name.partition('.')[0]:<24}{numbers}  {found.verdict}")
    minutes, tasks = series.columns["seconds"][-1] / 60, series.columns["tasks"][-1]
    return "\n".join(
        [f"{minutes:.1f} minutes, {tasks:.0f} tasks, {len(series.columns['seconds'])} samples", "", *lines]
    )


# --- the drawing ----------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 130, 60, 30, 50
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e08e0b", "#6a4c93", "#00798c", "#8d5524")


def draw(series: Series) -> str:
    """A panel for each kind of thing over minutes, a line per process, as SVG."""
    processes = list(dict.fromkeys(name.partition(".")[0] for name in series.names()))
    colours = dict(zip(processes, COLOURS, strict=False))
    parts = []
    for row, (what, unit) in enumerate(UNITS.items()):
        lines = {n.partition(".")[0]: series.columns[n] for n in series.names() if n.endswith(f".{what}")}
        parts += _panel(TOP + row * (HEIGHT + GAP), unit, series.columns["seconds"], lines, colours)
    for n, name in enumerate(processes):
        y = TOP + 14 * n + 10
        parts.append(f'<text x="{LEFT + WIDTH + 14}" y="{y}" fill="{colours[name]}">{escape(name)}</text>')
    width, height = LEFT + WIDTH + 120, TOP + len(UNITS) * (HEIGHT + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>", ""])


def _panel(
    top: float, title: str, seconds: list[float], lines: dict[str, list[float]], colours: dict[str, str]
) -> list[str]:
    most = max((max(values) for values in lines.values()), default=0) * 1.1 or 1.0
    end = seconds[-1] or 1.0
    bottom = top + HEIGHT
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{escape(title)}</text>']
    for share in (0, 0.5, 1):
        y = bottom - share * HEIGHT
        parts.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * most:.3g}</text>')
        parts.append(
            f'<text x="{LEFT + share * WIDTH}" y="{bottom + 14}" text-anchor="middle">{share * end / 60:.3g} min</text>'
        )
    step = max(1, len(seconds) // WIDTH)
    for name, values in lines.items():
        points = " ".join(
            f"{LEFT + at / end * WIDTH:.1f},{bottom - value / most * HEIGHT:.1f}"
            for at, value in list(zip(seconds, values, strict=True))[::step]
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="1.3"/>')
    return parts
