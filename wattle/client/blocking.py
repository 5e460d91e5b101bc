"""The SDK for programs without an event loop; the command line uses it too. Imports no trio.

::

    with Client() as client:
        run = client.submit(Path("pipeline.yaml"))
        print(client.wait(run.id).status)
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from wattle.bus.base import Reply, Sample
from wattle.bus.blocking import BlockingBus
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
    """Events between Zenoh's thread and the caller's: bounded, and what overflows is marked as a gap."""

    def __init__(self, size: int = steps.BACKLOG) -> None:
        self._queue: queue.Queue[Sample] = queue.Queue(size)
        self._gap = False

    def put(self, sample: Sample) -> None:
        """Take a sample, never waiting."""
        try:
            self._queue.put_nowait(sample)
        except queue.Full:
            self._gap = True

    def next(self, seconds: float) -> Happening | None:
        """The next event, or None after some seconds without one."""
        try:
            sample = self._queue.get(timeout=seconds)
        except queue.Empty:
            return None
        gap, self._gap = self._gap, False
        return Happening(sample, gap or sample.gap)


class Client:
    """A connection to a network, as a context manager.

    ``connect`` names endpoints (default: ``WATTLE_CONNECT``, else the socket in the data folder ``data``). ``bundle`` is
    a client's of a secured cluster, which says where to connect as well (default: ``WATTLE_BUNDLE``, else none). ``timeout`` is for one
    answer and ``patience`` for a repeatable request whose answers fail to come, in seconds. Methods raise the errors of
    wattle/errors.py; Unavailable with code NO_NETWORK on entering, or NO_GATEWAY, says that there is nobody to ask.

    Not for several threads at once, except that each iterator may be used beside other calls.
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
        self._policy: Policy = self._connection.policy(time.monotonic, patience)
        self._bus: BlockingBus | None = None

    def __enter__(self) -> Self:
        self._bus = BlockingBus(self._connection.options)
        self._session = self._bus.id
        if self._connection.bundle is not None:
            try:
                self._introduce(self._bus, self._connection.bundle)
            except BaseException:
                self.close()
                raise
        return self

    def _introduce(self, bus: BlockingBus, bundle: Bundle) -> None:
        from wattle.client.introducing import MOMENT, TIMEOUT, Introduction

        about = Introduction(bundle, time.monotonic)
        while True:
            replies = bus.get(self._keys.roster, about.question, timeout=TIMEOUT)
            if not about.goes_on(replies):
                return
            time.sleep(MOMENT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the network; a second call does nothing."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    # --- runs

    def submit(self, document: Document, params: Mapping[str, Any] | None = None, run: str | None = None) -> RunView:
        """Submit a document and start it; acknowledged means stored. Repeated under the same run id until answered."""
        run = run or new_run_id(requests.run_prefix(document), time.time(), requests.nonce())
        return self._ask(requests.submit(document, params, run))

    def submit_and_wait(
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
        return self._do(steps.submit_and_wait(self._policy, document, params, run, timeout))

    def start(self, workflow: str, params: Mapping[str, Any] | None = None, run: str | None = None) -> RunView:
        """Start a run of a stored workflow."""
        run = run or new_run_id(workflow, time.time(), requests.nonce())
        return self._ask(requests.start(workflow, params, run))

    def run(self, run: str) -> RunView:
        """A run as it is now."""
        return self._once(requests.run(run))

    def runs(self, workflow: str | None = None, status: str | None = None) -> Iterator[RunView]:
        """Runs, newest first; further pages are fetched as they are needed."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.runs(workflow, status, after=after)))

    def wait(self, run: str, timeout: float | None = None) -> RunView:
        """The run once it is final; raises Unavailable (TIMEOUT) when it is not within ``timeout`` seconds."""
        return self._do(steps.wait(self._policy, run, timeout))

    def watch(self, run: str, workers: bool = True) -> Iterator[Update]:
        """The run now, then every change of it and (with ``workers``) of its workers; ends with the final run."""
        watch = Watch(self._policy, self._keys, run, workers)
        with self._subscribed(self._keys.events_near_run(run)) as mailbox:
            yield from self._iterate(watch.steps(), mailbox)

    def cancel(self, run: str) -> RunView:
        """Cancel a run; it is final when its running tasks have ended."""
        return self._ask(requests.cancel(run))

    def retry(self, run: str) -> RunView:
        """Run again what did not succeed in a final run."""
        return self._ask(requests.retry(run))

    def prune(self, runs: Sequence[str] | None = None, older_than: float | None = None) -> list[str]:
        """Remove final runs for good: these, or all that ended ``older_than`` seconds ago; gives the ids of those removed."""
        pruned = self._ask(requests.prune(runs, older_than))
        found = list(pruned.runs)
        while pruned.more and pruned.runs:
            pruned = self._ask(requests.prune(runs, older_than))
            found += pruned.runs
        return found

    # --- workers and logs

    def workers(self, run: str, status: str | None = None) -> Iterator[WorkerView]:
        """Workers of a run in the document's order."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.workers(run, status, after=after)))

    def worker(self, run: str, name: str) -> WorkerView:
        """One worker with its attempts."""
        return self._once(requests.worker(run, name))

    def logs(
        self,
        run: str,
        worker: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> Iterator[bytes]:
        """A worker's output in pieces, by default of its newest attempt and from its start (or the last ``tail`` bytes).

        ``follow`` goes on until the worker is final, through later attempts unless ``attempt`` names one.
        """
        chunks = self.log_chunks(run, worker, stream, follow=follow, attempt=attempt, tail=tail)
        return (chunk.data for chunk in chunks)

    def log_chunks(
        self,
        run: str,
        worker: str,
        stream: str = "stdout",
        *,
        follow: bool = False,
        attempt: int | None = None,
        tail: int | None = None,
    ) -> Iterator[LogChunk]:
        """As ``logs``, with each piece's attempt, node and offset."""
        return self._iterate(Log(self._policy, run, worker, stream, follow, attempt, tail).steps())

    # --- workflows

    def workflows(self, status: str | None = None) -> Iterator[WorkflowView]:
        """Stored workflows."""
        return self._iterate(steps.pages(self._policy, lambda after: requests.workflows(after=after, status=status)))

    def workflow(self, name: str) -> WorkflowView:
        """One workflow with its document."""
        return self._once(requests.workflow(name))

    def put_workflow(self, name: str, document: Document) -> WorkflowView:
        """Store a workflow, in place of what had its name."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            return self._do(
                steps.put_workflow(self._policy, self._keys, name, requests.document_bytes(document)), mailbox
            )

    def delete_workflow(self, name: str) -> None:
        """Delete a workflow; its runs stay."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            self._do(steps.delete_workflow(self._policy, self._keys, name), mailbox)

    # --- nodes and the rest

    def nodes(self) -> list[NodeView]:
        """Every node in the network's memory."""
        return self._once(requests.nodes()).items

    def node(self, name: str) -> NodeView:
        """One node."""
        return self._once(requests.node(name))

    def drain(self, name: str) -> NodeView:
        """Give a node no new tasks."""
        return self._ask(requests.node(name, "drain"))

    def resume(self, name: str) -> NodeView:
        """Give a drained node tasks again."""
        return self._ask(requests.node(name, "resume"))

    def health(self) -> Health:
        """Peers in sight."""
        return self._once(requests.health())

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the document."""
        return self._once(requests.schema())

    def get(self, key: str, payload: bytes | None = None) -> list[Reply]:
        """The replies to a query on an api path (``runs/x?wait=5``) or a full key; a full key asks everyone who serves it."""
        path, parameters, everyone = requests.selector(key)
        key = self._key(path)
        return self._open().get(
            key,
            payload,
            parameters=parameters,
            timeout=self._policy.timeout,
            everyone=everyone,
            attachment=self._connection.attachment(key, self._session),
        )

    def put(self, key: str, payload: bytes, wait: float = 1.0) -> None:
        """Publish on an api path or a full key. Raises what it was refused for, should that be told within ``wait`` seconds."""
        with self._subscribed(self._keys.event_rejected) as mailbox:
            self._do(steps.put(self._keys, requests.selector(key)[0], payload, wait), mailbox)

    # --- performing steps

    def _ask(self, request: Request[R]) -> R:
        return self._do(steps.ask(self._policy, request))

    def _once(self, request: Request[R]) -> R:
        return self._do(steps.once(self._policy, request))

    def _do(self, operation: Steps[Any, R], mailbox: Mailbox | None = None) -> R:
        outcome: Any = None
        while True:
            try:
                step = operation.send(outcome)
            except StopIteration as end:
                result: R = end.value
                return result
            outcome = self._perform(step, mailbox)

    def _iterate(self, operation: Steps[T, None], mailbox: Mailbox | None = None) -> Iterator[T]:
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
                outcome = self._perform(step, mailbox)

    def _perform(self, step: steps.Step[Any], mailbox: Mailbox | None) -> list[Reply] | Happening | None:
        match step:
            case steps.Ask(request, timeout):
                key = self._key(request.path)
                return self._open().get(
                    key,
                    request.payload,
                    parameters=request.parameters,
                    timeout=timeout,
                    first=True,
                    attachment=self._connection.attachment(key, self._session),
                )
            case steps.Pause(seconds):
                time.sleep(seconds)
            case steps.Next(seconds) if mailbox is not None:
                return mailbox.next(seconds)
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

    def _open(self) -> BlockingBus:
        if self._bus is None:
            raise RuntimeError("the client is not open: use it in a with statement")
        return self._bus
