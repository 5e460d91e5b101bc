"""What Wattle is measured beside: programs that start processes, or copy bytes, and do nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.frame import Absent, Graph

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


def make(graph: Graph, place: Path) -> float:
    """Seconds that ``make -j$(nproc)`` takes for a graph of ``true``; make starts a recipe that is one plain command without a shell."""
    if shutil.which("make") is None:
        raise Absent("there is no make")
    names = [f"t{n}" for n in range(len(graph))]
    rules = [
        f"{name}:{''.join(f' t{k}' for k in needs)}\n\t@{TRUE}\n" for name, needs in zip(names, graph, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="wtlb-", dir=place) as folder:
        file = Path(folder) / "Makefile"
        file.write_text(f"all: {' '.join(names)}\n.PHONY: all {' '.join(names)}\n" + "".join(rules))
        return timed(["make", "-r", "-s", f"-j{os.cpu_count()}", "-f", str(file)])


def socket_copy(source: Path, target: Path) -> float:
    """Seconds until a file has been read, sent over loopback by one process, and received and written by another."""
    program = [sys.executable, "-I", "-S", "-c"]
    receiver = subprocess.Popen([*program, _RECEIVE, str(target)], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    with receiver:
        port = receiver.stdout.readline().strip()
        subprocess.run([*program, _SEND, str(source), port], check=True)
        taken = float(receiver.stdout.readline())
    if target.stat().st_size != source.stat().st_size:
        raise AssertionError("the copy is not complete")
    return taken


_RECEIVE = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
started, buffer = time.perf_counter(), bytearray(1 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while count := connection.recv_into(buffer):
        file.write(memoryview(buffer)[:count])
print(time.perf_counter() - started)
"""

_SEND = """
import socket, sys
buffer = bytearray(1 << 20)
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as link, open(sys.argv[1], "rb", buffering=0) as file:
    while count := file.readinto(buffer):
        link.sendall(memoryview(buffer)[:count])
"""


def hashing(file: Path) -> float:
    """Seconds to read a file and take its sha256, in this process."""
    started = time.perf_counter()
    with file.open("rb", buffering=0) as opened:
        hashlib.file_digest(opened, "sha256")
    return time.perf_counter() - started


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
