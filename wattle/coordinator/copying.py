"""Copies on their way: one's own changes to the followers, other owners' copies from peers when their runs are to be adopted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from wattle.bus.base import Bus
from wattle.coordinator.journal import Journal
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.events import CoordinatorEvent
from wattle.core.model import CopyPage, RunHead, Snapshot, Workflow
from wattle.document.compile import compile_document
from wattle.document.model import Document
from wattle.errors import InvalidRequest, Unavailable, WattleError
from wattle.logs import get_logger
from wattle.peer.asking import ask
from wattle.peer.copies import CopyDesk
from wattle.protocol.keys import Keys
from wattle.protocol.messages import (
    CopiesAnswer,
    CopiesQuestion,
    CopyAnswer,
    CopyQuestion,
    ForgetOrder,
    KeepAnswer,
    decode,
    encode,
)
from wattle.store.coordinator import CoordinatorStore
from wattle.store.owned import DEFINITION, Recovered, recover, recover_definition

SECONDS_PER_BYTE = 1e-6
"""What a large message is given beyond the timeout: a megabyte a second at least."""

log = get_logger("wattle.coordinator")


class Copying:
    """Carries out the effects that concern copies; what comes of them goes back as events through ``post``."""

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        name: str,
        store: CoordinatorStore,
        journal: Journal,
        desk: CopyDesk,
        nursery: trio.Nursery,
        post: Callable[[CoordinatorEvent], None],
        *,
        timeout: float,
    ) -> None:
        self._bus, self._keys, self._name, self._store = bus, keys, name, store
        self._journal, self._desk, self._nursery, self._post, self._timeout = journal, desk, nursery, post, timeout
        self._telling: dict[str, trio.CancelScope] = {}  # a follower -> what it is being told, or asked

    # --- one's own changes ----------------------------------------------------------------------------------------------

    def ship(self, effect: do.Ship) -> None:
        """Send a follower what it lacks."""
        self._tell(effect.peer, partial(self._ship, effect))

    async def _ship(self, effect: do.Ship) -> None:
        peer, after = effect.peer, effect.after
        try:
            if after < self._store.forgotten.trimmed:
                await self._drop_gone(peer)
            answer, heads, heard = KeepAnswer(after), list[RunHead](), after
            for page in self._journal.pages(after):
                answer = await self._send(peer, page, heads, answer)
                if answer.number != page.number:
                    break  # it is not where it was thought to be
                heard = page.number
            self._kept(peer, answer, heads, after, heard)
        except WattleError as error:
            log.info("copies not taken", peer=peer, after=after, reason=error.message)
            self._post(on.NotKept(peer))

    def ask_follower(self, effect: do.Ask) -> None:
        """Ask a follower how far it is, and which better states it knows."""
        self._tell(effect.peer, partial(self._ask_follower, effect))

    def _tell(self, peer: str, tell: Callable[[], Awaitable[None]]) -> None:
        """Tell a follower one thing at a time.

        One that was out of sight is told all anew, and its parts must not mix with those of what it was being told before.
        """
        if peer in self._telling:
            self._telling[peer].cancel()
        scope = self._telling[peer] = trio.CancelScope()
        self._nursery.start_soon(self._tell_within, scope, peer, tell)

    async def _tell_within(self, scope: trio.CancelScope, peer: str, tell: Callable[[], Awaitable[None]]) -> None:
        with scope:
            await tell()
        if self._telling.get(peer) is scope:  # what came after this may have begun, or be done already
            del self._telling[peer]

    async def _ask_follower(self, effect: do.Ask) -> None:
        peer, since = effect.peer, effect.since
        try:
            answer, heads, heard = KeepAnswer(0), list[RunHead](), self._store.number
            for page in self._journal.questions(since):
                answer = await self._send(peer, page, heads, answer)
            self._kept(peer, answer, heads, since or 0, heard)
        except WattleError as error:
            log.info("follower does not say how far it is", peer=peer, reason=error.message)
            self._post(on.NotKept(peer))

    def _kept(self, peer: str, answer: KeepAnswer, heads: Sequence[RunHead], since: int, heard: int) -> None:
        own = (self._store.owned.head(head.run) for head in heads)
        known = tuple(head for head in own if head is not None)
        self._post(on.Kept(peer, answer.number, tuple(heads), known, since, heard))

    async def _drop_gone(self, peer: str) -> None:
        """Have a peer that is too far behind to be told what was removed drop the copies of what is not here."""
        question = encode(CopiesQuestion(self._name, self._store.id))
        reply = await ask(self._bus, self._keys.cmd(peer, "copies"), question, timeout=self._timeout)
        kept = decode(CopiesAnswer, reply.payload).heads
        gone = tuple(head for head in kept if self._store.owned.head(head.run) is None)
        if gone:
            order = encode(ForgetOrder(gone))
            await ask(self._bus, self._keys.cmd(peer, "forget"), order, timeout=self._timeout)

    async def _send(self, peer: str, page: CopyPage, heads: list[RunHead], before: KeepAnswer) -> KeepAnswer:
        """Send a page; ``heads`` gets the states that the follower knows better. It is to be on the data folder that answered before."""
        payload = encode(page)
        timeout = self._timeout + len(payload) * SECONDS_PER_BYTE
        reply = await ask(self._bus, self._keys.cmd(peer, "keep"), payload, timeout=timeout)
        answer = decode(KeepAnswer, reply.payload)
        if before.store not in ("", answer.store):
            raise Unavailable(f"{peer} came back on another data folder, which has only a part")
        heads += [head for head in answer.heads if not head.run.startswith(DEFINITION)]
        return answer

    # --- other owners' copies -------------------------------------------------------------------------------------------

    def ask(self, effect: do.AskCopies) -> None:
        """Ask a peer, or oneself, which copies it has."""
        question = CopiesQuestion(effect.owner, effect.store, effect.runs)
        if effect.peer == self._name:
            self._told(effect, self._desk.heads(question))
        else:
            self._nursery.start_soon(self._ask, effect, question)

    async def _ask(self, effect: do.AskCopies, question: CopiesQuestion) -> None:
        try:
            key = self._keys.cmd(effect.peer, "copies")
            reply = await ask(self._bus, key, encode(question), timeout=self._timeout)
            answer = decode(CopiesAnswer, reply.payload)
        except WattleError as error:
            log.info("peer does not tell its copies", peer=effect.peer, reason=error.message)
            self._post(on.CopiesUntold(effect.peer, effect.token))
            return
        self._told(effect, answer)

    def _told(self, effect: do.AskCopies, answer: CopiesAnswer) -> None:
        self._post(on.CopiesTold(effect.peer, effect.token, answer.heads, frozenset(answer.sees)))

    def forget(self, effect: do.Forget) -> None:
        """Have a peer drop a copy."""
        order = encode(ForgetOrder((effect.head,)))
        if effect.peer == self._name:
            self._desk.answer("forget", order)
        else:
            self._nursery.start_soon(self._forget, effect.peer, order)

    async def _forget(self, peer: str, order: bytes) -> None:
        try:
            await ask(self._bus, self._keys.cmd(peer, "forget"), order, timeout=self._timeout)
        except Unavailable as error:  # it is told again when its copies come up again
            log.debug("peer does not drop its copies", peer=peer, reason=error.message)

    def gather(self, effect: do.Gather) -> None:
        """Get a copy of a run, to adopt it."""
        self._nursery.start_soon(self._gather, effect)

    async def _gather(self, effect: do.Gather) -> None:
        head = effect.head
        try:
            rows = await self._rows(effect.peer, head)
            if head.run.startswith(DEFINITION):
                self._define(head, rows)
                self._post(on.NotGathered(head))
                return
            found = recover(rows)
            workflow = compile_document(
                Document.model_validate_json(found.submission.body), dict(found.submission.params)
            )
            _check(head, found, workflow)
        except Unavailable as error:  # it has gone meanwhile; who has a copy is asked again
            log.info("copy not to be had", run=head.run, owner=head.owner, source=effect.peer, reason=error.message)
            self._post(on.NotGathered(head))
            return
        except (WattleError, ValueError) as error:
            log.error("run cannot be adopted", run=head.run, owner=head.owner, source=effect.peer, reason=str(error))
            self._post(on.NotGathered(head))
            return
        log.info("run adopted", run=head.run, owner=head.owner, epoch=effect.epoch, source=effect.peer)
        snapshot = Snapshot(found.run, workflow, found.workers, found.tasks, found.holders, found.submission)
        left, own = self._store.forgotten.left(head.run), self._store.owned.head(head.run)
        self._post(on.Gathered(head, effect.epoch, snapshot, left, own))

    def _define(self, head: RunHead, rows: list[tuple[str, str]]) -> None:
        definition = recover_definition(rows)
        named = Document.model_validate(definition.document).name
        if not definition.name == named == head.run.removeprefix(DEFINITION):
            raise InvalidRequest(f"the copy is of workflow {definition.name!r}, its document is named {named!r}")
        mine = self._store.owned.definition(definition.name)
        if mine is None or mine.updated_at < definition.updated_at:
            self._post(on.Define(definition))

    async def _rows(self, peer: str, head: RunHead) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        while True:
            after = rows[-1][0] if rows else ""
            if peer == self._name:
                more = self._store.copies.rows(head.owner, head.store, head.run, after)
            else:
                question = encode(CopyQuestion(head.owner, head.store, head.run, after))
                reply = await ask(self._bus, self._keys.cmd(peer, "copy"), question, timeout=self._timeout)
                more = list(decode(CopyAnswer, reply.payload).rows)
            if not more:
                return rows
            if more[-1][0] <= after:
                raise InvalidRequest(f"rows of a copy that do not go on after {after[:80]!r}")
            rows += more


def _check(head: RunHead, found: Recovered, workflow: Workflow) -> None:
    """Raise InvalidRequest for rows that do not belong together. Whoever keeps a copy does not look into it."""
    if found.run.id != head.run:
        raise InvalidRequest(f"the copy is of run {found.run.id[:80]!r}")
    named = {*found.workers, *(task.worker for task in found.tasks)}
    if not named <= set(workflow.workers):
        raise InvalidRequest(f"the copy tells of workers that its document does not have: {sorted(named)[:5]}")
    runs = {worker.run for worker in found.workers.values()} | {task.run for task in found.tasks}
    if not runs <= {head.run}:
        raise InvalidRequest("the copy has rows of another run")
