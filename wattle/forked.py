"""A process forked from this one. It begins with all that is imported here, which takes a new interpreter most of its start.

It may be forked before it is known what it is to do: meanwhile it imports more, and then it is told (``tell`` here, ``told`` there).

Only a process with a single thread may fork: what other threads were in the midst of would stay so for ever. So this belongs to commands,
which do it before they open a session, and have all three standard streams open (wattle/__main__.py).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

_MESSAGE_MAX = 32 << 10
"""Bytes that a unix socket surely hands over in one piece."""

_FILES_MAX = 8
_STDIN, _STDOUT, _STDERR = range(3)


class Forked:
    """A child that does ``main`` in a session of its own, so that a terminal's Ctrl-C does not reach it.

    ``link`` is a socket to it, which it has as stdin and stdout. Its stderr is this process's until it is told, and of what else is open
    here it has nothing.
    """

    def __init__(self, main: Callable[[], object]) -> None:
        self.link, its_end = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or the child would have it to write as well
        self.pid = os.fork()
        if self.pid == 0:
            _do(main, its_end.fileno())
        its_end.close()

    def tell(self, what: object, log: int, *files: int) -> None:
        """Tell it what to do, hand it ``files``, and have ``log`` be its stderr. One that has ended is not told: ``link`` says so."""
        message = json.dumps(what).encode()
        assert len(message) <= _MESSAGE_MAX
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.link, [message], [log, *files])

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
        self.link.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def told() -> tuple[Any, list[int]]:
    """What this process, a forked one, is to do, and the files that it is handed. It ends where its parent did without telling it."""
    with socket.socket(fileno=os.dup(_STDIN)) as link:
        message, files, *_ = socket.recv_fds(link, _MESSAGE_MAX, _FILES_MAX)
    if not message:
        os._exit(0)
    for file in files:
        os.set_inheritable(file, False)  # the processes that this one starts do not have them
    log, *others = files
    os.dup2(log, _STDERR)
    os.close(log)
    return json.loads(message), others


def _do(main: Callable[[], object], link: int) -> NoReturn:
    """What the child does; nothing of what its parent was about to do."""
    try:
        os.setsid()
        _take(link)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                signal.signal(number, signal.SIG_DFL)
        main()
    except BaseException:  # noqa: BLE001 - the process ends here, and its log says why
        traceback.print_exc()
    finally:
        os._exit(1)


def _take(link: int) -> None:
    """Have ``link`` as stdin and stdout, stderr as it is, and nothing else."""
    os.dup2(link, _STDIN)
    os.dup2(link, _STDOUT)
    os.closerange(_STDERR + 1, 1 << 20)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, 1, "utf-8", closefd=False) for n, mode in enumerate("rww"))
