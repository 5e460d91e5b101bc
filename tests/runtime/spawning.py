"""Waiting for what a Processes tells, and tasks that block on FIFOs, so that every step is an event."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeVar

import trio

from wattle.core.model import TaskId
from wattle.runtime.processes import Exited, Held, ProcessEvent, SpawnRequest

E = TypeVar("E", bound=ProcessEvent)


class Events:
    """Records what a Processes tells and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[ProcessEvent] = []
        self.batches = 0
        self._more = trio.Event()

    def __call__(self, batch: list[ProcessEvent]) -> None:
        self.all += batch
        self.batches += 1
        self._more.set()
        self._more = trio.Event()

    async def exit(self, task: TaskId) -> Exited:
        """A task's end, told as it came or on a new connection."""
        with trio.fail_after(20):
            while True:
                held = [exited for event in self.of(Held) for exited in event.exited if exited.id == task]
                if found := self.of(Exited, task) + held:
                    return found[0]
                await self._more.wait()

    def of(self, kind: type[E], task: TaskId | None = None) -> list[E]:
        return [e for e in self.all if isinstance(e, kind) and (task is None or getattr(e, "id", None) == task)]

    async def wait(self, kind: type[E], task: TaskId | None = None, count: int = 1) -> E:
        with trio.fail_after(20):
            while len(found := self.of(kind, task)) < count:
                await self._more.wait()
        return found[count - 1]


def task(name: str = "w", attempt: int = 1) -> TaskId:
    return TaskId("run", name, attempt)


def request(
    folder: Path,
    id: TaskId,
    *argv: str,
    env: dict[str, str] | None = None,
    needs: tuple[TaskId, ...] | None = None,
) -> SpawnRequest:
    logs = f"{folder}/{id.worker}"
    return SpawnRequest(id, argv, env or {}, str(folder), f"{logs}.stdout", f"{logs}.stderr", "", needs)


def shell(folder: Path, id: TaskId, script: str, needs: tuple[TaskId, ...] | None = None) -> SpawnRequest:
    return request(folder, id, "sh", "-c", script, needs=needs)


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


async def read_line(path: Path) -> str:
    """What somebody writes into a FIFO; waits for it."""
    with trio.fail_after(20):
        return (await trio.to_thread.run_sync(path.read_text, abandon_on_cancel=True)).strip()


async def release(path: Path) -> None:
    """Let a task go on that reads a FIFO."""
    with trio.fail_after(20):
        await trio.to_thread.run_sync(path.write_text, "go\n", abandon_on_cancel=True)


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            with trio.fail_after(20):
                await trio.lowlevel.wait_readable(handle)
        finally:
            os.close(handle)


def spawner_pid(folder: Path) -> int:
    return int((folder / "spawner.lock").read_text())
