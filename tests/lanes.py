"""All tests but those of the cluster, in lanes beside each other: ``python -m tests.lanes [OPTION OF PYTEST...]``, for ``make test``.

Most of the time of tests with processes goes into waiting. Each lane is one run of pytest and shares nothing with the others. What only
computes leaves the processors to whoever wants them, since a busy machine looks like a cut where a second of silence ends a link.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

FOLDER = Path(__file__).parent

COMPUTING = ("sim", "core", "fuzz", "store", "document", "protocol", "coordinator", "gateway", "peer")
"""Folders of tests that start no agents and open no sessions of Zenoh."""

NETWORKS = "network"
"""The folder of tests with networks of agents. What no lane names is in the one that is seen at work."""

CLUSTER = "cluster"
"""Asks how soon ten containers are up, so nothing runs beside it: ``make cluster``."""


def main(options: Sequence[str]) -> int:
    """Run all lanes, and show what those beside have said once all are over; the exit status is that of a lane that failed."""
    # SIGINT is ignored in what a script starts in the background, and so in whatever tests send it to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    command = [sys.executable, "-m", "pytest", *options]
    with ExitStack() as stack:
        networks = stack.enter_context(_beside([*command, *_paths(NETWORKS)]))
        computing = stack.enter_context(_beside([*command, *_paths(*COMPUTING)], _step_back))
        return max(subprocess.call([*command, *_paths(*others())]), networks(), computing())


def others() -> list[str]:
    """All that stands in this folder and in no lane by name."""
    known = {*COMPUTING, NETWORKS, CLUSTER}
    return sorted({file.relative_to(FOLDER).parts[0] for file in FOLDER.rglob("test_*.py")} - known)


@contextmanager
def _beside(command: Sequence[str], begin: Callable[[], None] | None = None) -> Iterator[Callable[[], int]]:
    """A command in the background; what is yielded waits for its end, shows what it has said and gives its exit status."""
    with tempfile.TemporaryFile() as said:
        lane = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, preexec_fn=begin)

        def finish() -> int:
            status = lane.wait()
            said.seek(0)
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
            return status

        try:
            yield finish
        finally:
            if lane.poll() is None:
                os.killpg(lane.pid, signal.SIGINT)  # fixtures end what they have started
                lane.wait()


def _step_back() -> None:
    """Give way to all others. Where Linux shares its time out among sessions first, the session has to as well (sched(7), autogroup)."""
    os.nice(10)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("10")


def _paths(*names: str) -> list[str]:
    return [os.path.relpath(FOLDER / name) for name in names]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
