"""A process forked from this one. It begins with all that is imported here, which takes a new interpreter most of its start.

Only a process with a single thread may fork: what other threads were in the midst of would stay so for ever. So this belongs to commands,
before they open a session.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn


class Forked:
    """A child that does ``main`` in a session of its own, so that a terminal's Ctrl-C does not reach it.

    ``stdin`` and ``stdout`` are this side's ends of its pipes, ``log`` becomes its stderr; of all other descriptors it keeps ``keep``.
    """

    def __init__(self, main: Callable[[], object], log: int, keep: Iterable[int] = ()) -> None:
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or the child would have it to write as well
        self.pid = os.fork()
        if self.pid == 0:
            _do(main, (stdin, stdout, log), keep)
        os.close(stdin)
        os.close(stdout)

    def ended(self, timeout: float) -> bool:
        """Wait for its end for so many seconds, and collect it; False when it goes on."""
        process = os.pidfd_open(self.pid)
        try:
            if not select.select([process], [], [], timeout)[0]:
                return False
        finally:
            os.close(process)
        os.waitpid(self.pid, 0)
        return True

    def kill(self) -> None:
        """End it, and collect it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _do(main: Callable[[], object], files: Iterable[int], keep: Iterable[int]) -> NoReturn:
    """What the child does; nothing of what its parent was about to do."""
    try:
        os.setsid()
        _take(files, keep)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)
        main()
    except BaseException:  # noqa: BLE001 - the process ends here, and its log says why
        traceback.print_exc()
    finally:
        os._exit(1)


def _take(files: Iterable[int], keep: Iterable[int]) -> None:
    """Have ``files`` as standard streams, and of the others only ``keep``."""
    above = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3) for file in files]  # they may be among 0 to 2 themselves
    for number, file in enumerate(above):
        os.dup2(file, number)
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = max(start, descriptor + 1)
    os.closerange(start, 1 << 20)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, "utf-8", closefd=False) for n, mode in enumerate("rww"))
