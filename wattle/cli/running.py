"""``wattle run``: a network, a submission, its progress, its result; and what becomes of all that at Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from wattle.errors import InvalidRequest, Unavailable, WattleError
from wattle.security.clients import client_settings
from wattle.values import value

if TYPE_CHECKING:
    from wattle.cli.progress import Display
    from wattle.client.blocking import Client
    from wattle.core.model import Workflow
    from wattle.network import Network
    from wattle.protocol.records import RunView

EXIT = {"succeeded": 0, "failed": 1, "cancelled": 4}
CANCEL_TIMEOUT = 30.0
_SHOWN_BYTES = 64 << 10
_SHOWN_WORKERS = 10


class DeadlinePassed(BaseException):
    """The time for a run is over. Like KeyboardInterrupt it arrives anywhere, and no ``except Exception`` is to eat it."""


@value(frozen=True, slots=True)
class Job:
    """What to run, and how to show it."""

    file: Path
    params: dict[str, Any]
    connect: list[str] | None = None
    data: Path | None = None
    namespace: str | None = None
    bundle: Path | None = None
    timeout: float | None = None
    json: bool = False
    quiet: bool = False


def execute(job: Job) -> int:
    """Run a document and give the exit status; raises WattleError."""
    # All before the network is forked, if it is not yet (wattle/cli/ahead.py): it needs most of this too.
    from wattle.cli import embedded
    from wattle.client.blocking import Client
    from wattle.network import find_network

    settings = client_settings(
        {"connect": job.connect, "data": job.data, "namespace": job.namespace, "bundle": job.bundle}
    )
    with _interruptible():
        with embedded.process() as process:
            text = read_document(job.file)
            workflow = check(text, job.file, job.params)
            network = find_network(settings, process)
        with network:
            try:
                with Client(network.ready(), namespace=settings.namespace, bundle=settings.bundle) as client:
                    if network.joined:
                        _wake(client)
                    return _Execution(job, network, client, workflow).run(text)
            except KeyboardInterrupt:
                return 4


def _wake(client: Client) -> None:
    """Have a network work that somebody started only to look (``find_network_to_read``)."""
    for node in client.nodes():
        if node.status == "draining":
            client.resume(node.name)


class _Execution:
    """One run from submission to result."""

    def __init__(self, job: Job, network: Network, client: Client, workflow: Workflow) -> None:
        from wattle.cli.progress import display_for
        from wattle.client.requests import nonce
        from wattle.names import new_run_id

        self._job, self._network, self._client, self._workflow = job, network, client, workflow
        self._id = new_run_id(workflow.name, time.time(), nonce())
        self._display: Display = display_for(job.json, job.quiet)

    def run(self, text: str) -> int:
        try:
            with deadline(self._job.timeout), self._display:
                from wattle.cli.progress import follow

                view = self._client.submit(text, self._job.params, run=self._id)
                view = follow(self._client, view, self._display)
        except KeyboardInterrupt:
            return self._cancel("interrupted", 4)
        except DeadlinePassed:
            return self._cancel(f"not done after {self._job.timeout:g} s", 3)
        if view.status == "succeeded" and not (self._job.quiet or self._job.json):
            show_outputs(self._client, view, self._workflow)
        return EXIT.get(view.status, 1)

    def _cancel(self, why: str, status: int) -> int:
        """Cancel and wait for it; another Ctrl-C ends all that at once."""
        try:
            _tell(f"{why}: cancelling run {self._id} (Ctrl-C again leaves at once)")
            view = self._cancelled()
            if view is not None:
                _tell(f"run {self._id} is {view.status}")
                if self._job.json:
                    self._display.result(view)
        except KeyboardInterrupt:
            _leave(self._network)
        except WattleError as error:
            _tell(f"run {self._id} could not be cancelled: {error.message}")
        return status

    def _cancelled(self) -> RunView | None:
        from wattle.errors import Conflict, NotFound

        try:
            self._client.cancel(self._id)
        except Conflict:  # it has just become final
            pass
        except NotFound:
            _tell("it had not been submitted yet")
            return None
        return self._client.wait(self._id, CANCEL_TIMEOUT)


def _leave(network: Network) -> NoReturn:
    network.abandon()
    sys.stdout.flush()
    # No clean-up: closing the session waits for others, and this is for those who do not want to wait.
    os._exit(4)


def _tell(text: str) -> None:
    sys.stderr.write(f"wattle: {text}\n")
    sys.stderr.flush()


# --- the document --------------------------------------------------------------------------------------------------------


def read_document(file: Path) -> str:
    """The text of a document's file, or of standard input for ``-``; raises InvalidRequest."""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except OSError as error:
        raise InvalidRequest(f"cannot read the document {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not UTF-8 text: {error}") from None


def check(text: str, file: Path, params: dict[str, Any]) -> Workflow:
    """The compiled workflow; raises InvalidDocument or InvalidRequest with all problems."""
    from wattle.document.compile import compile_document
    from wattle.document.load import load

    return compile_document(load(text, file=str(file)), params)


def parse_params(given: list[str] | None, file: Path | None) -> dict[str, Any]:
    """Parameters from ``--params-file``, then ``--param NAME=VALUE``; raises InvalidRequest."""
    params = _params_of(file) if file is not None else {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--param {item!r}: write it as NAME=VALUE")
        params[name] = value
    return params


def _params_of(file: Path) -> dict[str, Any]:
    import yaml  # JSON is YAML, near enough for a mapping of parameters

    try:
        params = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"--params-file {file}: {error.strerror or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidRequest(f"--params-file {file}: {error}") from None
    if not isinstance(params, dict):
        raise InvalidRequest(f"--params-file {file}: must hold a mapping of names to values")
    return {str(name): value for name, value in params.items()}


# --- results -------------------------------------------------------------------------------------------------------------


def show_outputs(client: Client, run: RunView, workflow: Workflow) -> None:
    """What the last workers printed, those that no other one waits for: that is what a person wants to see."""
    needed = {name for spec in workflow.workers.values() for name in spec.needs}
    last = [name for name in workflow.workers if name not in needed]
    if len(last) > _SHOWN_WORKERS:
        return
    for name in last:
        _show_output(client, run.id, name, titled=len(last) > 1)


def _show_output(client: Client, run: str, name: str, titled: bool) -> None:
    from wattle.cli.progress import heading

    shown = 0
    try:
        for chunk in client.log_chunks(run, name):
            data = chunk.data[: _SHOWN_BYTES - shown]
            if titled and not shown:
                print(heading(name), flush=True)
            sys.stdout.buffer.write(data)
            shown += len(data)
            if shown >= _SHOWN_BYTES:
                print(f"\n... {chunk.size - shown} more bytes: wattle logs {run} {name}")
                break
    except WattleError as error:
        _tell(f"the output of {name} cannot be shown: {error.message}")
    sys.stdout.flush()


# --- time and signals ----------------------------------------------------------------------------------------------------


@contextmanager
def deadline(limit: float | None) -> Iterator[None]:
    """Raises DeadlinePassed inside once ``limit`` seconds are over; a blocking call is interrupted as by Ctrl-C."""

    def passed(number: int, frame: FrameType | None) -> NoReturn:
        raise DeadlinePassed

    if limit is None:
        yield
        return
    before = signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, max(limit, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal count as Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def timed(limit: float | None, what: str) -> Iterator[None]:
    """``deadline`` for commands that only look on: raises Unavailable (TIMEOUT)."""
    try:
        with deadline(limit):
            yield
    except DeadlinePassed:
        raise Unavailable(f"{what} after {limit:g} s", code="TIMEOUT") from None
