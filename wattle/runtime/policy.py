"""What a node demands of its tasks and what it has to confine them with, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LEVELS = ("none", "standard", "strict")
"""Sandboxes, each tighter than the one before."""

LIMITS = ("memory", "cpu", "processes", "open_files", "file_size", "disk", "time")
"""What may be limited."""

GROUPED = {"memory": "memory", "cpu": "cpu", "processes": "pids"}
"""Limits on a task as a whole, and the controllers of control groups that set them."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the node's settings demand and allow. The first of ``users`` is who runs tasks that name nobody."""

    min_sandbox: str = "none"
    default_limits: Mapping[str, float] = field(default_factory=dict)
    max_limits: Mapping[str, float] = field(default_factory=dict)
    users: tuple[str, ...] = ()
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Support:
    """What this node has (wattle/runtime/support.py finds out).

    ``groups``: controller -> the folder of the control group in which groups of tasks are made; one folder for all in version 2, where
    ``unified`` is set. ``programs``: where bwrap, env, prlimit, setpriv and sh are. ``no_sandbox`` says why there is none, ``no_groups``
    why limits of a kind cannot be set. ``system``: what there is of the system's folders, with the target of those that are links.
    """

    root: bool = False
    user: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    unified: bool = False
    no_groups: str = "it has no control groups that this runtime may write to"
    programs: Mapping[str, str] = field(default_factory=dict)
    no_sandbox: str = ""
    hard_limits: Mapping[str, float] = field(default_factory=dict)
    system: Mapping[str, str | None] = field(default_factory=dict)
    resolver: str | None = None  # the file behind /etc/resolv.conf, where that is in /run

    @property
    def confines(self) -> tuple[str, ...]:
        """The limits it can set on a task as a whole, and whether it has sandboxes and may change users."""
        able = [name for name, controller in GROUPED.items() if controller in self.groups]
        return (*able, *(() if self.no_sandbox else ("sandbox",)), *(("run_as",) if self._changes_users else ()))

    def lacks(self, limit: str) -> str:
        """Why a limit cannot be set here; empty where it can. Of memory that of each process will do, if need be."""
        if limit == "disk":
            return ""  # the spawner measures
        controller = GROUPED.get(limit)
        if controller in self.groups:
            return ""
        if controller is not None and limit != "memory":
            return self.no_groups
        return "" if "prlimit" in self.programs else "it has no prlimit; install util-linux"

    @property
    def _changes_users(self) -> bool:
        return self.root and "setpriv" in self.programs
