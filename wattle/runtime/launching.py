"""Starting the spawner (wattle/runtime/spawner.py), which takes as long as a Python interpreter: so it may be started ahead."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import trio

_BOOT = "import sys; sys.path.append(sys.argv.pop(1)); from wattle.runtime.spawner import main; main(sys.argv[1:])"
_ROOT = Path(__file__).resolve().parents[2]

SOCKET = "spawner.sock"
"""What a spawner listens on, in the folder that it serves."""

LINGER = 10.0
"""Seconds that a spawner without runtime and without processes stays, unless it is told otherwise."""


class Starting:
    """A spawner that is on its way. ``taken`` is set once somebody has it to himself, who then waits for it."""

    def __init__(self, folder: Path, linger: float = LINGER) -> None:
        options = ["--linger", f"{linger:g}"]
        argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, str(_ROOT), str(folder), *options]
        self.taken = False
        self._reader, ready = os.pipe()
        log = str(folder / "spawner.log")
        files = (
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, ready, 1),
            (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        )
        try:
            self.pid = os.posix_spawn(
                sys.executable, argv, dict(os.environ), file_actions=files, setsid=True, setsigmask=()
            )
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(ready)

    async def wait(self, timeout: float) -> str:
        """Wait until it listens; returns what went wrong, or nothing. One that does not listen in time is killed."""
        try:
            with trio.move_on_after(timeout):
                await trio.lowlevel.wait_readable(self._reader)
                return "" if os.read(self._reader, 64) else "ended at its start"
        finally:
            os.close(self._reader)
        os.kill(self.pid, SIGKILL)
        return "waits for an earlier one, which holds spawner.lock and does not answer; end the process named there"

    def give_up(self) -> None:
        """End it, if nobody has taken it."""
        if not self.taken:
            self.taken = True
            os.close(self._reader)
            os.kill(self.pid, SIGKILL)  # it has no tasks
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def start_ahead(folder: Path) -> Starting | None:
    """Start a folder's spawner, unless one may be there already: a spawner that has ended in order leaves no socket.

    The caller has the folder to himself, and calls ``give_up`` when it is over.
    """
    folder = folder.resolve()
    return None if (folder / SOCKET).exists() else Starting(folder)
