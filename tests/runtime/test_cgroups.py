"""Control groups on a folder that stands for the kernel's: what is written where, what is read, what goes; and where groups are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from wattle.runtime import cgroups
from wattle.runtime.cgroups import Group, end_left_behind
from wattle.runtime.support import find_groups


class Kernel:
    """``os``, with folders that come with their files and go with them, as those of control groups do."""

    files = ("cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "pids.max", "memory.max", "memory.limit_in_bytes")

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)
        for name in self.files:
            Path(path, name).touch()
        Path(path, "cgroup.controllers").write_text("cpu io memory pids\n")

    def rmdir(self, path: str) -> None:
        if not Path(path).exists():
            os.rmdir(path)
        inner = any(entry.is_dir() for entry in Path(path).iterdir())
        if inner or Path(path, "cgroup.procs").read_text().split():
            raise OSError(16, "busy")
        shutil.rmtree(path)


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "os", Kernel())


def test_version_1_has_a_folder_per_controller(tmp_path: Path) -> None:
    bases = {"pids": f"{tmp_path}/pids", "memory": f"{tmp_path}/memory"}
    files = [["memory", "memory.limit_in_bytes", "100"], ["pids", "pids.max", "3"], ["memory", "not.there?", "1"]]
    group = Group("t-r@w.1", bases, files)
    entering = group.make(str(tmp_path))
    assert entering[:4] == ["/bin/sh", "-c", cgroups.ENTER, "confine"]
    assert entering[4:] == [f"{base}/t-r@w.1/cgroup.procs" for base in bases.values()] + ["--"]
    assert Path(group.folders["memory"], "memory.limit_in_bytes").read_text() == "100"
    assert Path(group.folders["pids"], "pids.max").read_text() == "3"
    assert json.loads((tmp_path / "cgroups.json").read_text()) == sorted(bases.values())
    assert group.end()
    assert not any(Path(path).exists() for path in group.folders.values())
    assert group.end()  # gone already


def test_version_2_has_one_and_enables_what_may_be_limited(tmp_path: Path) -> None:
    group = Group("t", {"": f"{tmp_path}/base"}, [["", "memory.max", "100"]])
    group.make(str(tmp_path))
    assert (tmp_path / "base" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "base" / "t" / "memory.max").read_text() == "100"


@pytest.mark.parametrize(
    ("version", "name", "text", "out"),
    [
        ("", "memory.events", "low 0\noom 1\noom_kill 0\n", False),
        ("", "memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 1\n", True),
        ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", True),
    ],
)
def test_out_of_memory_is_what_the_kernel_says(tmp_path: Path, version: str, name: str, text: str, out: bool) -> None:
    group = Group("t", {version: str(tmp_path)}, [])
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / name).write_text(text)
    assert group.out_of_memory() is out


def test_what_is_in_a_group_is_killed_and_the_group_waits_for_its_end(tmp_path: Path) -> None:
    group = Group("t", {"pids": f"{tmp_path}/pids"}, [])
    group.make(str(tmp_path))
    procs = Path(group.folders["pids"], "cgroup.procs")
    with subprocess.Popen(["sleep", "1000"]) as process:
        procs.write_text(f"0\n{process.pid}\n")
        assert not group.end()
        assert Path(group.folders["pids"], "pids.max").read_text() == "0"  # nothing new starts
        assert Path(group.folders["pids"], "cgroup.kill").read_text() == "1"
        assert process.wait(20) == -9
    procs.write_text("")
    assert group.end()


def test_what_a_killed_spawner_left_is_removed(tmp_path: Path) -> None:
    Group("t-1", {"pids": f"{tmp_path}/a", "memory": f"{tmp_path}/b"}, []).make(str(tmp_path))
    Group("t-2", {"pids": f"{tmp_path}/a"}, []).make(str(tmp_path))
    assert end_left_behind(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
    assert end_left_behind(str(tmp_path)) == []


def test_a_group_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    group = Group("t", {"pids": f"{tmp_path}/none/base"}, [])
    with pytest.raises(OSError, match="No such file"):
        group.make(str(tmp_path))


# --- where groups are -------------------------------------------------------------------------------------------------


def system(tmp_path: Path, cgroup: str, mounts: dict[str, tuple[str, str, str]]) -> Path:
    """/proc/self of a system: its groups, and mount point -> (type, root, options)."""
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    lines = [
        f"30 20 0:26 {root} {point} rw,nosuid shared:9 - {kind} {kind} {options}\n"
        for point, (kind, root, options) in mounts.items()
    ]
    (proc / "mountinfo").write_text("27 1 254:0 / / rw - ext4 /dev/vda rw\n" + "".join(lines))
    return proc


def test_version_1_is_found_by_controller(tmp_path: Path) -> None:
    (tmp_path / "memory" / "own").mkdir(parents=True)
    (tmp_path / "cpu").mkdir()
    mounts = {
        f"{tmp_path}/memory": ("cgroup", "/", "rw,memory"),
        f"{tmp_path}/cpu": ("cgroup", "/box/abc", "rw,cpu,cpuacct"),
        f"{tmp_path}/pids": ("cgroup", "/", "rw,pids"),  # not there: it cannot be written to
        f"{tmp_path}/unified": ("cgroup2", "/", "rw"),
    }
    proc = system(tmp_path, "4:memory:/own\n3:pids:/x\n2:cpu,cpuacct:/box/abc\n1:name=systemd:/\n0::/\n", mounts)
    groups = find_groups(proc)
    assert dict(groups.folders) == {"memory": f"{tmp_path}/memory/own", "cpu": f"{tmp_path}/cpu"}
    assert not groups.unified


def test_version_2_is_the_nearest_folder_that_lets_groups_have_limits(tmp_path: Path) -> None:
    own = tmp_path / "slice" / "own"
    own.mkdir(parents=True)
    for folder, enabled in ((own, ""), (own.parent, "memory pids\n"), (tmp_path, "cpu memory pids\n")):
        (folder / "cgroup.procs").touch()
        (folder / "cgroup.subtree_control").write_text(enabled)
    proc = system(tmp_path, "0::/slice/own\n", {str(tmp_path): ("cgroup2", "/", "rw")})
    groups = find_groups(proc)
    assert groups.unified
    assert dict(groups.folders) == dict.fromkeys(("memory", "pids"), str(own.parent))


def test_without_any_it_says_so(tmp_path: Path) -> None:
    groups = find_groups(system(tmp_path, "0::/\n", {}))
    assert (dict(groups.folders), groups.unified) == ({}, False)
    assert "no control groups" in groups.problem
