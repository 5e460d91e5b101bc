"""Links that break though both ends are well, as one does whose lease one of them has not kept."""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress
from pathlib import Path

_PIDFD_GETFD = 438  # the system call's number, which is the same on all machines


def shut_down(process: int, *paths: Path) -> int:
    """Shut down the connections that a process has made to these sockets; how many there were. Raises PermissionError where it must not."""
    pidfd = os.pidfd_open(process)
    try:
        return sum(_shut_down(pidfd, int(name), paths) for name in os.listdir(f"/proc/{process}/fd"))
    finally:
        os.close(pidfd)


def _shut_down(pidfd: int, number: int, paths: tuple[Path, ...]) -> bool:
    copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0)
    if copy < 0:
        if ctypes.get_errno() in (1, 38):  # EPERM, ENOSYS
            raise PermissionError("descriptors of another process cannot be had here")
        return False  # closed meanwhile
    try:
        one = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with one, suppress(OSError):  # one that listens is connected to nothing
        if one.family == socket.AF_UNIX and one.getpeername() in map(str, paths):
            one.shutdown(socket.SHUT_RDWR)
            return True
    return False
