"""What this node has for tasks: CPUs, memory and GPUs, as far as this process may use them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_GPU = re.compile(r"nvidia\d+")


def detect(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup"), dev: Path = Path("/dev")
) -> dict[str, float]:
    """``cpus`` (may be a fraction, under a quota), ``memory`` in bytes, ``gpus`` (NVIDIA devices).

    The affinity mask and the limits of this process's control group and all above it are heeded, of either cgroup version.
    What cannot be read does not limit.
    """
    folders = list(_cgroup_folders(proc, cgroups))
    cpus = float(len(os.sched_getaffinity(0)))
    memory = _total_memory(proc)
    for folder in folders:
        cpus = min(cpus, _cpu_quota(folder))
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_read(folder / name))
            memory = memory if limit is None else min(memory, limit)
    gpus = sum(1 for device in os.listdir(dev) if _GPU.fullmatch(device))
    return {"cpus": cpus, "memory": memory, "gpus": float(gpus)}


def _cgroup_folders(proc: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of this process's control groups and of all above them, for every hierarchy.

    In a container the path may name a folder that only the host sees; the hierarchy's root is then the container's own group.
    """
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots = (
            [cgroups, cgroups / "unified"] if not controllers else [cgroups / name for name in controllers.split(",")]
        )
        roots.append(cgroups / controllers)
        for root in roots:
            group = Path(path.lstrip("/"))
            yield from (root / part for part in (group, *group.parents))


def _cpu_quota(folder: Path) -> float:
    """CPUs' worth of time a control group may use; infinite without a quota."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    time, of = _number(quota), _number(period)
    return time / of if time and of and time > 0 else float("inf")


def _total_memory(proc: Path) -> float:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read(proc / "meminfo"), re.MULTILINE)
    return int(found[1]) * 1024.0 if found else float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _number(text: str) -> float | None:
    """The number in a limit's file; None for ``max`` and for a file that is not there."""
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
