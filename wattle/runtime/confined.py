"""A confined task at the spawner: started as the runtime says, and what its end means. Standard library only: the spawner imports it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from wattle.runtime.cgroups import Group
from wattle.runtime.launch import start

_SHELL = 128  # what bwrap, as shells do, adds to a signal's number
_STATUS_MAX = 4096  # bytes of what bwrap says
_SIGNALS = signal.valid_signals()


class Confined:
    """One task. ``wrap`` is what it is started by, ``group`` its control group or None, ``reasons`` what to say of its failure.

    ``environ`` names what it has of the node's environment (``LC_*``: all that begin so), None is all; ``sandboxed`` says that bwrap is in
    ``wrap`` and reports on descriptor 3; ``given`` names the variables that are the command's alone (wattle/runtime/launch.py).
    ``disk`` says what it may take up at most, and where that is (disks.py), or is None. wattle/runtime/confinement.py makes all
    of it. ``over`` is set once it was killed for having taken up too much.
    """

    def __init__(
        self,
        wrap: list[str],
        group: Mapping[str, Any] | None,
        environ: list[str] | None,
        sandboxed: bool,
        reasons: dict[str, str],
        given: list[str],
        disk: Mapping[str, Any] | None = None,
    ) -> None:
        self.wrap = wrap
        self.group = None if group is None else Group(**group)
        self.kept = environ
        self.sandboxed = sandboxed
        self.reasons = reasons
        self.given = frozenset(given)
        self.disk = disk
        self.over = ""
        self.problem = ""  # why it could not be started, where that is due to its being confined
        self._status: int | None = None

    def environ(self, node: Mapping[str, str]) -> Mapping[str, str]:
        """What it has of the node's environment."""
        if self.kept is None:
            return node
        exact = set(self.kept)
        starts = tuple(name[:-1] for name in self.kept if name.endswith("*"))
        return {name: text for name, text in node.items() if name in exact or name.startswith(starts)}

    def start(self, folder: str, argv: list[str], env: dict[str, str], cwd: str, stdout: str, stderr: str) -> int:
        """Start it; returns the number of its first process. Raises what launch.start raises, having left nothing behind."""
        entering: list[str] = []
        if self.group is not None:
            try:
                entering = self.group.make(folder)
            except OSError as error:
                self.problem = f"its control group cannot be made: {error}; see docs/operations.md"
                self.group.end()
                raise
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if self.sandboxed else (None, None)
        try:
            pid = start(argv, env, cwd, stdout, stderr, [*entering, *self.wrap], writer, self.given)
        except BaseException:
            if reader is not None:
                os.close(reader)
            if self.group is not None:
                self.group.end()
            raise
        finally:
            if writer is not None:
                os.close(writer)
        self._status = reader
        return pid

    def ended(self, code: int | None, number: int | None, *, told: bool) -> tuple[list[int | None], str]:
        """Its exit code or signal, and why it failed, as far as known; ``told``: it had been told to end. To be called once."""
        started = self._started()
        if self.sandboxed and started and code is not None and code - _SHELL in _SIGNALS:
            number, code = code - _SHELL, None
        if code == 0 or told:
            return [code, number], ""
        if self.over and number == signal.SIGKILL:
            return [code, number], self.over
        if self.group is not None and self.group.out_of_memory():
            return [code, number], self.reasons.get("memory", "out of memory")
        if code is not None and not started:
            return [code, number], "its sandbox could not be made, or its command not be started in it: see its stderr"
        cause = number if number is not None else (code or 0) - _SHELL
        return [code, number], self.reasons.get(str(cause), "")

    def _started(self) -> bool:
        """Whether the command was started: bwrap tells its exit code only then."""
        if self._status is None:
            return True
        said = b""
        with suppress(BlockingIOError):
            said = os.read(self._status, _STATUS_MAX)
        os.close(self._status)
        self._status = None
        return b'"exit-code"' in said
