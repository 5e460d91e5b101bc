"""Starting one process, and saying in plain words why one could not be started. Standard library only: the spawner imports it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Collection, Sequence

_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_DEFAULT_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})
GIVEN = "WATTLE_GIVEN_"
"""What the names of a command's own variables begin with while others than the command run: no loader, shell or library obeys them so."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHORTAGES = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that the disk, or what may be used of it, is full: no fault of the task's."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


def start(
    argv: list[str],
    env: dict[str, str],
    cwd: str,
    stdout: str,
    stderr: str,
    wrap: Sequence[str] = (),
    status: int | None = None,
    given: Collection[str] = (),
) -> int:
    """Start a process as the leader of a session of its own and return its number; makes ``cwd`` where it is missing, and stays in it.

    ``stdout`` and ``stderr`` are files, made or appended to. Signals are as the system has them by default. ``wrap`` is a command line that
    becomes ``argv`` in the end, ``status`` what it has as its descriptor 3; it has the variables in ``given`` under names behind GIVEN, and
    gives the command the right ones: LD_PRELOAD is to change the command, not what shuts it in. Raises OSError, ValueError or TypeError:
    ``explain`` makes a sentence of it.
    """
    try:
        os.chdir(cwd)
    except FileNotFoundError:  # it was there when this was asked for: a task that ran meanwhile has removed it
        os.makedirs(cwd)
        os.chdir(cwd)
    if not argv:
        raise ValueError("the command is empty")
    program = find_program(argv[0], env.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    files = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, stdout, _LOG_FLAGS, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, stderr, _LOG_FLAGS, 0o600),
        *(() if status is None else ((os.POSIX_SPAWN_DUP2, status, 3),)),
    )
    if wrap:  # what it becomes in the end is looked at now, for its failure to start would be the last thing to be seen
        if not os.access(program, os.F_OK):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
        if os.path.isdir(program) or not os.access(program, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), program)
        program, argv = wrap[0], [*wrap, *argv]
        env = {GIVEN + name if name in given else name: text for name, text in env.items()}
    return os.posix_spawn(
        program, argv, env, file_actions=files, setsid=True, setsigdef=_DEFAULT_SIGNALS, setsigmask=()
    )


def find_program(name: str, path: str) -> str | None:
    """The file that a command's name stands for: by ``path`` (colons between folders), or itself when it holds a slash."""
    if "/" in name:
        return name
    for folder in path.split(os.pathsep):
        candidate = f"{folder or '.'}/{name}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    return None


def explain(error: Exception, argv: list[str], env: dict[str, str], cwd: str, stdout: str, stderr: str) -> str:
    """Why ``start`` failed, naming the file and the fix. posix_spawn(3) does not say which of its files an error is about."""
    if not isinstance(error, OSError):
        return f"the command line or its environment is not valid: {error}"
    if not os.path.isdir(cwd) or not os.access(cwd, os.X_OK):
        return f"working folder {cwd} cannot be entered: {_why_no_folder(cwd)}; create it or correct working_dir"
    for path in (stdout, stderr):
        try:
            os.close(os.open(path, _LOG_FLAGS | os.O_CLOEXEC, 0o600))
        except (OSError, ValueError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            return f"log file {path} cannot be written: {reason}; see to its folder and the space there"
    if error.errno == errno.E2BIG:
        return "the command line, script and environment are too long for this system (one text: 128 KiB); pass data in files"
    if error.errno in _SHORTAGES:
        return f"this node cannot start a process now: {error.strerror}; raise its limits or lower the runtime's slots"
    return _explain_program(error, argv[0], env.get("PATH", os.defpath), cwd)


def _explain_program(error: OSError, name: str, path: str, cwd: str) -> str:
    program = find_program(name, path)
    if program is None:
        return f"command {name!r} is not in PATH ({path}); install it on this node or give its full path"
    program = os.path.join(cwd, program)
    if not os.path.exists(program):
        return f"command {program} does not exist; correct the command, or put the file there on this node"
    if os.path.isdir(program):
        return f"command {program} is a folder; name a program"
    if not os.access(program, os.X_OK):
        return f"command {program} is not executable; run: chmod +x {program}"
    if error.errno == errno.ENOENT:
        return (
            f"command {program} cannot start: the interpreter that its #! line names does not exist; correct that line"
        )
    if error.errno == errno.ENOEXEC:
        return (
            f"command {program} is no program for this machine and has no #! line; begin it with one, such as #!/bin/sh"
        )
    return f"command {program} cannot start: {error.strerror}"


def _why_no_folder(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    return os.strerror(errno.EACCES if os.path.isdir(path) else errno.ENOTDIR)
