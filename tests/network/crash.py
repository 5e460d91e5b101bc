"""Runs an agent that kills somebody at a step of a run's life: ``crash.py COMMAND...``, where the command is ``python -m wattle ...``.

The product knows nothing of this: the functions at those steps are wrapped here. The agent is armed by a file ``crash`` in its data folder,
``STEP PID...``: when it comes to that step with the worker ``use`` it removes the file, kills these processes, waits until they are dead
(itself last) and, where it is not among them, goes on. Its spawner is started through this file too, and armed by the same file.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WORKER = "use"
"""The worker at whose steps somebody is killed; what concerns the run as a whole is a step as well."""

_SPAWNER = (
    f"import sys; sys.path.append(sys.argv.pop(1)); import runpy; runpy.run_path({__file__!r}, run_name='spawner')"
)


class Trap:
    """Kills once, at the step that the file in the data folder names."""

    def __init__(self, data: Path) -> None:
        self._order = data / "crash"

    def at(self, step: str) -> None:
        """Kill whom the order names, if it is for this step."""
        try:
            named, *victims = self._order.read_text().split()
        except FileNotFoundError:
            return
        if named != step:
            return
        self._order.unlink()
        for victim in sorted(map(int, victims), key=lambda pid: pid == os.getpid()):
            handle = os.pidfd_open(victim)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])  # readable once it is dead
            os.close(handle)


def before(owner: type, name: str, steps: Callable[..., Iterable[str]], trap: Trap) -> None:
    """Have a method begin with the steps that its arguments stand for."""
    method = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for step in steps(*args, **kwargs):
            trap.at(step)
        return method(*args, **kwargs)

    setattr(owner, name, wrapped)


def _coordinator(trap: Trap) -> None:
    from wattle.coordinator.agent import CoordinatorAgent
    from wattle.coordinator.requests import Requests
    from wattle.core import effects as do
    from wattle.core import events as on
    from wattle.core.model import FactKind, TaskStatus

    def learned(
        self: Any, node: str, store: str, number: int, facts: tuple[Any, ...], first: bool = False
    ) -> Iterator[str]:
        if any(fact.worker == WORKER and fact.kind is FactKind.FINISHED for fact in facts):
            yield "learned"

    def posted(self: Any, event: Any, done: Any = None) -> Iterator[str]:
        if isinstance(event, on.Delivered) and any(task.worker == WORKER for task in event.tasks):
            yield "answered"

    def committed(self: Any, effects: list[Any], heard: bool) -> Iterator[str]:
        for effect in effects:
            match effect:
                case do.CreateRun():
                    yield "committed"
                case do.Assign(_, assignment) if assignment.worker == WORKER:
                    yield "assigned"
                case do.SaveTask(task) if task.worker == WORKER and task.status is TaskStatus.SUCCEEDED:
                    yield "recorded"
                case do.AnnounceRun(run) if run.status.final:
                    yield "final"

    before(Requests, "_begin", lambda *_: ["submitted"], trap)
    before(CoordinatorAgent, "_learn", learned, trap)
    before(CoordinatorAgent, "post", posted, trap)
    before(CoordinatorAgent, "_act", committed, trap)


def _runtime(trap: Trap) -> None:
    from wattle.core import effects as do
    from wattle.core.model import FactKind
    from wattle.core.states import Phase
    from wattle.protocol.messages import AssignBatch, decode
    from wattle.runtime import launching
    from wattle.runtime.commands import Commands
    from wattle.runtime.staging import Staging
    from wattle.runtime.transfer import _Part
    from wattle.store.runtime import RuntimeStore

    def told(self: Any, verb: str, query: Any) -> Iterator[str]:
        if verb == "assign" and any(task.worker == WORKER for task in decode(AssignBatch, query.payload).tasks):
            yield "sent"

    def of_worker(step: str) -> Callable[..., Iterator[str]]:
        def steps(self: Any, assignment: Any) -> Iterator[str]:
            if assignment.worker == WORKER:
                yield step

        return steps

    def saved(effects: Iterable[Any]) -> Iterator[str]:
        for effect in effects:
            match effect:
                case do.Answer(_, task, "OK") if task.worker == WORKER:
                    yield "accepted"
                case do.SaveHeldTask(held) if held.assignment.worker == WORKER and held.phase is Phase.STARTING:
                    yield "starting"
                case do.Append(fact) if fact.worker == WORKER:
                    yield "started" if fact.kind is FactKind.STARTED else "finished"

    before(Commands, "_take", told, trap)
    before(Staging, "_prepare", of_worker("preparing"), trap)
    before(Staging, "_collect", of_worker("collecting"), trap)
    before(_Part, "append", lambda part, data: ["fetching"] if part.offset else [], trap)
    _after_commits(RuntimeStore, saved, trap)
    launching._BOOT = _SPAWNER


def _after_commits(store: Any, steps: Callable[[Iterable[Any]], Iterator[str]], trap: Trap) -> None:
    """The steps that the effects of a transaction stand for come when it is committed and nothing else is done yet."""
    save, transaction = store.save, store.transaction
    effects: list[Any] = []

    def wrapped_save(self: Any, given: Iterable[Any]) -> Any:
        effects[:] = list(given)
        return save(self, effects)

    @contextmanager
    def wrapped_transaction(self: Any) -> Iterator[None]:
        with transaction(self):
            yield
        for step in list(steps(effects)):
            trap.at(step)
        effects.clear()

    store.save, store.transaction = wrapped_save, wrapped_transaction


def _gateway(trap: Trap) -> None:
    from wattle.gateway.agent import GatewayAgent
    from wattle.gateway.backend import Backend
    from wattle.gateway.request import Patience

    ask = Backend.ask

    async def wrapped_ask(
        self: Any, coordinator: str, verb: str, payload: bytes, patience: Patience | None = None
    ) -> Any:
        answer = await ask(self, coordinator, verb, payload, patience)
        if verb == "submit":
            trap.at("acknowledged")
        return answer

    before(
        GatewayAgent,
        "_recorded",
        lambda self, record, route, asked: ["asked"] if asked.method.value != "get" else [],
        trap,
    )
    Backend.ask = wrapped_ask  # type: ignore[method-assign]


def _spawner() -> None:
    """Standard library only: the spawner has nothing else."""
    from wattle.runtime.spawner import _Spawner, main

    def flushed(self: Any) -> Iterator[str]:
        if any(_is_of_worker(record[0]) for record in self.outcomes.started):
            yield "spawned"
        if any(_is_of_worker(record[0]) for record in self.outcomes.exited):
            yield "exited"

    before(_Spawner, "flush", flushed, Trap(Path(sys.argv[1])))
    main(sys.argv[1:])


def _is_of_worker(task: str) -> bool:
    return task.split("/")[1] == WORKER


def _main() -> None:
    with suppress(ValueError):
        sys.path.remove(str(Path(__file__).parent))  # where the folder of a script stands first
    sys.argv = sys.argv[3:]  # without this file's name and "python -m": from "wattle" on
    trap = Trap(Path(sys.argv[sys.argv.index("--data") + 1]))
    {"coordinator": _coordinator, "runtime": _runtime, "gateway": _gateway}[sys.argv[1]](trap)
    from wattle.cli.app import main

    main()


if __name__ == "spawner":
    _spawner()
if __name__ == "__main__":
    _main()
