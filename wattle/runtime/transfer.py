"""Fetching content from other nodes: who has it, and its bytes chunk by chunk, checked by its digest.

A fetch writes to ``<digest>.part`` in order, so what is there is always a beginning of the content: a fetch that breaks off, also with
its process, goes on from there with whoever else has it. Memory stays at a few chunks whatever the size.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import trio

from wattle.bus.base import Bus, Priority, Reply
from wattle.bus.queries import BUSY
from wattle.logs import get_logger
from wattle.protocol.keys import Keys
from wattle.runtime.blobs import Blob, FileProblem, hash_file
from wattle.runtime.layout import Folders
from wattle.runtime.serving import CHUNK

_WINDOW = 2  # chunks asked for at once
_SCANS = 3  # for somebody who has it, in a row without a byte gained, before giving up
_ASK_TIMEOUT = 5.0
_CHUNK_TIMEOUT = 240.0  # for chunks of four inputs over a slow link; a holder that dies is noticed by its token
_BUSY_TRIES = 20  # with pauses between them, for a holder that has too much to send already

Sight = Callable[[str | None], AbstractContextManager[None]]
"""Ends what is done within when a node goes out of sight, or any node where none is named: a question to one that dies may stay open."""

_log = get_logger("wattle.runtime.transfer")


class Unfetched(FileProblem):
    """Some content cannot be had from anybody in reach; the message says why."""


class Fetcher:
    """Gets content from other nodes into ``blobs/``. Whoever wants the same content at the same time shares one fetch."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        peer: str,
        folders: Folders,
        pause: float,
        while_in_sight: Sight,
    ) -> None:
        self._bus = bus
        self._while_in_sight = while_in_sight
        self._keys = keys
        self._peer = peer
        self._folders = folders
        self._pause = pause
        self._jobs: dict[str, _Job] = {}

    async def fetch(self, digest: str, size: int) -> Blob:
        """The content, in a file of this node. Raises Unfetched when nobody in reach has it, OSError when it cannot be written."""
        while (job := self._jobs.get(digest)) is not None:
            await job.done.wait()
            if job.blob is not None:
                return job.blob
            if job.problem is not None:
                raise Unfetched(job.problem)
            # whoever fetched it was cancelled: one of those who waited goes on with what is there
        job = self._jobs[digest] = _Job()
        try:
            job.blob = await self._fetch(digest, size)
            return job.blob
        except Unfetched as error:
            job.problem = error.message
            raise
        finally:
            del self._jobs[digest]
            job.done.set()

    async def _fetch(self, digest: str, size: int) -> Blob:
        path = self._folders.blob(digest)
        part = await trio.to_thread.run_sync(_Part.open, path, size)
        try:
            if part is None:  # fetched by an earlier process that could not record it any more
                return await trio.to_thread.run_sync(hash_file, path)
            await self._fill(part, digest)
            return await trio.to_thread.run_sync(part.finish, digest)
        finally:
            if part is not None:
                part.file.close()

    async def _fill(self, part: _Part, digest: str) -> None:
        """Complete a file from whoever has its content; the first time together, after a mismatch from one holder at a time."""
        if part.offset == part.size:  # complete before it was interrupted, or empty
            if part.digest == digest:
                return
            await trio.to_thread.run_sync(part.restart)
        fruitless = 0
        wrong: set[str] = set()
        sources = {""} if part.offset else set()  # "" for a beginning that was there: whose it is nobody knows
        together = True
        while True:
            holders = [h for h in await self._holders(digest, part) if h not in wrong]
            before = part.offset
            for holder in holders:
                if not together:
                    await trio.to_thread.run_sync(part.restart)
                    sources.clear()
                sources.add(holder)
                if not await self._pull(part, digest, holder):
                    continue
                if part.digest == digest:
                    return
                _log.warning("content does not match its digest", digest=digest, sources=sorted(sources))
                if len(sources) == 1:
                    wrong.add(holder)
                together = False
            fruitless = 0 if together and part.offset > before else fruitless + 1
            if fruitless >= _SCANS:
                raise Unfetched(_why(digest, holders, wrong))
            await trio.sleep(self._pause)

    async def _holders(self, digest: str, part: _Part) -> list[str]:
        """Who has it, nearly in random order, so that not all ask the same one first; but the same order whenever this peer asks."""
        replies: list[Reply] = []
        with self._while_in_sight(None):
            replies = await self._bus.get(self._keys.blob(digest), timeout=_ASK_TIMEOUT, everyone=True)
        holders = set()
        for reply in replies:
            with suppress(ValueError, TypeError, KeyError):
                answer = json.loads(reply.payload)
                if reply.ok and answer["size"] == part.size and answer["peer"] != self._peer:
                    holders.add(str(answer["peer"]))
                    part.executable = part.executable or answer.get("executable") is True
        return sorted(holders, key=lambda holder: crc32(f"{self._peer} {holder}".encode()))

    async def _pull(self, part: _Part, digest: str, holder: str) -> bool:
        """Append what one holder gives; whether the file is complete then."""
        problem: OSError | None = None
        window: deque[_Chunk] = deque()
        offsets = iter(range(part.offset, part.size, CHUNK))
        async with trio.open_nursery() as nursery:

            def ask(chunks: int) -> None:
                for offset in islice(offsets, chunks):
                    window.append(chunk := _Chunk(offset, min(CHUNK, part.size - offset)))
                    nursery.start_soon(self._get_chunk, chunk, digest, holder)

            ask(_WINDOW)
            while window:
                first = window.popleft()
                await first.done.wait()
                if first.data is None:
                    break
                ask(1)  # before this one is written, so that the link has always something to carry
                try:
                    await trio.to_thread.run_sync(part.append, first.data)
                except OSError as error:
                    problem = error
                    break
            nursery.cancel_scope.cancel()
        if problem is not None:
            raise problem
        return part.offset == part.size

    async def _get_chunk(self, chunk: _Chunk, digest: str, holder: str) -> None:
        key, parameters = self._keys.blob_from(digest, holder), f"offset={chunk.offset};limit={chunk.limit}"
        replies: list[Reply] = []
        with self._while_in_sight(holder):
            for _ in range(_BUSY_TRIES):
                replies = await self._bus.get(
                    key, parameters=parameters, timeout=_CHUNK_TIMEOUT, priority=Priority.BULK
                )
                if not replies or replies[0].ok or replies[0].payload != BUSY:
                    break
                await trio.sleep(self._pause)
        if replies and replies[0].ok and len(replies[0].payload) == chunk.limit:
            chunk.data = replies[0].payload
        chunk.done.set()


def _why(digest: str, holders: list[str], wrong: set[str]) -> str:
    short = digest[:12]
    if wrong:
        return f"content {short} came with other bytes than its digest says from {', '.join(sorted(wrong))}, and nobody else has it"
    if holders:
        return f"content {short} could not be fetched from {', '.join(holders)}, which answered that they have it"
    return f"nobody in reach has content {short}"


class _Job:
    """A fetch under way and what came of it; neither a blob nor a problem when it was cancelled."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.blob: Blob | None = None
        self.problem: str | None = None


class _Chunk:
    """A chunk that was asked for; without data when it could not be had."""

    def __init__(self, offset: int, limit: int) -> None:
        self.offset = offset
        self.limit = limit
        self.done = trio.Event()
        self.data: bytes | None = None


class _Part:
    """A beginning of some content in a file, and the hash of it. Everything here may block."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file = file
        self.path = path
        self.size = size
        self.offset = 0
        self.executable = False
        self._hash = hashlib.sha256()

    @classmethod
    def open(cls, path: Path, size: int) -> _Part | None:
        """Open ``<path>.part``, with what an earlier fetch left; None when ``path`` itself is complete already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if hash_file(path).digest == path.name:
                return None
            path.unlink()
        part = cls(open(f"{path}.part", "a+b", buffering=0), path, size)  # noqa: SIM115 (closed by the fetch)
        part.file.seek(0)
        if os.fstat(part.file.fileno()).st_size > size:
            part.restart()
        while data := part.file.read(CHUNK):
            part._hash.update(data)
            part.offset += len(data)
        return part

    @property
    def digest(self) -> str:
        """Of what is there."""
        return self._hash.hexdigest()

    def append(self, data: bytes) -> None:
        """Write the next bytes."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]
        self._hash.update(data)
        self.offset += len(data)

    def restart(self) -> None:
        """Forget everything."""
        self.file.truncate(0)
        self.offset = 0
        self._hash = hashlib.sha256()

    def finish(self, digest: str) -> Blob:
        """Give the complete file its final name."""
        found = os.fstat(self.file.fileno())
        if self.executable:
            os.fchmod(self.file.fileno(), found.st_mode | (found.st_mode & 0o444) >> 2)
        os.replace(f"{self.path}.part", self.path)
        return Blob(digest, self.path, found.st_size, found.st_mtime_ns)
