"""Questions about the copies that a peer keeps of other owners' runs: the same for coordinators and runtimes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from wattle.core.copies import Copies, better
from wattle.core.model import CopyPage, RunHead
from wattle.errors import InvalidRequest
from wattle.protocol.messages import CopiesAnswer, CopiesQuestion, CopyAnswer, CopyQuestion, ForgetOrder, decode, encode
from wattle.store.copies import CopyTables


def _none(runs: Sequence[str]) -> Iterable[RunHead]:
    return ()


def _nobody(owner: str, store: str) -> None:
    pass


class CopyDesk:
    """Answers from the store.

    ``sees``: the coordinators in sight; ``kept``: what the core knows of the copies; ``own``: the heads of those of some runs that are the
    peer's own; ``inquired`` is called when a coordinator has found copies of an owner that it takes for gone.
    """

    def __init__(
        self,
        copies: CopyTables,
        transaction: Callable[[], AbstractContextManager[None]],
        sees: Callable[[], Iterable[str]],
        kept: Copies,
        own: Callable[[Sequence[str]], Iterable[RunHead]] = _none,
        inquired: Callable[[str, str], None] = _nobody,
    ) -> None:
        self._kept, self._inquired = kept, inquired
        self._copies, self._transaction, self._sees, self._own = copies, transaction, sees, own

    def answer(self, verb: str, payload: bytes | None) -> bytes:
        """The answer to one question; raises InvalidRequest for what is none."""
        match verb:
            case "copies":
                question = decode(CopiesQuestion, payload)
                if question.runs and question.owner:
                    self._inquired(question.owner, question.store)
                return encode(self.heads(question))
            case "copy":
                asked = decode(CopyQuestion, payload)
                return encode(CopyAnswer(tuple(self._copies.rows(asked.owner, asked.store, asked.run, asked.after))))
            case "forget":
                order = decode(ForgetOrder, payload)
                with self._transaction():
                    for head in order.heads:
                        self._copies.forget(head)
                for owner, store in {(head.owner, head.store) for head in order.heads}:
                    self._kept.forget(owner, store)
                return encode(order)
            case _:
                raise InvalidRequest(f"there is no question {verb!r}")

    def better(self, page: CopyPage) -> tuple[RunHead, ...]:
        """States of a page's runs known here that its owner is to hear of."""
        runs = [copied.run for copied in page.runs if copied.head is not None]
        return better(page, [*self._copies.heads_of(runs), *self._own(runs)])

    def heads(self, question: CopiesQuestion) -> CopiesAnswer:
        """Which states of runs are kept here."""
        if question.runs:
            heads = [*self._copies.heads_of(question.runs), *self._own(question.runs)]
        elif question.owner:
            heads = self._copies.heads_by(question.owner, question.store)
        else:
            heads = self._copies.owners()
        return CopiesAnswer(tuple(heads), tuple(sorted(self._sees())))
