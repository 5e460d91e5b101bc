"""Attempts that a run's history may lack (docs/guarantees.md): an adopter gave them out, and the run had ended, or did, elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from wattle.core.model import Fact, FactKind, RunHead, RunRecord, TaskId
from wattle.core.numbering import is_of_a_later_epoch

if TYPE_CHECKING:
    from tests.sim.coordinator import Coordinator
    from tests.sim.runtime import Runtime


class Unheard:
    """Who took over a run that had ended, and what was given out by who let go of a run because it had."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str, int]] = set()  # (run, store, epoch): taken over when it had ended
        self._let_go: set[TaskId] = set()  # of a later epoch than the end for which their run was let go

    def taken_over(self, peer: Coordinator, run: RunRecord) -> None:
        """A coordinator has taken over a run; who adopts one that has ended asks no node about it."""
        if run.status.final:
            self._taken.add((run.id, peer.store.id, run.adopted))

    def let_go(self, head: RunHead, given: Iterable[TaskId]) -> None:
        """Who knows of attempts ``given`` has let go of a run in favour of ``head``."""
        if head.final:
            self._let_go |= {task for task in given if is_of_a_later_epoch(task.attempt, head.epoch)}

    def excuse(self, owner: Coordinator, run: RunRecord, runtime: Runtime, number: int, fact: Fact) -> str:
        """Why an owner's history may lack the attempt that entry ``number`` of a node's feed tells of; empty when it may not."""
        # It was taken over last when it had ended. A retry since then excuses attempts of other adopters alone: the first owner's are in
        # every copy.
        adopter = is_of_a_later_epoch(fact.attempt, 1)
        if (run.id, owner.store.id, run.adopted) in self._taken and (not run.retried or adopter):
            return "attempt unknown to who adopted an ended run"
        # Nobody asks the node about it any more, but whoever has the run takes in what it reads of its end.
        store, last = owner.store.cursors.get(runtime.name, ("", 0))
        heard = fact.kind is FactKind.FINISHED and store == runtime.store.id and number <= last
        if fact.id in self._let_go and not heard:
            return "attempt given out in ignorance of a run's end"
        return ""
