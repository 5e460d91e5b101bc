"""Attempts that a run's history may lack (docs/guarantees.md): the run was taken over last when it had ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wattle.core.model import RunRecord, TaskId
from wattle.core.numbering import is_of_a_later_epoch

if TYPE_CHECKING:
    from tests.sim.coordinator import Coordinator


class Unheard:
    """Who took over a run that had ended, and so has asked no node about it."""

    def __init__(self) -> None:
        self._taken: set[tuple[str, str, int]] = set()  # (run, store, epoch)

    def taken_over(self, peer: Coordinator, run: RunRecord) -> None:
        """A coordinator has taken over a run."""
        if run.status.final:
            self._taken.add((run.id, peer.store.id, run.adopted))

    def excuse(self, owner: Coordinator, run: RunRecord, task: TaskId) -> str:
        """Why an owner's history may lack an attempt; empty when it may not.

        A retry since the run was taken over excuses attempts of other adopters alone: the first owner's are in every copy.
        """
        adopter = is_of_a_later_epoch(task.attempt, 1)
        if (run.id, owner.store.id, run.adopted) in self._taken and (not run.retried or adopter):
            return "attempt unknown to who adopted an ended run"
        return ""
