"""Every public request: its path, parameters and payload, and how its answer is read. No I/O.

A ``Request`` is what both clients send; ``Request.answer`` turns the replies into the record or raises the error that an
error reply stands for (wattle/errors.py).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from wattle.bus.base import Reply
from wattle.client import answers
from wattle.client.answers import Health, LogChunk, Page, Pruned
from wattle.errors import InvalidRequest
from wattle.names import as_name, check_name
from wattle.protocol.keys import STREAMS, Keys
from wattle.protocol.records import WAITING_SUBMISSION, NodeView, RunView, WorkerView, WorkflowView
from wattle.values import value

T = TypeVar("T")

Document = Mapping[str, Any] | str | bytes | os.PathLike[str]
"""A workflow document: parsed already, as JSON or YAML text, or the path of a file (a ``Path``; a ``str`` is always text)."""

LOG_LIMIT = 1 << 20
"""Most bytes of a log in one answer."""

_ROOT = "wattle/"


@value(frozen=True, slots=True)
class Request(Generic[T]):
    """One public request.

    ``path`` follows ``api/v1/``; ``held`` is how many seconds the gateway may keep the answer back (a long poll);
    ``repeatable`` says that sending it again after a lost answer does no harm.
    """

    path: str
    read: Callable[[Reply], T]
    parameters: str = ""
    payload: bytes | None = None
    held: float = 0.0
    repeatable: bool = True

    def __str__(self) -> str:
        return f"{self.path}?{self.parameters}" if self.parameters else self.path

    def answer(self, replies: Sequence[Reply]) -> T:
        """The record in ``replies``; raises the error they stand for."""
        return self.read(answers.first_answer(replies, str(self)))


def encode(parameters: Mapping[str, object | None]) -> str:
    """Parameters as they stand after ``?``: ``;`` between them, values percent-encoded, None left out."""
    return ";".join(f"{key}={quote(_text(value), safe='')}" for key, value in parameters.items() if value is not None)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _json(parse: Callable[[Any], T]) -> Callable[[Reply], T]:
    return lambda reply: parse(answers.json_of(reply.payload))


def document_value(document: Document) -> Any:
    """A document as it stands in a submission: an object, or the text as it was written.

    Raises InvalidRequest for a file that cannot be read, for bytes that are no UTF-8, and for what is no document at all.
    """
    if isinstance(document, os.PathLike):
        document = _read(Path(document))
    if isinstance(document, bytes):
        try:
            return document.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the document is not UTF-8 text: {error}") from None
    if not isinstance(document, str | Mapping):
        raise InvalidRequest(f"a document is a mapping, text, bytes or a Path, not {document!r:.100}")
    return document


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"cannot read the document {path}: {error.strerror or error}") from None


def document_bytes(document: Document) -> bytes:
    """A document as the payload of a put."""
    value = document_value(document)
    return value.encode() if isinstance(value, str) else _body(value)


def run_prefix(document: Document) -> str:
    """What a run id starts with: the workflow's name as far as it is seen without parsing, for a person to recognise."""
    value = document_value(document)
    if not isinstance(value, str):
        return as_name(str(value.get("name", "run")))
    for line in value[:4096].splitlines():
        key, _, rest = line.strip().lstrip("{").partition(":")
        if key.strip("\"' ") == "name":
            return as_name(rest.split(",")[0].split("#")[0].strip("\"' }"))
    return "run"


def nonce() -> str:
    """Random letters that keep run ids of one second apart."""
    return secrets.token_hex(3)


def selector(key: str) -> tuple[str, str, bool]:
    """A key or api path with its parameters, split; and whether everyone who serves it is to be asked (a full key)."""
    path, _, parameters = key.partition("?")
    path = path.strip("/")
    if not path:
        raise InvalidRequest(
            f"{key!r} names nothing; give an api path such as runs, or a full key such as wattle/default/state/*/*"
        )
    return path, parameters, path.startswith(_ROOT)


def full_key(keys: Keys, path: str) -> str:
    """The key of an api path; a full key is its own."""
    return path if path.startswith(_ROOT) else keys.api(path.removeprefix("api/v1/"))


def _body(values: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


# --- runs ---------------------------------------------------------------------------------------------------------------


def submit(document: Document, params: Mapping[str, Any] | None, run: str, wait: float = 0.0) -> Request[RunView]:
    """Submit a document and start it, as run ``run``: repeating it is harmless.

    Answered once it is stored, or with ``wait`` when it is final or after that many seconds; a large one does not wait.
    """
    body = {"document": document_value(document), "params": dict(params or {}), "run": check_name(run, "run")}
    payload = _body(body)
    if not wait or len(payload) > WAITING_SUBMISSION:
        return Request("runs", _json(answers.run_view), payload=payload)
    return Request("runs", _json(answers.run_view), encode({"wait": wait}), payload, held=wait)


def start(workflow: str, params: Mapping[str, Any] | None, run: str) -> Request[RunView]:
    """Start a run of a stored workflow."""
    body = {"params": dict(params or {}), "run": check_name(run, "run")}
    return Request(f"{_workflow(workflow)}/start", _json(answers.run_view), payload=_body(body))


def run(run: str, wait: float | None = None) -> Request[RunView]:
    """One run; with ``wait``, when it is final or after that many seconds."""
    return Request(_run(run), _json(answers.run_view), encode({"wait": wait}), held=wait or 0.0)


def runs(
    workflow: str | None = None, status: str | None = None, limit: int | None = None, after: str | None = None
) -> Request[Page[RunView]]:
    """Runs, newest first."""
    parameters = encode({"workflow": workflow, "status": status, "limit": limit, "after": after})
    return Request("runs", _json(answers.page("runs", answers.run_view)), parameters)


def cancel(run: str) -> Request[RunView]:
    """Cancel a run."""
    return Request(f"{_run(run)}/cancel", _json(answers.run_view))


def retry(run: str) -> Request[RunView]:
    """Run again what did not succeed. A second one finds the run going on: it is sent once."""
    return Request(f"{_run(run)}/retry", _json(answers.run_view), repeatable=False)


def prune(runs: Sequence[str] | None = None, older_than: float | None = None) -> Request[Pruned]:
    """Remove final runs: these, or those that ended so many seconds ago. Sent once: what is removed is not known a second time."""
    if (runs is None) == (older_than is None):
        raise InvalidRequest("prune takes either runs or older_than")
    asked = {"older_than": older_than} if runs is None else {"runs": [check_name(run, "run") for run in runs]}
    return Request("prune", _json(answers.pruned), payload=_body(asked), repeatable=runs is None)


# --- workers and logs ----------------------------------------------------------------------------------------------------


def workers(
    run: str, status: str | None = None, limit: int | None = None, after: str | None = None
) -> Request[Page[WorkerView]]:
    """Workers of a run, in the document's order."""
    parameters = encode({"status": status, "limit": limit, "after": after})
    return Request(f"{_run(run)}/workers", _json(answers.page("workers", answers.worker_view)), parameters)


def worker(run: str, name: str) -> Request[WorkerView]:
    """One worker."""
    return Request(_worker(run, name), _json(answers.worker_view))


def log(
    run: str,
    name: str,
    stream: str = "stdout",
    *,
    offset: int | None = None,
    limit: int | None = None,
    attempt: int | None = None,
    wait: float | None = None,
    tail: int | None = None,
    node: str | None = None,
) -> Request[LogChunk]:
    """Bytes of a worker's output. ``wait`` seconds for some beyond ``offset``; ``tail`` starts that many bytes before the end.

    ``node`` is where ``attempt`` ran, as an earlier answer said: a hint that spares looking it up.
    """
    if stream not in STREAMS:
        raise InvalidRequest(f"{stream!r} is no log; there are {' and '.join(STREAMS)}")
    parameters = encode(
        {"offset": offset, "limit": limit, "attempt": attempt, "wait": wait, "tail": tail, "node": node}
    )
    return Request(f"{_worker(run, name)}/logs/{stream}", answers.log_chunk, parameters, held=wait or 0.0)


# --- workflows -----------------------------------------------------------------------------------------------------------


def workflows(
    limit: int | None = None, after: str | None = None, status: str | None = None
) -> Request[Page[WorkflowView]]:
    """Stored workflows."""
    parameters = encode({"limit": limit, "after": after, "status": status})
    return Request("workflows", _json(answers.page("workflows", answers.workflow_view)), parameters)


def workflow(name: str) -> Request[WorkflowView]:
    """One workflow, with its document and latest run."""
    return Request(_workflow(name), _json(answers.workflow_view))


# --- nodes and the rest --------------------------------------------------------------------------------------------------


def nodes() -> Request[Page[NodeView]]:
    """Every node in the network's memory."""
    return Request("nodes", _json(answers.page("nodes", answers.node_view)))


def node(name: str, action: str | None = None) -> Request[NodeView]:
    """One node; ``action`` is drain or resume."""
    path = f"nodes/{check_name(name, 'node')}"
    return Request(f"{path}/{action}" if action else path, _json(answers.node_view))


def health() -> Request[Health]:
    """Peers in sight."""
    return Request("health", _json(answers.health))


def schema() -> Request[dict[str, Any]]:
    """JSON Schema of the document."""
    return Request("schema", _json(dict))


def _run(run: str) -> str:
    return f"runs/{check_name(run, 'run')}"


def _worker(run: str, name: str) -> str:
    return f"{_run(run)}/workers/{check_name(name, 'worker')}"


def _workflow(name: str) -> str:
    return f"workflows/{check_name(name, 'workflow')}"
