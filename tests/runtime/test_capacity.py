"""What a node has, from files that look like a kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wattle.runtime.capacity import detect

GIB = 1 << 30


class Machine:
    """A made-up /proc, /sys/fs/cgroup and /dev."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups, self.dev = (root / name for name in ("proc", "cgroup", "dev"))
        self.dev.mkdir()
        self.cgroups.mkdir()
        self.write(self.proc / "meminfo", f"MemTotal: {64 * GIB >> 10} kB\nMemFree: 1 kB\n")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def group(self, line: str) -> None:
        self.write(self.proc / "self" / "cgroup", line)

    def detect(self) -> dict[str, float]:
        return detect(self.proc, self.cgroups, self.dev)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return Machine(tmp_path)


def test_without_limits_it_is_what_the_affinity_allows_and_the_machine_has(machine: Machine) -> None:
    assert machine.detect() == {"cpus": 8.0, "memory": 64.0 * GIB, "gpus": 0.0}


def test_the_second_version_limits_by_the_narrowest_group_above(machine: Machine) -> None:
    machine.group("0::/a/b")
    machine.write(machine.cgroups / "a" / "b" / "cpu.max", "max 100000")
    machine.write(machine.cgroups / "a" / "cpu.max", "150000 100000")
    machine.write(machine.cgroups / "a" / "b" / "memory.max", str(4 * GIB))
    machine.write(machine.cgroups / "a" / "memory.max", "max")
    assert machine.detect() == {"cpus": 1.5, "memory": 4.0 * GIB, "gpus": 0.0}


def test_in_a_container_the_root_of_the_hierarchy_is_its_own_group(machine: Machine) -> None:
    machine.group("0::/")
    machine.write(machine.cgroups / "cpu.max", "300000 100000")
    machine.write(machine.cgroups / "memory.max", str(2 * GIB))
    assert machine.detect() == {"cpus": 3.0, "memory": 2.0 * GIB, "gpus": 0.0}


def test_the_first_version_limits_too(machine: Machine) -> None:
    machine.group("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x")
    machine.write(machine.cgroups / "cpu,cpuacct" / "cpu.cfs_quota_us", "200000")
    machine.write(machine.cgroups / "cpu,cpuacct" / "cpu.cfs_period_us", "100000")
    machine.write(machine.cgroups / "memory" / "docker" / "x" / "memory.limit_in_bytes", str(GIB))
    machine.write(machine.cgroups / "memory" / "memory.limit_in_bytes", "9223372036854771712")
    assert machine.detect() == {"cpus": 2.0, "memory": 1.0 * GIB, "gpus": 0.0}


def test_a_quota_of_minus_one_is_none(machine: Machine) -> None:
    machine.group("3:cpu:/")
    machine.write(machine.cgroups / "cpu" / "cpu.cfs_quota_us", "-1")
    machine.write(machine.cgroups / "cpu" / "cpu.cfs_period_us", "100000")
    assert machine.detect()["cpus"] == 8.0


def test_gpus_are_numbered_devices(machine: Machine) -> None:
    for name in ("nvidia0", "nvidia12", "nvidiactl", "nvidia-uvm", "null"):
        (machine.dev / name).touch()
    assert machine.detect()["gpus"] == 2.0


def test_this_machine_has_something() -> None:
    found = detect()
    assert 0 < found["cpus"] <= (os.cpu_count() or 1)
    assert found["memory"] > 1 << 20
