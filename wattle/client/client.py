"""The SDK for trio programs.

::

    async with TrioClient() as client:
        run = await client.submit(Path("pipeline.yaml"))
        print((await client.wait(run.id)).status)

What iterates is an async generator; leave one early with ``contextlib.aclosing``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from wattle.bus.base import Reply, Sample
from wattle.bus.zenoh import ZenohBus, open_zenoh_bus
from wattle.client import requests, steps
from wattle.client.answers import Health, LogChunk
from wattle.client.connection import Connection, connection
from wattle.client.following import Log, Update, Watch
from wattle.client.requests import Document, Request
from wattle.client.steps import Happening, Policy, Steps
from wattle.names import new_run_id
from wattle.protocol.records import NodeView, RunView, WorkerView, WorkflowView

if TYPE_CHECKING:
    from wattle.security.bundle import Bundle

T = TypeVar("T")
R = TypeVar("R")


class Mailbox:
    """Events between the bus and the caller's task: bounded, and what overflows is marked as a gap."""

    def __init__(self, size: int = steps.BACKLOG) -> None:
        self._send, self._receive = trio.open_memory_channel[Sample](size)
        self._gap = False

    def put(self, sample: Sample) -> None:
        """Take a sample, never waiting."""
        try:
            self._send.send_nowait(sample)
        except trio.WouldBlock:
            self._gap = True

    async def next(self, seconds: float) -> Happening | None:
        """The next event, or None after some seconds without one."""
        with trio.move_on_after(seconds):
            sample = await self._receive.receive()
            gap, self._gap = self._gap, False
            return Happening(sample, gap or sample.gap)
        return None


class TrioClient:
    """A connection to a network, as an async context manager.

    ``connect`` names endpoints (default: ``WATTLE_CONNECT``, else the socket in the data folder ``data``). ``bundle`` is
    a client's of a secured cluster, which says where to connect as well (default: ``WATTLE_BUNDLE``, else none). ``timeout`` is for one
    answer and ``patience`` for a repeatable request whose answers fail to come, in seconds. Methods raise the errors of
    wattle/errors.py; Unavailable with code NO_NETWORK on entering, or NO_GATEWAY, says that there is nobody to ask.

    Any number of tasks may use it at once.
    """

    def __init__(
        self,
        connect: str | Sequence[str] | None = None,
        *,
        namespace: str | None = None,
        data: str | Path | None = None,
        timeout: float | None = None,
        patience: float = 30.0,
        bundle: str | Path | None = None,
    ) -> None:
        self._connection: Connection = connection(connect, namespace, data, timeout, bundle)
        self._keys = self._connection.keys
        self._policy: Policy = self._connection.policy(trio.current_time, patience)
        self._bus: ZenohBus | None = None

    async def __aenter__(self) -> Self:
        self._bus = await open_zenoh_bus(self._connection.options)
        self._session = self._bus.id
        if self._connection.bundle is not None:
            try:
                await self._introduce(self._bus, self._connection.bundle)
            except BaseException:
                await self.close()
                raise
        return self

    async def _introduce(self, bus: ZenohBus, bundle: Bundle) -> None:
        from wattle.client.introducing import MOMENT, TIMEOUT, Introduction

        about = Introduction(bundle, trio.current_time)
        while True:
            replies = await bus.get(self._keys.roster, about.question, timeout=TIMEOUT)
            if not about.goes_on(replies):
                return
            await trio.sleep(MOMENT)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the network; a second call does nothing."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    # --- runs

    async def submit(
        self, document: Document, params: Mapping[str, Any] | None = None, run: str | None = None
    ) -> RunView:
        """Submit a document and start it; acknowledged means stored. Repeated under the same run id until answered."""
        run = run or new_run_id(requests.run_prefix(document), time.time(), requests.nonce())
        return await self._ask(requests.submit(document, params, run))

    async def submit_and_wait(
        self,
        document: Document,
        params: Mapping[str, Any] | None = None,
        run: str | None = None,
        timeout: float | None = None,
    ) -> RunView:
        """Submit a document and give its run once it is final; raises Unavailable (TIMEOUT) when it is not within ``timeout`` seconds.

        One request for a run that is short. Whoever may want to cancel the run names it (``run``).
        """
        run = run or new_run_id(requests.run_prefix(document), time.time(), requests.nonce())
        return await self._do(steps.submit_and_wait(self._policy, document, params, run, timeout))

    async def start(self, workflow: str, params: Mapping[str, Any] | None = None, run: str | None = None) -> RunView:
        """Start a run of a stored workflow."""
        run = run or new_run_id(workflow, time.time(), requests.nonce())
        return await self._ask(requests.start(workflow, params, run))

    async def run(self, run: str) -> RunView:
        """A run as it is now."""
        return await self._once(requests.run(run))

    def runs(self, workflow: str | None = None, status: str | None = None) -> AsyncIterator[RunView]:
        """Runs, newest first; further pages are fetched as they are needed."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.runs(workflow, status, after=after)))

    async def wait(self, run: str, timeout: float | None = None) -> RunView:
        """The run once it is final; raises Unavailable (TIMEOUT) when it is not within ``timeout`` seconds."""
        return await self._do(steps.wait(self._policy, run, timeout))

    async def watch(self, run: str, workers: bool = True) -> AsyncIterator[Update]:
        """The run now, then every change of it and (with ``workers``) of its workers; ends with the final run."""
        watch = Watch(self._policy, self._keys, run, workers)
        with self._subscribed(self._keys.events_near_run(run)) as mailbox:
            async for update in self._iterate(watch.steps(), mailbox):
                yield update

    async def cancel(self, run: str) -> RunView:
        """Cancel a run; it is final when its running tasks have ended."""
        return await self._ask(requests.cancel(run))

    async def retry(self, run: str) -> RunView:
        """Run again what did not succeed in a final run."""
        return await self._ask(requests.retry(run))

    async def prune(self, runs: Sequence[str] | None = None, older_than: float | None = None) -> list[str]:
        """Remove final runs for good: these, or all that ended ``older_than`` seconds ago; gives the ids of those removed."""
        pruned = await self._ask(requests.prune(runs, older_than))
        found = list(pruned.runs)
        while pruned.more and pruned.runs:
            pruned = await self._ask(requests.prune(runs, older_than))
            found += pruned.runs
        return found

    # --- workers and logs

    def workers(self, run: str, status: str | None = None) -> AsyncIterator[WorkerView]:
        """Workers of a run in the document's order."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.workers(run, status, after=after)))

    async def worker(self, run: str, name: str) -> WorkerView:
        """One worker with its attempts."""
        return await self._once(requests.worker(run, name))

    async def logs(
        self,
        run: str,
        worker: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> AsyncIterator[bytes]:
        """A worker's output in pieces, by default of its newest attempt and from its start (or the last ``tail`` bytes).

        ``follow`` goes on until the worker is final, through later attempts unless ``attempt`` names one.
        """
        chunks = self.log_chunks(run, worker, stream, follow=follow, attempt=attempt, tail=tail)
        async for chunk in chunks:
            yield chunk.data

    def log_chunks(
        self,
        run: str,
        worker: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> AsyncIterator[LogChunk]:
        """As ``logs``, with each piece's attempt, node and offset."""
        return self._iterate(Log(self._policy, run, worker, stream, follow, attempt, tail).steps())

    # --- workflows

    def workflows(self, status: str | None = None) -> AsyncIterator[WorkflowView]:
        """Stored workflows."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.workflows(after=after, status=status)))

    async def workflow(self, name: str) -> WorkflowView:
        """One workflow with its document."""
        return await self._once(requests.workflow(name))

    async def put_workflow(self, name: str, document: Document) -> WorkflowView:
        """Store a workflow, in place of what had its name."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            return await self._do(
                steps.put_workflow(self._policy, self._keys, name, requests.document_bytes(document)), mailbox
            )

    async def delete_workflow(self, name: str) -> None:
        """Delete a workflow; its runs stay."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            await self._do(steps.delete_workflow(self._policy, self._keys, name), mailbox)

    # --- nodes and the rest

    async def nodes(self) -> list[NodeView]:
        """Every node in the network's memory."""
        return (await self._once(requests.nodes())).items

    async def node(self, name: str) -> NodeView:
        """One node."""
        return await self._once(requests.node(name))

    async def drain(self, name: str) -> NodeView:
        """Give a node no new tasks."""
        return await self._ask(requests.node(name, "drain"))

    async def resume(self, name: str) -> NodeView:
        """Give a drained node tasks again."""
        return await self._ask(requests.node(name, "resume"))

    async def health(self) -> Health:
        """Peers in sight."""
        return await self._once(requests.health())

    async def schema(self) -> dict[str, Any]:
        """JSON Schema of the document."""
        return await self._once(requests.schema())

    async def get(self, key: str, payload: bytes | None = None) -> list[Reply]:
        """The replies to a query on an api path (``runs/x?wait=5``) or a full key; a full key asks everyone who serves it."""
        path, parameters, everyone = requests.selector(key)
        key = self._key(path)
        return await self._open().get(
            key,
            payload,
            parameters=parameters,
            timeout=self._policy.timeout,
            everyone=everyone,
            attachment=self._connection.attachment(key, self._session),
        )

    async def put(self, key: str, payload: bytes, wait: float = 1.0) -> None:
        """Publish on an api path or a full key. Raises what it was refused for, should that be told within ``wait`` seconds."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            await self._do(steps.put(self._keys, requests.selector(key)[0], payload, wait), mailbox)

    # --- performing steps

    async def _ask(self, request: Request[R]) -> R:
        return await self._do(steps.ask(self._policy, request))

    async def _once(self, request: Request[R]) -> R:
        return await self._do(steps.once(self._policy, request))

    async def _do(self, operation: Steps[Any, R], mailbox: Mailbox | None = None) -> R:
        outcome: Any = None
        while True:
            try:
                step = operation.send(outcome)
            except StopIteration as end:
                result: R = end.value
                return result
            outcome = await self._perform(step, mailbox)

    async def _iterate(self, operation: Steps[T, None], mailbox: Mailbox | None = None) -> AsyncIterator[T]:
        outcome: Any = None
        while True:
            try:
                step = operation.send(outcome)
            except StopIteration:
                return
            if isinstance(step, steps.Emit):
                outcome = None
                yield step.value
            else:
                outcome = await self._perform(step, mailbox)

    async def _perform(self, step: steps.Step[Any], mailbox: Mailbox | None) -> list[Reply] | Happening | None:
        match step:
            case steps.Ask(request, timeout):
                key = self._key(request.path)
                return await self._open().get(
                    key,
                    request.payload,
                    parameters=request.parameters,
                    timeout=timeout,
                    first=True,
                    attachment=self._connection.attachment(key, self._session),
                )
            case steps.Pause(seconds):
                await trio.sleep(seconds)
            case steps.Next(seconds) if mailbox is not None:
                return await mailbox.next(seconds)
            case steps.Put(path, None):
                key = self._key(path)
                self._open().delete(key, attachment=self._connection.attachment(key, self._session))
            case steps.Put(path, payload) if payload is not None:
                key = self._key(path)
                self._open().put(key, payload, attachment=self._connection.attachment(key, self._session))
        return None

    @contextmanager
    def _subscribed(self, key: str) -> Iterator[Mailbox]:
        mailbox = Mailbox()
        subscription = self._open().subscribe(key, mailbox.put)
        try:
            yield mailbox
        finally:
            subscription.undeclare()

    def _key(self, path: str) -> str:
        return requests.full_key(self._keys, path)

    def _open(self) -> ZenohBus:
        if self._bus is None:
            raise RuntimeError("the client is not open: use it in an async with statement")
        return self._bus
