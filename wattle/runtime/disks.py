"""How much of the disk tasks take up: looked at about once a second, in a thread of its own, while they run.

Standard library only: the spawner imports it, once there is a task with ``limits.disk``. What counts are the blocks that are allocated to
what is in a task's folder and to its output, as ``du`` counts them: a file with several names once, no link is followed, no other file
system entered. But each entry counts for ``LEAST`` bytes at least: so empty files, which take inodes, are bounded too, and so is the
time that a look takes, for it ends as soon as the limit is exceeded. Looks take a fifth of a CPU at most, all of them together.

What cannot be looked at is reported like what is too much: a task must not get out of its limit by shutting its folder.
"""

from __future__ import annotations

import _thread
import errno
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

LEAST = 4096
EVERY = 1.0  # seconds from the end of one look at all to the next
_REST = 4  # times what the last look took, where that is longer
_DEEPEST = 100  # folders within folders: those on the way down are held open
_SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Disks:
    """The tasks that are looked at. Calls come one at a time, from any thread.

    ``over`` has the ids of those that take up too much, each with why it cannot be looked at, or with nothing. ``wake`` is called, in the
    thread that looks, once there is something in it. A task is found anew at each look until it is forgotten.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.over: deque[tuple[str, str]] = deque()
        self._wake = wake
        self._watched: dict[str, tuple[int, Sequence[str]]] = {}
        self._any = _thread.allocate_lock()  # held while there has been none since the last look
        self._any.acquire()
        # Not by ``threading``: imported on another thread than the main one, it keeps the spawner from ending.
        _thread.start_new_thread(self._run, ())

    def watch(self, id: str, most: int, paths: Sequence[str]) -> None:
        """Look at a task from now on: at what these paths, and all within them, take up."""
        self._watched[id] = most, paths
        if self._any.locked():
            self._any.release()

    def forget(self, id: str) -> None:
        """A task has ended."""
        self._watched.pop(id, None)

    def _run(self) -> None:
        while True:
            while not self._watched:
                self._any.acquire()
            began = time.monotonic()
            for id, (most, paths) in list(self._watched.items()):
                problem = _problem(most, paths)
                if problem is not None:
                    self.over.append((id, problem))
                    self._wake()
            time.sleep(max(EVERY, _REST * (time.monotonic() - began)))


def _problem(most: int, paths: Sequence[str]) -> str | None:
    """None where all is well; nothing where it is too much; else why that cannot be told."""
    try:
        return "" if used(paths, most) > most else None
    except OSError as error:
        if error.errno in _SHORTAGES:  # this process's fault, not the task's: the next look may tell
            print(f"the disk that tasks take up cannot be measured: {error}", file=sys.stderr, flush=True)
            return None
        return str(error)


def used(paths: Sequence[str], most: int) -> int:
    """Bytes that these files and folders take up; more than ``most`` is not counted on. Raises OSError.

    What is removed or replaced meanwhile counts as it was, or not at all.
    """
    count = _Count(most)
    for path in paths:
        with suppress(FileNotFoundError):
            found = os.lstat(path)
            count.add(found)
            if stat.S_ISDIR(found.st_mode):
                count.add_folder(path, None, found.st_dev, 0)
    return count.bytes


class _Count:
    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._several: set[tuple[int, int]] = set()  # files of several names that are counted

    def add(self, found: os.stat_result) -> None:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            file = found.st_dev, found.st_ino
            if file in self._several:
                return
            self._several.add(file)
        self.bytes += max(found.st_blocks * 512, LEAST)

    def add_folder(self, name: str, parent: int | None, device: int, depth: int) -> None:
        """All that is in a folder, which is opened as it lies in its parent: no link on the way leads elsewhere."""
        if depth > _DEEPEST:
            raise OSError(errno.ELOOP, f"more than {_DEEPEST} folders are within each other", name)
        try:
            folder = os.open(name, _FOLDER, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link by now
                return
            raise
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if self.bytes > self.most:
                        return
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        self.add(found)
                        if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                            self.add_folder(entry.name, folder, device, depth + 1)
        finally:
            os.close(folder)
