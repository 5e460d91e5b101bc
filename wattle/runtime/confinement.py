"""How a task is confined on this node: what its worker asks for and the node demands, as a command line, a group and an environment.

``confine`` computes; it runs nothing and changes nothing. What this node cannot enforce or does not allow is refused with InvalidRequest
before anything starts. What comes out goes to the spawner as it is (wattle/runtime/spawner.py). The command line is a chain of programs,
each of which becomes the next one, so that the first process of a task stays the one the spawner waits for::

    sh (the control group) env (TERM is for the command alone) bwrap (the sandbox) setpriv (the user) env prlimit env (variables) COMMAND

Each is missing where there is nothing for it to do. The variables that a worker gives, which may tell a loader what to load, have other
names until the last of these gives them their own: what shuts a task in must not obey them.

bwrap stays, and waits for the command: the TERM signal, which goes to the whole process group, must not end it, since all that is in the
sandbox dies with it. A signal that ends the command it tells as status 128 + signal.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattle.core.model import Assignment
from wattle.errors import InvalidRequest
from wattle.runtime.launch import GIVEN
from wattle.runtime.layout import Folders, Layout
from wattle.runtime.policy import GROUPED, LEVELS, LIMITS, Policy, Support, User
from wattle.runtime.sandbox import check_files, check_folder, check_reach, sandbox

_MOST = 2.0**62
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERIOD = 100_000  # microseconds: CPU time is shared out in such periods
_OWN_PROCESSES = 2  # bwrap's own in each sandbox
_KILL_SECONDS = 5  # of CPU time after SIGXCPU, until SIGKILL
_ENVIRONMENT = ("PATH", "LANG", "LC_*", "TZ")  # of the node's, in a strict sandbox


@dataclass(frozen=True, slots=True)
class Confinement:
    """A task confined: what goes to the spawner, and whose the task's private folder has to be."""

    request: dict[str, Any]
    env: dict[str, str]
    user: User | None


def check_asked(assignment: Assignment) -> None:
    """Raise InvalidRequest for what no document asks for: it may come from a coordinator of another version, or worse."""
    if assignment.sandbox not in LEVELS:
        raise InvalidRequest(f"there is no sandbox {assignment.sandbox!r}; there are: {', '.join(LEVELS)}")
    if assignment.run_as is not None and not _USER.fullmatch(assignment.run_as):
        raise InvalidRequest(f"{assignment.run_as!r} is no name of a user")
    for name in _given(assignment):
        if not _VARIABLE.fullmatch(name):
            raise InvalidRequest(f"{name[:80]!r} is no name of an environment variable")
    for name, amount in assignment.limits.items():
        if name not in LIMITS or not 0 < amount < _MOST:
            raise InvalidRequest(f"limits.{name} of {amount} is no limit that this node knows")


def level_of(assignment: Assignment, policy: Policy) -> str:
    """The sandbox it gets: the tighter of the two."""
    return max(assignment.sandbox, policy.min_sandbox, key=LEVELS.index)


def shut_in(assignment: Assignment, policy: Policy) -> bool:
    """Whether its files are checked to lie in its own folder: it may touch less than this runtime, which handles them."""
    return level_of(assignment, policy) != "none" or user_of(assignment, policy) is not None


def user_of(assignment: Assignment, policy: Policy) -> str | None:
    """Who it is to run as, by name."""
    return assignment.run_as or next(iter(policy.users), None)


def confine(
    assignment: Assignment, at: Layout, folders: Folders, policy: Policy, support: Support, user: User | None
) -> Confinement:
    """How a task is confined. ``user`` is who ``user_of`` names.

    Raises InvalidRequest for what this node cannot enforce or does not allow, saying what is missing.
    """
    level = level_of(assignment, policy)
    limits = _limits(assignment.limits, policy, support)
    user = _checked_user(user, policy, support)
    sandboxed = level != "none"
    if sandboxed:
        if support.no_sandbox:
            raise InvalidRequest(f"this node has no sandbox: {support.no_sandbox}")
        check_folder(at, folders.work(assignment.id), folders.data, policy)
    if sandboxed or user is not None:
        check_files(at)
    if user is not None and level != "strict":
        check_reach(os.path.dirname(folders.data) if level == "standard" else at.cwd, user, level)
    outer = sandbox(level, at, folders, policy, support, limits, user) if sandboxed else []
    group = _group(assignment, folders, limits, support, sandboxed=sandboxed)
    wrap = [*outer, *_inner(limits, user, support, sandboxed=sandboxed)]
    given = _given(assignment) if wrap or group is not None else []
    if given:
        wrap += _giving(given, support)
    if sandboxed or given:
        _check_program(at.argv)
    request = {
        "wrap": wrap,
        "group": group,
        "environ": list(_ENVIRONMENT) if level == "strict" else None,
        "sandboxed": sandboxed,
        "reasons": _reasons(limits),
        "given": given,
        "disk": _disk(assignment, at, folders, limits),
    }
    return Confinement(request, _env(level, at, user), user)


# --- what is allowed ----------------------------------------------------------------------------------------------------


def _limits(asked: Mapping[str, float], policy: Policy, support: Support) -> dict[str, float]:
    """The limits in force, each known to be enforceable."""
    limits = {**policy.max_limits, **policy.default_limits, **asked}
    for name, amount in limits.items():
        most = policy.max_limits.get(name)
        if most is not None and amount > most:
            raise InvalidRequest(f"limits.{name} is {_amount(name, amount)}; this node allows {_amount(name, most)}")
        if lacking := support.lacks(name):
            raise InvalidRequest(f"this node cannot enforce limits.{name}: {lacking}")
    return limits


def _checked_user(user: User | None, policy: Policy, support: Support) -> User | None:
    """The user to change to; None where the runtime is that user already."""
    if user is None or (not support.root and user.name == support.user):
        return None
    if not support.root:
        raise InvalidRequest(f"this node cannot run as {user.name!r}: its runtime is {support.user}'s, not root's")
    if user.name not in policy.users:
        allowed = ", ".join(policy.users) or "none"
        raise InvalidRequest(f"this node does not let tasks run as {user.name!r}; its task_users: {allowed}")
    if "setpriv" not in support.programs:
        raise InvalidRequest(f"this node cannot run as {user.name!r}: it has no setpriv; install util-linux")
    return user


def _check_program(argv: Sequence[str]) -> None:
    """Raise InvalidRequest for what ``env`` would not take for a command."""
    if argv and ("=" in argv[0] or argv[0].startswith("-")):
        raise InvalidRequest(f"a command called {argv[0]!r} cannot be run confined; call it by another name")


def _given(assignment: Assignment) -> list[str]:
    """The variables whose values are the document's, or secrets, under names that are."""
    return sorted({*assignment.env, *assignment.secrets})


# --- the command line -----------------------------------------------------------------------------------------------------


def _inner(limits: Mapping[str, float], user: User | None, support: Support, *, sandboxed: bool) -> list[str]:
    """What the command is started by: the last programs of the chain."""
    words: list[str] = []
    if user is not None:
        groups = ["--groups", ",".join(map(str, user.groups))] if user.groups else ["--clear-groups"]
        ids = ["--reuid", str(user.uid), "--regid", str(user.gid), *groups]
        words += [support.programs["setpriv"], *ids, "--inh-caps=-all", "--no-new-privs", "--"]
    if sandboxed:
        words += [support.programs["env"], "--default-signal=TERM"]
    settings = _rlimits(limits, support)
    return words + ([support.programs["prlimit"], *settings, "--"] if settings else [])


def _giving(names: Sequence[str], support: Support) -> list[str]:
    """What gives variables their names; their values are on no command line."""
    if "env" not in support.programs:
        raise InvalidRequest(
            "this node cannot confine a task with variables of its own: it has no env; install coreutils"
        )
    aside = [word for name in names for word in ("-u", GIVEN + name)]
    return [support.programs["env"], *aside, "-S", " ".join(f'{name}="${{{GIVEN}{name}}}"' for name in names)]


def _rlimits(limits: Mapping[str, float], support: Support) -> list[str]:
    settings = []
    for name, option in (("open_files", "nofile"), ("file_size", "fsize")):
        if name in limits:
            most = int(min(limits[name], support.hard_limits.get(option, math.inf)))
            settings.append(f"--{option}={most}:{most}")
    if "time" in limits:
        most = int(min(math.ceil(limits["time"]), support.hard_limits.get("cpu", math.inf)))
        last = int(min(most + _KILL_SECONDS, support.hard_limits.get("cpu", math.inf)))
        settings.append(f"--cpu={most}:{last}")
    if "memory" in limits and "memory" not in support.groups:
        most = int(min(limits["memory"], support.hard_limits.get("data", math.inf)))
        settings.append(f"--data={most}:{most}")
    return settings


# --- the control group, the environment, the words ------------------------------------------------------------------------


def base_name(data: Path) -> str:
    """The name of the groups that hold those of a data folder's tasks."""
    return f"wattle-{hashlib.sha256(os.fsencode(data)).hexdigest()[:8]}"


def _group(
    assignment: Assignment, folders: Folders, limits: Mapping[str, float], support: Support, *, sandboxed: bool
) -> dict[str, Any] | None:
    """What cgroups.py is told; None where no limit needs a group."""
    wanted = [GROUPED[n] for n in limits if n in GROUPED and GROUPED[n] in support.groups]
    if "pids" in support.groups and (wanted or "disk" in limits):  # by a group all of a task is ended
        wanted = ["pids", *wanted]  # the first: nothing new starts meanwhile
    if not wanted:
        return None
    files = _unified(limits, sandboxed=sandboxed) if support.unified else _by_controller(limits, sandboxed=sandboxed)
    base = base_name(folders.data)
    bases = {"" if support.unified else name: f"{support.groups[name].rstrip('/')}/{base}" for name in wanted}
    files = [entry for entry in files if entry[0] in bases]
    name = f"t-{assignment.run}@{assignment.worker}.{assignment.attempt}"
    return {"name": name, "bases": bases, "files": files}


def _unified(limits: Mapping[str, float], *, sandboxed: bool) -> list[list[str]]:
    files = []
    if "memory" in limits:
        files += [["", "memory.max", f"{limits['memory']:.0f}"], ["", "memory.oom.group", "1"]]
        files += [["", "memory.swap.max?", "0"]]
    if "cpu" in limits:
        files += [["", "cpu.max", f"{_quota(limits['cpu'])} {_PERIOD}"]]
    if "processes" in limits:
        files += [["", "pids.max", str(_processes(limits, sandboxed=sandboxed))]]
    return files


def _by_controller(limits: Mapping[str, float], *, sandboxed: bool) -> list[list[str]]:
    files = []
    if "memory" in limits:
        most = f"{limits['memory']:.0f}"
        files += [["memory", "memory.limit_in_bytes", most], ["memory", "memory.memsw.limit_in_bytes?", most]]
    if "cpu" in limits:
        files += [["cpu", "cpu.cfs_period_us", str(_PERIOD)], ["cpu", "cpu.cfs_quota_us", str(_quota(limits["cpu"]))]]
    if "processes" in limits:
        files += [["pids", "pids.max", str(_processes(limits, sandboxed=sandboxed))]]
    return files


def _disk(assignment: Assignment, at: Layout, folders: Folders, limits: Mapping[str, float]) -> dict[str, Any] | None:
    """What disks.py is told; None where there is no such limit."""
    if "disk" not in limits:
        return None
    private = str(folders.work(assignment.id))
    folder = private if Path(at.cwd).is_relative_to(private) else at.cwd
    return {"most": int(limits["disk"]), "paths": [folder, at.stdout, at.stderr]}


def _quota(cpus: float) -> int:
    return max(1000, int(cpus * _PERIOD))


def _processes(limits: Mapping[str, float], *, sandboxed: bool) -> int:
    return int(limits["processes"]) + (_OWN_PROCESSES if sandboxed else 0)


def _env(level: str, at: Layout, user: User | None) -> dict[str, str]:
    env = {} if level == "none" else {"TMPDIR": "/tmp"}
    if user is not None:
        env |= {"USER": user.name, "LOGNAME": user.name, "HOME": user.home}
    if level == "strict":
        env["HOME"] = at.cwd
    return env


def _reasons(limits: Mapping[str, float]) -> dict[str, str]:
    """What to say of a failure, by what is known of it: that memory or disk was lacking, or a signal's number."""
    reasons = {}
    if "memory" in limits:
        reasons["memory"] = f"out of memory: limits.memory is {_amount('memory', limits['memory'])}"
    if "time" in limits:
        reasons["24"] = f"used up its CPU time: limits.time is {_amount('time', limits['time'])}"
    if "disk" in limits:
        reasons["disk"] = f"used up its disk space: limits.disk is {_amount('disk', limits['disk'])}"
    if "file_size" in limits:
        reasons["25"] = f"wrote too large a file: limits.file_size is {_amount('file_size', limits['file_size'])}"
    return reasons


def _amount(name: str, amount: float) -> str:
    if name in ("memory", "file_size", "disk"):
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if amount >= size:
                return f"{amount / size:.4g} {unit}"
        return f"{amount:.0f} bytes"
    return f"{amount:g} s" if name == "time" else f"{amount:g}"
