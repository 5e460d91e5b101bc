"""The public API, one line per request in ``TABLE`` and one function each. docs/api.md is checked against this table by a test.

Paths are what follows ``api/v1/``; ``<name>`` parts follow the grammar of names.
"""

from __future__ import annotations

import secrets
import time
from difflib import get_close_matches
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple

from pydantic_core import to_json

from wattle import __version__
from wattle.core.model import NodeInfo, RunStatus, WorkerStatus
from wattle.errors import Conflict, InvalidRequest, NotFound
from wattle.gateway.backend import Backend, owner_of
from wattle.gateway.logs import Logs
from wattle.gateway.request import Answer, Handler, Method, Patience, Request, json_answer
from wattle.gateway.submission import read_submission
from wattle.names import as_name, check_name, new_run_id
from wattle.peer.asking import parse_number, parse_object, parse_seconds
from wattle.peer.presence import Presence
from wattle.protocol.messages import decode
from wattle.protocol.records import WAITING_SUBMISSION, PeerView, as_json, node_view, seconds
from wattle.security.roles import Action
from wattle.settings import GatewaySettings

GRACE = 2.0
"""Seconds that a request which waits gives a run to appear: the put that makes it may still be on its way through another gateway."""


class Route(NamedTuple):
    """What answers a request: what it does, for whether somebody may, the function, and the names in the request's path."""

    action: Action
    handler: Handler
    names: dict[str, str]


class Routes:
    """Finds and carries out requests."""

    def __init__(self, backend: Backend, presence: Presence, settings: GatewaySettings) -> None:
        self._backend, self._presence, self._settings = backend, presence, settings
        self._logs = Logs(backend, presence, settings, self._find_worker)
        get, post, put, delete = Method.GET, Method.POST, Method.PUT, Method.DELETE
        read, run, define = Action.READ, Action.RUN, Action.DEFINE
        self.table: list[tuple[Method, str, Action, Handler]] = [
            (get, "workflows", read, self._list_workflows),
            (post, "workflows", define, self._create_workflow),
            (get, "workflows/<workflow>", read, self._workflow),
            (put, "workflows/<workflow>", define, self._put_workflow),
            (delete, "workflows/<workflow>", define, self._delete_workflow),
            (get, "workflows/<workflow>/start", run, self._start),
            (post, "workflows/<workflow>/start", run, self._start),
            (get, "runs", read, self._list_runs),
            (post, "runs", run, self._submit),
            (get, "runs/<run>", read, self._run),
            (put, "runs/<run>", run, self._put_run),
            (post, "runs/<run>", run, self._submit),
            (delete, "runs/<run>", run, self._cancel),
            (get, "runs/<run>/cancel", run, self._cancel),
            (get, "runs/<run>/retry", run, self._retry),
            (get, "runs/<run>/workers", read, self._list_workers),
            (get, "runs/<run>/workers/<worker>", read, self._worker),
            (get, "runs/<run>/workers/<worker>/logs/<stream>", read, self._logs.answer),
            (post, "prune", Action.PRUNE, self._prune),
            (get, "nodes", read, self._list_nodes),
            (get, "nodes/<node>", read, self._node),
            (get, "nodes/<node>/drain", Action.OPERATE, partial(self._order, "drain")),
            (get, "nodes/<node>/resume", Action.OPERATE, partial(self._order, "resume")),
            (get, "health", read, self._health),
            (get, "peers", read, self._peers),
            (get, "schema", read, self._schema),
        ]
        self._by_shape: dict[tuple[Method, str, int], list[tuple[list[str], Action, Handler]]] = {}
        for method, pattern, action, handler in self.table:
            parts = pattern.split("/")
            self._by_shape.setdefault((method, parts[0], len(parts)), []).append((parts, action, handler))

    def find(self, method: Method, path: str) -> Route | None:
        """What answers a request; None when there is no such request."""
        parts = path.split("/")
        for pattern, action, handler in self._by_shape.get((method, parts[0], len(parts)), ()):
            if _matches(pattern, parts):
                pairs = zip(pattern, parts, strict=True)
                return Route(action, handler, {p[1:-1]: check_name(q, p[1:-1]) for p, q in pairs if p[0] == "<"})
        return None

    def near(self, path: str) -> str:
        """A hint for a request that does not exist."""
        same = [str(m) for m, p, *_ in self.table if _matches(p.split("/"), path.split("/"))]
        if same:
            return f"it has: {', '.join(same)}"
        parts = path[:200].split("/")
        known = {_filled(p, parts): p for _, p, *_ in self.table}
        close = get_close_matches("/".join(parts), known, 1)
        return f"did you mean {known[close[0]]!r}?" if close else "see docs/api.md"

    # --- workflows ----------------------------------------------------------------------------------------------------

    async def _list_workflows(self, request: Request) -> Answer:
        request.only("limit", "after", "status")
        limit = parse_number(request.parameters, "limit", 100, 1, 1000)
        after = request.parameters.get("after")
        if after is not None:
            check_name(after, "parameter after")
        args = {"limit": limit + 1, "after": after, "status": request.choice("status", RunStatus)}
        found: dict[str, Any] = {}
        for _, answer in await self._backend.everyone("workflows", args):
            for workflow in answer["workflows"]:
                known = found.setdefault(workflow["name"], workflow)
                if known["updated_at"] < workflow["updated_at"]:
                    found[workflow["name"]] = workflow
        names = sorted(found)
        shown = names[:limit]
        return json_answer({"workflows": [found[n] for n in shown], "next": shown[-1] if len(names) > limit else None})

    async def _create_workflow(self, request: Request) -> Answer:
        request.only()
        submission = await read_submission(request.payload)
        return json_answer(await self._backend.take("put_workflow", submission.name, submission.payload))

    async def _put_workflow(self, request: Request) -> Answer:
        name = request.names["workflow"]
        submission = await read_submission(request.payload)
        if submission.name and submission.name != name:
            raise InvalidRequest(
                f"the document is named {submission.name[:64]!r}, the key says {name!r}; make them the same"
            )
        return json_answer(await self._backend.take("put_workflow", name, submission.payload))

    async def _workflow(self, request: Request) -> Answer:
        request.only()
        _, workflow = await self._backend.newest_workflow(request.names["workflow"], _no_workflow(request))
        return json_answer(workflow)

    async def _delete_workflow(self, request: Request) -> Answer:
        return json_answer(
            await self._backend.owner("delete_workflow", {"name": request.names["workflow"]}, _no_workflow(request))
        )

    async def _start(self, request: Request) -> Answer:
        request.only("wait")
        patience = self._backend.patience(self._wait_of_start(request))
        asked = parse_object(request.payload) if request.payload else {}
        unknown = sorted(set(asked) - {"params", "run"})
        if unknown:
            raise InvalidRequest(f"start takes 'params' and 'run', not {unknown[0][:64]!r}")
        name, run = request.names["workflow"], asked.get("run")
        if run is not None:
            check_name(run, "run")
        # One coordinator starts it, though several may know the workflow: the one that heard of it last.
        starter, _ = await self._backend.newest_workflow(name, _no_workflow(request))
        if run is not None and await self._backend.holder(run) not in (None, starter):
            raise Conflict(f"run {run!r} exists already, at another coordinator; choose another id")
        args = {"name": name, "params": asked.get("params") or {}, "run": run}
        view = await self._backend.ask(starter, "start", to_json(args))
        return json_answer(await self._wait_for_run(view["id"], patience) if patience.wait else view)

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def _list_runs(self, request: Request) -> Answer:
        request.only("limit", "after", "status", "workflow")
        limit = parse_number(request.parameters, "limit", 100, 1, 1000)
        workflow = request.parameters.get("workflow")
        if workflow is not None:
            check_name(workflow, "parameter workflow")
        args = {
            "workflow": workflow,
            "status": request.choice("status", RunStatus),
            "limit": limit + 1,
            "after": await self._place_of(request.parameters.get("after")),
        }
        told = [run for _, answer in await self._backend.everyone("runs", args) for run in answer["runs"]]
        found = {run["id"]: run for run in sorted(told, key=owner_of)}  # of two owners' words on a run the later one's
        runs = sorted(found.values(), key=lambda r: (r["created_at"], r["id"]), reverse=True)
        shown = runs[:limit]
        token = f"{shown[-1]['created_at']}~{shown[-1]['id']}" if len(runs) > limit else None
        return json_answer({"runs": shown, "next": token})

    async def _place_of(self, after: str | None) -> tuple[float, str] | None:
        """Where a listing goes on: after a token of an earlier answer, or after a run named by its id."""
        if after is None:
            return None
        at, tilde, run_id = after.partition("~")
        if not tilde:
            at, run_id = "", after
        check_name(run_id, "parameter after")
        if not at:
            missing = NotFound(f"parameter after={after[:70]!r}: there is no such run", code="RUN_NOT_FOUND")
            at = (await self._backend.owner("run", {"run": run_id}, missing))["created_at"]
        try:
            place = seconds(at)
        except (ValueError, OverflowError):
            raise InvalidRequest(
                f"parameter after={after[:100]!r} must be the 'next' of an earlier answer, or a run's id"
            ) from None
        assert place is not None
        return place, run_id

    async def _submit(self, request: Request) -> Answer:
        request.only("wait")
        return await self._take_run(request, self._wait_of_start(request))

    async def _put_run(self, request: Request) -> Answer:
        request.only()
        return await self._take_run(request, 0.0)

    async def _take_run(self, request: Request, wait: float) -> Answer:
        submission = await read_submission(request.payload, request.names.get("run"))
        run = submission.run
        if run is not None:
            return json_answer(await self._backend.take("submit", run, submission.payload, run, wait=wait))
        new = new_run_id(as_name(submission.name), time.time(), secrets.token_hex(2))  # so that it may be sent twice
        return json_answer(await self._backend.take("submit", new, submission.named(new), new=new, wait=wait))

    def _wait_of_start(self, request: Request) -> float:
        """How many seconds a request that starts a run waits for its end; raises InvalidRequest for one too large to be kept so long."""
        wait, size = parse_seconds(request.parameters, "wait", self._settings.max_wait), len(request.payload or b"")
        if wait and size > WAITING_SUBMISSION:
            text = f"a submission of {size} bytes cannot wait for its run's end, one of {WAITING_SUBMISSION} can"
            raise InvalidRequest(f"{text}: submit it without wait, then get runs/<run>?wait=...")
        return wait

    async def _run(self, request: Request) -> Answer:
        request.only("wait")
        wait = parse_seconds(request.parameters, "wait", self._settings.max_wait)
        if wait > 0:
            return json_answer(await self._wait_for_run(request.names["run"], self._backend.patience(wait)))
        return json_answer(await self._backend.run(request.names["run"], _no_run(request)))

    async def _wait_for_run(self, run: str, patience: Patience) -> Any:
        missing = _missing_run(run)

        async def ask() -> Any:
            try:
                return await self._backend.owner("run", {"run": run, "wait": patience.wait}, missing, patience)
            except NotFound:
                return None

        view = await ask()
        if view is None:
            view = await self._backend.ask_until(run, ask, bool, wait=min(patience.wait, GRACE), every=GRACE / 8)
        if view is None:
            raise missing
        return view

    async def _cancel(self, request: Request) -> Answer:
        request.only()
        return json_answer(await self._backend.owner("cancel_run", {"run": request.names["run"]}, _no_run(request)))

    async def _retry(self, request: Request) -> Answer:
        request.only()
        args = {"run": request.names["run"]}
        # Asked twice, it would be refused because the run goes on.
        return json_answer(await self._backend.owner("retry_run", args, _no_run(request), repeatable=False))

    async def _prune(self, request: Request) -> Answer:
        request.only()
        asked = parse_object(request.payload or b"")
        unknown = sorted(set(asked) - {"runs", "older_than"})
        if unknown or len(asked) != 1:
            raise InvalidRequest("prune takes either 'runs', a list of run ids, or 'older_than', a number of seconds")
        if "runs" in asked:  # all or none, as far as can be seen beforehand
            known = {
                run
                for _, answer in await self._backend.all_agree("prune", asked | {"check": True})
                for run in answer["runs"]
            }
            missing = sorted(set(asked["runs"]) - known)
            if missing:
                names = ", ".join(map(repr, missing[:5]))
                raise NotFound(f"there is no run {names}; wattle runs lists them", code="RUN_NOT_FOUND", detail=missing)
        answers = [answer for _, answer in await self._backend.all_agree("prune", asked)]
        pruned = sorted(run for answer in answers for run in answer["runs"])
        return json_answer({"runs": pruned, "more": any(answer["more"] for answer in answers)})

    # --- workers ------------------------------------------------------------------------------------------------------

    async def _list_workers(self, request: Request) -> Answer:
        request.only("limit", "after", "status")
        args = {
            "run": request.names["run"],
            "status": request.choice("status", WorkerStatus),
            "limit": parse_number(request.parameters, "limit", 200, 1, 1000),
            "after": parse_number(request.parameters, "after", -1, 0, 10**9),
        }
        return json_answer(await self._backend.owner("workers", args, _no_run(request)))

    async def _worker(self, request: Request) -> Answer:
        request.only()
        return json_answer(await self._find_worker(request))

    async def _find_worker(self, request: Request, patience: Patience | None = None) -> Any:
        run, worker = request.names["run"], request.names["worker"]
        missing = NotFound(f"run {run!r} has no worker {worker!r}, or there is no such run", code="WORKER_NOT_FOUND")
        return await self._backend.owner("worker", {"run": run, "worker": worker}, missing, patience)

    # --- nodes --------------------------------------------------------------------------------------------------------

    async def _nodes(self) -> dict[str, Any]:
        """Every node by name: those in sight speak for themselves, of others the coordinators tell what they remember."""
        bus, keys = self._backend.bus, self._backend.keys
        nodes: dict[str, Any] = {}
        if self._presence.names("coordinator"):
            for _, answer in await self._backend.everyone("nodes", {}):
                for node in answer["nodes"]:
                    nodes.setdefault(node["name"], node)
        for reply in await bus.get(keys.state("runtime"), timeout=self._backend.timeout, everyone=True):
            if reply.ok:
                info = decode(NodeInfo, reply.payload)
                nodes[info.name] = as_json(node_view(info, "draining" if info.draining else "ready"))
        return nodes

    async def _list_nodes(self, request: Request) -> Answer:
        request.only()
        nodes = await self._nodes()
        return json_answer({"nodes": [nodes[name] for name in sorted(nodes)]})

    async def _node(self, request: Request) -> Answer:
        request.only()
        nodes, name = await self._nodes(), request.names["node"]
        if name not in nodes:
            known = f"known are {', '.join(sorted(nodes)[:10])}" if nodes else "there are none"
            raise NotFound(f"there is no node named {name!r}; {known}", code="NODE_NOT_FOUND")
        return json_answer(nodes[name])

    async def _order(self, verb: str, request: Request) -> Answer:
        request.only()
        return json_answer(await self._backend.runtime(request.names["node"], verb))

    # --- about the network --------------------------------------------------------------------------------------------

    async def _health(self, request: Request) -> Answer:
        request.only()
        peers = [as_json(PeerView(role=p.role, name=p.peer, incarnation=p.incarnation)) for p in self._presence.peers()]
        whole = all(self._presence.names(role) for role in ("coordinator", "runtime"))
        namespace = self._backend.keys.namespace
        return json_answer(
            {"status": "ok" if whole else "degraded", "namespace": namespace, "version": __version__, "peers": peers}
        )

    async def _peers(self, request: Request) -> Answer:
        request.only()
        seen = self._presence.peers()
        views = await self._backend.probe({(peer.role, peer.peer) for peer in seen})
        silent = [{"role": peer.role, "name": peer.peer} for peer in seen if peer.peer not in views]
        return json_answer({"peers": [views[name] for name in sorted(views)], "silent": silent})

    async def _schema(self, request: Request) -> Answer:
        request.only()
        from wattle.document.model import (
            json_schema,
        )  # late: a gateway needs nothing else of documents, and they take megabytes

        return json_answer(json_schema())


# --- small parts --------------------------------------------------------------------------------------------------------


def _matches(wanted: list[str], given: list[str]) -> bool:
    return len(wanted) == len(given) and all(w[0] == "<" or w == g for w, g in zip(wanted, given, strict=True))


def _filled(pattern: str, parts: list[str]) -> str:
    """A pattern with the names that a path has in their places."""
    wanted = pattern.split("/")
    return "/".join(g if w[0] == "<" else w for w, g in zip_longest(wanted, parts[: len(wanted)], fillvalue=""))


def _no_run(request: Request) -> NotFound:
    return _missing_run(request.names["run"])


def _missing_run(run: str) -> NotFound:
    return NotFound(f"there is no run {run!r}; wattle runs lists them", code="RUN_NOT_FOUND")


def _no_workflow(request: Request) -> NotFound:
    return NotFound(
        f"there is no workflow {request.names['workflow']!r}; wattle workflows lists them", code="WORKFLOW_NOT_FOUND"
    )
