"""Requests that gateways pass on: ``cmd/<coordinator>/<verb>`` with a JSON object, answered with a public shape.

A gateway asks all coordinators at once; one that does not know the run or workflow says so, and who else may. Reads come straight from
the store, which has everything that was ever acknowledged. What changes something is answered after its commit; a submission or start with
the parameter ``wait`` once the run has ended, or after so many seconds.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio
from pydantic_core import from_json, to_json

from wattle.bus.base import Query
from wattle.coordinator import arguments
from wattle.coordinator.arguments import Args
from wattle.coordinator.long_polls import LongPolls
from wattle.coordinator.submission import SubmissionRequest, parse_submission
from wattle.coordinator.views import run_view, worker_view, workflow_view
from wattle.core import events as on
from wattle.core.placement import NodeStatus
from wattle.core.replication import SOON
from wattle.core.waiting import why_waiting
from wattle.errors import Conflict, InternalError, InvalidRequest, NotFound, Unavailable, WattleError
from wattle.logs import get_logger
from wattle.names import new_run_id
from wattle.peer.asking import parse_parameters, parse_seconds, refuse
from wattle.peer.loop import wall_clock
from wattle.protocol.messages import LAST_TIME, NOT_HERE
from wattle.protocol.records import WorkflowView, node_view
from wattle.store.coordinator_tables import Runs
from wattle.store.owned import Definition, Submission

if TYPE_CHECKING:
    from wattle.coordinator.agent import CoordinatorAgent

log = get_logger("wattle.coordinator")


class Requests:
    """The verbs, one method each. A method answers now (returns a view or other JSON, or None: not known here), or later (_LATER)."""

    def __init__(self, agent: CoordinatorAgent, nursery: trio.Nursery) -> None:
        self._agent, self._nursery, self._store = agent, nursery, agent.store
        self._polls = LongPolls(nursery, self._answer_view)
        self._submitting: dict[str, trio.Event] = {}  # runs on their way through the loop
        self._verbs: dict[str, Callable[[Query, Args], Any]] = {
            "run": self._run,
            "runs": self._runs,
            "workers": self._workers,
            "worker": self._worker,
            "workflow": self._workflow,
            "workflows": self._workflows,
            "cancel_run": self._cancel,
            "retry_run": self._retry,
            "nodes": self._nodes,
        }
        self._tasks = {
            "submit": self._submit,
            "put_workflow": self._put_workflow,
            "start": self._start,
            "delete_workflow": self._delete_workflow,
            "prune": self._prune,
        }

    def handle(self, query: Query) -> None:
        """Answer one query; what goes wrong becomes an error reply."""
        verb = self._agent.keys.cmd_verb(query.key)
        if verb in self._tasks:
            self._nursery.start_soon(self._guarded, verb, query)
            return
        try:
            answer = self._verbs[verb](query, arguments.of(query)) if verb in self._verbs else None
        except Exception as error:  # noqa: BLE001  # the boundary of one request: the peer goes on
            refuse(query, _known(error, verb))
            return
        if answer is not _LATER:
            self._answer(query, answer)

    async def _guarded(self, verb: str, query: Query) -> None:
        try:
            answer = await self._tasks[verb](query)
        except Exception as error:  # noqa: BLE001  # as above
            refuse(query, _known(error, verb))
            return
        if answer is not _LATER:
            self._answer(query, answer)

    def _answer(self, query: Query, answer: Any) -> None:
        if answer is None:
            try:
                refuse(query, self._not_here(arguments.of(query).get("run")))
            except Unavailable as error:
                refuse(query, error)
            return
        verb = self._agent.keys.cmd_verb(query.key)
        query.reply(to_json(answer), key=self._agent.keys.cmd(self._agent.name, verb))
        query.finish()

    def _not_here(self, run: object) -> NotFound:
        succession, name = self._agent.core.succession, self._agent.name
        gone = succession.may_own(run if isinstance(run, str) else None)
        if gone:
            self._check_quorum()  # without one it is not found out what they had
        others = [*succession.coordinators.items(), *gone]
        about = {"peer": name, "store": self._store.id, "others": others}
        return NotFound(f"coordinator {name!r} does not know it", code=NOT_HERE, detail=[about])

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def _submit(self, query: Query) -> Any:
        """``{"document", "params", "run"}``, the document as an object or as text (JSON or YAML)."""
        request = await parse_submission(query.payload or b"")
        run_id = request.run or new_run_id(request.name, time.time(), secrets.token_hex(2))
        return await self._begin(query, run_id, request)

    async def _begin(self, query: Query, run_id: str, request: SubmissionRequest) -> Any:
        until = self._wait_until(query)
        while run_id in self._submitting:
            await self._submitting[run_id].wait()
        existing = self._store.run(run_id)
        if existing is not None:
            if existing.document == request.digest and json.loads(existing.params) == request.params:
                return self._once_settled(query, existing, until)  # told twice
            raise Conflict(
                f"run {run_id!r} exists already, with another document or other parameters; choose another id"
            )
        if self._store.forgotten.gone(run_id) is not None:
            raise Conflict(f"run {run_id!r} existed and was pruned; choose another id", code="RUN_PRUNED")
        if self._store.copies.heads_of([run_id]) or self._agent.core.succession.fetching(run_id):
            raise self._owner_unreachable(run_id)
        self._check_quorum()
        if len(self._agent.core.runs) + len(self._submitting) >= self._agent.max_runs:
            raise Unavailable(
                f"{self._agent.max_runs} runs are unfinished here, and no more are taken (max_runs)", code="BUSY"
            )
        committed = self._submitting[run_id] = trio.Event()
        submission = Submission(request.body, request.digest, request.params)
        event = on.Submit(run_id, request.compiled(), submission, to_its_end=until > trio.current_time() + SOON)
        try:
            self._agent.post(event, committed.set)
            await committed.wait()
        finally:
            del self._submitting[run_id]
            committed.set()  # whoever waits for it looks at what became of it
        self._answer_view(query, run_id, until)
        return _LATER

    def _wait_until(self, query: Query) -> float:
        """When what a submission asks to wait is over. Raises Unavailable where it could not wait: before the run is started."""
        wait = parse_seconds(parse_parameters(query.parameters), "wait", LAST_TIME)
        if wait:
            self._polls.check_room()
        return trio.current_time() + wait

    def _answer_view(self, query: Query, run_id: str, until: float = 0.0) -> None:
        """Tell how a run is now, or once it has ended if that is before ``until``; its end is told once it is on other stores."""
        row = self._store.run(run_id)
        if row is None:
            refuse(query, self._owner_unreachable(run_id))  # another owner has got it meanwhile
            return
        view = run_view(row)
        left = until - trio.current_time()
        if view.final and row.number > self._agent.core.settled:
            self._once_settled(query, row, until)
        elif left > 0 and not view.final:
            self._polls.add(query, run_id, left)
        else:
            self._answer(query, view)

    def _mine(self, args: Args) -> Runs | None:
        run_id = str(args.get("run"))
        row = self._store.run(run_id)
        if row is None or run_id in self._agent.core.ownership.handing:
            self._check_owner(run_id)
            return None
        return row if row.owner == self._agent.name else None

    def _run(self, query: Query, args: Args) -> Any:
        row = self._mine(args)
        if row is None:
            return None
        view = run_view(row)
        wait = arguments.number(args, "wait")
        if view.final:
            return self._once_settled(query, row)
        if wait <= 0:
            return view
        self._polls.check_room()
        self._polls.add(query, row.id, wait)
        return _LATER

    def _once_settled(self, query: Query, row: Runs, until: float = 0.0) -> Any:
        """Tell of a submission, or of a run's end, only once it is on other stores: it must not be taken back any more."""
        self._agent.when_settled(row.number, lambda: self._answer_view(query, row.id, until))
        return _LATER

    def release(self, row: Runs) -> None:
        """Answer the long polls of a run that is final now."""
        waiting = self._polls.end(row.id)
        if waiting:
            answer = run_view(row)
            for query in waiting:
                self._answer(query, answer)

    def turn_away(self, run_id: str) -> None:
        """Let go of the long polls of a run that has another owner now: whoever asked asks again."""
        for query in self._polls.end(run_id):
            refuse(query, self._owner_unreachable(run_id))

    def _owner_unreachable(self, run_id: str) -> Unavailable:
        text = f"run {run_id!r} has no owner in sight; another coordinator takes it over soon: ask again"
        return Unavailable(text, code="OWNER_UNREACHABLE")

    def _check_owner(self, run_id: str) -> None:
        """Raise Unavailable for a run that is another owner's: its copy is here, so it must not be called unknown.

        Also when that owner is in sight here: whoever asks may not reach it, and hears this only if it does not answer itself.
        """
        lives = self._agent.core.succession.lives
        heads = self._store.copies.heads_of([run_id])
        if self._store.forgotten.pruned(run_id) is not None:
            return
        owner = next((head.owner for head in heads if lives(head.owner, head.store)), None)
        if owner is not None:
            text = f"run {run_id!r} is owned by coordinator {owner!r}, which does not answer: ask again, or another gateway"
            raise Unavailable(text, code="OWNER_UNREACHABLE")
        if heads:
            raise self._owner_unreachable(run_id)

    def _check_quorum(self) -> None:
        """Raise Unavailable where a change could not be acknowledged until more peers are in sight."""
        succession, needed = self._agent.core.succession, self._agent.core.options.quorum
        if not succession.quorum:
            text = f"{succession.peers_in_sight} of {needed} peers are in sight at coordinator {self._agent.name!r}"
            raise Unavailable(f"{text}: without that quorum nothing is changed", code="NO_QUORUM")

    def _runs(self, query: Query, args: Args) -> Any:
        after = args.get("after")
        if after is not None and not (isinstance(after, list) and len(after) == 2):
            raise InvalidRequest("'after' must be [created_at, id]")
        place = (arguments.number({"after": after[0]}, "after"), str(after[1])) if after else None
        limit = arguments.count(args, "limit", 1)
        rows = self._store.runs(
            arguments.text(args, "workflow"), arguments.text(args, "status"), place, limit, owner=self._agent.name
        )
        views = [run_view(row) for row in rows]
        ended = max((row.number for row, view in zip(rows, views, strict=True) if view.final), default=0)
        if ended <= self._agent.core.settled:
            return {"runs": views}

        def answer() -> None:
            # Of some another owner may have got hold meanwhile.
            gone = {view.id for view in views if self._store.run(view.id) is None}
            self._answer(query, {"runs": [view for view in views if view.id not in gone]})

        self._agent.when_settled(ended, answer)
        return _LATER

    def _cancel(self, query: Query, args: Args) -> Any:
        row = self._mine(args)
        if row is None:
            return None
        if row.status in ("succeeded", "failed"):
            raise Conflict(f"run {row.id!r} has {row.status} already: there is nothing to cancel", code="RUN_FINAL")
        if row.status == "cancelled":
            return self._once_settled(query, row)
        self._check_quorum()
        self._agent.post(on.CancelRun(row.id), lambda: self._acknowledge(query, row.id))
        return _LATER

    def _acknowledge(self, query: Query, run_id: str) -> None:
        """Answer a change of a run, which is settled. So must be what this owner goes on with, should the run have been another's since."""
        begun = self._agent.core.begun(run_id)
        if begun > self._agent.core.settled:
            self._agent.when_settled(begun, lambda: self._acknowledge(query, run_id))
        else:
            self._answer_view(query, run_id)

    def _retry(self, query: Query, args: Args) -> Any:
        row = self._mine(args)
        if row is None:
            return None
        if row.status == "succeeded":
            raise Conflict(f"run {row.id!r} has succeeded: there is nothing to retry", code="RUN_FINAL")
        if row.status not in ("failed", "cancelled"):
            raise Conflict(f"run {row.id!r} is {row.status}: it can be retried once it has ended", code="RUN_NOT_FINAL")
        if row.id in self._agent.retention.pruning:
            raise Conflict(f"run {row.id!r} is being pruned", code="RUN_PRUNED")
        self._check_quorum()
        snapshot = self._agent.snapshot(row.id, row.document, row.params)
        self._agent.post(on.RetryRun(snapshot), lambda: self._acknowledge(query, row.id))
        return _LATER

    async def _prune(self, query: Query) -> Any:
        return await self._agent.retention.asked(arguments.of(query))

    # --- workers ------------------------------------------------------------------------------------------------------

    def _workers(self, query: Query, args: Args) -> Any:
        row = self._mine(args)
        if row is None:
            return None
        limit = arguments.count(args, "limit", 1)
        rows = self._store.workers(
            row.id, arguments.text(args, "status"), arguments.count(args, "after", -1), limit + 1
        )
        more, rows = len(rows) > limit, rows[:limit]
        tasks = self._store.tasks(row.id, [w.name for w in rows] if len(rows) < 500 else None)
        views = [worker_view(w, tasks.get(w.name, ()), self._out_of_sight, self._why_waiting(row.id)) for w in rows]
        return {"workers": views, "next": str(rows[-1].position) if more else None}

    def _worker(self, query: Query, args: Args) -> Any:
        row = self._mine(args)
        worker = self._store.worker(row.id, str(args.get("worker"))) if row is not None else None
        if row is None or worker is None:
            return None
        tasks = self._store.tasks(row.id, [worker.name])
        return worker_view(worker, tasks.get(worker.name, ()), self._out_of_sight, self._why_waiting(row.id))

    def _out_of_sight(self, node: str) -> bool:
        known = self._agent.core.nodes.get(node)
        return known is None or known.status in (NodeStatus.UNREACHABLE, NodeStatus.LOST)

    def _why_waiting(self, run_id: str) -> Callable[[str], str | None]:
        core = self._agent.core
        run = core.runs.get(run_id)
        return lambda name: why_waiting(core, run, run.workers[name]) if run is not None else None

    # --- workflows ----------------------------------------------------------------------------------------------------

    async def _put_workflow(self, query: Query) -> Any:
        request = await parse_submission(query.payload or b"")
        now = wall_clock()
        definition = Definition(request.name, now, from_json(request.body), request.digest, now)
        await self._settled(on.Define(definition))
        return self._workflow_view(request.name)

    async def _settled(self, event: on.CoordinatorEvent) -> None:
        """Have an event handled, and wait until what follows is committed, here and on other stores."""
        self._check_quorum()
        settled = trio.Event()
        self._agent.post(event, settled.set)
        await settled.wait()

    async def _start(self, query: Query) -> Any:
        args = arguments.of(query)
        row = self._store.workflow(str(args.get("name")))
        if row is None:
            return None
        document = self._store.document(row.document)
        request = SubmissionRequest.parse(
            to_json({"document": document, "params": args.get("params") or {}, "run": args.get("run")})
        )
        run_id = request.run or new_run_id(row.name, time.time(), secrets.token_hex(2))
        return await self._begin(query, run_id, request)

    def _workflow_view(self, name: str) -> WorkflowView:
        row = self._store.workflow(name)
        assert row is not None, name
        latest = self._store.run(row.latest_run) if row.latest_run else None
        return workflow_view(row, self._store.document(row.document), latest)

    def _workflow(self, query: Query, args: Args) -> Any:
        name = str(args.get("name"))
        return None if self._store.workflow(name) is None else self._workflow_view(name)

    def _workflows(self, query: Query, args: Args) -> Any:
        rows = self._store.workflows(
            arguments.text(args, "status"), arguments.text(args, "after"), arguments.count(args, "limit", 1)
        )
        return {"workflows": [workflow_view(row) for row in rows]}

    async def _delete_workflow(self, query: Query) -> Any:
        name = str(arguments.of(query).get("name"))
        definition = self._store.owned.definition(name)
        if definition is None or definition.deleted_at is not None:
            return None
        view = self._workflow_view(name)
        now = wall_clock()
        await self._settled(on.Define(replace(definition, updated_at=now, deleted_at=now)))
        return view

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _nodes(self, query: Query, args: Args) -> Any:
        return {
            "nodes": [node_view(n.info, n.status.value) for n in self._agent.core.nodes.values() if n.info.incarnation]
        }


_LATER = object()


def _known(error: Exception, verb: str) -> WattleError:
    if isinstance(error, WattleError):
        return error
    log.error("request failed", verb=verb, exc_info=error)
    return InternalError(f"the coordinator failed at {verb!r}: {error!r}; its log says more")
