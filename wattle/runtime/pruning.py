"""What this node has of runs that their owners have pruned, removed: logs, private folders, fetched content, rows, entries of the feed.

An owner tells the nodes in sight when it prunes runs; a node that was away, or missed it, asks the coordinators about all runs it knows
when one comes into sight and every so often. Only what somebody remembers as pruned is removed: a run that nobody knows may have its owner
beyond a cut. A ``working_dir`` that the user gave, and outputs outside the data folder, are the user's and stay.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from wattle.bus.base import Bus
from wattle.core.model import RunHead
from wattle.core.runtime import RuntimeCore
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.names import check_name
from wattle.peer.loop import wall_clock
from wattle.protocol.keys import Keys
from wattle.protocol.messages import Discard, PrunedQuestion, decode, encode
from wattle.runtime.layout import Folders
from wattle.store.copies import PRUNED_REMEMBERED
from wattle.store.runtime import RuntimeStore

LOOK = 3600.0
"""Seconds between questions which runs are pruned, besides those when a coordinator comes into sight."""

ASKED_MOST = 1000
"""Runs in one question."""

TIMEOUT = 5.0
"""Seconds that coordinators have for an answer."""

BACKLOG = 1000
"""Orders that may wait; what is beyond is found by asking."""

log = get_logger("wattle.runtime")


class Pruning:
    """See the module's docstring. ``removed`` hears of the runs whose folders are gone."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        folders: Folders,
        store: RuntimeStore,
        core: RuntimeCore,
        removed: Callable[[str], None],
    ) -> None:
        self._bus, self._keys, self._folders, self._store, self._core = bus, keys, folders, store, core
        self._removed = removed
        self._orders, self._waiting = trio.open_memory_channel[RunHead](BACKLOG)
        self._wake = trio.Event()

    def order(self, payload: bytes | None) -> None:
        """Remove these runs, in time; raises InvalidRequest for what is no order."""
        for head in _pruned(decode(Discard, payload)):
            try:
                self._orders.send_nowait(head)
            except trio.WouldBlock:
                return

    def look(self) -> None:
        """Ask soon which runs are pruned."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry_out)
            while True:
                with trio.move_on_after(LOOK):
                    await self._wake.wait()
                self._wake = trio.Event()
                self._trim()
                await self._ask()

    async def _carry_out(self) -> None:
        async for head in self._waiting:
            await self._discard(head)

    async def _ask(self) -> None:
        after = ""
        while runs := self._store.known_runs(after, ASKED_MOST):
            after = runs[-1]
            question = encode(PrunedQuestion(tuple(runs)))
            key = self._keys.cmd("*", "pruned")
            for reply in await self._bus.get(key, question, timeout=TIMEOUT, everyone=True):
                if not reply.ok:
                    continue
                try:
                    told = _pruned(decode(Discard, reply.payload))
                except InvalidRequest as error:
                    log.warning("answer not understood", key=reply.key, problem=error.message)
                    continue
                for head in told:
                    await self._orders.send(head)

    def _trim(self) -> None:
        with self._store.transaction():
            forgotten = self._store.trim(wall_clock() - PRUNED_REMEMBERED)
        self._core.past.forget(forgotten)

    async def _discard(self, head: RunHead) -> None:
        run = head.run
        fence = self._store.fence(run)
        if fence is None and not self._store.copies.heads_of([run]):
            return  # nothing was ever here, or not any more
        if fence is not None and fence > (head.epoch, head.owner):
            log.warning("run is not removed: it has another owner", run=run, owner=fence[1], told_by=head.owner)
            return
        if any(task.run == run for task in self._core.tasks):
            return  # it is being ended; the next question finds the run again
        folders = self._folders.of_run(run)
        content = [self._folders.blob(digest) for digest in self._store.content_only_of(run)]
        try:
            await trio.to_thread.run_sync(_remove, folders, content)
        except OSError as error:
            log.warning("files of a pruned run cannot be removed; tried again later", run=run, reason=str(error))
            return
        self._removed(run)
        done = False
        while not done:  # rows last: should this process end before, everything is found again
            with self._store.transaction():
                done = self._store.discard(head, f"{folders[1]}/")
            await trio.lowlevel.checkpoint()
        log.info("run removed", run=run)


def _pruned(told: Discard) -> list[RunHead]:
    """The runs in an order, whose names become parts of paths."""
    for head in told.runs:
        check_name(head.run, "run")
        if not head.pruned_at:
            raise InvalidRequest(f"run {head.run!r} is not pruned, by what its last state says")
    return list(told.runs)


def _remove(folders: Iterable[Path], files: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder, onerror=_open_up)
    for file in files:
        with suppress(FileNotFoundError):
            file.unlink()


def _open_up(function: Callable[..., Any], path: str, error: Any) -> None:
    """Remove also what a task has taken the permissions from; once more, and no more."""
    if isinstance(error[1], FileNotFoundError):
        return
    if not isinstance(error[1], PermissionError):
        raise error[1]
    parent = os.path.dirname(path)
    os.chmod(parent, stat.S_IMODE(os.stat(parent).st_mode) | stat.S_IRWXU)
    if os.path.isdir(path) and not os.path.islink(path):
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRWXU)
        shutil.rmtree(path)
    else:
        os.unlink(path)
