"""Having tasks started: they are laid out before the commit that says so, and asked of the spawner after it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.events import RuntimeEvent
from wattle.core.model import TaskId
from wattle.core.room import kind_of
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.peer.loop import Loop
from wattle.runtime.confining import Confining
from wattle.runtime.launch import disk_full
from wattle.runtime.layout import Folders, Layout, layout, make_folder
from wattle.runtime.processes import Processes, SpawnRequest
from wattle.runtime.secrets import Secrets

LOG_FOLDERS = 1_000
"""Log folders, one per run, that are remembered to be there."""

log = get_logger("wattle.runtime")


class Spawning:
    """See the module's docstring. ``log_folders`` are of the runs whose folder for logs is known to be there."""

    def __init__(
        self, folders: Folders, confining: Confining, secrets: Secrets, loop: Loop[RuntimeEvent], processes: Processes
    ) -> None:
        self._folders, self._confining, self._secrets = folders, confining, secrets
        self._loop, self._processes = loop, processes
        self._not_started: set[TaskId] = set()  # in the step at hand
        self.log_folders: set[str] = set()

    def lay_out(self, spawns: Iterable[do.Spawn]) -> list[tuple[do.Spawn, Layout]]:
        """Where each of these tasks has its folders and texts, before the commit; those that have none are told as not started."""
        laid_out = []
        for spawn in spawns:
            try:
                at = layout(spawn.assignment, self._folders)
                at.env.update(self._secrets.environment(spawn.assignment.secrets))
                laid_out.append((spawn, at))
            except InvalidRequest as error:
                self._do_not_start(spawn, error.message)
        return laid_out

    def _do_not_start(self, spawn: do.Spawn, problem: str, disk_full: bool = False) -> None:
        """Have it told that a task cannot be started.

        One that needs the success of others has not failed before that, which may yet put right what is wrong: it is handed back, and
        given anew when its turn has come.
        """
        id = spawn.assignment.id
        if spawn.needs is None:
            self._processes.revoke([id])  # it may wait there already, and was to start at once now
        if spawn.needs:
            log.info("a task cannot be started ahead", task=str(id), reason=problem)
            self._loop.post(on.Skipped(id))
        else:
            self._loop.post(on.SpawnFailed(id, problem, disk_full))
        self._not_started.add(id)

    def spawn(self, spawns: list[tuple[do.Spawn, Layout]]) -> None:
        """Make their folders and have them started, after the commit."""
        for spawn, at in spawns:
            id = spawn.assignment.id
            absent = [need for need in spawn.needs or () if need in self._not_started]
            if absent:
                self._do_not_start(spawn, f"{absent[0]} is not started")
                continue
            try:
                confined = self._confining.confine(spawn.assignment, at)
                self._make_folders(spawn.assignment.run, at)
                room = kind_of(spawn.assignment)
                request = SpawnRequest(id, at.argv, at.env, at.cwd, at.stdout, at.stderr, room, spawn.needs)
                if confined is not None:
                    self._confining.give_folders(spawn.assignment, at, confined)
                    request = replace(request, env={**confined.env, **at.env}, confined=confined.request)
                self._processes.spawn([request])
            except InvalidRequest as error:
                self._do_not_start(spawn, error.message)
            except (OSError, ValueError) as error:
                full = disk_full(error)
                fix = "free some space on this node" if full else "correct working_dir or outputs"
                self._do_not_start(spawn, f"cannot make its folders: {error}; {fix}", full)
        self._not_started.clear()

    def _make_folders(self, run: str, at: Layout) -> None:
        if run not in self.log_folders:
            make_folder(os.path.dirname(at.stdout))
            if len(self.log_folders) >= LOG_FOLDERS:
                self.log_folders.clear()
            self.log_folders.add(run)
        make_folder(at.cwd)
        for path in at.outputs.values():
            make_folder(path.parent)
