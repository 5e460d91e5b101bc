"""Control groups of tasks: made before a task starts, asked whether it ran out of memory, killed and removed after it. Of either version.

Standard library only: the spawner imports it, once there is a task that needs one. What a group is to be comes from the runtime
(wattle/runtime/confinement.py) as a mapping::

    {"name": "t-run@worker.1", "bases": {"memory": "/sys/fs/cgroup/memory/wattle-1a2b3c4d", ...}, "files": [["memory", name, text], ...]}

One base per hierarchy: version 1 has one per controller, version 2 a single one, under the controller's name "". A file whose name ends
with "?" is written to where it exists. A group takes its processes in by having them write to ``cgroup.procs``; what they start is born in
it. The bases made for a folder's tasks are noted in ``FOLDER/cgroups.json`` before they are made: a later spawner removes what one that was
killed left there, and kills what runs in it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress

_ROUNDS = 5  # of killing what a group holds, before it is left for the next look
_WAITS = 200  # for groups that an earlier spawner left, 10 ms apart

CONTROLLERS = frozenset({"cpu", "memory", "pids"})
"""What is made use of."""

ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
"""Shell text that enters the groups whose ``cgroup.procs`` are its arguments up to ``--``, and becomes what follows."""


class Group:
    """The group of one task, in all hierarchies that it needs."""

    def __init__(self, name: str, bases: dict[str, str], files: list[list[str]]) -> None:
        self.bases = bases
        self.folders = {controller: f"{base}/{name}" for controller, base in bases.items()}
        self.files = files

    def make(self, folder: str) -> list[str]:
        """Make it, for a task of the spawner of ``folder``; returns what has to stand before its command line. Raises OSError."""
        self._make_bases(folder)
        for path in self.folders.values():
            with suppress(FileExistsError):  # of a start that failed
                os.mkdir(path)
        for controller, name, text in self.files:
            path = f"{self.folders[controller]}/{name.rstrip('?')}"
            if not name.endswith("?") or os.path.exists(path):
                _write(path, text)
        procs = [f"{path}/cgroup.procs" for path in self.folders.values()]
        return ["/bin/sh", "-c", ENTER, "confine", *procs, "--"]

    def _make_bases(self, folder: str) -> None:
        missing = [base for base in self.bases.values() if not os.path.isdir(base)]
        if missing:
            _note(folder, sorted({*_noted(folder), *missing}))
        for base in missing:
            os.mkdir(base)
        unified = self.bases.get("")
        if (
            unified is not None and not _read(f"{unified}/cgroup.subtree_control").strip()
        ):  # what groups below may limit
            controllers = set(_read(f"{unified}/cgroup.controllers").split()) & CONTROLLERS
            _write(f"{unified}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(controllers)))

    def out_of_memory(self) -> bool:
        """Whether a process of it was killed because the group had no more memory."""
        for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
            if controller in self.folders:
                for line in _read(f"{self.folders[controller]}/{name}").splitlines():
                    key, _, number = line.partition(" ")
                    if key == "oom_kill" and number.strip() != "0":
                        return True
        return False

    def end(self) -> bool:
        """Kill whatever is in it and remove it; whether it is gone. One that is not is looked at again later."""
        gone = [_end(path) for path in self.folders.values()]
        return all(gone)


def end_left_behind(folder: str) -> list[str]:
    """Remove the groups that spawners of ``folder`` made, and kill what is in them; returns the bases that do not go."""
    left = _noted(folder)
    for _ in range(_WAITS):
        left = [base for base in left if not _end_base(base)]
        if not left:
            break
        time.sleep(0.01)
    _note(folder, left)
    return left


def _end_base(base: str) -> bool:
    try:
        inner = [entry.path for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return True
    for path in inner:
        _end(path)
    return _remove(base)


def _end(path: str) -> bool:
    """Kill what is in one folder of a group, whatever it starts meanwhile, and remove the folder; whether it is gone."""
    with suppress(OSError):
        _write(f"{path}/pids.max", "0")  # nothing new starts in it
    with suppress(OSError):
        _write(f"{path}/cgroup.kill", "1")
    for _ in range(_ROUNDS):
        if _remove(path):
            return True
        pids = [int(pid) for pid in _read(f"{path}/cgroup.procs").split()]
        if not pids:
            break  # what is left is about to be gone
        for pid in pids:
            if pid > 1:  # 0: a process of a namespace that is not seen from here
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
    return _remove(path)


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _noted(folder: str) -> list[str]:
    try:
        with open(f"{folder}/cgroups.json", encoding="utf-8") as file:
            return [str(base) for base in json.load(file)]
    except (OSError, ValueError, TypeError):
        return []


def _note(folder: str, bases: list[str]) -> None:
    path = f"{folder}/cgroups.json"
    if not bases:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(bases, file)
    os.replace(f"{path}.new", path)


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
