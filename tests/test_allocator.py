"""An agent's threads share two heaps of the C library's, and what is free in them is given back."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

AGENT = """
import ctypes, sys, threading
from pathlib import Path
from wattle import host
from wattle.settings import load_settings
from wattle.settings.agents import AGENTS

def crowd(*_):
    started = threading.Barrier(8)
    def work():
        started.wait()
        bytes(100_000)  # too large for Python's own allocator
        started.wait()
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    ctypes.CDLL(None).malloc_stats()

host.trio.run = crowd
host.run_agents({"gateway": load_settings(AGENTS["gateway"], flags={"data": Path(sys.argv[1])})}, ready=print)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a heap for each thread")
@pytest.mark.parametrize(("said", "heaps"), [("", 2), ("5", 5)])
def test_an_agents_threads_share_two_heaps(tmp_path: Path, said: str, heaps: int) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    environment |= {"MALLOC_ARENA_MAX": said} if said else {}
    found = subprocess.run(
        [sys.executable, "-c", AGENT, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert len(re.findall(r"^Arena \d+:", found.stderr, re.MULTILINE)) == heaps, found.stderr


SCATTERED = """
import trio, trio.testing
from wattle.allocator import GIVE_BACK_EVERY, give_back_free_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

async def main():
    blocks = [bytearray(100_000) for _ in range(400)]
    del blocks[:-1]  # below one that is in use
    before = resident()
    with trio.move_on_after(GIVE_BACK_EVERY + 1):
        await give_back_free_memory()
    print(before - resident())

trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is known to keep it")
def test_what_is_free_between_blocks_in_use_is_given_back() -> None:
    found = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert int(found.stdout) * os.sysconf("SC_PAGE_SIZE") > 30_000_000


AGAIN = """
import resource
from wattle.allocator import limit_heaps

limit_heaps()
for turn in range(30):
    blocks = [b"x" * (4 << 20) for _ in range(4)]
    del blocks
    if turn == 9:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_large_blocks_that_come_and_go_get_the_same_pages() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    found = subprocess.run([sys.executable, "-c", AGAIN], env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000, "pages that were cleared anew"
