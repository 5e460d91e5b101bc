"""A network that is one Zenoh session and a dictionary: serves the public keys from canned runs that a test changes as it likes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import zenoh

from wattle.bus.config import ZenohOptions, open_session
from wattle.protocol.keys import Keys

FINAL = ("succeeded", "failed", "cancelled", "skipped")
T0 = "2026-01-01T00:00:00.000000Z"
T1 = "2026-01-01T00:00:01.500000Z"

Answer = tuple[Any, dict[str, Any] | None]


class Refusal(Exception):
    """An error reply."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.body = {"code": code, "message": message or code.lower().replace("_", " "), "detail": []}


class FakeGateway:
    """A context manager. ``asked`` holds every request as ``(path, parameters, payload)``, in order."""

    def __init__(self, folder: Path, namespace: str = "default") -> None:
        self.endpoint = f"unixsock-stream/{folder / 'wattle.sock'}"
        self.keys = Keys(namespace)
        self.runs: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, dict[str, Any]]] = {}
        self.logs: dict[tuple[str, str, int, str], bytes] = {}
        self.workflows: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, str], bytes | None]] = []
        self.changed = threading.Condition()
        self.before: Callable[[str], bool] = lambda path: True  # False: leave this request unanswered
        self.on_submit: Callable[[str], None] = lambda run: None
        self.page_limit = 1000

    def __enter__(self) -> Self:
        self.session = open_session(ZenohOptions(mode="peer", listen=(self.endpoint,)))
        self._declared: list[zenoh.Queryable[None] | zenoh.Subscriber[None]] = [
            self.session.declare_queryable(self.keys.api(), self._query, complete=True),
            self.session.declare_subscriber(self.keys.api(), self._put),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.closing:
            return
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        for declared in self._declared:  # a session closed with these may hang
            declared.undeclare()
        self.session.close()

    closing = False

    # --- what tests do

    def add_run(self, run: str, *names: str, status: str = "running", workflow: str = "flow") -> None:
        """A run of workers that wait."""
        self.workers[run] = {name: worker(run, name, workflow) for name in names}
        self.runs[run] = {
            "id": run,
            "workflow": workflow,
            "status": status,
            "created_at": T0,
            "started_at": T0,
            "completed_at": None,
            "owner": "c1",
            "epoch": 1,
            "counts": {"created": len(names)},
            "error_message": None,
            "params": {},
        }

    def set_worker(self, run: str, name: str, status: str, *, tell: bool = True, **more: Any) -> None:
        """Change a worker, and publish that unless the hint is to be lost."""
        with self.changed:
            one = self.workers[run][name]
            one.update(status=status, **more)
            if status == "running":
                number = len(one["attempts"]) + 1
                one["node"] = one["node"] or "n1"
                one["attempts"].append(
                    {"attempt": number, "node": one["node"], "status": "running", "assigned_at": T0, "started_at": T0}
                )
                one["started_at"] = T0
            elif status in FINAL and one["attempts"]:
                one["attempts"][-1].update(status=status, completed_at=T1)
                one["completed_at"] = T1
            self._count(run)
            self.changed.notify_all()
        if tell:
            self.publish_worker(run, name)

    def end_attempt(self, run: str, name: str) -> None:
        """The newest attempt fails and the worker waits for its next."""
        with self.changed:
            self.workers[run][name]["attempts"][-1].update(status="failed", completed_at=T1)
            self.workers[run][name]["status"] = "ready"
            self._count(run)
            self.changed.notify_all()

    def publish_worker(self, run: str, name: str) -> None:
        """The event of a worker's status."""
        one = self.workers[run][name]
        event = {key: one[key] for key in ("run", "name", "status", "node", "error_message", "unreachable")}
        event |= {"attempt": len(one["attempts"]) or None, "at": one["completed_at"] or one["started_at"]}
        self.session.put(self.keys.event_worker(run, name), json.dumps(event))

    def set_run(self, run: str, status: str, *, tell: bool = True, error_message: str | None = None) -> None:
        """Change a run, and publish that unless the hint is to be lost."""
        with self.changed:
            one = self.runs[run]
            one.update(status=status, error_message=error_message, completed_at=T1 if status in FINAL else None)
            self.changed.notify_all()
        if tell:
            self.session.put(self.keys.event_run(run), json.dumps(one))

    def append_log(self, run: str, name: str, data: bytes, *, attempt: int = 1, stream: str = "stdout") -> None:
        """A task writes."""
        with self.changed:
            key = (run, name, attempt, stream)
            self.logs[key] = self.logs.get(key, b"") + data
            self.changed.notify_all()

    def finish(self, run: str, status: str = "succeeded") -> None:
        """Every worker that is not final ends this way, and so does the run."""
        for name, one in list(self.workers[run].items()):
            if one["status"] not in FINAL:
                self.set_worker(run, name, status)
        self.set_run(run, status)

    def wait_asked(self, path: str) -> None:
        """Until a request for ``path`` has come."""
        with self.changed:
            if not self.changed.wait_for(lambda: any(asked[0] == path for asked in self.asked), timeout=20):
                raise AssertionError(f"nobody asked for {path}: {self.asked}")

    def _count(self, run: str) -> None:
        counts: dict[str, int] = {}
        for one in self.workers[run].values():
            counts[one["status"]] = counts.get(one["status"], 0) + 1
        self.runs[run]["counts"] = counts

    # --- requests

    def _query(self, query: zenoh.Query) -> None:
        threading.Thread(target=self._answer, args=(query,), daemon=True).start()

    def _answer(self, query: zenoh.Query) -> None:
        path = self.keys.api_path(str(query.key_expr))
        pairs = (item.partition("=") for item in str(query.parameters).split(";") if item)
        params = {key: unquote(value) for key, _, value in pairs}
        payload = None if query.payload is None else query.payload.to_bytes()
        with self.changed:
            self.asked.append((path, params, payload))
            self.changed.notify_all()
        with query, suppress(zenoh.ZError):
            try:
                if not self.before(path):
                    return
                body, attachment = self.route(path.split("/"), params, payload)
            except Refusal as refusal:
                query.reply_err(json.dumps(refusal.body))
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            query.reply(query.key_expr, data, attachment=None if attachment is None else json.dumps(attachment))

    def route(self, path: list[str], params: dict[str, str], payload: bytes | None) -> Answer:
        """The answer to one request."""
        match path:
            case ["runs"] if payload is not None:
                return self._submit(json.loads(payload)), None
            case ["runs"]:
                return self._page("runs", list(reversed(self.runs.values())), params), None
            case ["runs", run, *rest] if run in self.runs:
                return self._run(run, rest, params)
            case ["runs", *_]:
                raise Refusal("RUN_NOT_FOUND")
            case ["workflows"]:
                return self._page("workflows", list(self.workflows.values()), params), None
            case ["workflows", name] if name in self.workflows:
                return self.workflows[name], None
            case ["workflows", name, "start"] if name in self.workflows:
                return self._submit(json.loads(payload or b"{}") | {"document": {"name": name}}), None
            case ["workflows", *_]:
                raise Refusal("WORKFLOW_NOT_FOUND")
            case ["nodes"]:
                return {"nodes": list(self.nodes.values())}, None
            case ["nodes", name, *action] if name in self.nodes:
                self.nodes[name]["status"] = "draining" if action == ["drain"] else "ready"
                return self.nodes[name], None
            case ["nodes", *_]:
                raise Refusal("NODE_NOT_FOUND")
            case ["health"]:
                peers = [
                    {"role": role, "name": "x", "incarnation": "1"} for role in ("gateway", "coordinator", "runtime")
                ]
                return {"status": "ok", "namespace": self.keys.namespace, "peers": peers, "version": "0"}, None
            case ["peers"]:
                return {"peers": [], "silent": []}, None
        raise Refusal("KEY_NOT_FOUND")

    def _page(self, name: str, items: list[dict[str, Any]], params: dict[str, str]) -> dict[str, Any]:
        found = [one for one in items if params.get("status") in (None, one["status"])]
        start = int(params.get("after", 0))
        end = start + min(int(params.get("limit", 200)), self.page_limit)
        return {name: found[start:end], "next": str(end) if end < len(found) else None}

    def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        run = body["run"]
        if run not in self.runs:
            document = body["document"]
            if isinstance(document, str):
                document = json.loads(document)
            names = [one["name"] for one in document.get("workers", [])]
            self.add_run(run, *names, status="created")
            self.runs[run]["params"] = body.get("params", {})
            threading.Thread(target=self.on_submit, args=(run,), daemon=True).start()
        return self.runs[run]

    def _run(self, run: str, rest: list[str], params: dict[str, str]) -> Answer:
        match rest:
            case []:
                with self.changed:
                    self.changed.wait_for(
                        lambda: self.closing or self.runs[run]["status"] in FINAL, timeout=float(params.get("wait", 0))
                    )
                return self.runs[run], None
            case ["cancel"]:
                if self.runs[run]["status"] in FINAL:
                    raise Refusal("RUN_FINAL")
                self.finish(run, "cancelled")
                return self.runs[run], None
            case ["retry"]:
                if self.runs[run]["status"] not in FINAL:
                    raise Refusal("RUN_NOT_FINAL")
                self.set_run(run, "running")
                return self.runs[run], None
            case ["workers"]:
                return self._page("workers", list(self.workers[run].values()), params), None
            case ["workers", name, *more] if name in self.workers[run]:
                return self._log(run, name, more[1], params) if more else (self.workers[run][name], None)
        raise Refusal("WORKER_NOT_FOUND")

    def _log(self, run: str, name: str, stream: str, params: dict[str, str]) -> Answer:
        attempts = self.workers[run][name]["attempts"]
        number = int(params.get("attempt", len(attempts)))
        if not 1 <= number <= len(attempts):
            raise Refusal("LOG_NOT_FOUND")
        key, attempt = (run, name, number, stream), attempts[number - 1]
        offset = int(params.get("offset", 0))
        if "tail" in params and "offset" not in params:
            offset = max(0, len(self.logs.get(key, b"")) - int(params["tail"]))
        with self.changed:
            self.changed.wait_for(
                lambda: (
                    self.closing or len(self.logs.get(key, b"")) > offset or attempt.get("completed_at") is not None
                ),
                timeout=float(params.get("wait", 0)),
            )
            content, running = self.logs.get(key, b""), attempt.get("completed_at") is None
        data = content[offset : offset + int(params.get("limit", 1 << 20))]
        about = {"attempt": number, "node": attempt["node"], "offset": offset, "next": offset + len(data)}
        return data, about | {"size": len(content), "running": running}

    def _put(self, sample: zenoh.Sample) -> None:
        path = self.keys.api_path(str(sample.key_expr)).split("/")
        with self.changed:
            self.asked.append(("/".join(path), {}, sample.payload.to_bytes()))
        if path[0] != "workflows" or path[1].startswith("bad"):
            refusal = Refusal("INVALID_DOCUMENT", "no good").body | {"key": str(sample.key_expr)}
            self.session.put(self.keys.event_rejected, json.dumps(refusal))
        elif sample.kind == zenoh.SampleKind.DELETE:
            self.workflows.pop(path[1], None)
        else:
            self.workflows[path[1]] = workflow(path[1])


def worker(run: str, name: str, workflow_name: str = "flow") -> dict[str, Any]:
    """A worker that waits."""
    blank = dict.fromkeys(("node", "error_message", "ready_at", "started_at", "completed_at"))
    return {
        "run": run,
        "workflow_name": workflow_name,
        "name": name,
        "status": "created",
        "command": "true",
        "attempts": [],
        "unreachable": False,
        "created_at": T0,
        "unheard_of": "a field of a later version",
        **blank,
    }


def workflow(name: str) -> dict[str, Any]:
    """A stored workflow."""
    return {"name": name, "status": "created", "created_at": T0, "updated_at": T0, "workers": 1}


def node(name: str) -> dict[str, Any]:
    """A node that is ready."""
    return {"name": name, "status": "ready", "slots": 2, "running": 1, "queued": 0, "labels": {"zone": "lab"}}
