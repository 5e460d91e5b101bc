"""Which runs are this coordinator's: whom else it hears of as their owner, when it lets go of one, what it keeps of others'.

Of two states of a run the one of higher standing counts (RunHead.standing); nothing here depends on who tells of it, or how often.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.model import RunHead
from wattle.core.run import Run

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore


class Ownership:
    """The runs that a coordinator core owns, and no longer owns.

    ``handing`` are those let go of whose new owners are not known to have heard that they are cancelled, with how often each had been
    retried.
    """

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core
        self.handing: dict[str, int] = {}

    def overruled(self, run: Run, owner: str, epoch: int) -> bool:
        """A node knows (epoch, owner) of a run: let go of it when that is higher and another's; True when the run has gone.

        One's own higher epoch is of a later state than the store remembers, which was restored from a backup: it is taken on.
        """
        if owner == self.core.name and epoch > run.epoch:
            run.epoch = epoch
            self.core.touch(run)
        elif (epoch, owner) > (run.epoch, run.owner):
            self._let_go(run, RunHead(run.id, owner, "", epoch, retried=run.retried))
            return True
        return False

    def _let_go(self, run: Run, head: RunHead) -> None:
        """Let go of a run in favour of a state that counts more; where that lacks its cancel, it stays stored until its owner has heard."""
        handing = not head.heeds(run.head(self.core.store))
        self.core.forget(run, head)
        if handing:
            self.handing[run.id] = run.retried
            self.core.saves.append(do.SaveRun(run.record()))  # it may have been cancelled in this batch
        self.core.acts.append(do.AnnounceReleased(run.id, head.owner))
        self._release(head, handing=handing)

    def _release(self, head: RunHead, *, handing: bool = False) -> None:
        self.core.saves.append(do.ReleaseRun(head, handing))
        self.core.succession.let_go(head.run)
        self.core.succession.suspect((head.owner, head.store))  # it may be gone, and what it had with it

    def prune(self, event: on.Prune) -> None:
        """Remove runs that have ended, for good."""
        for head in event.runs:
            if head.final and head.run not in self.core.runs:  # else it was retried meanwhile
                self.core.saves.append(do.ForgetRun(replace(head, pruned_at=self.core.now)))
        self.core.replication.hasten()

    def keep(self, event: on.Keep) -> None:
        """Another owner wants a page of its changes kept.

        Where it tells of a state of a run of this one's that counts more, that run is let go; where its state counts less and is cancelled,
        so is the run here.
        """
        page = event.page
        save, number = self.core.copies.keep(page)
        own = {head.run: head for head in event.own}
        if save:
            self.core.saves.append(do.SaveCopies(page))
            if page.runs:  # it may be gone before it was ever seen from here
                self.core.succession.suspect((page.owner, page.store))
            heads = [copied.head for copied in page.runs if copied.head is not None]
            self.core.succession.brought(heads)
            for head in heads:
                self._hear(head, own.get(head.run))
        self.core.acts.append(do.AnswerKeep(event.token, number))

    def kept(self, event: on.Kept) -> None:
        """A follower has kept a page; runs of which it knows a state that counts more are let go before anything of them is settled."""
        self.core.replication.kept(event)
        own = {head.run: head for head in event.own}
        for head in event.heads:
            self._hear(head, own.get(head.run))
            if self.core.options.quorum and head.run in own and head.overtook(own[head.run]):
                self.core.succession.suspect((head.owner, head.store))  # it may be gone, and never give way

    def give_way(self, head: RunHead) -> None:
        """A peer knows another owner's state of a run: let go of one that goes on where that is an end, which may be waiting for that."""
        run = self.core.runs.get(head.run)
        if run is not None and head.store and head.final and head.standing > run.head(self.core.store).standing:
            self._let_go(run, head)

    def _hear(self, head: RunHead, stored: RunHead | None) -> None:
        """Another owner has a state of a run; ``stored`` is the one here, of which nothing is in memory where it has ended."""
        run = self.core.runs.get(head.run)
        if run is not None:
            mine = run.head(self.core.store)
            if head.standing > mine.standing:
                self._let_go(run, head)
            elif not mine.heeds(head):
                self.core.cancel(run.id)
        elif stored is not None:
            mine = self.core.ended_now(head.run) or stored  # the store does not tell yet of an end of this very batch
            if head.standing > mine.standing and head.heeds(mine):
                self.handing.pop(head.run, None)
                self._release(head)
