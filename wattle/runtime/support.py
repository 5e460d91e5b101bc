"""What this node can confine tasks with: control groups it may write to, bubblewrap that works, programs of util-linux and coreutils."""

from __future__ import annotations

import math
import os
import pwd
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wattle.errors import InvalidRequest, SettingsError
from wattle.runtime.cgroups import CONTROLLERS
from wattle.runtime.policy import Policy, Support, User
from wattle.settings import RuntimeSettings

_PROGRAMS = ("bwrap", "env", "prlimit", "setpriv")
_HARD = {
    "nofile": resource.RLIMIT_NOFILE,
    "fsize": resource.RLIMIT_FSIZE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
}
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
_TRIAL_TIMEOUT = 20.0  # seconds for a sandbox to be made, on however busy a machine


def policy_of(settings: RuntimeSettings) -> Policy:
    """What the settings demand."""
    return Policy(
        settings.min_sandbox,
        settings.default_limits,
        settings.max_limits,
        settings.task_users,
        settings.sandbox_readable,
        settings.sandbox_writable,
    )


def examine() -> Support:
    """Find out what there is; takes as long as making a sandbox does."""
    programs = {name: path for name in _PROGRAMS if (path := shutil.which(name)) is not None}
    groups = find_groups()
    root = os.geteuid() == 0
    return Support(
        root=root,
        user=_name_of(os.geteuid()),
        groups=groups.folders,
        unified=groups.unified,
        no_groups=groups.problem,
        programs=programs,
        no_sandbox=_try_sandbox(programs),
        hard_limits={} if root else {name: _hard(number) for name, number in _HARD.items()},
        system={path: os.readlink(path) if os.path.islink(path) else None for path in _SYSTEM if os.path.exists(path)},
        resolver=_resolver(),
    )


def check(policy: Policy, support: Support) -> None:
    """Raise SettingsError where the settings demand of every task what this node cannot enforce."""
    if policy.min_sandbox != "none" and support.no_sandbox:
        raise SettingsError(f"min_sandbox is {policy.min_sandbox}, but this node has no sandbox: {support.no_sandbox}")
    if policy.users and not support.root and policy.users[0] != support.user:
        raise SettingsError(f"task_users can only be given to a runtime that is root's; this one is {support.user}'s")
    for name in policy.users:
        if user(name) is None:
            raise SettingsError(f"task_users names {name!r}, and this machine has no such user")
        if name != support.user and "setpriv" not in support.programs:
            raise SettingsError(f"task_users names {name!r}, and this node has no setpriv; install util-linux")
    for name in {**policy.default_limits, **policy.max_limits}:
        if lacking := support.lacks(name):
            raise SettingsError(f"limits on {name} are demanded, and this node cannot set any: {lacking}")
    for name, most in policy.max_limits.items():
        if policy.default_limits.get(name, most) > most:
            raise SettingsError(
                f"default_limits.{name} is more than max_limits.{name}: a task that asks for nothing could not start"
            )


def user(name: str) -> User | None:
    """A user of this machine, by name."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return User(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def known_user(name: str) -> User:
    """The same; raises InvalidRequest for one that is not there."""
    found = user(name)
    if found is None:
        raise InvalidRequest(f"run_as is {name!r}, and this node has no such user")
    return found


# --- control groups -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Groups:
    """Controller -> the folder in which groups may be made; why those that are missing are."""

    folders: Mapping[str, str]
    unified: bool = False
    problem: str = "it has no control groups that this runtime may write to; see docs/operations.md"


def find_groups(proc: Path = Path("/proc/self")) -> Groups:
    """This process's own groups, as far as groups can be made in them."""
    own = {}
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    folders: dict[str, str] = {}
    v2: Path | None = None
    for kind, root, point, options in _mounts(proc):
        if kind == "cgroup2":
            v2 = _within(Path(point), root, own.get("", "/"))
            continue
        for controllers, path in own.items():
            for controller in set(controllers.split(",")) & CONTROLLERS & set(options.split(",")):
                folder = _within(Path(point), root, path)
                if os.access(folder, os.W_OK):
                    folders[controller] = str(folder)
    if folders or v2 is None:
        return Groups(folders)
    return _unified([v2, *v2.parents])


def _mounts(proc: Path) -> Iterator[tuple[str, str, str, str]]:
    """Type, root, mount point and options of the mounted hierarchies."""
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            fields = before.split(" ")
            yield kind, fields[3], fields[4], options


def _within(point: Path, root: str, path: str) -> Path:
    """Where a group is to be found below a mount point; a path that leads out of what is mounted is the mount's root."""
    relative = os.path.relpath(path, root)
    return point if relative == "." or relative.startswith("..") else point / relative


def _unified(candidates: list[Path]) -> Groups:
    """The first of these folders, from within outwards, in which groups with limits may be made.

    Version 2 has groups with limits only below groups without processes. A group that systemd has delegated is emptied: what this runtime
    is moves into a group of its own within it.
    """
    for folder in candidates:
        if not (folder / "cgroup.procs").exists():
            break
        if not os.access(folder / "cgroup.procs", os.W_OK) or not os.access(folder, os.W_OK):
            continue
        able = _enabled(folder)
        if not able and _delegated(folder):
            able = _empty(folder)
        if able:
            return Groups({name: str(folder) for name in able}, unified=True)
    return Groups({})


def _enabled(folder: Path) -> set[str]:
    return set(" ".join(_lines(folder / "cgroup.subtree_control")).split()) & CONTROLLERS


def _delegated(folder: Path) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _empty(folder: Path) -> set[str]:
    """Move what is in a group into one within it, and have limits in others within it; gives the controllers that can be had."""
    inner = folder / "agents"
    with suppress(OSError):
        inner.mkdir(exist_ok=True)
        for pid in _lines(folder / "cgroup.procs"):
            with suppress(ProcessLookupError):
                (inner / "cgroup.procs").write_text(pid)
        able = sorted(CONTROLLERS & set(" ".join(_lines(folder / "cgroup.controllers")).split()))
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in able))
    return _enabled(folder)


# --- sandboxes ------------------------------------------------------------------------------------------------------------


def _try_sandbox(programs: Mapping[str, str]) -> str:
    """Make a sandbox; returns why there is none, or nothing."""
    if "bwrap" not in programs:
        return "bwrap is not installed; install bubblewrap"
    if "env" not in programs:
        return "env is not installed; install coreutils"
    shown = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    private = [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--die-with-parent",
    ]
    argv = [
        programs["bwrap"],
        *private,
        "--cap-drop",
        "ALL",
        *shown,
        "--",
        programs["env"],
        "--default-signal=TERM",
        "true",
    ]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TRIAL_TIMEOUT, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap cannot be tried: {error}"
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or [f"bwrap ended with {done.returncode}"])[-1]
    return f"{said} (are user namespaces allowed here? see docs/operations.md)"


def _resolver() -> str | None:
    path = os.path.realpath("/etc/resolv.conf")
    return path if path.startswith("/run/") and os.path.exists(path) else None


def _hard(number: int) -> float:
    hard = resource.getrlimit(number)[1]
    return math.inf if hard == resource.RLIM_INFINITY else float(hard)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
