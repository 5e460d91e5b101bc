"""Other schedulers to measure beside: each a program of its own that is given graphs of ``true`` and says how long they took.

``python -m benchmarks.peers.<name>`` reads ``{"graph": [[needed tasks], ...], "times": n, "warm": n}`` and prints, as its last line,
``{"seconds": [...]}``: from handing the graph over to knowing at the client that all of it is done, by a cluster that has run ``warm``
tasks before. ``graph`` is that of benchmarks/frame.py. Starting and stopping the cluster is not in the seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from benchmarks.frame import Absent, Graph

PACKAGES = {"hyperqueue": "hyperqueue", "ray": "ray", "dask": "distributed"}
"""What each peer imports."""

SLOTS = os.cpu_count() or 1
"""Tasks that may run at once, as in Wattle."""

WARM = 100
"""Tasks that are run first, so that processes are up and code is loaded, as in Wattle's network."""

_PATIENCE = 300.0
_ROOT = Path(__file__).parents[2]

Run = Callable[[Graph], None]


def seconds(peer: str, graph: Graph, place: Path, *, times: int = 1, warm: int = WARM) -> list[float]:
    """What a peer says; raises Absent where it is not installed or does not work."""
    done = _call(peer, {"graph": graph, "times": times, "warm": warm}, place)
    found: list[float] = json.loads(done.splitlines()[-1])["seconds"]
    return found


def cold(peer: str, place: Path) -> float:
    """Seconds from nothing to the exit of a program that starts the peer, runs one task and stops it."""
    started = time.perf_counter()
    _call(peer, {"graph": [[]], "times": 1, "warm": 0}, place)
    return time.perf_counter() - started


def _call(peer: str, job: dict[str, object], place: Path) -> str:
    package = PACKAGES[peer]
    if find_spec(package) is None:
        raise Absent(f"{package} is not installed; make bench does that")
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", f"benchmarks.peers.{peer}"]
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place, ignore_cleanup_errors=True) as folder:
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job),
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise Absent(f"{peer} took more than {_PATIENCE:.0f} s") from None
    if done.returncode != 0:
        raise Absent(f"{peer} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    return done.stdout


def main(start: Callable[[], AbstractContextManager[Run]]) -> None:
    """The program of a peer: ``start`` gives, for as long as it is entered, what runs a graph to its end."""
    job = json.load(sys.stdin)
    taken = []
    with start() as run:
        if job["warm"]:
            run([[]] * job["warm"])
        for _ in range(job["times"]):
            began = time.perf_counter()
            run(job["graph"])
            taken.append(time.perf_counter() - began)
    print("\n" + json.dumps({"seconds": taken}))


def true(*needed: object) -> None:
    """What a task does where tasks are Python functions: start ``true`` and wait for it, which is the least that runs a command."""
    _, status = os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    if status:
        raise RuntimeError(f"true ended with {status}")
