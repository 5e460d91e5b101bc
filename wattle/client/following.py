"""Watching a run and reading a log, as steps (wattle/client/steps.py): nothing that was said on the way is lost or told twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from wattle.bus.base import Sample
from wattle.client import requests
from wattle.client.answers import FINAL_WORKER, LogChunk, WorkerChange, run_view, worker_change
from wattle.client.steps import Emit, Happening, Next, Pause, Policy, Steps, ask
from wattle.errors import NotFound, Unavailable, WattleError
from wattle.protocol.keys import Keys
from wattle.protocol.records import RunView, WorkerView

Update = RunView | WorkerChange
"""What watching a run yields: the run's state, or a worker's new status."""


@dataclass(slots=True)
class Watch:
    """Watching one run: events as they come, and state read whenever one may have been lost."""

    policy: Policy
    keys: Keys
    run: str
    workers: bool = True
    known: dict[str, str] = field(default_factory=dict)
    last: RunView | None = None
    read_at: float = 0.0

    def steps(self) -> Steps[Update, None]:
        """Emits the state now, then each update, the final state last. The subscription must stand before."""
        yield from self._read(thorough=True)
        while not (self.last and self.last.final):
            happening: Happening | None = yield Next(self.policy.poll)
            if happening is not None:
                yield from self._event(happening.sample)
            if happening is None or happening.gap:
                yield from self._read(thorough=True)
            elif self.policy.clock() - self.read_at >= self.policy.poll:
                yield from self._read(thorough=False)

    def _event(self, sample: Sample) -> Steps[Update, None]:
        if not self.keys.is_of_run(sample.key, self.run):
            return
        try:
            data = json.loads(sample.payload or b"")
            update: Update = run_view(data) if sample.key == self.keys.event_run(self.run) else worker_change(data)
        except (ValueError, WattleError):
            return  # a hint that cannot be read is a hint lost: the next poll makes up for it
        if isinstance(update, WorkerChange):
            if self.workers:
                self.known[update.name] = update.status
                yield Emit(update)
        elif update.final:
            yield from self._read(thorough=True)
        elif self._newer(update):
            self.last = update
            yield Emit(update)

    def _read(self, thorough: bool) -> Steps[Update, None]:
        """The state now. While events flow, what they say differs a little from it: only a ``thorough`` read compares."""
        view = yield from ask(self.policy, requests.run(self.run))
        self.read_at = self.policy.clock()
        if self.workers and (thorough or view.final) and self._behind(view):
            yield from self._catch_up()
        if self._newer(view):
            self.last = view
            yield Emit(view)

    def _newer(self, view: RunView) -> bool:
        return view != self.last and not (self.last and view.epoch < self.last.epoch)

    def _behind(self, view: RunView) -> bool:
        seen: dict[str, int] = {}
        for status in self.known.values():
            seen[status] = seen.get(status, 0) + 1
        waiting = ("created", "ready")
        told = {status: count for status, count in view.counts.items() if count and status not in waiting}
        return told != {status: count for status, count in seen.items() if status not in waiting}

    def _catch_up(self) -> Steps[Update, None]:
        after: str | None = None
        while True:
            page = yield from ask(self.policy, requests.workers(self.run, limit=1000, after=after))
            for worker in page.items:
                if worker.status != self.known.get(worker.name, "created"):
                    self.known[worker.name] = worker.status
                    yield Emit(change_of(worker))
            if page.next is None or page.next == after:
                return
            after = page.next


def change_of(worker: WorkerView) -> WorkerChange:
    """A worker's state in the form of an update."""
    return WorkerChange(
        run=worker.run,
        name=worker.name,
        status=worker.status,
        node=worker.node,
        attempt=worker.attempts[-1].attempt if worker.attempts else None,
        error_message=worker.error_message,
        unreachable=worker.unreachable,
        at=worker.completed_at or worker.started_at or worker.ready_at,
    )


# --- logs ----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Log:
    """Reading one worker's output; ``follow`` goes on until the worker is final, through its later attempts."""

    policy: Policy
    run: str
    worker: str
    stream: str = "stdout"
    follow: bool = False
    attempt: int | None = None
    tail: int | None = None

    def steps(self) -> Steps[LogChunk, None]:
        """Emits the chunks in order, none twice."""
        if not self.follow:
            yield from self._attempt(self.attempt)
            return
        number = self.attempt or (yield from self._attempt_after(0))
        while number is not None:
            try:
                yield from self._attempt(number)
            except (NotFound, Unavailable) as error:
                # An attempt that left no output, or whose node is gone: what counts is whether there is a later one.
                if self.attempt or error.code not in ("LOG_NOT_FOUND", "NODE_UNREACHABLE"):
                    raise
                if (yield from self._attempt_after(number, patient=False)) is None and error.code == "NODE_UNREACHABLE":
                    raise
            self.tail = None
            number = None if self.attempt else (yield from self._attempt_after(number))

    def _attempt(self, number: int | None) -> Steps[LogChunk, None]:
        """One attempt's output: to where it ends now, or (following) to its end."""
        offset: int | None = None
        goal: int | None = None
        node: str | None = None
        while True:
            chunk = yield from self._chunk(number, offset, node)
            if chunk is None:
                yield Pause(0.5)
                continue
            if chunk.data:
                yield Emit(chunk)
            elif self.follow and chunk.running and not chunk.attempt:
                yield Pause(0.2)  # the attempt is on its way to its node, which has no log of it yet
                continue
            number, offset, node = chunk.attempt, chunk.next, chunk.node or None
            goal = chunk.size if goal is None else goal
            ended = not chunk.running and chunk.next >= chunk.size
            if ended or (not self.follow and (offset >= goal or not chunk.data)):
                return

    def _chunk(self, number: int | None, offset: int | None, node: str | None) -> Steps[LogChunk, LogChunk | None]:
        """The next bytes; None when there is no log yet although the attempt is to come or going on."""
        request = requests.log(
            self.run,
            self.worker,
            self.stream,
            offset=offset,
            attempt=number,
            wait=self.policy.hold if self.follow else None,
            tail=self.tail if offset is None else None,
            node=node,
        )
        try:
            chunk: LogChunk = yield from ask(self.policy, request)
        except NotFound as error:
            if not self.follow or error.code != "LOG_NOT_FOUND":
                raise
            view = yield from ask(self.policy, requests.worker(self.run, self.worker))
            if _over(view, number):
                raise
            return None
        return chunk

    def _attempt_after(self, number: int, patient: bool = True) -> Steps[LogChunk, int | None]:
        """The attempt to go on with after attempt ``number`` (0: the newest); None when there is or will be none."""
        pause = 0.2
        while True:
            view = yield from ask(self.policy, requests.worker(self.run, self.worker))
            later = [attempt.attempt for attempt in view.attempts if attempt.attempt > number]
            if later:
                return later[0] if number else later[-1]  # an adopter's numbers begin elsewhere: there are gaps
            if view.status in FINAL_WORKER or not patient:
                return None
            yield Pause(pause)
            pause = min(2 * pause, 2.0)


def _over(view: WorkerView, number: int | None) -> bool:
    """Whether attempt ``number`` has ended (or can no longer begin), so that what is not there will not come."""
    if view.status in FINAL_WORKER:
        return True
    return any(attempt.attempt == number and attempt.completed_at is not None for attempt in view.attempts)
