"""Tasks that wait for the test: each says that it has come to its gate, and goes on when the test opens it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path

PATIENCE = 30.0  # seconds after which a test that waits has failed

ADOPTED = "adopted"
"""Stands in the names of gates for the number of an attempt that somebody gave out who took its run over: it is high, and not foreseen."""


class Gates:
    """One gate per attempt of each worker; ``script`` is the shell text that stops at it. ``numbers``: the attempts that have arrived."""

    def __init__(self, folder: Path, *workers: str, attempts: Iterable[int | str] = (1, 2)) -> None:
        folder.mkdir()
        self._gates = {f"{worker}.{n}": _fifo(folder / f"{worker}.{n}") for n in attempts for worker in workers}
        self._arrivals = _fifo(folder / "arrivals")
        self._unread = ""
        self.numbers: dict[str, int] = {}
        self.script = (
            "gate=$WATTLE_WORKER.$WATTLE_ATTEMPT\n"
            f'test "$WATTLE_ATTEMPT" -lt 1000 || gate=$WATTLE_WORKER.{ADOPTED}\n'
            f'echo "$gate $WATTLE_ATTEMPT" > {folder}/arrivals\n'
            f'read -r _ < "{folder}/$gate"\n'
        )

    def arrived(self, *expected: str) -> None:
        """Wait until these attempts (``worker.attempt``), and no others, stand at their gates."""
        missing = set(expected)
        while missing:
            readable, _, _ = select.select([self._arrivals], [], [], PATIENCE)
            assert readable, f"{missing} did not arrive"
            *lines, self._unread = (self._unread + os.read(self._arrivals, 4096).decode()).split("\n")
            for gate, number in map(str.split, lines):
                self.numbers[gate] = int(number)
                assert gate in missing, f"{gate} arrived, {missing} were expected"
                missing.remove(gate)

    def open(self, attempt: str) -> None:
        """Let an attempt (``worker.attempt``) go on, now or as soon as it arrives."""
        os.write(self._gates[attempt], b"\n")

    def close(self) -> None:
        """Give the pipes back; who still stands at a gate reads its end."""
        for descriptor in (*self._gates.values(), self._arrivals):
            os.close(descriptor)


def _fifo(path: Path) -> int:
    """A named pipe, held open at both ends so that nobody waits in ``open``."""
    os.mkfifo(path)
    return os.open(path, os.O_RDWR)
