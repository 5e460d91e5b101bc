"""An owner with a quorum and one follower, with real stores and pages: which end it counts on, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.core.test_replication import coordinator
from tests.store.test_copies import DOCUMENT, SUBMISSION, WORKFLOW
from wattle.coordinator.copying import Copying
from wattle.coordinator.journal import Journal
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.copies import Copies, better
from wattle.core.model import (
    CopiedRun,
    CopyPage,
    Fact,
    FactKind,
    NodeInfo,
    RunHead,
    RunRecord,
    RunStatus,
    Snapshot,
    TaskStatus,
    WorkerRecord,
    WorkerStatus,
)
from wattle.core.replication import LINGER, RETRY_MOST
from wattle.document.compile import to_json
from wattle.protocol.messages import KeepAnswer
from wattle.store.coordinator import CoordinatorStore
from wattle.store.owned import Definition
from wattle.store.runtime import RuntimeStore

LATER = RunHead("r", "c3", "c3-store", 2, number=1)
"""A later owner's state that goes on."""

EARLIER = RunHead("r", "c2", "c2-store", 1, number=9, final=True, completed_at=50.0)
"""An end that an earlier owner told."""


class Follower:
    """What a runtime does with pages."""

    def __init__(self, path: Path) -> None:
        self.store = RuntimeStore(path)
        self.copies = Copies()

    def keep(self, page: CopyPage) -> KeepAnswer:
        save, number = self.copies.keep(page)
        if save:
            with self.store.transaction():
                self.store.copies.keep(page)
        runs = [copied.run for copied in page.runs if copied.head is not None]
        return KeepAnswer(number, "f-store", better(page, self.store.copies.heads_of(runs)))

    def has(self, head: RunHead) -> None:
        """Another owner's page of one run has come before."""
        self.keep(
            CopyPage(head.owner, head.store, 0, head.number, (CopiedRun("r", head.number, (("run", "{}"),), head),))
        )


class Owner(Copying):
    """A coordinator's core, store and journal; what it sends to the follower is answered at once."""

    def __init__(self, path: Path, follower: Follower) -> None:
        self.path, self.follower = path, follower
        self.now = 100.0
        self._begin()

    def _begin(self) -> None:
        store = CoordinatorStore(self.path, owner="c1")
        options = CoordinatorOptions(quorum=2, replicas=1)
        self.core = CoordinatorCore(
            "c1", options, lambda: 0.5, store=store.id, number=store.number, settled=store.settled
        )
        self.heard: list[on.CoordinatorEvent] = []
        self.sent: list[do.CoordinatorEffect] = []
        none = cast(Any, None)
        super().__init__(none, none, "c1", store, Journal(store, self.core), none, none, self.heard.append, timeout=1.0)
        self.store = store

    def restart(self) -> None:
        """Another life on the same disk, which has met the follower."""
        self.store.close()
        self._begin()
        for run in self.store.unfinished():
            self.tell(on.Restore(self.store.snapshot(run, WORKFLOW)))
        self.tell(coordinator("f"))

    async def _send(self, peer: str, page: CopyPage, heads: list[RunHead], before: KeepAnswer) -> KeepAnswer:
        answer = self.follower.keep(page)
        heads += answer.heads
        return answer

    def tell(self, *events: on.CoordinatorEvent, after: float = 0.0) -> None:
        """One batch."""
        self.now += after
        effects = self.core.handle(events or (on.Tick(),), self.now)
        with self.store.transaction():
            self.store.save(effects, self.core.number)
        if self.core.number != self.store.number:
            self.store.number = self.core.number
            self._journal.note(self.core.number, effects)
        self.sent += [e for e in effects if isinstance(e, do.Ship | do.Ask) and e.peer == "f"]

    def deliver(self) -> list[on.CoordinatorEvent]:
        """What is on its way arrives; the answers."""
        for effect in self.sent:
            if isinstance(effect, do.Ship):
                trio.run(self._ship, effect)
            elif isinstance(effect, do.Ask):
                trio.run(self._ask_follower, effect)
        self.sent.clear()
        answers = list(self.heard)
        self.heard.clear()
        return answers

    def settle(self) -> int:
        """What is settled once all has been sent and answered, several times over."""
        for _ in range(8):
            answers = self.deliver()
            self.tell(*answers, after=0.0 if answers else RETRY_MOST)
        return self.core.settled


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(tmp_path / "f.db")
    with closing(follower.store):
        yield follower


@pytest.fixture
def owner(tmp_path: Path, follower: Follower) -> Iterator[Owner]:
    owner = Owner(tmp_path / "o.db", follower)
    owner.tell(coordinator("f"))
    owner.settle()
    yield owner
    owner.store.close()


def overtaken(owner: Owner, meanwhile: int = 0) -> int:
    """Let a run end of which the follower has a later owner's state; the commit with which it ended. So many are submitted before."""
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    assert owner.settle() == owner.core.number
    for index in range(meanwhile):
        owner.tell(on.Submit(f"s{index}", WORKFLOW, SUBMISSION))
    owner.follower.has(LATER)
    owner.tell(on.CancelRun("r"))
    return owner.core.number


def test_an_end_counts_once_a_later_owner_has_given_way(owner: Owner, follower: Follower) -> None:
    end = overtaken(owner)
    assert owner.settle() < end
    follower.keep(CopyPage("c3", "c3-store", 1, 2, (CopiedRun("r", 2, (), None, forgotten=True),)))
    assert owner.settle() == owner.core.number


def test_an_end_whose_answer_was_lost_is_asked_about_after_a_restart(owner: Owner) -> None:
    end = overtaken(owner)
    owner.deliver()  # the page arrives, its answer does not
    owner.restart()
    assert owner.core.number == end
    assert owner.settle() < end


def test_what_is_committed_after_a_contested_end_does_not_settle_it_and_is_kept(
    owner: Owner, follower: Follower
) -> None:
    end = overtaken(owner)
    document = {**to_json(DOCUMENT), "name": "other"}
    owner.tell(on.Define(Definition("other", owner.now, document, "x", owner.now)))
    assert owner.settle() < end
    for index in range(800):  # more than fit in a page
        owner.tell(on.Submit(f"s{index}", WORKFLOW, SUBMISSION))
    assert owner.settle() < end
    assert follower.copies.cursors["c1", owner.store.id] == owner.core.number


def test_a_late_fact_of_a_contested_end_does_not_settle_it(owner: Owner) -> None:
    end = overtaken(owner)
    owner.tell(*owner.deliver())
    owner.tell(on.NodeSeen(NodeInfo("n9", "i", "n9-store", slots=4)))
    late = Fact(FactKind.FINISHED, "r", "a", 1, at=owner.now, started_at=owner.now, status=TaskStatus.SUCCEEDED)
    owner.tell(on.FactsLearned("n9", "n9-store", 1, (late,)))
    row = owner.store.run("r")
    assert row is not None
    assert row.number > end
    assert owner.settle() < end


def test_an_end_deep_in_a_tail_that_was_not_heard_on_is_asked_about(owner: Owner, follower: Follower) -> None:
    end = overtaken(owner, meanwhile=800)
    while owner.core.number > follower.copies.cursors.get(("c1", owner.store.id), 0):
        for page in owner._journal.pages(follower.copies.cursors.get(("c1", owner.store.id), 0)):
            follower.keep(page)  # and no answer arrives
    owner.sent.clear()
    owner.tell(on.CoordinatorGone("f", "f-1"))
    owner.tell(on.CoordinatorSeen("f", "f-2", "f-store"))
    assert owner.settle() < end


@pytest.mark.parametrize("lost", [False, True])
def test_an_adopter_gives_way_to_an_end_though_it_restarts(owner: Owner, follower: Follower, lost: bool) -> None:
    follower.has(EARLIER)
    run = RunRecord("r", "flow", RunStatus.RUNNING, "c2", 1, 90.0)
    workers = {name: WorkerRecord("r", name, WorkerStatus.CREATED) for name in "abc"}
    lagging = RunHead("r", "c2", "c2-store", 1, number=5)
    owner.tell(on.Gathered(lagging, 2, Snapshot(run, WORKFLOW, workers, (), {}, SUBMISSION)))
    owner.tell(after=LINGER)
    answers = owner.deliver()
    if lost:
        owner.restart()
    else:
        owner.tell(*answers)
    owner.tell(on.CancelRun("r"))
    owner.settle()
    assert owner.core.runs == {}
    assert owner.store.run("r") is None, "it belongs to who ended it"


async def test_what_a_follower_is_told_anew_ends_what_it_was_being_told(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was out of sight in between; of two tellings side by side it would mix the parts."""
    monkeypatch.setattr("wattle.store.owned.ROWS_MOST", 1)  # a run is told in many pages
    owner, sent, answering = Owner(tmp_path / "o.db", Follower(tmp_path / "f.db")), list[int](), trio.Event()
    owner.tell(coordinator("f"))
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    owner._nursery, owner._journal = nursery, Journal(owner.store, owner.core)

    async def send(peer: str, page: CopyPage, heads: list[RunHead], before: KeepAnswer) -> KeepAnswer:
        sent.append(page.part)
        await answering.wait()
        return KeepAnswer(page.number, "f-store", ())

    monkeypatch.setattr(owner, "_send", send)
    owner.ship(do.Ship("f", 0))
    await trio.testing.wait_all_tasks_blocked()
    owner.ship(do.Ship("f", 0))
    await trio.testing.wait_all_tasks_blocked()
    answering.set()
    await trio.testing.wait_all_tasks_blocked()
    assert sent == [0, *range(len(sent) - 1)]
    assert len(sent) > 4
    assert [type(event) for event in owner.heard] == [on.Kept]
    owner.ask_follower(do.Ask("f", None))
    await trio.testing.wait_all_tasks_blocked()
    assert len(owner.heard) == 2


async def test_what_is_told_anew_may_be_done_before_what_it_ended_is(tmp_path: Path, nursery: trio.Nursery) -> None:
    owner = Owner(tmp_path / "o.db", Follower(tmp_path / "f.db"))
    owner._nursery, leave = nursery, trio.Event()

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await leave.wait()

    owner._tell("f", slow)
    await trio.testing.wait_all_tasks_blocked()
    owner._tell("f", trio.lowlevel.checkpoint)
    await trio.testing.wait_all_tasks_blocked()
    leave.set()
    await trio.testing.wait_all_tasks_blocked()
    assert owner._telling == {}
