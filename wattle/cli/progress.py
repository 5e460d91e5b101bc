"""Following a run: one loop over its updates, shown by a ``Display``: JSON lines or plain ones here, the live view in live.py."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from wattle.cli.output import coloured, counted, duration, print_json_line, shown, span, styled
from wattle.client.answers import WorkerChange
from wattle.client.following import change_of
from wattle.errors import WattleError
from wattle.protocol.records import RunView, as_json, seconds

if TYPE_CHECKING:
    from wattle.client.blocking import Client

EACH_WORKER = 2_000
"""A run of more workers is followed by its counts, not worker by worker."""

STDERR_LINES = 10
_STDERR_BYTES = 8_192
_SHOWN_FAILURES = 10
_RUNNING_ASKED = 50


@dataclass(slots=True)
class Progress:
    """What is known of a run: its newest state and, where workers are followed one by one, theirs."""

    run: RunView
    each: bool
    workers: dict[str, WorkerChange] = field(default_factory=dict)
    running: dict[str, WorkerChange] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Workers by status, no older than the last update."""
        if not self.each or self.run.final:
            return {status: count for status, count in self.run.counts.items() if count}
        counts: Counter[str] = Counter(worker.status for worker in self.workers.values())
        waiting = self.run.workers - counts.total()
        if waiting > 0:
            counts["created"] += waiting
        return dict(counts)

    def take(self, change: WorkerChange) -> WorkerChange:
        """A worker's new status; with the node it was on, should the event leave it out."""
        before = self.workers.get(change.name)
        if change.node is None and before is not None and before.attempt == change.attempt:
            change = replace(change, node=before.node)
        self.workers[change.name] = change
        self.running.pop(change.name, None)
        if change.status == "running":
            self.running[change.name] = change
            self.started[change.name] = seconds(change.at) or time.time()
        return change


class Display(Protocol):
    """Shows a run's progress; a context manager around the following."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, progress: Progress) -> None:
        """The run's state has changed."""

    def worker(self, progress: Progress, change: WorkerChange) -> None:
        """A worker's status has changed."""

    def failure(self, change: WorkerChange, stderr: list[str]) -> None:
        """A worker has failed for good; ``stderr`` are its last lines."""

    def note(self, text: str) -> None:
        """Something to say beside."""

    def result(self, run: RunView) -> None:
        """The run is final."""


def follow(client: Client, first: RunView, display: Display) -> RunView:
    """Show a run until it is final."""
    progress = Progress(first, each=first.workers <= EACH_WORKER)
    failures = _Failures(client, display)
    for update in client.watch(first.id, workers=progress.each):
        if isinstance(update, WorkerChange):
            change = progress.take(update)
            display.worker(progress, change)
            failures.see(change)
            continue
        progress.run = update
        if not progress.each:
            progress.running = _running(client, update)
            failures.look(update)
        display.run(progress)
    display.result(progress.run)
    return progress.run


def _running(client: Client, run: RunView) -> dict[str, WorkerChange]:
    if run.final or not run.counts.get("running"):
        return {}
    return {view.name: change_of(view) for view in islice(client.workers(run.id, "running"), _RUNNING_ASKED)}


class _Failures:
    """Tells of the first failures with their last words; of the rest only the counts tell."""

    def __init__(self, client: Client, display: Display) -> None:
        self._client, self._display = client, display
        self._told: set[str] = set()

    def see(self, change: WorkerChange) -> None:
        if change.status != "failed" or change.name in self._told or len(self._told) >= _SHOWN_FAILURES:
            return
        self._told.add(change.name)
        self._display.failure(change, last_lines(self._client, change.run, change.name))

    def look(self, run: RunView) -> None:
        if run.counts.get("failed", 0) > len(self._told) < _SHOWN_FAILURES:
            for view in islice(self._client.workers(run.id, "failed"), _SHOWN_FAILURES):
                self.see(change_of(view))


def last_lines(client: Client, run: str, worker: str, stream: str = "stderr") -> list[str]:
    """The last lines of a worker's output; none where there is no output to be had."""
    try:
        text = b"".join(client.logs(run, worker, stream, tail=_STDERR_BYTES)).decode(errors="replace")
    except WattleError:
        return []
    return [shown(line) for line in text.splitlines()[-STDERR_LINES:]]


def _workers(run: RunView) -> str:
    return f"{run.workers} worker{'' if run.workers == 1 else 's'}"


def result_line(run: RunView) -> str:
    """The end of a run in one line."""
    took = duration(run.started_at or run.created_at, run.completed_at)
    what = _workers(run) if run.status == "succeeded" else counted(run.counts)
    why = f"; {run.error_message}" if run.error_message and run.status != "succeeded" else ""
    return f"run {run.id} {coloured(run.status)}: {what} in {took}{why}"


def failure_lines(change: WorkerChange, stderr: list[str]) -> list[str]:
    """What there is to say of a failed worker: why, its last words, and where there is more."""
    lines = [
        f"{change.name} failed{f' on {change.node}' if change.node else ''}: {change.error_message or 'no reason given'}"
    ]
    lines += [f"  | {line}" for line in stderr]
    return [*lines, f"  more: wattle logs {change.run} {change.name} --stderr"]


class PlainDisplay:
    """One line per event: for pipes, and files of build output."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._status = ""
        self._said_at: float | None = None
        self._said: dict[str, int] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, progress: Progress) -> None:
        """A status once; for a large run also the counts, at most every second."""
        run = progress.run
        if run.status != self._status and not run.final:
            self._status = run.status
            _say(f"run {run.id} {run.status}: {_workers(run)}")
        elif not progress.each and not run.final:
            self._count(progress)

    def _count(self, progress: Progress) -> None:
        now, counts = self._clock(), progress.counts()
        if counts != self._said and (self._said_at is None or now - self._said_at >= 1.0):
            self._said_at, self._said = now, counts
            _say(counted(counts))

    def worker(self, progress: Progress, change: WorkerChange) -> None:
        """Only ends, and nodes that go out of sight."""
        # A skipped one may have been given to a node ahead of time: it has not been anywhere for that.
        where = f" on {change.node}" if change.node and change.status != "skipped" else ""
        if change.unreachable and not change.final:
            _say(f"{change.name} is unreachable{where}")
        if not change.final or change.status == "failed":
            return  # failures come with their last words
        began, ended = progress.started.get(change.name), seconds(change.at)
        took = f" in {span(ended - began)}" if began is not None and ended is not None else ""
        _say(f"{change.name} {change.status}{where}{took}")

    def failure(self, change: WorkerChange, stderr: list[str]) -> None:
        """In full."""
        for line in failure_lines(change, stderr):
            _say(line)

    def note(self, text: str) -> None:
        """A line."""
        _say(text)

    def result(self, run: RunView) -> None:
        """The last line, without the time of day."""
        print(result_line(run), flush=True)


def _say(text: str) -> None:
    print(f"{datetime.now().astimezone():%H:%M:%S} {text}", flush=True)


class QuietDisplay(PlainDisplay):
    """Says nothing but, on a terminal or not, what went wrong."""

    def run(self, progress: Progress) -> None:
        """Nothing."""

    def worker(self, progress: Progress, change: WorkerChange) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def result(self, run: RunView) -> None:
        """Nothing when it succeeded."""
        if run.status != "succeeded":
            super().result(run)


class JsonDisplay:
    """One JSON object per line: ``{"run": ...}`` and ``{"worker": ...}`` as they change, the final run last."""

    def __enter__(self) -> JsonDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, progress: Progress) -> None:
        """The run."""
        if not progress.run.final:
            print_json_line({"run": as_json(progress.run)})

    def worker(self, progress: Progress, change: WorkerChange) -> None:
        """The worker."""
        print_json_line({"worker": as_json(change)})

    def failure(self, change: WorkerChange, stderr: list[str]) -> None:
        """Said by the worker's own line already."""

    def note(self, text: str) -> None:
        """For people only."""

    def result(self, run: RunView) -> None:
        """The run, as ``{"result": ...}``."""
        print_json_line({"result": as_json(run)})


def display_for(json: bool, quiet: bool) -> Display:
    """The display that flags and stdout ask for."""
    if json:
        return JsonDisplay()
    if quiet:
        return QuietDisplay()
    if not sys.stdout.isatty():
        return PlainDisplay()
    from wattle.cli.live import LiveDisplay  # brings rich along

    return LiveDisplay()


def heading(text: str) -> str:
    """A heading between outputs."""
    return styled(f"==> {text} <==", bold=True)
