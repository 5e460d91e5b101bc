"""Control groups of version 2 on a real hierarchy (root, and one that is mounted): what a folder that stands for the kernel's cannot show.

Systems of version 1 mostly have one mounted as well, with a controller or two that version 1 does not use. What is said of controllers is
then shown with those; that tasks keep to their limits is in tests/security/test_confined_tasks.py, with whichever version has them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.network.processes import wait_until
from wattle.runtime import cgroups, support
from wattle.runtime.cgroups import CONTROLLERS, Group, end_left_behind
from wattle.runtime.support import find_groups

SPRAY = "setsid sleep 1000 & setsid sh -c 'while :; do sleep 1000 & sleep 0.01; done' & echo up; exec sleep 1000"
"""Processes in sessions of their own, and one that starts more all the time."""


def hierarchy() -> Path | None:
    """Where one is mounted that groups can be made in."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4])
        if after.startswith("cgroup2 ") and os.geteuid() == 0 and os.access(point / "cgroup.procs", os.W_OK):
            return point
    return None


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """A group's name for this test, right below the root of the hierarchy; what is made there is removed."""
    point = hierarchy()
    if point is None:
        pytest.skip("no hierarchy of control groups of version 2 is mounted here that may be written to")
    enabled = point / "cgroup.subtree_control"
    before = set(enabled.read_text().split())
    made = point / f"wattle-test-{os.getpid()}"
    yield made
    end_left_behind(str(tmp_path))
    for folder in (made / "agents", made):
        assert cgroups._end(str(folder))
    for name in set(enabled.read_text().split()) - before:
        enabled.write_text(f"-{name}")


@pytest.fixture
def controllers(base: Path, monkeypatch: pytest.MonkeyPatch) -> frozenset[str]:
    """Those that are made use of, where this hierarchy has any; else those that it has."""
    there = frozenset((base.parent / "cgroup.controllers").read_text().split())
    chosen = CONTROLLERS & there or there
    if not chosen:
        pytest.skip("the hierarchy of version 2 has no controller at all")
    for module in (cgroups, support):
        monkeypatch.setattr(module, "CONTROLLERS", chosen)
    for name in chosen - set((base.parent / "cgroup.subtree_control").read_text().split()):
        try:
            (base.parent / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError as error:  # as in a container: what is mounted is a group with processes
            pytest.skip(f"groups cannot be given the controller {name} here: {error.strerror}")
    return chosen


def started(entering: list[str], script: str) -> subprocess.Popen[str]:
    """A task's process within its group, once it has said something."""
    process = subprocess.Popen(
        [*entering, "sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing, and ends with the block however that ends."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_all_that_a_task_starts_is_in_its_group_and_is_killed_with_it(base: Path, tmp_path: Path) -> None:
    group = Group("t", {"": str(base)}, [["", "memory.max?", "1000000000"]])
    with started(group.make(str(tmp_path)), SPRAY) as process:
        procs = Path(group.folders[""], "cgroup.procs")
        wait_until(lambda: len(procs.read_text().split()) > 10, "it has started others")
        assert f"0::/{base.name}/t" in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        wait_until(group.end, "the group is gone")
        assert process.wait(20) == -9
    assert not procs.parent.exists()


def test_what_a_killed_spawner_left_running_is_killed(base: Path, tmp_path: Path) -> None:
    entering = Group("t", {"": str(base)}, []).make(str(tmp_path))
    with started(entering, SPRAY) as process:
        assert end_left_behind(str(tmp_path)) == []
        assert process.wait(20) == -9
    assert not base.exists()


def test_a_delegated_group_is_emptied_and_then_has_groups_with_limits(
    base: Path, tmp_path: Path, controllers: frozenset[str]
) -> None:
    """The kernel gives controllers only below groups without processes: a runtime that systemd started moves into one of its own."""
    base.mkdir()
    procs, enabling = base / "cgroup.procs", base / "cgroup.subtree_control"
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(f"0::/{base.name}\n")
    (proc / "mountinfo").write_text(f"1 1 0:1 / {base.parent} rw - cgroup2 none rw\n")
    with sleeper() as runtime:
        procs.write_text(str(runtime.pid))
        with pytest.raises(OSError, match="busy"):  # all at once: cpu and pids alone could be had
            enabling.write_text(" ".join(f"+{name}" for name in controllers))
        os.setxattr(base, "user.delegate", b"1")
        found = find_groups(proc)
        assert (found.unified, dict(found.folders)) == (True, dict.fromkeys(controllers, str(base)))
        assert (procs.read_text(), (base / "agents" / "cgroup.procs").read_text()) == ("", f"{runtime.pid}\n")

        group = Group("t", {"": f"{base}/wattle-12345678"}, [])
        with started(group.make(str(tmp_path)), "echo up; exec sleep 1000") as task:
            there = set(Path(group.folders[""], "cgroup.controllers").read_text().split())
            assert controllers <= there, "it can be limited"
            wait_until(group.end, "the group is gone")
            assert task.wait(20) == -9
        assert runtime.poll() is None
