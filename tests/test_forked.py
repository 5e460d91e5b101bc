"""A forked process keeps nothing of its parent but what is imported, and what it is handed."""

import subprocess
import sys
from pathlib import Path

# In a process of its own: a test's may have threads, and then it must not fork.
PARENT = """
import os, signal, sys, threading
from pathlib import Path
from wattle.forked import Forked

def main():
    assert threading.main_thread() is threading.current_thread() and threading.active_count() == 1
    files = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    print("files", *sorted(files))
    print("leads", os.getsid(0) == os.getpid())
    print("signals", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN)
    print("read", sys.stdin.read(), flush=True)
    print("a word", file=sys.stderr)
    raise ValueError("and it failed")

def forbidden(number, frame):
    raise AssertionError("the parent's handler")

signal.signal(signal.SIGTERM, forbidden)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
for closed in CLOSED:
    os.close(closed)
kept, other = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
kept, other = os.dup2(kept, 20), os.dup2(other, 21)
with open(sys.argv[1], "wb") as log:
    child = Forked(main, log.fileno(), keep=[kept])
os.write(child.stdin, b"what it is told")
os.close(child.stdin)
said = b""
while part := os.read(child.stdout, 4096):
    said += part
status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
Path(sys.argv[2]).write_text(said.decode() + f"status {status}")
"""


def _run(tmp_path: Path, closed: tuple[int, ...]) -> tuple[list[str], str]:
    code = PARENT.replace("CLOSED", repr(closed))
    log, said = tmp_path / "log", tmp_path / "said"
    subprocess.run([sys.executable, "-c", code, log, said], stdin=subprocess.DEVNULL, check=True)
    return said.read_text().splitlines(), log.read_text()


def test_a_forked_process_has_its_own_session_streams_and_signals(tmp_path: Path) -> None:
    said, log = _run(tmp_path, closed=())
    assert said == ["files 0 1 2 20", "leads True", "signals True True", "read what it is told", "status 1"]
    assert log.startswith("a word\nTraceback")
    assert log.endswith("ValueError: and it failed\n")


def test_it_has_its_streams_where_the_parent_had_closed_its_own(tmp_path: Path) -> None:
    said, log = _run(tmp_path, closed=(0, 1, 2))
    assert said[0] == "files 0 1 2 20"
    assert (said[3:], log.splitlines()[0]) == (["read what it is told", "status 1"], "a word")


STUCK = """
import os, signal
from pathlib import Path
from wattle.errors import InternalError
from wattle.network import Child

def serve(data, namespace, lock, at_rest):
    os.close(1)  # so it seems to be over
    signal.pause()

lock = os.open(os.devnull, os.O_RDONLY)
child = Child(Path.cwd(), "default", lock, serve)
pid = child._process.pid
try:
    child.stop(0.1)
except InternalError as error:
    print(error.message)
print("collected", not os.path.exists(f"/proc/{pid}"))
"""


def test_a_network_that_closes_its_output_and_does_not_end_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "the embedded network did not stop within 0.1 s and was killed",
        "collected True",
    ], done.stderr
