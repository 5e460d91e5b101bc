"""A forked process keeps nothing of its parent but what is imported, and what it is handed."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: a test's may have threads, and then it must not fork.
PARENT = """
import os, signal, socket, sys, threading
from pathlib import Path
from wattle.forked import Forked, told

def main():
    assert threading.main_thread() is threading.current_thread() and threading.active_count() == 1
    files = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    print("files", *sorted(files))
    print("leads", os.getsid(0) == os.getpid())
    print("signals", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN)
    what, handed = told()
    print("told", what, *(os.read(file, 100).decode() for file in handed), *(os.get_inheritable(file) for file in handed))
    print("read", sys.stdin.read(), flush=True)
    print("a word", file=sys.stderr)
    raise ValueError("and it failed")

def forbidden(number, frame):
    raise AssertionError("the parent's handler")

signal.signal(signal.SIGTERM, forbidden)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
for closed in CLOSED:
    os.close(closed)
other = os.open(os.devnull, os.O_RDONLY)
child = Forked(main)
handed, more = os.pipe()
os.write(more, b"handed on")
with open(sys.argv[1], "wb") as log:
    child.tell({"what": "to do"}, log.fileno(), handed)
child.link.sendall(b"what is said later")
child.link.shutdown(socket.SHUT_WR)
said = b""
while part := child.link.recv(4096):
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
    assert said == [
        "files 0 1 2",
        "leads True",
        "signals True True",
        "told {'what': 'to do'} handed on False",
        "read what is said later",
        "status 1",
    ]
    assert log.startswith("a word\nTraceback")
    assert log.endswith("ValueError: and it failed\n")


@pytest.mark.parametrize("closed", [(0, 1, 2), (2,)])
def test_it_has_its_streams_where_the_parent_had_closed_its_own(tmp_path: Path, closed: tuple[int, ...]) -> None:
    said, log = _run(tmp_path, closed)
    assert said[0] == "files 0 1 2"
    assert (said[4:], log.splitlines()[0]) == (["read what is said later", "status 1"], "a word")


UNTOLD = """
import os, sys
from wattle.forked import Forked, told

child = Forked(told)
print(child.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_one_that_nobody_told_ends_with_its_parent_and_says_nothing() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", UNTOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    assert parent.communicate() == (b"", b"")  # the child had its stderr
    assert select.select([child], [], [], 60)[0]
    os.close(child)


FAILED = """
import os
from pathlib import Path
from wattle.errors import Unavailable
from wattle.forked import Forked
from wattle.network import Child

process = Forked(lambda: os._exit(1))
if EARLY:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
child = Child(Path.cwd(), "default", os.open(os.devnull, os.O_RDONLY), process)
try:
    child.wait_ready(60)
except Unavailable as error:
    print(error.code)
child.stop(60)
print("collected", not os.path.exists(f"/proc/{process.pid}"))
"""


@pytest.mark.parametrize("early", [True, False])
def test_a_network_that_ends_before_it_hears_what_it_is_told_is_said_to_have_ended(tmp_path: Path, early: bool) -> None:
    code = FAILED.replace("EARLY", repr(early))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["NO_NETWORK", "collected True"], done.stderr


STUCK = """
import os, signal
from pathlib import Path
from wattle.errors import InternalError
from wattle.forked import Forked
from wattle.network import Child

def main():
    os.close(0)
    os.close(1)  # so it seems to be over
    signal.pause()

process = Forked(main)
child = Child(Path.cwd(), "default", os.open(os.devnull, os.O_RDONLY), process)
try:
    child.stop(0.1)
except InternalError as error:
    print(error.message)
print("collected", not os.path.exists(f"/proc/{process.pid}"))
"""


def test_a_network_that_closes_its_output_and_does_not_end_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "the embedded network did not stop within 0.1 s and was killed",
        "collected True",
    ], done.stderr
