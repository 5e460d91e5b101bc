"""What Wattle is measured beside: programs that start processes and do nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRUE = "/bin/true"


def xargs(count: int) -> float:
    """Seconds that ``xargs -P$(nproc)`` takes to run ``true`` so many times."""
    lines = b"x\n" * count
    started = time.perf_counter()
    subprocess.run(["xargs", f"-P{os.cpu_count()}", "-n1", TRUE], input=lines, check=True)
    return time.perf_counter() - started


def spawn_loop(count: int, width: int, place: Path | None = None) -> float:
    """Seconds that a loop takes to run ``true`` so many times, ``width`` at once, in a Python process with nothing else in it.

    With ``place`` each has a folder and two files for its output made below it: what Wattle promises every task.
    """
    command = [sys.executable, "-I", "-S", "-c", _LOOP, str(count), str(width), TRUE]
    if place is None:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place) as folder:
        return float(subprocess.run([*command, folder], capture_output=True, text=True, check=True).stdout)


_LOOP = """
import os, sys, time
count, width, program, *folder = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
started, running, files = time.perf_counter(), 0, ()
for number in range(count):
    if running == width:
        os.wait()
        running -= 1
    if folder:
        os.mkdir(f"{folder[0]}/{number}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [(os.POSIX_SPAWN_OPEN, stream, f"{folder[0]}/{number}.{stream}", flags, 0o600) for stream in (1, 2)]
    os.posix_spawn(program, [program], {}, file_actions=files)
    running += 1
for _ in range(running):
    os.wait()
print(time.perf_counter() - started)
"""


def interpreter() -> float:
    """Seconds from a shell to the end of a Python program that does nothing: what any Python command costs at least."""
    return timed(["/bin/sh", "-c", '"$0" -I -c pass', sys.executable])


def shell() -> float:
    """Seconds from a shell to the end of one ``true`` under xargs."""
    return timed(["/bin/sh", "-c", f"echo x | xargs -n1 {TRUE}"])


def timed(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Seconds that a command takes; raises CalledProcessError when it fails."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    return time.perf_counter() - started
