"""What is printed, to the letter."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from wattle.cli.live import LiveDisplay
from wattle.cli.logs import Lines, last_lines
from wattle.cli.output import Column, Json, Plain, Table, counted, duration, shown, span
from wattle.cli.progress import PlainDisplay, Progress, failure_lines, result_line
from wattle.client.answers import WorkerChange
from wattle.errors import InvalidRequest
from wattle.protocol.records import NodeView, RunView

T0, T1 = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:03:20.000000Z"
AT_T0 = 1767225600.0
COLUMNS = [Column[NodeView]("node", lambda node: node.name), Column[NodeView]("status", lambda node: node.status)]
NODES = [
    NodeView(name=name, status=status, slots=1, running=0, queued=0)
    for name, status in (("a", "ready"), ("longer", "lost"))
]


def run(status: str = "running", error_message: str | None = None, **counts: int) -> RunView:
    end = T1 if status not in ("created", "running") else None
    return RunView(
        id="flow-1",
        workflow="flow",
        status=status,
        created_at=T0,
        started_at=T0,
        completed_at=end,
        owner="c",
        epoch=1,
        counts=counts,
        error_message=error_message,
    )


def change(name: str, status: str, node: str | None = "n1", **more: object) -> WorkerChange:
    return WorkerChange(run="flow-1", name=name, status=status, node=node, at=T0, **more)  # type: ignore[arg-type]  # keywords of a test


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Table().listing(NODES, COLUMNS, "no nodes")
    Table().listing([], COLUMNS, "no nodes")
    assert capsys.readouterr().out == "NODE    STATUS\na       ready\nlonger  lost\nno nodes\n"


def test_plain_lines_are_for_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Plain().listing(NODES, COLUMNS, "no nodes")
    assert capsys.readouterr().out == "node\tstatus\na\tready\nlonger\tlost\n"
    Plain().listing([], COLUMNS, "no nodes")
    assert capsys.readouterr().out == "node\tstatus\n"


def test_an_error_stands_alone_where_nothing_was_listed(capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> Iterator[NodeView]:
        raise InvalidRequest("no such status")
        yield from NODES

    with pytest.raises(InvalidRequest):
        Plain().listing(refused(), COLUMNS, "no nodes")
    assert capsys.readouterr().out == ""


def test_json_listings_are_arrays(capsys: pytest.CaptureFixture[str]) -> None:
    Json().listing(NODES, COLUMNS, "no nodes")
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["a", "longer"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("", "-"), (2.0, "2"), ({"a": 1.5}, "a=1.5"), ("two\nlines\x1b[31m", "two lines [31m"), (0, "0")],
)
def test_cells_are_one_line_without_control_characters(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-1, "0.0 s"), (59.94, "59.9 s"), (59.96, "1m 00s"), (200, "3m 20s"), (7500, "2h 05m")]
)
def test_spans(value: float, text: str) -> None:
    assert span(value) == text


def test_durations_and_counts() -> None:
    assert duration(T0, T1) == "3m 20s"
    assert duration(None, T1) is None
    assert counted({"created": 1, "failed": 2, "ready": 0}) == "2 failed, 1 created"


def test_result_lines() -> None:
    assert result_line(run("succeeded", succeeded=12)) == "run flow-1 succeeded: 12 workers in 3m 20s"
    failed = run("failed", "fetch failed", failed=1, skipped=2)
    assert result_line(failed) == "run flow-1 failed: 1 failed, 2 skipped in 3m 20s; fetch failed"


def test_failures_say_why_and_where_there_is_more() -> None:
    lines = failure_lines(change("fetch", "failed", error_message="exit status 3"), ["boom"])
    assert lines == ["fetch failed on n1: exit status 3", "  | boom", "  more: wattle logs flow-1 fetch --stderr"]


def test_a_skipped_worker_has_been_nowhere_though_a_node_had_it_ahead_of_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for status in ("skipped", "succeeded"):
        PlainDisplay().worker(Progress(run(), each=True), change("w", status, "n1"))
    assert [line[9:] for line in capsys.readouterr().out.splitlines()] == ["w skipped", "w succeeded on n1"]


def test_counts_of_a_large_run_are_said_at_most_every_second(capsys: pytest.CaptureFixture[str]) -> None:
    display = PlainDisplay(iter([1.0, 1.5, 2.0]).__next__)
    for done in range(4):  # the first says the status, and looks at no clock
        display.run(Progress(run(created=5000 - done, succeeded=done), each=False))
    said = [line[9:] for line in capsys.readouterr().out.splitlines()]
    assert said == ["run flow-1 running: 5000 workers", "1 succeeded, 4999 created", "3 succeeded, 4997 created"]


def test_counts_come_from_the_workers_while_they_are_followed() -> None:
    progress = Progress(run(created=3), each=True)
    progress.take(change("a", "running"))
    progress.take(change("b", "running"))
    progress.take(change("a", "succeeded"))
    assert progress.counts() == {"succeeded": 1, "running": 1, "created": 1}
    assert list(progress.running) == ["b"]


def test_an_end_that_names_no_node_is_on_the_one_it_ran_on() -> None:
    progress = Progress(run(created=1), each=True)
    progress.take(change("a", "running", "n7"))
    assert progress.take(change("a", "failed", None)).node == "n7"


def drawn(progress: Progress, height: int = 20, width: int = 60) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=False)
    live = LiveDisplay(console, clock=lambda: AT_T0 + 75)
    live.run(progress)
    console.print(live.render())
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_live_view() -> None:
    progress = Progress(run(created=4), each=True)
    for update in (change("a", "succeeded"), change("b", "running"), change("c", "running", "n2", unreachable=True)):
        progress.take(update)
    assert drawn(progress) == [
        "flow-1  running  1m 15s",
        "━━━━━━━╸                       1/4 workers",
        "1 succeeded  2 running  1 created",
        "n1: b 1m 15s",
        "n2: c 1m 15s unreachable",
    ]


def test_the_live_view_keeps_within_a_small_terminal() -> None:
    progress = Progress(run(running=2000), each=True)
    for number in range(2000):
        progress.take(change(f"worker-{number}", "running", f"node-{number % 40:02}"))
    lines = drawn(progress, height=10, width=40)
    assert len(lines) == 8
    assert lines[-1] == "... and 36 more nodes"
    assert all(len(line) <= 40 for line in lines)


def test_failures_scroll_by_above_the_view() -> None:
    console = Console(file=io.StringIO(), width=60, color_system=None)
    with LiveDisplay(console) as live:
        live.failure(change("a", "failed", error_message="exit status 3"), ["[bold]not markup[/bold]", "x" * 200])
        live.result(run("failed", failed=1))
    assert isinstance(console.file, io.StringIO)
    said = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert "a failed on n1: exit status 3" in said
    assert "  | [bold]not markup[/bold]" in said
    assert f"  | {'x' * 200}" in said  # a long line is the terminal's to break
    assert said[-1] == "run flow-1 failed: 1 failed in 3m 20s"


def test_lines_of_several_workers_do_not_mix(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines = Lines(b"a | ")
    lines.print(b"one\ntw")
    lines.print(b"o\n\nthree")
    lines.end()
    assert capsysbinary.readouterr().out == b"a | one\na | two\na | \na | three\n"


@pytest.mark.parametrize(("count", "left"), [(0, b""), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")])
def test_last_lines(count: int, left: bytes) -> None:
    assert last_lines(b"a\nb\nc", count) == left
