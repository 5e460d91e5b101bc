"""Commands on their way to runtimes: per node one batch at a time, so that what piles up meanwhile travels together."""

from __future__ import annotations

from collections.abc import Callable

import trio

from wattle.bus.base import Bus
from wattle.core import events as on
from wattle.core.effects import Assign, Cancel, Withdraw
from wattle.core.events import CoordinatorEvent
from wattle.core.model import Assignment
from wattle.errors import Unavailable, WattleError
from wattle.logs import get_logger
from wattle.peer.asking import ask
from wattle.protocol.keys import Keys
from wattle.protocol.messages import AssignBatch, CancelBatch, TaskAnswers, TaskRef, decode, encode

MOST_TASKS = 500
"""Tasks in one batch, at most: about half a megabyte of small ones."""

log = get_logger("wattle.coordinator")


class _Outbox:
    """What waits for one node."""

    def __init__(self) -> None:
        self.assigns: list[Assignment] = []
        self.cancels: list[TaskRef] = []
        self.sending = False


class Dispatch:
    """Sends Assign and Cancel effects until a Withdraw; what the runtimes answer comes back as events through ``post``.

    ``cancelled`` gets the name of a node that has answered orders to end tasks: it may have told their ends in hints that were lost.
    """

    def __init__(
        self,
        bus: Bus,
        keys: Keys,
        owner: str,
        nursery: trio.Nursery,
        post: Callable[[CoordinatorEvent], None],
        cancelled: Callable[[str], None],
        *,
        timeout: float,
    ) -> None:
        self._bus, self._keys, self._owner, self._nursery, self._post = bus, keys, owner, nursery, post
        self._cancelled = cancelled
        self._timeout = timeout
        self._outboxes: dict[str, _Outbox] = {}

    def assign(self, effect: Assign) -> None:
        """Send a task to its node with the next batch."""
        self._box(effect.node).assigns.append(effect.assignment)

    def cancel(self, effect: Cancel) -> None:
        """Send an order to end a task with the next batch, after the assignments before it."""
        self._box(effect.node).cancels.append(TaskRef(*effect.task, effect.epoch))

    def withdraw(self, effect: Withdraw) -> None:
        """Send a node nothing of what still waits for it here."""
        box = self._outboxes.get(effect.node)
        if box is not None:
            box.assigns, box.cancels = [], []

    def _box(self, node: str) -> _Outbox:
        box = self._outboxes.setdefault(node, _Outbox())
        if not box.sending:
            box.sending = True
            self._nursery.start_soon(self._send, node, box)
        return box

    async def _send(self, node: str, box: _Outbox) -> None:
        try:
            while box.assigns or box.cancels:
                tasks, box.assigns = box.assigns[:MOST_TASKS], box.assigns[MOST_TASKS:]
                if tasks:
                    await self._command(node, "assign", AssignBatch(self._owner, tuple(tasks)))
                    continue
                orders, box.cancels = box.cancels[:MOST_TASKS], box.cancels[MOST_TASKS:]
                await self._command(node, "cancel", CancelBatch(self._owner, tuple(orders)))
        finally:
            box.sending = False

    async def _command(self, node: str, verb: str, batch: AssignBatch | CancelBatch) -> None:
        try:
            reply = await ask(self._bus, self._keys.cmd(node, verb), encode(batch), timeout=self._timeout)
            answers = decode(TaskAnswers, reply.payload)
        except Unavailable as error:
            log.info("command not answered", node=node, verb=verb, tasks=len(batch.tasks), reason=error.message)
            self._post(on.Undelivered(node))
            return
        except WattleError as error:
            log.error("command answered with something else", node=node, verb=verb, reason=error.message)
            self._post(on.Undelivered(node))
            return
        taken = tuple(a.id for a in answers.tasks if a.code == "OK")
        self._post(on.Delivered(node, taken) if verb == "assign" else on.CancelAnswered(node, taken))
        for answer in answers.tasks:
            if answer.code != "OK":
                say = log.debug if answer.code == "OVER" else log.info  # it ended meanwhile, as what it waited for did
                say(
                    "command refused",
                    node=node,
                    verb=verb,
                    run=answer.run,
                    worker=answer.worker,
                    attempt=answer.attempt,
                    reason=answer.reason,
                )
                self._post(on.Refused(node, answer.id, answer.code, answer.reason, answer.epoch, answer.owner))
        if verb == "cancel":
            self._cancelled(node)
