"""What /proc tells about processes, and killing the right ones. Standard library only: the spawner imports it.

Two variables in a task's environment, which its processes inherit, tell whose they are: WATTLE_TASK (the task's id) and
WATTLE_SPAWNER (the folder of the spawner that started it).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

_ROUNDS = 100  # of looking for processes that an earlier spawner left, 10 ms apart


def kill_group(leader: int, number: int) -> None:
    """Send a signal to a process group. None left, or none that may be signalled (all have changed their user), is no error."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def children() -> list[int]:
    """The processes whose parent this one is; empty on kernels that do not say (built without CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # each has its own
        with suppress(OSError), open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
            found += map(int, file.read().split())
    return found


def has_children() -> bool:
    """Whether any child is there, running or a zombie."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def task_of(pid: int) -> str:
    """A process's WATTLE_TASK; empty when there is none that can be read."""
    _, found, rest = _environment(pid).partition(b"\0WATTLE_TASK=")
    return os.fsdecode(rest.split(b"\0", 1)[0]) if found else ""


def started_at(pid: int) -> float | None:
    """When a process started, in seconds since the epoch and to about 10 ms; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    since_boot = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def kill_left_behind(folder: str) -> list[int]:
    """Kill every process that a spawner of ``folder`` started and did not live to see end; returns those that do not go."""
    mark = os.fsencode(f"\0WATTLE_SPAWNER={folder}\0")
    found: list[int] = []
    for _ in range(_ROUNDS):  # what they start meanwhile is found in the next round
        found = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and mark in _environment(pid)]
        if not found:
            break
        for pid in found:
            _kill_marked(pid, mark)
        time.sleep(0.01)
    return found


def _kill_marked(pid: int, mark: bytes) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if mark in _environment(
            pid
        ):  # read again: by now the number might be another process's, and the handle with it
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass  # gone, or not ours to kill: the caller learns of it as left
    finally:
        os.close(handle)


def _environment(pid: int | str) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"\0" + file.read()
    except OSError:
        return b""
