"""The live view of a run on a terminal: a block of bounded height, drawn again as things change; failures scroll by above it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wattle.cli.output import span
from wattle.cli.progress import Progress, failure_lines, result_line
from wattle.client.answers import FINAL_WORKER, WorkerChange
from wattle.protocol.records import RunView, seconds

_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "running": "blue",
    "ready": "cyan",
    "created": "dim",
    "skipped": "yellow",
    "cancelled": "yellow",
}
_REFRESH = 4  # times a second
_AROUND = 6  # lines of the view that are no nodes, and some of the terminal's left free


class LiveDisplay:
    """Shows a run with rich; its clock runs on while nothing happens."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.time) -> None:
        self.console = console or Console()
        self._clock = clock
        self._progress: Progress | None = None
        self._live = Live(console=self.console, refresh_per_second=_REFRESH, transient=True, get_renderable=self.render)

    def __enter__(self) -> LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def run(self, progress: Progress) -> None:
        """Drawn at the next tick."""
        self._keep(progress)

    def worker(self, progress: Progress, change: WorkerChange) -> None:
        """Drawn at the next tick."""
        self._keep(progress)

    def _keep(self, progress: Progress) -> None:
        # The view is drawn by another thread: it gets a state of its own that nobody changes. The dictionary of all workers
        # is only counted, so it is counted here.
        counted = replace(progress.run, counts=progress.counts())
        self._progress = Progress(counted, each=False, running=dict(progress.running), started=progress.started)

    def failure(self, change: WorkerChange, stderr: list[str]) -> None:
        """Scrolls by, and stays."""
        first, *rest = failure_lines(change, stderr)
        # In full, and so that it can be copied: the terminal breaks long lines.
        self.console.print(Text(first, style="red"), soft_wrap=True)
        for line in rest:
            self.console.print(Text(line, style="dim"), soft_wrap=True)

    def note(self, text: str) -> None:
        """Scrolls by."""
        self.console.print(Text(text, style="yellow"))

    def result(self, run: RunView) -> None:
        """Takes the place of the view."""
        self._live.stop()
        self.console.print(Text.from_ansi(result_line(run)), soft_wrap=True)

    def render(self) -> RenderableType:
        """The view as it is now."""
        progress = self._progress
        if progress is None:
            return Text("starting ...", style="dim")
        now = self._clock()
        return Group(*_head(progress.run, now), *_nodes(progress, now, max(1, self.console.height - _AROUND)))


def _head(run: RunView, now: float) -> list[RenderableType]:
    began = seconds(run.started_at or run.created_at) or now
    done = sum(run.counts.get(status, 0) for status in FINAL_WORKER)
    title = Text.assemble(
        (run.id, "bold"),
        "  ",
        (run.status, _COLOURS.get(run.status, "")),
        f"  {span(now - began)}",
        overflow="ellipsis",
    )
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(1, run.workers), completed=done, width=30), f"{done}/{run.workers} workers")
    return [title, line, _counts(run.counts)]


def _counts(counts: dict[str, int]) -> Text:
    order = ("succeeded", "failed", "running", "ready", "created", "skipped", "cancelled")
    parts = [(f"{counts[status]} {status}", _COLOURS[status]) for status in order if counts.get(status)]
    return Text("  ").join(Text(text, style) for text, style in parts)


def _nodes(progress: Progress, now: float, lines: int) -> list[RenderableType]:
    """What runs where: a line per node with as many workers as fit; nodes that do not fit are only counted."""
    nodes: dict[str, list[str]] = {}
    for name, change in progress.running.items():
        began = progress.started.get(name) or seconds(change.at) or now
        flag = " unreachable" if change.unreachable else ""
        nodes.setdefault(change.node or "?", []).append(f"{name} {span(now - began)}{flag}")
    shown = sorted(nodes.items())[:lines]
    rows: list[RenderableType] = [
        Text.assemble((f"{node}: ", "bold"), ", ".join(workers), overflow="ellipsis", no_wrap=True)
        for node, workers in shown
    ]
    if len(nodes) > len(shown):
        rows.append(Text(f"... and {len(nodes) - len(shown)} more nodes", style="dim"))
    return rows
