"""Sandboxes: the command line of bubblewrap for each kind, and which folders and files a task that is shut in may have."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wattle.errors import InvalidRequest
from wattle.runtime.layout import Folders, Layout
from wattle.runtime.policy import Policy, Support, User

STATUS_FD = 3
"""Where bwrap tells whether the command was started."""

_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "fonts", "group", "host.conf", "hosts", "java", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "locale.alias", "localtime", "magic", "mime.types", "nsswitch.conf", "passwd", "pki/tls/certs", "protocols", "R",
    "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_NOT_FOR_TASKS = ("/usr", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys")
_SHARED = ("/tmp", "/var/tmp", "/home", "/root", "/var", "/srv", "/opt", "/mnt", "/media")


def check_folder(at: Layout, private: Path, data: Path, policy: Policy) -> None:
    """Raise InvalidRequest where a sandboxed task's working folder is not one that it may have to itself."""
    cwd, data = Path(os.path.realpath(at.cwd)), Path(os.path.realpath(data))
    if cwd.is_relative_to(data):
        if not cwd.is_relative_to(os.path.realpath(private)):
            raise InvalidRequest(f"working_dir {at.cwd} is in Wattle's own data folder, which no sandbox shows")
        return
    for closed in _NOT_FOR_TASKS:
        if cwd.is_relative_to(os.path.realpath(closed)):
            raise InvalidRequest(f"working_dir {at.cwd} is in {closed}, which is the system's; choose another")
    for shared in (*map(Path, _SHARED), Path.home(), data):
        if Path(os.path.realpath(shared)).is_relative_to(cwd):
            raise InvalidRequest(f"working_dir {at.cwd} holds {shared}; a sandbox needs a folder of the task's own")
    if policy.min_sandbox != "none" and not any(
        cwd.is_relative_to(os.path.realpath(folder)) for folder in policy.writable
    ):
        allowed = ", ".join(map(str, policy.writable)) or "none"
        raise InvalidRequest(f"this node does not allow working_dir {at.cwd}; its sandbox_writable: {allowed}")


def check_files(at: Layout) -> None:
    """Raise InvalidRequest where a file of a task that is shut in lies, by its name or by links, outside of its working folder."""
    own = os.path.realpath(at.cwd)
    for kind, paths in (("input", at.inputs), ("output", at.outputs)):
        for name, path in paths.items():
            if not Path(os.path.realpath(path)).is_relative_to(own):
                raise InvalidRequest(f"{kind} {name!r} is {path}, which leads out of the task's own folder {at.cwd}")


def check_reach(path: str | Path, user: User, level: str) -> None:
    """Raise InvalidRequest where the user may not pass through a folder, or one above it, as far as they are there."""
    for folder in (Path(path), *Path(path).parents):
        try:
            status = os.stat(folder)
        except FileNotFoundError:
            continue
        bit = 0o100 if status.st_uid == user.uid else 0o010 if status.st_gid in (user.gid, *user.groups) else 0o001
        if not status.st_mode & bit:
            fix = "use sandbox: strict" if level == "standard" else "use a sandbox, or another working_dir"
            raise InvalidRequest(f"{user.name!r} may not enter {folder}, where the task is to run; {fix}")


def sandbox(
    level: str,
    at: Layout,
    folders: Folders,
    policy: Policy,
    support: Support,
    limits: Mapping[str, float],
    user: User | None,
) -> list[str]:
    """The command line up to what becomes the task within."""
    cwd = os.path.realpath(at.cwd)
    private = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]
    # Root that stays in its namespace keeps nothing but what changing the user takes, and that only until it has.
    rights = ["--unshare-user"] if user is None else ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    size = ["--size", f"{limits['memory']:.0f}"] if "memory" in limits else []
    temporary = [word for path in ("/tmp", "/var/tmp") for word in (*size, "--perms", "1777", "--tmpfs", path)]
    seen = _standard(support) if level == "standard" else _strict(policy, support)
    data = os.path.realpath(folders.data)
    hidden = ("/",) if level == "strict" else ("/tmp", "/var/tmp", data)
    own = [*_above(data, hidden), "--perms", "0755", "--tmpfs", data, *_above(cwd, hidden), "--bind", cwd, cwd]
    if any(path.is_relative_to(f"{at.cwd}/inputs") for path in at.inputs.values()):
        own += ["--ro-bind", f"{cwd}/inputs", f"{cwd}/inputs"]
    return [
        support.programs["env"], "--ignore-signal=TERM", support.programs["bwrap"], *private,
        *(["--unshare-net"] if level == "strict" else []), "--cap-drop", "ALL", *rights, "--json-status-fd", str(STATUS_FD),
        *seen, *temporary, *own, "--remount-ro", data, "--remount-ro", "/run" if level == "standard" else "/", "--chdir", cwd, "--",
    ]  # fmt: skip


def _above(path: str, hidden: Sequence[str]) -> list[str]:
    """Make the folders above a path, as far as they are not there to be seen, such that every user may pass."""
    missing = [
        str(p) for p in reversed(Path(path).parents) if any(p != Path(h) and p.is_relative_to(h) for h in hidden)
    ]
    return [word for parent in missing for word in ("--perms", "0755", "--dir", parent)]


def _standard(support: Support) -> list[str]:
    """All there is to read, but for the sockets of services."""
    seen = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run"]
    if support.resolver is not None:
        seen += ["--ro-bind", support.resolver, support.resolver]
    return seen


def _strict(policy: Policy, support: Support) -> list[str]:
    """Programs and libraries, and what the node's settings add."""
    seen = ["--proc", "/proc", "--dev", "/dev"]
    for path, target in support.system.items():
        seen += ["--ro-bind", path, path] if target is None else ["--symlink", target, path]
    seen += ["--perms", "0755", "--dir", "/etc"]
    for name in _ETC:
        seen += [*_above(f"/etc/{name}", ("/etc",)), "--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for folder in policy.readable:
        seen += [*_above(str(folder), ("/",)), "--ro-bind-try", str(folder), str(folder)]
    return seen
