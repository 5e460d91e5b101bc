"""What is done about a task's files: its inputs are put in place before it starts, its outputs are hashed after it has succeeded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from wattle.core import events as on
from wattle.core.events import RuntimeEvent
from wattle.core.model import Assignment, Output, TaskId
from wattle.errors import InvalidRequest, WattleError
from wattle.peer.loop import Loop
from wattle.runtime.confining import Confining
from wattle.runtime.files import Blob, Files, InputsMissing, OutputMissing
from wattle.runtime.launch import disk_full
from wattle.runtime.layout import Folders, declared_outputs, layout, make_folder
from wattle.store.runtime import BlobRow


class Staging:
    """See the module's docstring. ``blobs`` are to be saved with the events that tell of them."""

    def __init__(
        self, folders: Folders, files: Files, confining: Confining, loop: Loop[RuntimeEvent], nursery: trio.Nursery
    ) -> None:
        self._folders, self._files, self._confining = folders, files, confining
        self._loop, self._nursery = loop, nursery
        self._work: dict[TaskId, trio.CancelScope] = {}  # preparing or collecting
        self.blobs: list[tuple[str, BlobRow]] = []

    def prepare(self, assignment: Assignment) -> None:
        """Begin to put a task's inputs in place."""
        self._start(assignment.id, self._prepare, assignment)

    def collect(self, assignment: Assignment) -> None:
        """Begin to hash a task's outputs."""
        self._start(assignment.id, self._collect, assignment)

    def abandon(self, task: TaskId) -> None:
        """Stop what was begun."""
        self._work[task].cancel()

    def _start(self, task: TaskId, work: Callable[[Assignment], Awaitable[None]], assignment: Assignment) -> None:
        scope = self._work[task] = trio.CancelScope()

        async def until_done() -> None:
            with scope:
                await work(assignment)
            if self._work.get(task) is scope:
                del self._work[task]

        self._nursery.start_soon(until_done)

    async def _prepare(self, assignment: Assignment) -> None:
        try:
            at = layout(assignment, self._folders)
            self._confining.confine(assignment, at)  # what is not to be had here is refused before anything is made
            make_folder(at.cwd)
            fetched = await self._files.place(assignment, at)
        except InputsMissing as error:
            self._loop.post(on.PrepareFailed(assignment.id, str(error), tuple(error.keys)))
        except (WattleError, OSError) as error:
            problem = f"its inputs cannot be put in place: {error}"
            self._loop.post(on.PrepareFailed(assignment.id, problem, disk_full=disk_full(error)))
        else:
            self.blobs.extend((assignment.run, _row(blob)) for blob in fetched)
            self._loop.post(on.Prepared(assignment.id, tuple(b.digest for b in fetched)))

    async def _collect(self, assignment: Assignment) -> None:
        at = layout(assignment, self._folders)
        written = declared_outputs(assignment)
        try:
            self._confining.check_outputs(assignment, at)
            blobs = await self._files.collect(at.outputs)
        except (OutputMissing, InvalidRequest, OSError) as error:
            self._loop.post(on.CollectFailed(assignment.id, str(error)))
            return
        self.blobs.extend((assignment.run, _row(blob)) for blob in blobs.values())
        outputs = {name: Output(written[name], blob.digest, blob.size) for name, blob in blobs.items()}
        self._loop.post(on.Collected(assignment.id, outputs))


def _row(blob: Blob) -> BlobRow:
    return BlobRow(blob.digest, str(blob.path), blob.size, blob.mtime_ns)
