"""A task's files: inputs put in place before it starts, outputs hashed when it has succeeded, content served to other nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from wattle.bus.base import Bus, Declaration
from wattle.core.model import Assignment
from wattle.errors import WattleError
from wattle.protocol.keys import Keys
from wattle.runtime.blobs import Blob, BlobIndex, BlobRecord, FileProblem, hash_file, put_in_place
from wattle.runtime.layout import Folders, Layout
from wattle.runtime.serving import ContentServer
from wattle.runtime.transfer import Fetcher, Sight, Unfetched

__all__ = ["Blob", "BlobIndex", "BlobRecord", "FileProblem", "Files", "InputsMissing", "OutputMissing"]

_FETCHES = 4  # inputs of one task that are fetched at once
_LOOKS = 3  # at an input whose source changes under our hands


class OutputMissing(WattleError):
    """Declared outputs that cannot be had: ``problems`` says by name what was found where."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        super().__init__("; ".join(f"output {name!r}: {problem}" for name, problem in problems.items()))


class InputsMissing(WattleError):
    """Inputs that nobody in reach can deliver: ``reasons`` by key."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"input {key!r}: {reason}" for key, reason in reasons.items()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The inputs' keys."""
        return tuple(self.reasons)


class Files:
    """The files of one node. ``pause`` is how many seconds to wait before asking again for content that nobody gave."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        peer: str,
        folders: Folders,
        index: BlobIndex,
        *,
        pause: float = 0.5,
        while_in_sight: Sight,
    ) -> None:
        self._bus = bus
        self._keys = keys
        self._peer = peer
        self._index = index
        self._fetcher = Fetcher(bus, keys, peer, folders, pause, while_in_sight)
        self._threads = trio.CapacityLimiter(max(2, os.cpu_count() or 1))

    def serve(self) -> Declaration:
        """Let other nodes have what is held here, until undeclared."""
        return ContentServer(self._bus, self._keys, self._peer, self._index)

    async def collect(self, outputs: Mapping[str, Path]) -> dict[str, Blob]:
        """Hash a task's outputs. Raises OutputMissing that names all that are not there or are no plain files."""
        blobs: dict[str, Blob] = {}
        problems: dict[str, str] = {}

        async def collect_one(name: str, path: Path) -> None:
            try:
                blobs[name] = await trio.to_thread.run_sync(
                    hash_file, path, limiter=self._threads, abandon_on_cancel=True
                )
            except FileNotFoundError:
                problems[name] = f"the command left no file at {path}"
            except OSError as error:
                problems[name] = f"{path} cannot be read: {error.strerror}"
            except FileProblem as error:
                problems[name] = error.message

        async with trio.open_nursery() as nursery:
            for name, path in outputs.items():
                nursery.start_soon(collect_one, name, path)
        if problems:
            raise OutputMissing({name: problems[name] for name in outputs if name in problems})
        return {name: blobs[name] for name in outputs}

    async def place(self, assignment: Assignment, layout: Layout) -> list[Blob]:
        """Put every input of a task at its path: there already, linked from this node, or fetched; returns what this node holds newly.

        Raises InputsMissing when nobody in reach has an input's content, FileProblem when this node cannot put one in place.
        """
        new: list[Blob] = []
        wanted = {key: (layout.inputs[key], source.digest, source.size) for key, source in assignment.inputs.items()}
        for _ in range(_LOOKS):
            absent = await self._place_held(wanted, new)
            if not absent:
                return new
            sizes = {wanted[key][1]: wanted[key][2] for key in absent}
            fetched, problems = await self._fetch_all(sizes)
            if problems:
                raise InputsMissing({key: problems[wanted[key][1]] for key in absent if wanted[key][1] in problems})
            new += fetched
            wanted = {key: wanted[key] for key in absent}
        raise InputsMissing(dict.fromkeys(wanted, "its content changes here as soon as it has arrived"))

    async def _place_held(self, wanted: Mapping[str, tuple[Path, str, int]], new: list[Blob]) -> list[str]:
        """Put in place what this node has (in one go on one thread: most tasks find all inputs here); gives the keys of the rest."""
        records = {
            digest: [*self._index.find(digest), *(blob for blob in new if blob.digest == digest)]
            for _, digest, _ in wanted.values()
        }
        absent: list[str] = []

        def place() -> None:
            for key, (target, digest, size) in wanted.items():
                with _naming(f"input {key!r} cannot be put at {target}"):
                    placed, found = put_in_place(target, digest, size, records[digest])
                if not placed:
                    absent.append(key)
                if found is not None:
                    new.append(found)

        await trio.to_thread.run_sync(place, limiter=self._threads)
        return absent

    async def _fetch_all(self, sizes: Mapping[str, int]) -> tuple[list[Blob], dict[str, str]]:
        fetched: list[Blob] = []
        problems: dict[str, str] = {}
        broken: list[OSError] = []
        limit = trio.CapacityLimiter(_FETCHES)

        async def fetch_one(digest: str, size: int) -> None:
            async with limit:
                try:
                    fetched.append(await self._fetcher.fetch(digest, size))
                except Unfetched as error:
                    problems[digest] = error.message
                except OSError as error:
                    broken.append(error)

        async with trio.open_nursery() as nursery:
            for digest, size in sizes.items():
                nursery.start_soon(fetch_one, digest, size)
        for error in broken:
            with _naming("fetched content cannot be stored"):
                raise error
        return fetched, problems


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn the system's errors into ones that say what was being done."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise FileProblem(f"{what}: {where}{error.strerror}") from error
