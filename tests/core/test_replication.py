"""Followers, acknowledgements and adoption, step by step at one coordinator core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from tests.core.harness import worker, workflow
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.copies import better
from wattle.core.hashing import ranked
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
    TaskId,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    WorkerStatus,
)
from wattle.core.numbering import first_attempt
from wattle.core.replication import LINGER, SOON
from wattle.core.run import head_of
from wattle.core.succession import LOOK_EVERY

T = TypeVar("T")

FLOW = workflow(worker("a"), worker("b", "a"))


class Told:
    """A core that is told events one batch after another, and what came of the last one."""

    def __init__(self, name: str = "c1", store: str = "", number: int = 0, settled: int = 0, **options: object) -> None:
        made = CoordinatorOptions(**options)  # type: ignore[arg-type]
        store = store or f"{name}-store"
        self.core = CoordinatorCore(name, made, lambda: 0.5, store=store, number=number, settled=settled)
        self.now = 100.0
        self.effects: list[do.CoordinatorEffect] = []

    def __call__(self, *events: on.CoordinatorEvent, after: float = 0.0) -> Told:
        self.now += after
        self.effects = self.core.handle(events or (on.Tick(),), self.now)
        return self

    def all(self, kind: type[T]) -> list[T]:
        return [effect for effect in self.effects if isinstance(effect, kind)]


def coordinator(name: str) -> on.CoordinatorSeen:
    return on.CoordinatorSeen(name, f"{name}-1", f"{name}-store")


def node(name: str) -> on.NodeSeen:
    return on.NodeSeen(NodeInfo(name, f"{name}-1", f"{name}-store", slots=4, resources={"cpus": 4.0}))


def kept(peer: str, number: int, *better: tuple[RunHead, RunHead], since: int = 0) -> on.Kept:
    """A follower's answer to all since a commit, with states that it knows better, each with the owner's own."""
    return on.Kept(peer, number, tuple(head for head, _ in better), tuple(own for _, own in better), since, number)


def follow(told: Told, peers: Iterable[str]) -> None:
    """Let followers say that they have all."""
    told(*(kept(peer, told.core.number) for peer in peers))


# --- copies and acknowledgements ----------------------------------------------------------------------------------------


def test_alone_everything_committed_may_be_acknowledged() -> None:
    told = Told()
    told(on.Submit("r", FLOW))
    assert told.core.settled == told.core.number == 1


def test_a_submission_may_be_acknowledged_once_it_is_on_as_many_other_stores_as_asked_for() -> None:
    told = Told(replicas=2)
    told(coordinator("c2"), node("n1"), node("n2"), node("n3"))
    followers = sorted(told.core.replication.followers)
    assert "c2" in followers
    assert len(followers) == 3  # and two of the three runtimes
    follow(told, followers)
    told(on.Submit("r", FLOW))
    number = told.core.number
    assert sorted(ship.peer for ship in told.all(do.Ship)) == followers  # at once: somebody waits
    told(on.Kept(followers[0], number))
    assert told.core.settled < number
    told(on.Kept(followers[1], number))
    assert told.core.settled == number


def test_a_run_whose_end_is_waited_for_is_copied_a_little_later_unless_a_quorum_has_to_have_it() -> None:
    for quorum, end, ships in ((0, False, 1), (0, True, 0), (2, True, 1)):
        told = Told(replicas=1, quorum=quorum)
        told(node("n1"))
        follow(told, ("n1",))
        told(on.Submit("r", FLOW, to_its_end=end))
        assert len(told.all(do.Ship)) == ships
        assert told.core.settled < told.core.number
        assert len(told(after=SOON - 0.001).all(do.Ship)) == 0
        assert len(told(after=0.001).all(do.Ship)) == 1 - ships


def test_fewer_followers_than_replicas_must_all_have_it_and_one_that_goes_is_not_waited_for() -> None:
    told = Told(replicas=2)
    told(coordinator("c2"), coordinator("c3"))
    follow(told, ("c2", "c3"))
    told(on.Submit("r", FLOW))
    told(on.Kept("c2", told.core.number))
    assert told.core.settled < told.core.number
    told(on.CoordinatorGone("c3", "c3-1"))
    assert told.core.settled == told.core.number


def test_a_runtime_on_the_owners_own_data_folder_keeps_no_copies() -> None:
    told = Told(companions=frozenset({"n1"}))
    told(node("n1"), node("n2"))
    assert set(told.core.replication.followers) == {"n2"}


def test_with_a_quorum_what_is_acknowledged_is_on_the_stores_of_as_many_peers() -> None:
    told = Told(quorum=4, replicas=1)
    told(coordinator("c2"), node("n1"), node("n2"), node("n3"))
    followers = sorted(told.core.replication.followers)
    assert len(followers) == 3  # c2 and two of the runtimes, though one copy would do
    follow(told, followers)
    told(on.Submit("r", FLOW))
    number = told.core.number
    told(*(kept(peer, number) for peer in followers[:2]))
    assert told.core.settled < number
    told(kept(followers[2], number))
    assert told.core.settled == number


def test_a_runtime_beside_its_owner_keeps_a_copy_where_the_quorum_takes_it_and_that_is_none_of_the_replicas() -> None:
    told = Told(quorum=3, replicas=1, companions=frozenset({"n1"}))
    told(coordinator("c2"), node("n1"))
    follow(told, ("c2", "n1"))
    told(on.Submit("r", FLOW))
    number = told.core.number
    told(kept("n1", number))
    assert told.core.settled < number
    told(kept("c2", number))
    assert told.core.settled == number
    told(node("n2"))
    assert set(told.core.replication.followers) == {"c2", "n2"}


OVERTAKEN = RunHead("r", "c1", "c1-store", 1, number=4, final=True, completed_at=9.0)
"""An end of c1's."""

LATER = RunHead("r", "c3", "c3-store", 2, number=7)
"""A later owner's state that goes on with that run."""


def test_with_a_quorum_an_end_is_not_counted_where_a_later_owner_was_before() -> None:
    told = Told(quorum=2, number=4, settled=3)
    told(coordinator("c2"))
    told(kept("c2", 3))
    told(kept("c2", 4, (LATER, OVERTAKEN), since=3))
    assert told.core.settled == 3
    assert told.all(do.ReleaseRun) == [], "the later owner gives way to an end"
    (timer,) = told.all(do.SetTimer)
    assert timer.at is not None
    told(after=timer.at - told.now)
    assert told.all(do.Ask) == [do.Ask("c2", 3)]
    told(kept("c2", 4, since=3))  # the later owner has given way
    assert told.core.settled == 4


def test_an_end_that_was_contested_settles_also_while_commits_go_on() -> None:
    told = Told(quorum=2, number=4, settled=3)
    told(coordinator("c2"))
    told(kept("c2", 4, (LATER, OVERTAKEN), since=3))
    for index in range(20):  # the later owner has given way
        told(on.Submit(f"s{index}", FLOW), after=0.1)
        sinces = [asked.since or 0 for asked in told.all(do.Ask)] + [page.after for page in told.all(do.Ship)]
        told(*(kept("c2", told.core.number, since=since) for since in sinces))
    assert told.core.settled == told.core.number


def test_a_later_owner_that_contests_an_end_and_is_not_in_sight_is_asked_after() -> None:
    told = Told(quorum=2, number=4, settled=3)
    told(coordinator("c2"))
    told(kept("c2", 3))
    told(kept("c2", 4, (LATER, OVERTAKEN), since=3))
    told(after=told.core.options.adopt_after)
    assert {(ask.owner, ask.store) for ask in told.all(do.AskCopies)} == {("c3", "c3-store")}


def test_without_a_quorum_such_an_end_counts() -> None:
    told = Told(number=4)
    told(coordinator("c2"))
    told(kept("c2", 4, (LATER, OVERTAKEN)))
    assert told.core.settled == 4


def test_nothing_after_a_contested_end_is_counted_either_and_copies_go_on() -> None:
    told = Told(quorum=2, number=4, settled=3)
    told(coordinator("c2"))
    told(kept("c2", 4, (LATER, replace(OVERTAKEN, number=5)), since=3))  # touched again since, by a late fact
    told(on.Submit("s", FLOW))
    assert told.all(do.Ship) == [do.Ship("c2", 4)]
    told(kept("c2", 5, since=4))
    assert told.core.settled == 3
    told(after=5.0)
    assert told.all(do.Ask) == [do.Ask("c2", 3)]
    told(kept("c2", 5, since=3))
    assert told.core.settled == 5


def test_with_a_quorum_a_follower_is_asked_what_it_knows_of_all_that_is_not_known_to_be_settled() -> None:
    told = Told(quorum=2, number=4, settled=2)
    told(coordinator("c2"))
    assert told.all(do.Ask) == [do.Ask("c2", 2)]
    told(on.Kept("c2", 4, since=3, heard=4))  # the late answer of a page that was sent before it was met
    assert told.core.settled == 2
    told(kept("c2", 4, since=2))
    assert told.core.settled == 4


def test_with_a_quorum_what_a_follower_has_and_was_not_heard_on_is_asked_for_at_once() -> None:
    told = Told(quorum=2, number=4)
    told(coordinator("c2"))
    told(kept("c2", 2))
    told(on.Kept("c2", 4, since=2, heard=2))  # it had the page already: the first answer was lost
    assert told.core.settled == 2
    assert told.all(do.Ask) == [do.Ask("c2", 2)]


def test_how_far_commits_were_settled_with_a_quorum_is_stored_with_the_next() -> None:
    told = Told(quorum=2)
    told(coordinator("c2"))
    follow(told, ("c2",))
    told(on.Submit("r", FLOW))
    assert told.all(do.SaveSettled) == []
    told(kept("c2", 1))
    assert told.all(do.SaveSettled) == [], "not worth a commit of its own"
    told(on.Submit("s", FLOW))
    assert told.all(do.SaveSettled) == [do.SaveSettled(1)]


def test_what_nobody_waits_for_is_collected_for_a_moment() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"))
    follow(told, ("c2", "n1"))
    told(on.Submit("r", FLOW))
    follow(told, ("c2", "n1"))
    told(on.FactsLearned("n1", "s", 1, (Fact(FactKind.STARTED, "r", "a", 1, at=1.0, pid=1),), True))
    assert told.all(do.Ship) == []
    told(after=LINGER)
    assert {(ship.peer, ship.after) for ship in told.all(do.Ship)} == {
        ("c2", told.core.number - 1),
        ("n1", told.core.number - 1),
    }


def test_a_follower_that_does_not_answer_is_asked_again_later_and_from_where_it_is() -> None:
    told = Told()
    told(coordinator("c2"))
    assert told.all(do.Ask) == [do.Ask("c2", None)]  # how far are you?
    told(on.NotKept("c2"))
    assert told.all(do.Ask) == []
    (timer,) = told.all(do.SetTimer)
    assert timer.at is not None
    told(after=timer.at - told.now)
    assert told.all(do.Ask) == [do.Ask("c2", None)]
    told(on.Kept("c2", 0), on.Submit("r", FLOW))
    assert [(s.peer, s.after) for s in told.all(do.Ship)] == [("c2", 0)]


# --- which state counts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("higher", "lower"),
    [
        ({"epoch": 2}, {"epoch": 1}),
        ({"epoch": 1, "final": True}, {"epoch": 2}),
        ({"epoch": 2, "final": True, "completed_at": 6.0}, {"epoch": 1, "final": True, "completed_at": 5.0}),
        ({"epoch": 2, "final": True, "completed_at": 5.0}, {"epoch": 2, "final": True, "completed_at": 6.0}),
        (
            {"epoch": 2, "final": True, "completed_at": 6.0, "owner": "c2"},
            {"epoch": 2, "final": True, "completed_at": 5.0},
        ),
        ({"epoch": 3, "retried": 1}, {"epoch": 2, "final": True}),
        ({"epoch": 1, "owner": "c2"}, {"epoch": 1, "owner": "c1"}),
        ({"epoch": 1, "number": 7}, {"epoch": 1, "number": 6}),
    ],
)
def test_of_two_states_of_a_run_one_counts(higher: dict[str, object], lower: dict[str, object]) -> None:
    plain = {"run": "r", "owner": "c1", "store": "s", "epoch": 1}
    assert RunHead(**{**plain, **higher}).rank > RunHead(**{**plain, **lower}).rank  # type: ignore[arg-type]


def test_a_follower_tells_of_better_states_of_a_pages_runs_than_the_page_does() -> None:
    mine = RunHead("r", "c1", "s1", 2, number=9)
    page = CopyPage("c1", "s1", 0, 9, (CopiedRun("r", 9, (), mine), CopiedRun("part", 9, ())))
    worse = RunHead("r", "c2", "s2", 1, number=70)
    ended, later = replace(worse, final=True), RunHead("r", "c3", "s3", 3)
    assert better(page, [worse, replace(mine, number=12)]) == ()
    assert better(page, [later, worse, ended]) == (ended,)
    assert better(page, [replace(later, store=""), replace(later, run="part")]) == ()
    older = replace(mine, store="s0", number=700)  # commits of another data folder: not to be compared
    assert better(page, [older]) == ()


def test_a_follower_tells_of_a_later_owner_that_has_not_heard_of_an_end() -> None:
    page = CopyPage("c1", "c1-store", 0, 4, (CopiedRun("r", 4, (), OVERTAKEN),))
    assert better(page, [LATER]) == (LATER,)
    stands_in, pruned = replace(LATER, number=0), replace(LATER, pruned_at=1.0)
    assert better(page, [stands_in, replace(LATER, owner="c0", epoch=1)]) == ()
    twin = replace(LATER, epoch=1)  # which took it over in the same epoch
    assert better(page, [twin]) == (twin,)
    assert better(page, [LATER, pruned]) == (pruned,)
    going_on = CopyPage("c1", "c1-store", 0, 4, (CopiedRun("r", 4, (), replace(OVERTAKEN, final=False)),))
    assert better(going_on, [LATER]) == (LATER,)


def test_a_follower_tells_of_a_cancel_that_a_pages_owner_has_not_heard_of() -> None:
    mine = RunHead("r", "c1", "s1", 2, number=9)
    former = RunHead("r", "c2", "s2", 1, number=4, cancelled=True)
    page = CopyPage("c1", "s1", 0, 9, (CopiedRun("r", 9, (), mine),))
    assert better(page, [replace(mine, number=8), former]) == (former,)
    for heeding in ({"cancelled": True}, {"retried": 1}, {"final": True}):
        heard = CopyPage("c1", "s1", 0, 9, (CopiedRun("r", 9, (), replace(mine, **heeding)),))
        assert better(heard, [former]) == ()
    later = RunHead("r", "c3", "s3", 3, number=1)
    for known in ([former, later], [later, former]):
        assert better(page, known) == (later,), "whose owner is told in its turn"


def test_what_a_follower_knows_a_better_state_of_is_let_go_before_it_is_settled() -> None:
    told = Told(replicas=1)
    told(coordinator("c2"))
    follow(told, ("c2",))
    told(on.Submit("r", FLOW), on.Submit("s", FLOW))
    number = told.core.number
    head = RunHead("r", "c3", "c3-store", 2, number=9)
    told(on.Kept("c2", number, (head,)))
    assert told.core.settled >= number
    assert [release.head for release in told.all(do.ReleaseRun)] == [head]
    assert [released.run for released in told.all(do.AnnounceReleased)] == ["r"]
    assert list(told.core.runs) == ["s"]


def test_an_end_that_a_follower_knows_better_is_let_go() -> None:
    told = Told(replicas=1)
    told(coordinator("c2"))
    ended = RunHead("r", "c1", "c1-store", 1, number=4, final=True, completed_at=9.0)
    head = replace(ended, owner="c3", store="c3-store", epoch=2, completed_at=9.5)
    told(on.Kept("c2", 4, (head,), (ended,)))
    assert [release.head for release in told.all(do.ReleaseRun)] == [head]
    told(on.Kept("c2", 4, (replace(ended, owner="c0"),), (ended,)))
    assert told.all(do.ReleaseRun) == []


@pytest.mark.parametrize("how", ["kept", "keep", "gathered"])
@pytest.mark.parametrize(("owner", "epoch"), [("c0", 1), ("c3", 3)])
def test_an_end_of_this_very_batch_is_compared_with_what_others_tell(how: str, owner: str, epoch: int) -> None:
    """What the store says is still that the run goes on, which any end outranks."""
    told = Told(replicas=1)
    told(coordinator("c2"), node("n1"))
    run = replace(snapshot().run, owner="c1", epoch=2)
    workers = {
        "a": WorkerRecord("r", "a", WorkerStatus.SUCCEEDED, attempts=1),
        "b": WorkerRecord("r", "b", WorkerStatus.RUNNING, attempts=1),
    }
    told(on.Restore(Snapshot(run, FLOW, workers, (TaskRecord("r", "b", 1, "n1", TaskStatus.RUNNING, 91.0),))))
    number, own = told.core.number, head_of(run, "c1-store", told.core.number)
    head = RunHead("r", owner, f"{owner}-store", epoch, number=9, final=True, completed_at=99.0, cancelled=True)
    ended = replace(run, owner=owner, epoch=epoch, status=RunStatus.CANCELLED, completed_at=99.0)
    cancelled = {name: WorkerRecord("r", name, WorkerStatus.CANCELLED) for name in ("a", "b")}
    heard: dict[str, on.CoordinatorEvent] = {
        "kept": on.Kept("c2", number, (head,), (own,), heard=number),
        "keep": on.Keep(1, CopyPage(owner, head.store, 0, 9, (CopiedRun("r", 9, (), head),)), (own,)),
        "gathered": on.Gathered(head, 4, Snapshot(ended, FLOW, cancelled, ()), own=own),
    }
    finished = Fact(FactKind.FINISHED, "r", "b", 1, at=99.5, status=TaskStatus.SUCCEEDED)
    told(on.FactsLearned("n1", "n1-store", 1, (finished,)), heard[how])
    assert [save.run.status for save in told.all(do.SaveRun)] == [RunStatus.SUCCEEDED]
    # What is fetched is not taken over in the batch that stores the end: the next inquiry compares the two.
    given_up = epoch > run.epoch and how != "gathered"
    assert [release.head for release in told.all(do.ReleaseRun)] == [head] * given_up
    assert told.all(do.AdoptRun) == []


def test_an_owner_that_hears_of_a_better_state_lets_go() -> None:
    told = Told()
    told(node("n1"))
    told(on.Submit("r", FLOW))
    head = RunHead("r", "c2", "c2-store", 2, number=9)
    told(on.Keep(1, CopyPage("c2", "c2-store", 0, 9, (CopiedRun("r", 9, (), head),))))
    assert told.all(do.ReleaseRun) == [do.ReleaseRun(head)]
    assert told.all(do.AnswerKeep) == [do.AnswerKeep(1, 9)]
    assert told.core.runs == {}
    assert not told.core.nodes["n1"].tasks


def _back_alone(quorum: int = 0) -> Told:
    """A former owner that starts again when everybody else is down, and is asked to cancel what another has ended meanwhile."""
    told = Told("c2", number=4, settled=4, quorum=quorum)
    told(on.Restore(snapshot()))
    return told(on.CancelRun("r"))


def test_an_owner_that_is_back_and_sees_nobody_decides_and_then_gives_way_to_a_later_owners_end() -> None:
    told = _back_alone()
    (cancelled,) = told.all(do.AnnounceRun)
    assert cancelled.run.status is RunStatus.CANCELLED
    assert told.core.settled == told.core.number  # it is told
    own = head_of(cancelled.run, "c2-store", told.core.number)
    later = RunHead("r", "c1", "c1-store", own.epoch + 1, number=9, final=True, completed_at=90.0)
    told(coordinator("c1"))
    told(on.Kept("c1", told.core.number, (later,), (own,)))
    assert [release.head for release in told.all(do.ReleaseRun)] == [later]


def test_with_a_quorum_it_tells_no_end() -> None:
    told = _back_alone(quorum=2)
    assert told.core.settled < told.core.number


def test_a_page_that_would_leave_a_gap_is_not_kept_and_the_answer_says_where_to_go_on() -> None:
    told = Told()
    told(on.Keep(1, CopyPage("c2", "s", 4, 9)))
    assert told.all(do.SaveCopies) == []
    assert told.all(do.AnswerKeep) == [do.AnswerKeep(1, 0)]


def test_a_part_is_kept_only_with_those_before_it() -> None:
    told = Told()
    page = CopyPage("c2", "s", 0, 0, (CopiedRun("r", 9, (("run", "{}"),)),))
    for part, kept in ((0, True), (1, True), (0, True), (2, True), (4, False), (3, True)):  # the second 0 was delayed
        told(on.Keep(1, replace(page, part=part)))
        assert bool(told.all(do.SaveCopies)) is kept
    told.core.copies.forget("c2", "s")
    last = CopyPage("c2", "s", 0, 9, (CopiedRun("r", 9, (), RunHead("r", "c2", "s", 1, number=9)),), part=4)
    told(on.Keep(1, last))
    assert told.all(do.SaveCopies) == []
    assert told.all(do.AnswerKeep) == [do.AnswerKeep(1, 0)]  # all is to be told anew


def test_a_page_of_what_was_told_before_does_not_fit_once_a_later_telling_has_begun() -> None:
    """It begins where the follower is, but the parts of the later telling have changed what that page is a change of."""
    told = Told()
    told(on.Keep(1, CopyPage("c2", "s", 0, 1, (CopiedRun("r", 1, (("run", "{}"),), HEAD),), begun=1)))
    late = CopyPage("c2", "s", 1, 2, (CopiedRun("r", 2, (("run", "{}"),), HEAD),), begun=2)
    told(on.Keep(2, CopyPage("c2", "s", 1, 1, (CopiedRun("r", 9, forgotten=True),), begun=9)))
    assert told.all(do.SaveCopies)
    told(on.Keep(3, late))
    assert told.all(do.SaveCopies) == []
    assert told.all(do.AnswerKeep) == [do.AnswerKeep(3, 1)]
    told(on.Keep(4, CopyPage("c2", "s", 1, 1, (CopiedRun("r", 12, (("run", "{}"),)),), part=1, begun=12)))
    assert told.all(do.SaveCopies) == [], "its first part has not come"
    told(on.Keep(5, CopyPage("c2", "s", 1, 9, (), part=1, begun=9)))
    assert told.all(do.AnswerKeep) == [do.AnswerKeep(5, 9)]
    told.core.copies.forget("c2", "s")
    told(on.Keep(6, replace(late, after=0)))
    assert told.all(do.SaveCopies) == [], "nor when copies were dropped"


# --- adoption -----------------------------------------------------------------------------------------------------------

HEAD = RunHead("r", "c2", "c2-store", 1, number=5)


def orphaned(told: Told, *heads: tuple[str, RunHead], sees: Iterable[str] = ()) -> None:
    """c2 is gone; every peer asked tells these heads."""
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    for _ in range(2):  # whose runs, then which states of them
        questions = told.all(do.AskCopies)
        assert questions
        told(
            *(
                on.CopiesTold(q.peer, q.token, tuple(h for p, h in heads if p == q.peer), frozenset(sees))
                for q in questions
            )
        )


def snapshot(*tasks: TaskRecord, status: RunStatus = RunStatus.RUNNING) -> Snapshot:
    workers = {
        "a": WorkerRecord("r", "a", WorkerStatus.RUNNING, attempts=1),
        "b": WorkerRecord("r", "b", WorkerStatus.CREATED),
    }
    return Snapshot(RunRecord("r", "w", status, "c2", 1, 90.0), FLOW, workers, tasks)


def test_the_runs_of_an_owner_that_is_gone_are_gathered_by_the_one_they_fall_to() -> None:
    heir = ranked(("c1", "c3"), "r")[0]
    for name in ("c1", "c3"):
        told = Told(name)
        told(coordinator("c2"), coordinator("c3" if name == "c1" else "c1"), node("n1"))
        orphaned(told, ("n1", HEAD))
        assert told.all(do.Gather) == ([do.Gather("n1", HEAD, 2)] if name == heir else [])


def test_an_owner_that_is_gone_may_have_any_run_until_all_in_sight_have_said_which() -> None:
    told = Told(adopt_after=1.0)
    told(coordinator("c2"), node("n1"))
    assert told.core.succession.may_own("r") == []
    told(on.CoordinatorGone("c2", "c2-1"))
    assert told.core.succession.may_own("other") == [("c2", "c2-store")]
    told(after=1.0)
    (token,) = {ask.token for ask in told.all(do.AskCopies)}
    told(on.CopiesTold("c1", token, (), frozenset()))
    assert told.core.succession.may_own("other") == [("c2", "c2-store")]  # n1 has not said yet
    told(on.CopiesTold("n1", token, (HEAD,), frozenset()))
    assert told.core.succession.may_own("other") == []
    assert told.core.succession.may_own(HEAD.run) == [("c2", "c2-store")]
    assert told.core.succession.may_own(None) == [("c2", "c2-store")]


def test_an_owner_that_somebody_in_reach_still_sees_is_not_gone() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    told(*(on.CopiesTold(q.peer, q.token, (HEAD,), frozenset({"c2"})) for q in told.all(do.AskCopies)))
    assert not told.all(do.AskCopies)
    assert not told.all(do.Gather)
    (timer,) = told.all(do.SetTimer)
    assert timer.at is not None
    told(after=timer.at - told.now)
    assert told.all(do.AskCopies)  # it is asked again


def told_about(told: Told, heads: Mapping[str, tuple[RunHead, ...]], silent: Iterable[str] = ()) -> set[str]:
    """Have those that are asked about an owner tell these heads, but for those that do not answer yet; who is asked."""
    asked = [q for q in told.all(do.AskCopies) if q.owner]
    told(*(on.CopiesTold(q.peer, q.token, heads.get(q.peer, ())) for q in asked if q.peer not in silent))
    return {q.peer for q in asked}


END = replace(HEAD, number=9, final=True, completed_at=99.0)
UNMET: dict[str, on.NodeUnreachable | on.CoordinatorGone] = {
    "n2": on.NodeUnreachable("n2", "n2-1"),
    "c3": on.CoordinatorGone("c3", "c3-1"),
}
"""Peers that are being met, which takes long where a message is lost, and how it is told that they are gone."""


@pytest.mark.parametrize("peer", UNMET)
def test_peers_that_are_not_met_yet_are_asked_for_their_copies_too(peer: str) -> None:
    """One may have the end that an owner told before it lost its disk, all others an older copy (seed 41115337)."""
    told = Told()
    told(coordinator("c2"), node("n1"), on.TokenSeen(peer, f"{peer}-1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    for _ in range(2):
        assert told_about(told, {"n1": (HEAD,), peer: (END,)}) == {"c1", "n1", peer}
    assert told.all(do.Gather) == [do.Gather(peer, END, 2)]


@pytest.mark.parametrize("peer", UNMET)
def test_who_has_gone_before_it_was_met_is_not_waited_for(peer: str) -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), on.TokenSeen(peer, f"{peer}-1"))
    told(on.CoordinatorGone("c2", "c2-1"), replace(UNMET[peer], incarnation="another life"))
    told(after=1.0)
    assert told_about(told, {"n1": (HEAD,)}, silent=[peer]) == {"c1", "n1", peer}
    assert told.all(do.AskCopies) == []
    told(UNMET[peer])
    assert told_about(told, {"n1": (HEAD,)}) == {"c1", "n1"}
    assert told.all(do.Gather) == [do.Gather("n1", HEAD, 2)]


@pytest.mark.parametrize("silences", [1, 2])
def test_all_are_asked_once_more_where_one_in_sight_does_not_answer(silences: int) -> None:
    """It may have the end of the run, and its answer may just have been lost."""
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    heads = {"n1": (HEAD,), "n2": (END,)}
    told_about(told, heads)
    for _ in range(silences):
        questions = told.all(do.AskCopies)
        assert {q.peer for q in questions} == {"c1", "n1", "n2"}
        told_about(told, heads, silent=["n2"])
        assert told.all(do.Gather) == []
        told(*(on.CopiesUntold(q.peer, q.token) for q in questions if q.peer == "n2"))
    if silences == 1:
        told_about(told, heads)
    assert [gather.head for gather in told.all(do.Gather)] == [END if silences == 1 else HEAD]


@pytest.mark.parametrize("untold_first", [True, False])
def test_nobody_is_asked_once_more_where_one_that_has_gone_does_not_answer(untold_first: bool) -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    told_about(told, {"n1": (HEAD,)})
    (last,) = (q for q in told.all(do.AskCopies) if q.peer == "n2")
    lost, gone = on.CopiesUntold("n2", last.token), on.NodeUnreachable("n2", "n2-1")
    questions = told.all(do.AskCopies)
    told(*((lost, gone) if untold_first else (gone, lost)))
    told(*(on.CopiesTold(q.peer, q.token, (HEAD,)) for q in questions if q.peer != "n2"))
    assert [gather.head for gather in told.all(do.Gather)] == [HEAD]


def test_who_is_met_is_asked_once_and_no_more_once_it_has_gone() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), on.TokenSeen("n2", "n2-1"), node("n2"))
    told(on.NodeUnreachable("n2", "n2-1"), on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    assert told_about(told, {}) == {"c1", "n1"}


def test_a_peer_that_is_never_met_and_does_not_answer_keeps_no_question_open() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), on.TokenSeen("n2", "n2-1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    questions = [q for q in told.all(do.AskCopies) if q.owner]
    assert told.core.succession.may_own("r") == [("c2", "c2-store")]
    told_about(told, {}, silent=["n2"])
    told(*(on.CopiesUntold(q.peer, q.token) for q in questions if q.peer == "n2"))
    assert told.core.succession.may_own("r") == []


def test_the_end_of_a_peers_former_life_is_no_answer_of_the_one_that_is_being_met() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"), on.TokenSeen("n2", "n2-2"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    assert told_about(told, {"n1": (HEAD,)}) == {"c1", "n1", "n2"}
    told_about(told, {"n1": (HEAD,)}, silent=["n2"])
    told(on.NodeUnreachable("n2", "n2-1"))
    assert told.all(do.Gather) == []
    assert told_about(told, {"n1": (HEAD,), "n2": (END,)}) == {"c1", "n1", "n2"}
    assert told.all(do.Gather) == [do.Gather("n2", END, 2)]


def test_a_node_that_is_not_met_yet_is_no_node_in_sight() -> None:
    """Who reaches no other may be cut off itself: only what has ended is taken over."""
    told = Told(quorum=2)
    told(coordinator("c2"), on.TokenSeen("n1", "n1-1"))
    assert told.core.succession.peers_in_sight == 2
    told(on.CoordinatorGone("c2", "c2-1"))
    assert not told(after=1.0).all(do.AskCopies)
    told = Told()
    told(coordinator("c2"), on.TokenSeen("n1", "n1-1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    ended = replace(END, run="ended")
    for _ in range(2):
        assert told_about(told, {"n1": (HEAD, ended)}) == {"c1", "n1"}
    assert told.all(do.Gather) == [do.Gather("n1", ended, 2)]


@pytest.mark.parametrize("when", ["before it is asked", "before the copy is here"])
def test_the_run_of_an_owner_that_is_being_met_is_left_to_it(when: str) -> None:
    """It has taken the run over itself, and says so when it is asked."""
    told = Told()
    theirs = replace(HEAD, owner="c3", store="c3-store", epoch=2)
    token = on.TokenSeen("c3", "c3-1")
    told(coordinator("c2"), node("n1"), *([token] if when == "before it is asked" else []))
    orphaned(told, ("n1", HEAD), ("n1", theirs), ("c3", theirs))
    if when == "before the copy is here":
        assert [gather.head for gather in told.all(do.Gather)] == [theirs]
        told(token, on.Gathered(theirs, 3, snapshot()))
        assert told.all(do.AdoptRun) == []
    else:
        assert told.all(do.Gather) == []
        told(on.CoordinatorGone("c3", "c3-1"))
        told(after=1.0)
        for _ in range(2):
            told_about(told, {"n1": (HEAD, theirs)})
        assert [gather.head for gather in told.all(do.Gather)] == [theirs]


def test_peers_are_asked_in_turn_for_copies_that_they_got_of_an_owner_that_nobody_else_saw() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    told(*(on.CopiesTold(q.peer, q.token, ()) for q in told.all(do.AskCopies)))
    asked, start = list[str](), told.now
    for _ in range(7):
        (timer,) = told.all(do.SetTimer)
        assert timer.at is not None
        asked += [q.peer for q in told(after=timer.at - told.now).all(do.AskCopies)]
        told(*(on.CopiesTold(q.peer, q.token, ()) for q in told.all(do.AskCopies)))
    assert asked[:3] == asked[3:6] == asked[:6][-3:]
    assert set(asked[:3]) == {"c2", "n1", "n2"}
    assert told.now - start == LOOK_EVERY * 7 / 4, "each once in about a minute"
    while "n1" not in (peers := [q.peer for q in told.all(do.AskCopies)]):
        told(*(on.CopiesTold(q.peer, q.token, ()) for q in told.all(do.AskCopies)))
        told(after=LOOK_EVERY / 4)
    assert peers == ["n1"]
    lost = replace(HEAD, owner="c9", store="c9-store")  # only the node has ever seen this owner
    told(*(on.CopiesTold(q.peer, q.token, (lost,)) for q in told.all(do.AskCopies)))
    told(after=told.core.options.adopt_after)
    assert {(q.peer, q.owner) for q in told.all(do.AskCopies)} == {(peer, "c9") for peer in ("c1", "c2", "n1", "n2")}


def test_without_a_quorum_nothing_is_assigned_or_taken_over() -> None:
    told = Told(quorum=3)
    told(coordinator("c2"), node("n1"))
    told(on.Submit("own", FLOW))
    assert [e.assignment.id for e in told.all(do.Assign)] == [TaskId("own", "a", 1)]
    told(on.CoordinatorGone("c2", "c2-1"))
    told(on.Submit("other", FLOW))
    assert told.all(do.Assign) == []
    told(after=1.0)
    assert told.all(do.AskCopies) == []
    told(coordinator("c3"))
    assert [e.assignment.id for e in told.all(do.Assign)] == [TaskId("other", "a", 1)]


def adopter() -> tuple[Told, int]:
    """A core with a quorum that has taken over a run, and the commit with which it did."""
    told = Told(quorum=2, replicas=1)
    told(coordinator("c2"), node("n1"))
    follow(told, ("n1",))
    orphaned(told, ("n1", HEAD))
    told(on.Gathered(HEAD, 2, snapshot()))
    return told, told.core.number


def end(told: Told) -> None:
    """All that its run needs to end."""
    told(on.CancelRun("r"), on.RunsClaimed("n1", {"r": 2}, {}))


def test_with_a_quorum_a_run_taken_over_ends_once_that_is_settled() -> None:
    told, adopted = adopter()
    end(told)
    done = told.core.runs["r"]
    assert (done.left, done.status.final) == (0, False)
    told(kept("n1", adopted))
    assert told.core.runs == {}
    assert [run.run.status for run in told.all(do.SaveRun)] == [RunStatus.CANCELLED]


def test_a_run_taken_over_does_not_end_out_of_sight_of_a_quorum_and_is_settled_anew_after_it() -> None:
    told, adopted = adopter()
    told(kept("n1", adopted))
    told(on.NodeUnreachable("n1", "n1-1"))
    end(told)
    assert "r" in told.core.runs
    told(node("n1"))
    number = told.core.number
    told(kept("n1", adopted))
    assert number > adopted
    assert "r" in told.core.runs
    assert do.Ship("n1", adopted) in told.effects
    told(kept("n1", number, since=adopted))
    assert told.core.runs == {}


def test_it_is_settled_anew_also_where_the_batch_that_brings_the_quorum_back_ends_it() -> None:
    told, adopted = adopter()
    told(kept("n1", adopted))
    assert told.core.settled == adopted
    told(on.NodeUnreachable("n1", "n1-1"))
    told(node("n1"), on.CancelRun("r"), on.RunsClaimed("n1", {"r": 2}, {}))
    assert "r" in told.core.runs
    told(kept("n1", told.core.number))
    assert told.core.runs == {}
    told, adopted = adopter()
    told(kept("n1", adopted))
    told(on.NodeUnreachable("n1", "n1-1"), node("n1"), on.CancelRun("r"), on.RunsClaimed("n1", {"r": 2}, {}))
    assert "r" in told.core.runs, "it was out of sight within one batch"


def test_with_a_quorum_an_end_that_comes_while_an_older_state_is_fetched_stands() -> None:
    told = Told(quorum=2, replicas=1)
    told(coordinator("c2"), node("n1"))
    follow(told, ("n1",))
    orphaned(told, ("n1", HEAD))
    assert told.all(do.Gather)
    end = replace(HEAD, number=9, final=True, completed_at=99.0)
    told(on.Keep(7, CopyPage(HEAD.owner, HEAD.store, 0, 9, (CopiedRun("r", 9, (), end),))))
    told(on.Gathered(HEAD, 2, snapshot()))
    assert told.all(do.AdoptRun) == []


def test_what_stands_in_for_a_state_after_a_retry_is_taken_over_as_that() -> None:
    """Of lower standing than what it was taken over from, it would be let go for that, and taken over again, for ever."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    stand_in = replace(HEAD, number=0, retried=1)
    before = snapshot()
    told(on.Gathered(stand_in, 2, replace(before, run=replace(before.run, cancel_requested=True))))
    (adopted,) = told.all(do.AdoptRun)
    assert (adopted.snapshot.run.retried, adopted.snapshot.run.cancel_requested) == (1, False)
    assert told.core.runs["r"].head(told.core.store).standing > stand_in.standing


def test_with_a_quorum_a_retry_is_settled_before_its_end() -> None:
    told = Told(quorum=2)
    told(coordinator("c2"))
    follow(told, ("c2",))
    ended = snapshot(status=RunStatus.FAILED)
    failed = {name: replace(worker, status=WorkerStatus.FAILED) for name, worker in ended.workers.items()}
    told(on.RetryRun(replace(ended, workers=failed)))
    retried = told.core.number
    told(on.CancelRun("r"))
    assert "r" in told.core.runs
    told(kept("c2", retried))
    assert told.core.runs == {}


def test_with_a_quorum_a_later_owner_gives_way_to_an_end_that_any_peer_tells_of() -> None:
    told, _ = adopter()
    told(after=told.core.options.adopt_after)
    (token,) = {question.token for question in told.all(do.AskCopies)}
    told(on.CopiesTold("n1", token, (replace(HEAD, number=9, final=True, completed_at=99.0),), frozenset({"c2"})))
    assert told.core.runs == {}


@pytest.mark.parametrize("owner", ["c1", "c3"])
def test_worse_copies_go_once_a_better_state_is_on_as_many_stores_as_an_acknowledgement_takes(owner: str) -> None:
    told = Told(replicas=2)
    told(coordinator("c2"), coordinator("c3"), node("n1"), node("n2"))
    better = RunHead("r", owner, f"{owner}-store", 2)
    orphaned(told, ("n1", HEAD), ("n1", better), (owner, better))
    assert told.all(do.Forget) == []  # one disk more and it would be on none
    told(after=1.0)
    for _ in range(2):
        heads = {"n1": (HEAD, better), "n2": (better,), owner: (better,)}
        told(*(on.CopiesTold(q.peer, q.token, heads.get(q.peer, ())) for q in told.all(do.AskCopies)))
    assert told.all(do.Forget) == [do.Forget("n1", HEAD)]


@pytest.mark.parametrize("owner", ["c1", "c3"])
@pytest.mark.parametrize("still", [True, False])
def test_worse_copies_stay_where_an_owner_has_let_go_of_the_better_state(owner: str, still: bool) -> None:
    told = Told(replicas=1)
    told(coordinator("c2"), coordinator("c3"), node("n1"), node("n2"))
    better = RunHead("r", owner, f"{owner}-store", 2)
    keepers = ("n1", "n2", "c1", "c3") if still else tuple({"n1", "n2", "c1", "c3"} - {owner})
    orphaned(told, ("n1", HEAD), *((peer, better) for peer in keepers))
    assert told.all(do.Forget) == ([do.Forget("n1", HEAD)] if still else [])


@pytest.mark.parametrize(
    ("keepers", "dropped"),
    [
        ({"n1"}, False),  # this coordinator will have a copy of its own, and has none yet
        ({"c1"}, True),  # the runtime may be on the owner's data folder, and then keeps none
        ({"c1", "n1"}, True),
    ],
)
def test_of_another_owners_state_no_peer_but_a_runtime_may_be_without_a_copy_where_worse_ones_go(
    keepers: set[str], dropped: bool
) -> None:
    told = Told(replicas=2)
    told(coordinator("c2"), coordinator("c3"), node("n1"))
    better = RunHead("r", "c3", "c3-store", 2)
    orphaned(told, ("n1", HEAD), ("c3", better), *((peer, better) for peer in sorted(keepers)))
    assert told.all(do.Forget) == ([do.Forget("n1", HEAD)] if dropped else [])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("owner", "nodes", "last"),
    [
        ("c1", ("n1",), node("n2")),  # has no copy yet, and from now on must have one
        ("c1", ("n1", "n2", "n3"), on.NodeUnreachable("n2", "n2-1")),  # had one of the copies
        ("c3", ("n1", "n2"), on.CoordinatorGone("c3", "c3-1")),  # nobody keeps more copies of its runs now
    ],
)
def test_worse_copies_stay_where_a_peer_came_or_went_in_the_batch_that_tells_of_them(
    owner: str, nodes: tuple[str, ...], last: on.CoordinatorEvent, together: bool
) -> None:
    told = Told(replicas=2)
    told(coordinator("c2"), *([] if owner == "c1" else [coordinator(owner)]), *map(node, nodes))
    told(on.CoordinatorGone("c2", "c2-1"))
    better = RunHead("r", owner, f"{owner}-store", 2)
    heads = {"n1": (HEAD, better), "n2": (better,), owner: (better,)}

    def answers() -> list[on.CopiesTold]:
        return [on.CopiesTold(q.peer, q.token, heads.get(q.peer, ())) for q in told.all(do.AskCopies)]

    told(after=1.0)
    told(*answers())
    told(*answers(), *([last] if together else []))
    assert told.all(do.Forget) == ([] if together else [do.Forget("n1", HEAD)])


def test_a_run_is_taken_over_only_once_as_many_peers_as_a_quorum_have_told_their_copies() -> None:
    told = Told(quorum=3)
    told(coordinator("c2"), node("n1"), node("n2"))
    told(on.CoordinatorGone("c2", "c2-1"), after=1.0)
    told(after=1.0)

    def answer() -> None:
        for question in told.all(do.AskCopies):
            silent = question.peer == "n2" and question.runs
            heads = (HEAD,) if question.peer == "n1" else ()
            said = on.CopiesTold(question.peer, question.token, heads, frozenset())
            told(on.CopiesUntold(question.peer, question.token) if silent else said)

    answer()
    answer()
    answer()  # n2 is asked once more
    assert not told.all(do.Gather)  # it may have a newer state
    told(after=1.0)
    told(*(on.CopiesTold(q.peer, q.token, (HEAD,), frozenset()) for q in told.all(do.AskCopies)))
    told(*(on.CopiesTold(q.peer, q.token, (HEAD,), frozenset()) for q in told.all(do.AskCopies)))
    assert [gather.head for gather in told.all(do.Gather)] == [HEAD]


def test_an_adopted_run_waits_until_its_nodes_have_told_what_they_know() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    orphaned(told, ("n1", HEAD))
    task = TaskRecord("r", "a", 1, "n1", TaskStatus.RUNNING, 91.0, 92.0)
    told(on.Gathered(HEAD, 2, snapshot(task)))
    assert [e.snapshot.run.owner for e in told.all(do.AdoptRun)] == ["c1"]
    assert {(c.node, c.runs) for c in told.all(do.Claim)} == {("n1", (("r", 2),)), ("n2", (("r", 2),))}
    done = Fact(FactKind.FINISHED, "r", "a", 1, at=99.0, started_at=92.0, status=TaskStatus.SUCCEEDED)
    told(on.RunsClaimed("n1", {"r": 2}, {}, (done,)))
    assert told.all(do.Assign) == []  # n2 may have an attempt of b that no copy tells of
    hidden = Fact(FactKind.STARTED, "r", "b", 1, at=99.5, pid=7)
    told(on.RunsClaimed("n2", {"r": 2}, {TaskId("r", "b", 1): 1}, (hidden,)))
    assert told.all(do.Assign) == []  # it had
    saved = {e.task.id: (e.task.node, e.task.status) for e in told.all(do.SaveTask)}
    assert saved == {TaskId("r", "b", 1): ("n2", TaskStatus.RUNNING)}


@pytest.mark.parametrize("when", ["as it is taken over", "while it waits", "while it goes on"])
def test_an_adopted_run_waits_also_for_a_node_that_was_met_without_being_asked_about_it(when: str) -> None:
    """It was being asked then, and may have been given a worker since by another coordinator that took the run over as well."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    orphaned(told, ("n1", HEAD))
    running = TaskRecord("r", "a", 1, "n1", TaskStatus.RUNNING, 91.0, 92.0)
    adopted = on.Gathered(HEAD, 2, snapshot(running))
    heard = on.RunsClaimed("n1", {"r": 2}, {running.id: 1})
    batches: dict[str, list[tuple[on.CoordinatorEvent, ...]]] = {
        "as it is taken over": [(adopted, node("n2")), (heard,)],
        "while it waits": [(adopted,), (node("n2"),), (heard,)],
        "while it goes on": [(adopted,), (heard,), (node("n2"),)],
    }
    for batch in batches[when]:
        told(*batch)
    done = Fact(FactKind.FINISHED, "r", "a", 1, at=99.0, started_at=92.0, status=TaskStatus.SUCCEEDED)
    told(on.FactsLearned("n1", "n1-store", 1, (done,)))
    assert told.core.runs["r"].workers["b"].status is WorkerStatus.READY
    assert told.all(do.Assign) == []
    theirs = TaskId("r", "b", first_attempt(2, "c3-store"))
    told(on.RunsClaimed("n2", {"r": 2}, {theirs: 2}))
    assert [(e.task.id, e.task.node) for e in told.all(do.SaveTask)] == [(theirs, "n2")]
    assert told.all(do.Assign) == []


def test_a_run_does_not_wait_for_such_a_node_once_it_is_out_of_sight() -> None:
    told = Told()
    _adopting(told, RunStatus.RUNNING, {"a": WorkerRecord("r", "a", WorkerStatus.READY, attempts=1)})
    told(node("n2"), on.RunsClaimed("n1", {"r": 2}, {}))
    assert [c.node for c in told.all(do.Claim)] == ["n2"]
    assert told.all(do.Assign) == []
    told(on.NodeUnreachable("n2", "n2-1"))
    assert [(e.assignment.worker, e.node) for e in told.all(do.Assign)] == [("a", "n1")]


@pytest.mark.parametrize("how", ["an answer", "a refusal", "a meeting"])
def test_an_answer_to_an_earlier_claim_of_a_run_is_none_to_that_of_a_later_epoch(how: str) -> None:
    """The run was let go of and taken over again meanwhile, and its owner in between may have given that node a worker."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    orphaned(told, ("n1", HEAD))
    ready = replace(snapshot(), workers={"a": WorkerRecord("r", "a", WorkerStatus.READY, attempts=1)})
    told(on.Gathered(HEAD, 2, ready))
    theirs = replace(HEAD, owner="c3", store="c3-store", epoch=3)
    told(on.Keep(1, CopyPage("c3", "c3-store", 0, 1, (CopiedRun("r", 1, (), theirs),))))
    assert told.core.runs == {}
    told(on.Gathered(theirs, 4, ready))
    assert [c.runs for c in told.all(do.Claim)] == [(("r", 4),)]
    late: dict[str, on.CoordinatorEvent] = {
        "an answer": on.RunsClaimed("n1", {"r": 2}, {}),
        "a refusal": on.RunsClaimed("n1", {"r": 2}, {}, (), (("r", 3, "c3"),)),
        "a meeting": replace(node("n1"), claimed={"r": 2}),
    }
    told(late[how])
    assert told.all(do.Assign) == []
    assert told.core.nodes["n1"].claims == {"r": 4}
    hidden = TaskId("r", "a", first_attempt(3, "c3-store"))
    told(on.RunsClaimed("n1", {"r": 4}, {hidden: 4}))
    assert told.all(do.Assign) == []
    assert [(e.task.id, e.task.node) for e in told.all(do.SaveTask)] == [(hidden, "n1")]
    assert told.core.nodes["n1"].claims == {}


def test_a_node_that_refused_a_claim_in_its_owners_own_later_epoch_is_claimed_once_more() -> None:
    """A backup was restored, which does not remember that epoch; the node has not told yet what it knows of the run."""
    told = Told()
    told(node("n1"), node("n2"))
    workers = {name: WorkerRecord("r", name, WorkerStatus.CANCELLED) for name in ("a", "b")}
    run = RunRecord("r", "w", RunStatus.CANCELLED, "c1", 2, 90.0, completed_at=95.0, cancel_requested=True, adopted=2)
    told(on.RetryRun(Snapshot(run, FLOW, workers, ())))
    for name in ("n1", "n2"):  # the epoch is taken on with the first
        told(on.RunsClaimed(name, {"r": 3}, {}, (), (("r", 5, "c1"),)))
        assert told.all(do.Claim) == [do.Claim(name, (("r", 5),))]
        assert told.core.nodes[name].claims == {"r": 5}
    told(on.RunsClaimed("n1", {"r": 5}, {}))
    assert told.all(do.Assign) == []
    hidden = TaskId("r", "a", 1)
    told(on.RunsClaimed("n2", {"r": 5}, {hidden: 5}))
    assert [(e.task.id, e.task.node) for e in told.all(do.SaveTask)] == [(hidden, "n2")]
    assert told.all(do.Assign) == []


def test_what_a_node_that_is_back_knows_of_a_run_comes_before_what_it_holds() -> None:
    """Its first word does not say that it holds nothing: what was given to it once is not given again."""
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    orphaned(told, ("n1", HEAD))
    told(on.Gathered(HEAD, 2, snapshot(TaskRecord("r", "a", 1, "n1", TaskStatus.RUNNING, 91.0, 92.0))))
    begun = Fact(FactKind.STARTED, "r", "b", 1, at=99.5, pid=7)
    told(on.RunsClaimed("n2", {"r": 2}, None, (begun,)))
    assert told.all(do.Assign) == []
    told(on.RunsClaimed("n1", {"r": 2}, {TaskId("r", "a", 1): 1}))
    assert told.all(do.Assign) == []


def test_an_attempt_that_failed_may_be_heard_of_before_the_success_of_what_its_worker_needed() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    orphaned(told, ("n1", HEAD))
    told(on.Gathered(HEAD, 2, snapshot(TaskRecord("r", "a", 1, "n1", TaskStatus.RUNNING, 91.0, 92.0))))
    failed = Fact(FactKind.FINISHED, "r", "b", 1, at=99.0, started_at=95.0, status=TaskStatus.FAILED, exit_code=1)
    told(on.RunsClaimed("n2", {"r": 2}, {}, (failed,)))
    assert {e.worker.name: e.worker.status for e in told.all(do.SaveWorker)}["b"] is WorkerStatus.FAILED
    assert "r" in told.core.runs
    done = Fact(FactKind.FINISHED, "r", "a", 1, at=94.0, started_at=92.0, status=TaskStatus.SUCCEEDED)
    told(on.RunsClaimed("n1", {"r": 2}, {}, (done,)))
    assert [e.run.status for e in told.all(do.SaveRun)] == [RunStatus.FAILED]


def _adopting(told: Told, status: RunStatus, workers: Mapping[str, WorkerRecord]) -> None:
    """Have a run taken over from c2, in epoch 2."""
    told(coordinator("c2"), node("n1"))
    head = replace(HEAD, final=status.final, completed_at=95.0 if status.final else 0.0)
    orphaned(told, ("n1", head))
    kept = snapshot(TaskRecord("r", "a", 1, "n9", TaskStatus.LOST, 91.0), status=status)
    run = replace(kept.run, completed_at=95.0 if status.final else None)
    told(on.Gathered(head, 2, replace(kept, run=run, workers=workers)))


FOLDERS = [("c1", "x"), ("c1", "y"), ("c3", "z")]
"""Coordinators that take over the same run in the same epoch, none knowing of the others; one was set up anew on an empty folder."""


def test_new_attempts_of_an_adopted_run_have_numbers_of_their_own() -> None:
    numbers = []
    for name, store in FOLDERS:
        told = Told(name, store)
        _adopting(told, RunStatus.RUNNING, {"a": WorkerRecord("r", "a", WorkerStatus.READY, attempts=1)})
        told(on.RunsClaimed("n1", {"r": 2}))
        numbers += [e.assignment.attempt for e in told.all(do.Assign)]
    assert len(set(numbers)) == 3
    assert min(numbers) > 1000, "the one that submitted it may have given that out meanwhile"


def test_a_run_that_is_retried_by_who_took_it_over_when_it_had_ended_has_numbers_of_its_own_too() -> None:
    """The one that submitted it may have it go on as well, beyond a cut."""
    numbers = []
    for name, store in FOLDERS:
        told = Told(name, store)
        workers = {worker: WorkerRecord("r", worker, WorkerStatus.CANCELLED, attempts=1) for worker in ("a", "b")}
        _adopting(told, RunStatus.CANCELLED, workers)
        (adopted,) = told.all(do.AdoptRun)
        told(on.RetryRun(adopted.snapshot))
        told(on.RunsClaimed("n1", {"r": 3}))
        numbers += [e.assignment.attempt for e in told.all(do.Assign)]
    assert len(set(numbers)) == 3
    assert min(numbers) > 1000


@pytest.mark.parametrize(("left", "epoch"), [(0, 2), (1, 2), (3, 4)])
def test_a_run_that_was_let_go_of_for_an_earlier_epochs_end_is_taken_over_in_a_later_one(left: int, epoch: int) -> None:
    """Its numbers would else be given twice, and nodes would refuse what is commanded."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    orphaned(told, ("n1", HEAD))
    told(on.Gathered(HEAD, 2, snapshot(), left))
    assert [(e.snapshot.run.epoch, e.snapshot.run.adopted) for e in told.all(do.AdoptRun)] == [(epoch, epoch)]
    assert [c.runs for c in told.all(do.Claim)] == [(("r", epoch),)]
    ended = replace(HEAD, final=True, completed_at=95.0)
    told(on.CoordinatorGone("c2", "c2-1"), on.Gathered(ended, 2, snapshot()))
    assert [e.snapshot.run.epoch for e in told.all(do.AdoptRun)] == [
        epoch + 1
    ]  # it goes on from a state that counts more


@pytest.mark.parametrize("other", ["x1", "x2", "x3", "y"])  # with places on either side of its own
def test_an_owner_that_learns_of_anothers_attempts_goes_on_in_a_place_of_its_own(other: str) -> None:
    """It had the run go on by a retry, beyond a cut, in the same epoch in which another took it over."""
    told = Told()
    told(node("n1"))
    workers = {name: WorkerRecord("r", name, WorkerStatus.CANCELLED) for name in ("a", "b")}
    run = RunRecord("r", "w", RunStatus.CANCELLED, "c1", 1, 90.0, completed_at=95.0, cancel_requested=True)
    told(on.RetryRun(Snapshot(run, FLOW, workers, ())))
    (mine,) = told.all(do.Assign)
    known = first_attempt(2, other) + 3
    returned = Fact(FactKind.FINISHED, "r", "a", 1, at=99.0, status=TaskStatus.RETURNED)
    told(on.FactsLearned("n1", "n1-store", 1, (replace(returned, attempt=known), returned)), after=60.0)
    told(after=60.0)
    (given,) = told.all(do.Assign)
    assert (mine.assignment.attempt, mine.assignment.epoch) == (1, 2)
    assert given.assignment.attempt > known
    assert given.assignment.attempt in (first_attempt(2, "c1-store"), first_attempt(3, "c1-store"))


def test_an_adopted_run_that_is_retried_waits_until_its_nodes_have_told_what_they_know() -> None:
    """One of them may have been met after its end, and may still hold an attempt that no copy told of."""
    told = Told()
    told(node("n1"), node("n2"))
    workers = {name: WorkerRecord("r", name, WorkerStatus.CANCELLED) for name in ("a", "b")}
    run = RunRecord("r", "w", RunStatus.CANCELLED, "c1", 2, 90.0, completed_at=95.0, cancel_requested=True, adopted=2)
    told(on.RetryRun(Snapshot(run, FLOW, workers, ())))
    assert {(c.node, c.runs) for c in told.all(do.Claim)} == {("n1", (("r", 3),)), ("n2", (("r", 3),))}
    told(on.RunsClaimed("n1", {"r": 3}, {}))
    assert told.all(do.Assign) == []
    hidden = TaskId("r", "a", 1)
    told(on.RunsClaimed("n2", {"r": 3}, {hidden: 3}))
    assert told.all(do.Assign) == []
    assert [(e.task.id, e.task.node) for e in told.all(do.SaveTask)] == [(hidden, "n2")]
    told(on.FactsLearned("n2", "n2-store", 1, (Fact(FactKind.FINISHED, *hidden, at=99.0, status=TaskStatus.RETURNED),)))
    assert [(e.assignment.worker, e.node) for e in told.all(do.Assign)] == [("a", "n1")]


def test_a_final_run_gets_an_owner_and_stays_as_it_is() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"))
    final = replace(HEAD, final=True, completed_at=95.0)
    orphaned(told, ("n1", final))
    workers = {name: WorkerRecord("r", name, WorkerStatus.SUCCEEDED, attempts=1) for name in ("a", "b")}
    ended = replace(snapshot(status=RunStatus.SUCCEEDED), workers=workers)
    told(on.Gathered(final, 2, replace(ended, run=replace(ended.run, completed_at=95.0))))
    (adopted,) = told.all(do.AdoptRun)
    assert (adopted.snapshot.run.status, adopted.snapshot.run.completed_at) == (RunStatus.SUCCEEDED, 95.0)
    assert not told.all(do.Claim)
    assert not told.all(do.Assign)
    assert told.core.runs == {}


OLD = replace(HEAD, final=True, completed_at=95.0)
NEW = replace(OLD, store="c2-new", epoch=2, number=2)
CANCELLED = {name: WorkerRecord("r", name, WorkerStatus.CANCELLED) for name in ("a", "b")}
ENDED = Snapshot(RunRecord("r", "w", RunStatus.CANCELLED, "c2", 1, 90.0, completed_at=95.0), FLOW, CANCELLED, ())


def _two_inquiries(told: Told) -> tuple[list[do.AskCopies], list[do.AskCopies]]:
    """Which states of the run there are is asked because of two owners: c2, that was set up anew on an empty folder, and c2 before that."""
    told(coordinator("c2"), node("n1"))
    told(on.CoordinatorSeen("c2", "c2-2", "c2-new"), on.CoordinatorGone("c2", "c2-2"))
    told(after=1.0)
    told(
        *(
            on.CopiesTold(q.peer, q.token, (OLD if q.store == OLD.store else NEW,), frozenset())
            for q in told.all(do.AskCopies)
        )
    )
    asked = told.all(do.AskCopies)
    first = min(q.token for q in asked)
    return [q for q in asked if q.token == first], [q for q in asked if q.token != first]


def test_a_run_of_two_owners_that_are_gone_is_taken_over_once() -> None:
    told = Told()
    before, after = _two_inquiries(told)
    told(*(on.CopiesTold(q.peer, q.token, (OLD, NEW), frozenset()) for q in (*before, *after)))
    assert [(g.head, g.epoch) for g in told.all(do.Gather)] == [(NEW, 3)]


def test_what_was_told_before_a_run_that_had_ended_was_taken_over_does_not_undo_that() -> None:
    told = Told()
    before, after = _two_inquiries(told)
    told(*(on.CopiesTold(q.peer, q.token, (OLD,), frozenset()) for q in before if q.peer != "n1"))
    told(*(on.CopiesTold(q.peer, q.token, (OLD, NEW), frozenset()) for q in after))
    told(on.Gathered(NEW, 3, ENDED))
    assert [e.snapshot.run.epoch for e in told.all(do.AdoptRun)] == [3]
    told(*(on.CopiesTold(q.peer, q.token, ()) for q in before if q.peer == "n1"))
    assert [(g.head, g.epoch) for g in told.all(do.Gather)] == [(OLD, 2)]
    own = replace(OLD, owner="c1", store="c1-store", epoch=3)
    told(on.Gathered(OLD, 2, ENDED, own=own))
    assert not told.all(do.AdoptRun)
    retried = replace(OLD, retried=1)
    told(on.Gathered(retried, 2, ENDED, own=own))
    assert [e.snapshot.run.epoch for e in told.all(do.AdoptRun)] == [4]  # that state counts more


@pytest.mark.parametrize("submitted_first", [True, False])
@pytest.mark.parametrize("ended", [True, False])
def test_a_run_submitted_anew_in_the_batch_that_takes_it_over_is_stored_once(
    submitted_first: bool, ended: bool
) -> None:
    told = Told()
    _two_inquiries(told)
    copy = ENDED if ended else replace(ENDED, run=RunRecord("r", "w", RunStatus.RUNNING, "c2", 1, 90.0), workers={})
    events = [on.Submit("r", FLOW), on.Gathered(replace(NEW, final=ended), 3, copy)]
    told(*(events if submitted_first else reversed(events)))
    assert [e.snapshot.run.epoch for e in told.all(do.AdoptRun)] == [3]
    assert not told.all(do.CreateRun)


def test_a_run_is_being_fetched_until_its_copy_is_here() -> None:
    told = Told()
    before, after = _two_inquiries(told)
    told(*(on.CopiesTold(q.peer, q.token, (OLD, NEW), frozenset()) for q in (*before, *after)))
    assert told.core.succession.fetching("r")
    told(on.Gathered(NEW, 3, ENDED))
    assert not told.core.succession.fetching("r")


def test_an_owner_whose_store_forgot_its_epoch_takes_it_on_again() -> None:
    told = Told()
    told(node("n1"))
    told(on.Submit("r", FLOW))
    (first,) = told.all(do.Assign)
    told(on.Refused("n1", first.assignment.id, "FENCED", "run r belongs to c1 in epoch 3", 3, "c1"))
    assert [e.run.epoch for e in told.all(do.SaveRun)] == [3]
    (timer,) = told.all(do.SetTimer)
    assert timer.at is not None
    told(after=timer.at - told.now)
    assert [(e.assignment.id, e.assignment.epoch) for e in told.all(do.Assign)] == [(first.assignment.id, 3)]


@pytest.mark.parametrize(
    "how",
    [{"status": TaskStatus.RETURNED}, {"status": TaskStatus.RETURNED, "missing": ("in",)}, {"status": TaskStatus.LOST}],
)
def test_a_worker_that_waits_for_a_failed_one_is_skipped_once_its_open_attempt_has_ended(
    how: Mapping[str, Any],
) -> None:
    """So it may be where a run was taken over from rows of different moments: else it would wait for ever, and its run with it."""
    told = Told()
    flow = workflow(worker("a", on_failure="continue"), worker("b", "a"), worker("other"))
    workers = {
        "a": WorkerRecord("r", "a", WorkerStatus.FAILED, attempts=1),
        "b": WorkerRecord("r", "b", WorkerStatus.CREATED, attempts=1),
        "other": WorkerRecord("r", "other", WorkerStatus.SUCCEEDED, attempts=1),
    }
    open_attempt = TaskRecord("r", "b", 1, "n1", TaskStatus.ASSIGNED, 95.0)
    run = RunRecord("r", "w", RunStatus.RUNNING, "c1", 1, 90.0, started_at=91.0)
    told(node("n1"), on.Restore(Snapshot(run, flow, workers, (open_attempt,))))
    fact = Fact(FactKind.FINISHED, "r", "b", 1, at=100.0, **how)
    told(on.FactsLearned("n1", "n1-store", 1, (fact,)))
    assert [(saved.worker.name, saved.worker.status) for saved in told.all(do.SaveWorker)] == [
        ("b", WorkerStatus.SKIPPED)
    ]
    assert [announced.run.status for announced in told.all(do.AnnounceRun)] == [RunStatus.FAILED]
