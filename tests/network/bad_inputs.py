"""Bad requests: what is sent, and what must come back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

GOOD: dict[str, Any] = {"name": "good", "workers": [{"name": "a", "command": "true"}]}


@dataclass(frozen=True, eq=False)
class Bad:
    """A request that must be refused: ``code``, and a text that its message holds. ``shown`` stands for a payload too long to show."""

    how: str
    path: str
    code: str
    says: str
    payload: Any = None
    shown: str | None = None

    @property
    def body(self) -> bytes | None:
        if self.payload is None or isinstance(self.payload, bytes):
            return self.payload
        return self.payload.encode() if isinstance(self.payload, str) else json.dumps(self.payload).encode()

    @property
    def sent(self) -> str:
        """The request as documentation shows it."""
        if self.shown is not None:
            return self.shown
        return "" if self.body is None else self.body.decode("latin-1")


def document(**changes: Any) -> dict[str, Any]:
    """The good document with changes to its only worker, or to itself where they are its own keys."""
    own = {k: v for k, v in changes.items() if k in ("name", "params", "mode", "workers", "extra")}
    worker = {k: v for k, v in changes.items() if k not in own}
    return GOOD | {"workers": [{"name": "a", "command": "true"} | worker]} | own


def workers(*given: dict[str, Any]) -> dict[str, Any]:
    return {"name": "good", "workers": [{"command": "true"} | w for w in given]}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)
DEEP = '{"a":' * 5000 + "1" + "}" * 5000

SELECTORS = [
    Bad("get", "rnus", "KEY_NOT_FOUND", "did you mean 'runs'?"),
    Bad("get", "runs/good/worker", "KEY_NOT_FOUND", "did you mean 'runs/<run>/workers'?"),
    Bad("get", "runs/good/workers/a/logs", "KEY_NOT_FOUND", "there is no get on"),
    Bad("get", "runs/*", "INVALID_REQUEST", "holds a wildcard"),
    Bad("get", "**", "INVALID_REQUEST", "holds a wildcard"),
    Bad("get", "runs/go$*", "INVALID_REQUEST", "holds a wildcard"),
    Bad("get", "runs/..", "INVALID_REQUEST", "run '..' must start with a letter or a digit"),
    Bad("get", "runs/../../etc/passwd", "KEY_NOT_FOUND", "there is no get on"),
    Bad("get", "runs/a b", "INVALID_REQUEST", "names use letters, digits, '.', '_' and '-'"),
    Bad("get", "runs/a-żółw", "INVALID_REQUEST", "names use letters"),
    Bad("get", "runs/" + "x" * 65, "INVALID_REQUEST", "names have at most 64"),
    Bad("get", "runs/" + "x" * 5000, "INVALID_REQUEST", "names have at most 64", shown=""),
    Bad("get", "runs/nothing", "RUN_NOT_FOUND", "there is no run 'nothing'"),
    Bad("get", "runs/nothing?wait=0.1", "RUN_NOT_FOUND", "there is no run 'nothing'"),
    Bad("get", "runs/good?wiat=3", "INVALID_REQUEST", "did you mean 'wait'?"),
    Bad("get", "runs/good?wait=soon", "INVALID_REQUEST", "must be seconds, 0 or more"),
    Bad("get", "runs/good?wait=-1", "INVALID_REQUEST", "must be seconds, 0 or more"),
    Bad("get", "runs/good?wait=nan", "INVALID_REQUEST", "must be seconds, 0 or more"),
    Bad("get", "runs/good?wait=inf", "INVALID_REQUEST", "must be seconds, 0 or more"),
    Bad("get", "runs/good?wait=1;wait=2", "INVALID_REQUEST", "parameter 'wait' is given twice"),
    Bad("get", "runs/good?=1", "INVALID_REQUEST", "without a name"),
    Bad("get", "runs?limit=0", "INVALID_REQUEST", "must be a whole number from 1 to 1000"),
    Bad("get", "runs?limit=1e3", "INVALID_REQUEST", "must be a whole number from 1 to 1000"),
    Bad("get", "runs?limit=99999999999999999999999", "INVALID_REQUEST", "must be a whole number from 1 to 1000"),
    Bad("get", "runs?limit=%D9%A3", "INVALID_REQUEST", "must be a whole number from 1 to 1000"),
    Bad("get", "runs?status=done", "INVALID_REQUEST", "must be one of created, running, succeeded, failed, cancelled"),
    Bad(
        "get", "runs?workflow=../x", "INVALID_REQUEST", "parameter workflow '../x' must start with a letter or a digit"
    ),
    Bad(
        "get", "runs?after=yesterday~good", "INVALID_REQUEST", "must be the 'next' of an earlier answer, or a run's id"
    ),
    Bad("get", "runs?after=0001-01-01T00:00:00~good", "INVALID_REQUEST", "must be the 'next' of an earlier answer"),
    Bad("get", "runs?after=nothing", "RUN_NOT_FOUND", "there is no such run"),
    Bad("get", "runs?after=%00", "INVALID_REQUEST", "parameter after"),
    Bad("get", "workflows?after=*", "INVALID_REQUEST", "parameter after '*' must start with a letter or a digit"),
    Bad("get", "workflows/nothing", "WORKFLOW_NOT_FOUND", "there is no workflow 'nothing'"),
    Bad("get", "workflows/nothing/start", "WORKFLOW_NOT_FOUND", "there is no workflow 'nothing'"),
    Bad("get", "runs/nothing/cancel", "RUN_NOT_FOUND", "there is no run 'nothing'"),
    Bad("get", "runs/good/cancel", "RUN_FINAL", "there is nothing to cancel"),
    Bad("get", "runs/good/retry", "RUN_FINAL", "there is nothing to retry"),
    Bad("get", "runs/open/retry", "RUN_NOT_FINAL", "it can be retried once it has ended"),
    Bad("get", "runs/nothing/workers", "RUN_NOT_FOUND", "there is no run 'nothing'"),
    Bad("get", "runs/good/workers?status=late", "INVALID_REQUEST", "must be one of created, ready, running"),
    Bad("get", "runs/good/workers?after=a", "INVALID_REQUEST", "must be a whole number"),
    Bad("get", "runs/good/workers/b", "WORKER_NOT_FOUND", "run 'good' has no worker 'b'"),
    Bad("get", "runs/good/workers/a/logs/stdin", "INVALID_REQUEST", "a log is stdout or stderr, not 'stdin'"),
    Bad("get", "runs/good/workers/a/logs/stdout?offset=-1", "INVALID_REQUEST", "must be a whole number from 0"),
    Bad("get", "runs/good/workers/a/logs/stdout?limit=0", "INVALID_REQUEST", "must be a whole number from 1"),
    Bad("get", "runs/good/workers/a/logs/stdout?attempt=7", "LOG_NOT_FOUND", "worker 'a' has no attempt 7; it has [1]"),
    Bad("get", "runs/good/workers/b/logs/stdout", "WORKER_NOT_FOUND", "run 'good' has no worker 'b'"),
    Bad("get", "nodes/nowhere", "NODE_NOT_FOUND", "there is no node named 'nowhere'; known are "),
    Bad("get", "nodes/nowhere/drain", "NODE_NOT_FOUND", "no node named 'nowhere' is in sight"),
    Bad("get", "nodes/.", "INVALID_REQUEST", "must start with a letter or a digit"),
    Bad("get", "nodes?all=1", "INVALID_REQUEST", "this request has no parameter 'all'"),
    Bad("get", "health?verbose", "INVALID_REQUEST", "this request has no parameter 'verbose'"),
    Bad("get", "schema?x=1", "INVALID_REQUEST", "this request has no parameter 'x'"),
]
"""Keys and parameters."""

METHODS = [
    Bad("get with a payload", "health", "KEY_NOT_FOUND", "it has: get", "x"),
    Bad("get with a payload", "nodes/runtime1/drain", "KEY_NOT_FOUND", "it has: get", "x"),
    Bad("put", "runs", "KEY_NOT_FOUND", "it has: get, get with a payload", GOOD),
    Bad("put", "health", "KEY_NOT_FOUND", "it has: get", "x"),
    Bad("put", "runs/*", "INVALID_REQUEST", "holds a wildcard", GOOD),
    Bad("put", "**", "INVALID_REQUEST", "holds a wildcard", GOOD),
    Bad("put", "runs/good/cancel", "KEY_NOT_FOUND", "it has: get", "x"),
    Bad("delete", "runs/nothing", "RUN_NOT_FOUND", "there is no run 'nothing'"),
    Bad("delete", "runs/good", "RUN_FINAL", "has succeeded already"),
    Bad("delete", "runs/**", "INVALID_REQUEST", "holds a wildcard"),
    Bad("delete", "workflows/nothing", "WORKFLOW_NOT_FOUND", "there is no workflow 'nothing'"),
    Bad("delete", "nodes/runtime1", "KEY_NOT_FOUND", "it has: get"),
]
"""Requests that a key does not have; puts and deletes are answered on ``event/rejected``."""

PAYLOADS = [
    Bad("get with a payload", "runs", "INVALID_REQUEST", "the payload is empty", b""),
    Bad("put", "runs/x", "INVALID_REQUEST", "the payload is empty", b""),
    Bad(
        "put",
        "runs/x",
        "INVALID_REQUEST",
        "the payload is no text in UTF-8",
        b"\xff\xfe\x00\x01",
        "bytes that are no UTF-8",
    ),
    Bad("put", "runs/x", "INVALID_DOCUMENT", "", bytes(range(32)), "control characters"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "{"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", '{"name": "good", "workers": [}'),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "null"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "[1, 2]"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "just words"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", DEEP, '5,000 times `{"a":`'),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "[" * 100_000, "100,000 times `[`"),
    Bad(
        "get with a payload",
        "runs",
        "INVALID_DOCUMENT",
        "",
        "name: good\nworkers:\n - {name: a, command: echo, timeout: " + "9" * 5000 + "}\n",
        "a timeout of 5,000 digits",
    ),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", BOMB, "a YAML bomb: nine levels of nine aliases"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "a: &a [*a]\n"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "name: !!python/object/apply:os.system [id]\n"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "name: good\n\tworkers: []\n"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", "name: a\nname: b\nworkers: []\n"),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", '{"name": "\\ud800", "workers": []}'),
    Bad(
        "get with a payload",
        "runs",
        "INVALID_DOCUMENT",
        "",
        '{"name": "good", "workers": [{"name": "a", "command": "true", "timeout": NaN}]}',
    ),
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", GOOD | {"pad": "x" * (17 << 20)}, "17 MiB"),
    Bad("get with a payload", "runs", "INVALID_REQUEST", "(max_payload)", b"x" * ((64 << 20) + 1), "64 MiB and a byte"),
    Bad("get with a payload", "runs", "INVALID_REQUEST", "a submission has no 'doc'", {"document": GOOD, "doc": 1}),
    Bad(
        "get with a payload",
        "runs",
        "INVALID_REQUEST",
        "must be an object of parameter values",
        {"document": GOOD, "params": [1]},
    ),
    Bad("get with a payload", "runs", "INVALID_REQUEST", "needs a 'document'", {"document": 7}),
    Bad(
        "get with a payload",
        "runs",
        "INVALID_REQUEST",
        "run '../x' must start with a letter or a digit",
        {"document": GOOD, "run": "../x"},
    ),
    Bad("get with a payload", "runs", "INVALID_REQUEST", "is int, not a string", {"document": GOOD, "run": 7}),
    Bad(
        "get with a payload",
        "runs",
        "RUN_EXISTS",
        "choose another id",
        {"document": document(args=["other"]), "run": "good"},
    ),
    Bad("put", "runs/good", "RUN_EXISTS", "choose another id", document(args=["other"])),
    Bad("put", "runs/x", "INVALID_REQUEST", "make them the same", {"document": GOOD, "run": "y"}),
    Bad("put", "workflows/other", "INVALID_REQUEST", "make them the same", GOOD),
    Bad("get with a payload", "workflows", "INVALID_DOCUMENT", "", {"workers": []}),
    Bad(
        "get with a payload",
        "workflows/good/start",
        "INVALID_REQUEST",
        "start takes 'params' and 'run', not 'parms'",
        {"parms": {}},
    ),
    Bad("get with a payload", "workflows/good/start", "INVALID_REQUEST", "the payload is no JSON", "params: {}"),
    Bad("get with a payload", "workflows/good/start", "INVALID_REQUEST", "must be a JSON object, not a list", "[]"),
    Bad(
        "get with a payload",
        "workflows/good/start",
        "INVALID_REQUEST",
        "must be an object of parameter values",
        {"params": "x"},
    ),
    Bad(
        "get with a payload",
        "workflows/good/start",
        "INVALID_REQUEST",
        "there is no parameter 'nope'",
        {"params": {"nope": 1}},
    ),
    Bad("get with a payload", "workflows/good/start", "INVALID_REQUEST", "run '*' must start", {"run": "*"}),
]
"""Payloads around documents."""

DOCUMENTS = [
    Bad("get with a payload", "runs", "INVALID_DOCUMENT", "", bad)
    for bad in (
        {},
        {"name": "good"},
        {"name": "good", "workers": []},
        {"name": "good", "workers": {"a": "true"}},
        {"name": "good", "workers": ["a"]},
        document(name="../good"),
        document(name=7),
        document(name=""),
        document(name="x" * 65),
        document(extra=1),
        document(mode="parallel"),
        document(name="a/b"),
        workers({"name": "a"}, {"name": "a"}),
        workers({"name": "*"}),
        workers({"name": "a", "needs": ["b"]}),
        workers({"name": "a", "needs": ["b"]}, {"name": "b", "needs": ["a"]}),
        workers({"name": "a", "needs": ["a"]}),
        workers({"name": "fetch", "outputs": {"raw": "raw"}}, {"name": "use", "inputs": {"x": "fetch/rwa"}}),
        workers({"name": "a", "inputs": {"x": "fetch"}}),
        document(comand="true"),
        document(command=""),
        document(command="echo 'half"),
        document(command=[]),
        document(script="true"),
        document(args="x"),
        document(args=[{"a": 1}]),
        document(args=["${params.nope}"]),
        document(args=["${inputs.nope}"]),
        document(args=["\0"]),
        document(env_vars={"A=B": "1"}),
        document(env_vars={"A": None}),
        document(outputs={"../x": "x"}),
        document(outputs={"x": ""}),
        document(outputs={"x": "../../etc/passwd"}),
        document(timeout=-1),
        document(timeout=1e400),
        document(timeout="a while"),
        document(retries={"max": -1}),
        document(retries={"max": 1 << 70}),
        document(retries="often"),
        document(resources={"cpus": -1}),
        document(resources={"memory": "much"}),
        document(place={"labels": {"zone": []}}),
        document(place={"node": "a/b"}),
        document(priority="high"),
        document(on_failure="explode"),
    )
]
"""Documents."""

WITH_PARAM = document(params={"n": 1}, args=["${params.n}"])
PARAMS = [
    Bad(
        "get with a payload",
        "runs",
        "INVALID_REQUEST",
        says,
        f'{{"document": {json.dumps(WITH_PARAM)}, "params": {bad}}}',
    )
    for bad, says in (
        ('{"m": 1}', "there is no parameter 'm'. Its parameters: n."),
        ('{"n": [1]}', "the parameter 'n' is a list"),
        ('{"n": {"a": 1}}', "the parameter 'n' is a mapping"),
        ('{"n": "\\u0000"}', "holds a NUL character"),
        ('{"n": 1e999}', "the payload is no JSON: Out of range"),
        ('{"n": NaN}', "the payload is no JSON"),
        ('{"n": "\\ud800"}', "the payload is no JSON"),
        ('"n=1"', "must be an object of parameter values"),
    )
]
"""Values for parameters."""

TABLE: dict[str, list[Bad]] = {
    "Keys and parameters": SELECTORS,
    "Requests a key does not have": METHODS,
    "Payloads": PAYLOADS,
    "Documents": DOCUMENTS,
    "Params": PARAMS,
}
