"""The engine: makes inputs, has them checked, watches time and memory, shrinks what fails and writes it down.

What counts as a finding: an exception that is no WattleError, an error without a usable message, a broken promise (AssertionError) and an
input that takes more CPU time than its target allows. Time is CPU time, so that a busy machine finds nothing that is not there.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import hashlib
import itertools
import os
import signal
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, ClassVar

from wattle.errors import InternalError, WattleError

MOST_MESSAGE = 64 * 1024
"""Characters of an error's message, at most: an error must not make a small answer out of a large input, nor the other way round."""

MOST_FINDINGS = 20
"""Different findings after which a target is left."""

_SHRINKING = 400  # tries
_SHRINKING_SECONDS = 20.0


class TooLong(BaseException):
    """An input took too long; no Exception, so that no handler takes it for an error of the code it is raised in."""


class Target(ABC):
    """What is fuzzed. Inputs are Python literals of texts and bytes, so that ``repr`` writes one down and it can be shrunk."""

    name: ClassVar[str]
    seconds: ClassVar[float] = 2.0
    """CPU seconds that one input may take."""
    growth: ClassVar[int] = 32 << 20
    """Bytes by which the process may grow after its warm-up."""
    weight: ClassVar[int] = 1
    """How many inputs one is, where it is a whole session of them."""
    batch: ClassVar[int] = 1000
    """Inputs between looks at the clock; a target with a world of its own makes it anew for each batch."""

    def __init__(self, random: Random) -> None:
        self.random = random

    @abstractmethod
    def make(self) -> Any:
        """An input."""

    @abstractmethod
    def check(self, given: Any) -> str | Counter[str]:
        """Try one: what became of it, in a word, or how often what became of each part.

        WattleError says that it was refused; anything else raised is a finding.
        """

    @contextmanager
    def world(self) -> Iterator[None]:
        """What is there during a batch."""
        yield


@dataclass
class Finding:
    """An input that failed, as small as it could be made."""

    what: str
    given: Any
    story: str
    file: Path | None = None


@dataclass
class Report:
    """What a campaign of one target came to. Memory is resident, in bytes, after the warm-up, at the end, and at its peak."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    before: int = 0
    after: int = 0
    peak: int = 0
    slowest: float = 0.0
    """CPU seconds of the input that took most."""

    def row(self) -> str:
        """A line of the table."""
        kinds = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common() if name != "accepted")
        before, after, peak = (round(memory / 2**20) for memory in (self.before, self.after, self.peak))
        rate = self.inputs / max(self.seconds, 1e-9)
        return (
            f"| {self.target} | {self.inputs:,} | {self.seconds:.0f} | {rate:,.0f} | {self.outcomes['accepted']:,} "
            f"| {kinds} | {len(self.findings)} | {before} to {after}, peak {peak} | {self.slowest * 1000:,.0f} ms |"
        )


HEADER = "| target | inputs | s | inputs/s | accepted | otherwise | findings | RSS, MiB | slowest |\n|---|---|---|---|---|---|---|---|---|"


def campaign(kind: type[Target], *, inputs: int, seconds: float, seed: int, folder: Path | None = None) -> Report:
    """Try up to ``inputs`` inputs for up to ``seconds``; the same seed makes the same inputs. Findings are written to ``folder``."""
    target = kind(Random(f"{kind.name} {seed}"))
    report = Report(kind.name)
    started = time.perf_counter()
    _forget_peak()
    warm = min(max(inputs // 10, 1), 20 * kind.batch * kind.weight)
    with _watched(kind.seconds) as watch:
        while report.inputs < inputs and time.perf_counter() - started < seconds:
            left = -(-(inputs - report.inputs) // kind.weight)
            todo = [target.make() for _ in range(min(kind.batch, left))]
            _try_all(target, todo, report, watch, folder)
            if not report.before and report.inputs >= warm:
                report.before = resident()
            if len(report.findings) >= MOST_FINDINGS:
                break
    report.seconds = time.perf_counter() - started
    report.after, report.peak = resident(), _peak()
    report.before = report.before or report.after
    if report.after - report.before > kind.growth:
        grown = (report.after - report.before) >> 20
        what = f"memory: {grown} MiB more than after the warm-up, {kind.growth >> 20} are allowed"
        report.findings.append(Finding(what, None, what))
    return report


def _try_all(target: Target, todo: Sequence[Any], report: Report, watch: _Watch, folder: Path | None) -> None:
    """Try a batch; after a finding the rest of it in a world of its own."""
    left = iter(todo)
    report.inputs += len(todo) * target.weight
    outcomes, check = report.outcomes, target.check
    while True:
        given: Any = None
        failed: BaseException | None = None
        with target.world():
            watch.busy = True
            for given in left:
                watch.count += 1
                began = time.process_time()
                try:
                    outcome = check(given)
                    if isinstance(outcome, str):
                        outcomes[outcome] += 1
                    else:
                        outcomes.update(outcome)
                except WattleError as error:
                    outcomes[error.code] += 1
                    if (problem := _unusable(error)) is not None:
                        failed = AssertionError(problem)
                        break
                except (Exception, TooLong) as error:  # noqa: BLE001  # this is what is looked for
                    failed = error
                    break
                finally:
                    report.slowest = max(report.slowest, time.process_time() - began)
            watch.busy = False
        if failed is None:
            break
        outcomes["findings"] += target.weight
        _note(target, given, failed, report, watch, folder)
        if len(report.findings) >= MOST_FINDINGS:
            break


def _unusable(error: WattleError) -> str | None:
    """Why an error would help nobody."""
    if isinstance(error, InternalError):
        return f"a fault of Wattle's own: {error.message[:300]}"
    if not isinstance(error.message, str) or len(error.message) < 10:
        return f"{type(error).__name__} with the message {error.message!r}"
    if len(error.message) > MOST_MESSAGE:
        return f"{type(error).__name__} with a message of {len(error.message)} characters"
    return None


def _what(error: BaseException) -> str:
    """A finding's name: the same for the same fault."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/wattle/" in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the check"
    said = f" {str(error)[:60]!r}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} at {place}{said}"


def _note(target: Target, given: Any, error: BaseException, report: Report, watch: _Watch, folder: Path | None) -> None:
    what = _what(error)
    if any(finding.what == what for finding in report.findings):
        return
    small = given if isinstance(error, TooLong) else _shrunk(target, given, what, watch)
    story = "".join(traceback.format_exception(error))
    finding = Finding(what, small, story)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = repr(small)
        finding.file = folder / f"{target.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.txt"
        finding.file.write_text(text)
    report.findings.append(finding)


# --- shrinking ----------------------------------------------------------------------------------------------------------


def outcome(target: Target, given: Any) -> str | None:
    """The finding that an input is, None when it is none."""
    try:
        with target.world():
            target.check(given)
    except WattleError as error:
        problem = _unusable(error)
        return None if problem is None else _what(AssertionError(problem))
    except (Exception, TooLong) as error:  # noqa: BLE001  # as above
        return _what(error)
    return None


def replay(kind: type[Target], file: Path) -> str | None:
    """Try the input that a file holds."""
    with _watched(kind.seconds) as watch:
        watch.busy = True
        return outcome(kind(Random(0)), ast.literal_eval(file.read_text()))


def _shrunk(target: Target, given: Any, what: str, watch: _Watch) -> Any:
    tries = itertools.count()
    until = time.perf_counter() + _SHRINKING_SECONDS
    better: Any = given
    again = True
    while again:
        again = False
        for smaller in _smaller(better):
            if next(tries) > _SHRINKING or time.perf_counter() > until:
                return better
            watch.count += 1
            watch.busy = True
            same = outcome(target, smaller) == what
            watch.busy = False
            if same:
                better, again = smaller, True
                break
    return better


def _smaller(given: Any) -> Iterator[Any]:
    """Inputs like this one with something left out, large parts first."""
    if isinstance(given, str | bytes):
        nothing: Any = given[:0]
        step = len(given)
        while step > 0:
            for at in range(0, len(given), step):
                yield nothing.join((given[:at], given[at + step :]))
            step //= 2
    elif isinstance(given, list):
        step = len(given)
        while step > 0:
            for at in range(0, len(given), step):
                yield given[:at] + given[at + step :]
            step //= 2
        for index, part in enumerate(given):
            for less in _smaller(part):
                yield [*given[:index], less, *given[index + 1 :]]
    elif isinstance(given, tuple):
        for index, part in enumerate(given):
            for less in _smaller(part):
                yield (*given[:index], less, *given[index + 1 :])


# --- time and memory ----------------------------------------------------------------------------------------------------


class _Watch:
    """Raises TooLong in the middle of an input that goes on for more than two ticks."""

    def __init__(self) -> None:
        self.busy = False
        self.count = 0
        self._seen = -1
        self._ticks = 0

    def tick(self, _: int, frame: FrameType | None) -> None:
        if not self.busy or self.count != self._seen:
            self._seen, self._ticks = self.count, 0
            return
        self._ticks += 1
        if self._ticks >= 2:
            self._seen = -1
            raise TooLong("an input takes too long")


@contextmanager
def _watched(seconds: float) -> Iterator[_Watch]:
    watch = _Watch()
    before = signal.signal(signal.SIGPROF, watch.tick)
    signal.setitimer(signal.ITIMER_PROF, seconds / 2, seconds / 2)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def resident() -> int:
    """Resident memory of this process in bytes, after giving back what is free."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _forget_peak() -> None:
    with suppress(OSError):  # a kernel without it: the peak is the process's, then
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
