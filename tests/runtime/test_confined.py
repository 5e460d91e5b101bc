"""Confined tasks at the spawner: what they have of the node's environment, and what is said of their ends. A shell stands for bwrap."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from wattle.core.model import Assignment
from wattle.runtime.confined import Confined
from wattle.runtime.confinement import confine
from wattle.runtime.layout import Folders, layout
from wattle.runtime.policy import Policy, Support

REASONS = {"24": "time", "25": "size"}
TELLS = ["/bin/sh", "-c", '"$@"; code=$?; echo "{ \\"exit-code\\": $code }" >&3; exit $code', "bwrap"]
FAILS = ["/bin/sh", "-c", "echo '{ \"child-pid\": 1 }' >&3; exit 1", "bwrap"]


def end(folder: Path, confined: Confined, command: str, *, told: bool = False) -> tuple[list[int | None], str]:
    files = (str(folder / "out"), str(folder / "err"))
    pid = confined.start(str(folder), ["sh", "-c", command], dict(os.environ), str(folder), *files)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return confined.ended(code if code >= 0 else None, -code if code < 0 else None, told=told)


@pytest.mark.parametrize(
    ("wrap", "command", "said"),
    [
        (TELLS, "exit 0", ([0, None], "")),
        (TELLS, "exit 3", ([3, None], "")),
        (TELLS, "kill -SEGV $$", ([None, 11], "")),
        (TELLS, "kill -XCPU $$", ([None, 24], "time")),
        (TELLS, "exit 255", ([255, None], "")),
        (
            FAILS,
            "exit 0",
            ([1, None], "its sandbox could not be made, or its command not be started in it: see its stderr"),
        ),
    ],
)
def test_a_sandbox_tells_signals_as_statuses_and_whether_it_was_made(
    tmp_path: Path, wrap: list[str], command: str, said: tuple[list[int | None], str]
) -> None:
    assert end(tmp_path, Confined(wrap, None, None, True, REASONS, []), command) == said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("kill -XFSZ $$", ([None, 25], "size")),
        ("sh -c 'kill -XFSZ $$'; exit $?", ([153, None], "size")),
        ("exit 139", ([139, None], "")),
    ],
)
def test_without_a_sandbox_statuses_are_as_they_are(
    tmp_path: Path, command: str, said: tuple[list[int | None], str]
) -> None:
    assert end(tmp_path, Confined([], None, None, False, REASONS, []), command) == said


def test_of_what_was_told_to_end_no_reason_is_given(tmp_path: Path) -> None:
    confined = Confined(TELLS, None, None, True, REASONS, [])
    assert end(tmp_path, confined, "kill -XCPU $$", told=True) == ([None, 24], "")


@pytest.mark.parametrize(
    ("command", "said"),
    [("kill -KILL $$", ([None, 9], "too much")), ("exit 0", ([0, None], "")), ("exit 3", ([3, None], ""))],
)
def test_what_was_killed_for_its_disk_says_so_and_what_ended_before_that_does_not(
    tmp_path: Path, command: str, said: tuple[list[int | None], str]
) -> None:
    confined = Confined([], None, None, False, REASONS, [])
    confined.over = "too much"
    assert end(tmp_path, confined, command) == said


def test_a_command_that_is_not_there_is_not_started(tmp_path: Path) -> None:
    confined = Confined(TELLS, None, None, True, {}, [])
    before = os.listdir("/proc/self/fd")
    files = (str(tmp_path / "out"), str(tmp_path / "err"))
    for name, kind in (("none", FileNotFoundError), ("/etc/passwd", PermissionError), ("/none", FileNotFoundError)):
        with pytest.raises(kind):
            confined.start(str(tmp_path), [name], dict(os.environ), str(tmp_path), *files)
    assert len(os.listdir("/proc/self/fd")) == len(before)


GUARD = """#!/bin/sh
printf '%s\\n' "$@" > words
env > seen
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


def test_a_tasks_own_variables_are_not_obeyed_by_what_shuts_it_in(tmp_path: Path) -> None:
    guard, env = tmp_path / "prlimit", shutil.which("env")
    guard.write_text(GUARD)
    guard.chmod(0o700)
    given = {"LD_DEBUG": "none", "IFS": "a", "X": "a  b\t\"c' $HOME ${X} \\n\n=#", "EMPTY": "", "PATH": "/usr/bin:/bin"}
    task = Assignment(
        "r", "w", 1, 1, "f", argv=("env", "-0"), env=given, secrets={"PGPASSWORD": "p"}, limits={"time": 9.0}
    )
    folders = Folders(tmp_path)
    at = layout(task, folders)
    at.env["PGPASSWORD"] = "a secret"
    support = Support(programs={"prlimit": str(guard), "env": str(env)})
    confined = Confined(**confine(task, at, folders, Policy(), support, None).request)
    files = (str(tmp_path / "out"), str(tmp_path / "err"))
    pid = confined.start(str(tmp_path), list(at.argv), {"PATH": "/nowhere", **at.env}, str(tmp_path), *files)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, Path(files[1]).read_text()
    has = dict(entry.split("=", 1) for entry in Path(files[0]).read_text().rstrip("\0").split("\0"))
    assert {name: has[name] for name in at.env} == at.env
    assert not [name for name in has if name.startswith("WATTLE_GIVEN")]
    seen = (tmp_path / "seen").read_text().splitlines()
    assert not [line for line in seen if line.partition("=")[0] in {"LD_DEBUG", "X", "PGPASSWORD"}]
    assert "secret" not in (tmp_path / "words").read_text()


def test_a_strict_environment_keeps_what_it_names() -> None:
    node = {"PATH": "/bin", "LC_ALL": "C", "LCX": "1", "SECRET": "x", "PATHS": "y"}
    assert Confined([], None, ["PATH", "LC_*"], False, {}, []).environ(node) == {"PATH": "/bin", "LC_ALL": "C"}
    assert Confined([], None, None, False, {}, []).environ(node) == node
