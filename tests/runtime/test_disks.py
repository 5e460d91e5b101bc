"""What tasks take up on the disk: what counts, what does not, and that it is told."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import wait_until
from wattle.runtime import disks
from wattle.runtime.disks import LEAST, Disks, used

MUCH = 1 << 40


def counted(*paths: Path, most: int = MUCH) -> int:
    return used([str(path) for path in paths], most)


def wrote(path: Path, size: int) -> int:
    """Write a file; returns what it takes up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.sync()
    return max(path.stat().st_blocks * 512, LEAST)


def test_all_that_is_in_folder_and_output_counts(tmp_path: Path) -> None:
    folder, output = tmp_path / "work", tmp_path / "out"
    sizes = [wrote(folder / name, 50_000) for name in ("a", "b/c", "b/d/e")] + [wrote(output, 9000)]
    assert sum(sizes) >= 159_000
    assert counted(folder, output) == sum(sizes) + 3 * LEAST  # three folders


def test_a_file_counts_once_and_for_what_is_allocated_and_an_empty_one_too(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    size = wrote(folder / "a", 50_000)
    os.link(folder / "a", folder / "same")
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (folder / "empty").touch()
    assert counted(folder) == size + 3 * LEAST


def test_no_link_is_followed(tmp_path: Path) -> None:
    wrote(tmp_path / "elsewhere" / "a", 50_000)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert counted(folder) == 2 * LEAST
    assert counted(folder / "link") == LEAST


def test_what_is_not_there_takes_up_nothing(tmp_path: Path) -> None:
    assert counted(tmp_path / "none") == 0


class Moving:
    """``os``, of a system on which something happens to what is listed before it is looked at, or opened."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, *, dir_fd: int | None = None) -> int:
        self.change(path)
        return os.open(path, flags, dir_fd=dir_fd)


@pytest.mark.parametrize("then", ["gone", "a file", "a link"])
def test_folders_that_go_meanwhile_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    inner = tmp_path / "work" / "inner"
    inner.mkdir(parents=True)
    wrote(tmp_path / "elsewhere" / "a", 50_000)

    def change(path: str) -> None:
        if path == "inner":
            inner.rmdir()
            if then == "a file":
                inner.touch()
            elif then == "a link":
                inner.symlink_to(tmp_path / "elsewhere")

    monkeypatch.setattr(disks, "os", Moving(change))
    assert counted(tmp_path / "work") == 2 * LEAST


def test_files_that_go_meanwhile_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        name = "gone"

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise FileNotFoundError(errno.ENOENT, "gone")

    class Listing:
        def __enter__(self) -> Iterator[Gone]:
            return iter([Gone()])

        def __exit__(self, *how: object) -> None:
            return

    monkeypatch.setattr(os, "scandir", lambda folder: Listing())
    assert counted(tmp_path) == LEAST


def test_a_look_ends_once_it_is_too_much(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a").touch()
    assert counted(tmp_path, most=10 * LEAST) == 11 * LEAST


def test_shutting_a_folder_is_no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path.joinpath(*"a" * 102)
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="more than 100 folders are within each other"):
        counted(tmp_path)

    def shut(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(disks, "os", Moving(shut))
    with pytest.raises(PermissionError):
        counted(tmp_path)


def test_who_is_over_is_told_until_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "EVERY", 0.01)
    problems = {1: None, 2: "", 3: "Permission denied"}
    monkeypatch.setattr(disks, "_problem", lambda most, paths: problems[most])
    woken = threading.Event()
    watching = Disks(woken.set)
    watching.watch("small", 1, [])
    watching.watch("large", 2, [])
    assert woken.wait(20)
    assert watching.over[0] == ("large", "")
    watching.forget("large")
    watching.watch("shut", 3, [])
    wait_until(lambda: watching.over[-1] == ("shut", "Permission denied"), "it is told")
    watching.forget("shut")
    watching.watch("large", 2, [])
    wait_until(lambda: watching.over[-1] == ("large", ""), "it is told again")
    watching.forget("large")
    watching.forget("small")


def test_a_shortage_of_the_nodes_is_not_the_tasks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert disks._problem(LEAST, [str(tmp_path)]) is None
    assert disks._problem(LEAST - 1, [str(tmp_path)]) == ""

    def short(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(disks, "os", Moving(short))
    assert disks._problem(LEAST, [str(tmp_path)]) is None
    assert "cannot be measured" in capsys.readouterr().err
