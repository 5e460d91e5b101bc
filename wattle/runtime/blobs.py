"""Content on this node: files known by the sha256 of what is in them. All of this may block; call it from a worker thread.

Content stays where a task wrote it. It counts as held only while the file still looks as it did when it was hashed (size and modification
time), which is checked before every use. Putting it at another path is a hard link where the file system allows it, so a task that
changes an input in place changes its producer's file too: what changed is then no longer held, and is never passed on as the original.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from wattle.errors import WattleError
from wattle.values import value

_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
_numbers = itertools.count()


@value(frozen=True, slots=True)
class Blob:
    """Content at a path; held as long as the file has this size (bytes) and modification time (ns since the epoch)."""

    digest: str
    path: Path
    size: int
    mtime_ns: int


class BlobRecord(Protocol):
    """What an index says of a Blob."""

    @property
    def digest(self) -> str:
        """sha256, 64 hexadecimal digits."""

    @property
    def path(self) -> str | Path:
        """Where the content was seen."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def mtime_ns(self) -> int:
        """Modification time when it was hashed."""


class BlobIndex(Protocol):
    """Where content is said to be; the runtime's store."""

    def find(self, digest: str) -> Sequence[BlobRecord]:
        """Every place known for some content."""


class FileProblem(WattleError):
    """A file of a task cannot be used as it should be; the message names it and the reason."""


def hash_file(path: Path) -> Blob:
    """The content of a file. Raises FileProblem for what is no plain file or changes while it is read, OSError otherwise."""
    before = os.stat(path)
    if not stat.S_ISREG(before.st_mode):
        raise FileProblem(f"{path} is {_kind(before.st_mode)}, not a file; pack it into one, with tar for example")
    with path.open("rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileProblem(f"{path} changed while it was read; something still writes to it")
    return Blob(digest, path, after.st_size, after.st_mtime_ns)


def first_held(records: Iterable[BlobRecord]) -> Blob | None:
    """The first of these that is still as recorded."""
    for record in records:
        with suppress(OSError, ValueError):
            found = os.stat(record.path)
            if stat.S_ISREG(found.st_mode) and _looks_like(found, record):
                return Blob(record.digest, Path(record.path), record.size, record.mtime_ns)
    return None


def read_chunk(blob: Blob, offset: int, limit: int) -> bytes | None:
    """A part of some content; None when the file is not as recorded any more."""
    try:
        with blob.path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), limit, offset)
            return data if _looks_like(os.fstat(file.fileno()), blob) else None
    except OSError:
        return None


def put_in_place(target: Path, digest: str, size: int, records: Sequence[BlobRecord]) -> tuple[bool, Blob | None]:
    """Have some content at ``target`` if this node has it; ``records`` are the places known for it.

    Returns whether it is there now, and the blob that ``target`` itself turned out to be if that was not known. Another file at
    ``target`` is replaced as a whole. Raises FileProblem when a folder is in the way, OSError when writing fails.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        there = os.stat(target)
        if stat.S_ISDIR(there.st_mode):
            raise FileProblem(f"{target} is a folder, where an input file has to be; remove it")
        if there.st_size == size and stat.S_ISREG(there.st_mode):
            if any(_is(there, record) for record in records):
                return True, None
            found = hash_file(target)
            if found.digest == digest:
                return True, found
    held = first_held(records)
    if held is None:
        return False, None
    return _link(held, target), None


def _link(blob: Blob, target: Path) -> bool:
    """Link or copy; False when the source turned out to be changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".wattle-{os.getpid()}-{next(_numbers)}")
    source = os.path.realpath(blob.path)  # link(2) would link a symbolic link itself
    try:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            shutil.copyfile(source, temporary)
            shutil.copymode(source, temporary)
        if not _looks_like(os.stat(source), blob):
            return False
        os.replace(temporary, target)
        return True
    except FileNotFoundError:
        if not os.path.exists(source):
            return False
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # still there also when both were one file already: then rename(2) does nothing


def _looks_like(found: os.stat_result, record: BlobRecord) -> bool:
    return (found.st_size, found.st_mtime_ns) == (record.size, record.mtime_ns)


def _is(found: os.stat_result, record: BlobRecord) -> bool:
    """Whether a file is the recorded one, unchanged."""
    try:
        return _looks_like(found, record) and os.path.samestat(found, os.stat(record.path))
    except OSError:
        return False


def _kind(mode: int) -> str:
    names = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")
