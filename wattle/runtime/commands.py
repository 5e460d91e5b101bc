"""Commands and questions to a runtime: each goes into its loop as an event, and is answered after the commit that carries it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from pydantic_core import to_json

from wattle.bus.base import Query
from wattle.core import events as on
from wattle.core.events import RuntimeEvent
from wattle.core.model import CopyPage, NodeInfo, TaskId
from wattle.core.runtime import RuntimeCore
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.peer.asking import refuse
from wattle.peer.copies import CopyDesk
from wattle.peer.feeds import PAGE
from wattle.peer.loop import Loop
from wattle.protocol.keys import Keys
from wattle.protocol.messages import (
    AssignBatch,
    CancelBatch,
    FactsAnswer,
    FactsQuestion,
    HeldQuestion,
    HeldTasks,
    KeepAnswer,
    TaskAnswer,
    TaskAnswers,
    TaskRef,
    check_assignments,
    decode,
    encode,
)
from wattle.protocol.records import node_view
from wattle.protocol.verbs import COPIES
from wattle.runtime import outcomes
from wattle.runtime.pruning import Pruning
from wattle.store.runtime import RuntimeStore

log = get_logger("wattle.runtime")


class Commands:
    """See the module's docstring. ``questions`` are the commands being handled, with the answers about their tasks so far."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        core: RuntimeCore,
        store: RuntimeStore,
        desk: CopyDesk,
        loop: Loop[RuntimeEvent],
        pruning: Pruning,
        info: Callable[[], NodeInfo],
    ) -> None:
        self._name, self._keys, self._core, self._store, self._desk = name, keys, core, store, desk
        self._loop, self._pruning, self._info = loop, pruning, info
        self.questions: dict[int, tuple[Query, list[TaskAnswer]]] = {}
        self._claims: dict[int, tuple[Query, str]] = {}  # claims being handled, and by whom
        self._pages: dict[int, tuple[Query, CopyPage]] = {}  # copies to be kept
        self._orders: deque[Query] = deque()  # drain and resume, answered after the commit

    def take(self, query: Query) -> None:
        """Take a command or question in; most are answered later."""
        try:
            self._take(self._keys.cmd_verb(query.key), query)
        except InvalidRequest as error:
            log.warning("command refused", key=query.key, reason=error.message)
            refuse(query, error)

    def _take(self, verb: str, query: Query) -> None:
        token = id(query)
        match verb:
            case "assign":
                batch = decode(AssignBatch, query.payload)
                check_assignments(batch)
                self.questions[token] = (query, [])
                others_wait = self._core.room.full and self._core.queue
                within = outcomes.LINGER if others_wait else 0.0  # to be taken with the next news of those that run
                self._loop.post(on.Assigned(token, batch.owner, batch.tasks), within=within)
                for task in batch.tasks:
                    log.debug("task assigned", run=task.run, worker=task.worker, attempt=task.attempt, cause=task.cause)
            case "cancel":
                orders = decode(CancelBatch, query.payload)
                self.questions[token] = (query, [])
                self._loop.post(on.CancelAsked(token, orders.owner, tuple((ref.id, ref.epoch) for ref in orders.tasks)))
            case "held":
                question = decode(HeldQuestion, query.payload)
                self._claims[token] = query, question.owner
                self._loop.post(on.ClaimAsked(token, question.owner, question.claims))
            case "facts":
                asked = decode(FactsQuestion, query.payload)
                entries = self._store.facts_of(asked.run, asked.after, PAGE)
                facts = tuple(fact for _, of_entry in entries for fact in of_entry)
                after = entries[-1][0] if len(entries) == PAGE else None
                self._reply(query, encode(FactsAnswer(facts, after)))
            case "keep":
                page = decode(CopyPage, query.payload)
                self._pages[token] = query, page
                self._loop.post(on.Keep(token, page))
            case "discard":
                self._pruning.order(query.payload)
                query.finish()
            case "drain" | "resume":
                self._orders.append(query)
                self._loop.post(on.Drain() if verb == "drain" else on.Resume())
            case verb if verb in COPIES:
                self._reply(query, self._desk.answer(verb, query.payload))
            case _:  # asked with a key wider than any command's
                query.finish()

    def _held(self, owner: str, refused: tuple[tuple[str, int, str], ...]) -> HeldTasks:
        mine = self._core.held_by(owner)
        others = {id: task.held.assignment.epoch for id, task in self._core.tasks.items() if id not in mine}
        return HeldTasks(_refs(mine), _refs(others), refused)

    def answer(self, token: int) -> None:
        """Answer a command that is carried out and committed."""
        query, answers = self.questions.pop(token)
        self._reply(query, encode(TaskAnswers(tuple(answers))))

    def answer_claim(self, token: int, refused: tuple[tuple[str, int, str], ...]) -> None:
        """Answer a coordinator that claims runs, after the commit."""
        query, owner = self._claims.pop(token)
        self._reply(query, encode(self._held(owner, refused)))

    def answer_keep(self, token: int, number: int) -> None:
        """Answer who gave copies to keep, after the commit."""
        query, page = self._pages.pop(token)
        self._reply(query, encode(KeepAnswer(number, self._store.id, self._desk.better(page))))

    def answer_order(self) -> None:
        """Answer the oldest drain or resume, if it came from somebody who waits."""
        if self._orders:
            view = node_view(self._info(), "draining" if self._core.draining else "ready")
            self._reply(self._orders.popleft(), to_json(view))

    def _reply(self, query: Query, payload: bytes) -> None:
        """Answer a command on this peer's own key: whoever asked may have asked all peers at once."""
        query.reply(payload, key=self._keys.cmd(self._name, self._keys.cmd_verb(query.key)))
        query.finish()


def _refs(epochs: Mapping[TaskId, int]) -> tuple[TaskRef, ...]:
    return tuple(TaskRef(*id, epoch) for id, epoch in epochs.items())
