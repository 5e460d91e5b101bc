"""A cancel counts for every state of a run, whichever owner took it: former owners, adopters and copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.test_replication import FLOW, HEAD, Told, coordinator, node, orphaned, snapshot
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.membership import RESEND_FIRST
from wattle.core.model import CopiedRun, CopyPage, Fact, FactKind, RunHead, TaskId, TaskRecord, TaskStatus

LATER = RunHead("r", "c2", "c2-store", 2, number=9)
"""Of another owner that has taken the run over."""


def keep(head: RunHead, *own: RunHead) -> on.Keep:
    page = CopyPage(head.owner, head.store, 0, 9, (CopiedRun("r", 9, (), head),))
    return on.Keep(1, page, own)


def running() -> Told:
    """c1 owns the run r, whose first attempt is open on n1."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    told(on.Submit("r", FLOW))
    return told


def test_an_owner_hears_from_a_former_ones_page_that_its_run_is_cancelled() -> None:
    told = running()
    told(keep(RunHead("r", "c0", "c0-store", 0, number=9, cancelled=True)))
    assert [e.run.cancel_requested for e in told.all(do.SaveRun)] == [True]
    assert [e.task for e in told.all(do.Cancel)] == [TaskId("r", "a", 1)]


def test_an_owner_hears_from_a_follower_that_its_run_is_cancelled() -> None:
    """Of a former owner that was gone for good before this one saw it."""
    told = running()
    told(on.Kept("c2", told.core.number, (RunHead("r", "c0", "c0-store", 0, number=9, cancelled=True),)))
    assert told.all(do.ReleaseRun) == []
    assert [e.run.cancel_requested for e in told.all(do.SaveRun)] == [True]
    assert [e.task for e in told.all(do.Cancel)] == [TaskId("r", "a", 1)]


def test_a_cancel_of_before_a_retry_is_none_of_after_it() -> None:
    assert not replace(LATER, retried=0).heeds(replace(HEAD, cancelled=True))
    for heeding in ({"retried": 1}, {"final": True}, {"cancelled": True}):
        assert replace(LATER, **heeding).heeds(replace(HEAD, cancelled=True))


def test_what_stands_in_for_an_owners_state_does_not_say_that_the_owner_has_heard() -> None:
    stand_in = replace(LATER, number=0, cancelled=True)
    assert not stand_in.heeds(replace(HEAD, cancelled=True))
    told = running()
    told(on.CancelRun("r"))
    told(on.Kept("n1", told.core.number, (stand_in,)))
    assert told.all(do.ReleaseRun) == [do.ReleaseRun(stand_in, handing=True)]


def test_a_former_owner_keeps_a_cancelled_run_stored_until_its_new_owner_has_heard() -> None:
    told = running()
    told(on.CancelRun("r"))
    told(keep(LATER))
    assert told.all(do.ReleaseRun) == [do.ReleaseRun(LATER, handing=True)]
    assert [e.run.cancel_requested for e in told.all(do.SaveRun)] == [True]
    assert told.core.runs == {}
    mine = RunHead("r", "c1", "c1-store", 1, number=told.core.number, cancelled=True)
    heard = replace(LATER, number=10, cancelled=True)
    told(on.Keep(2, CopyPage("c2", "c2-store", 9, 10, (CopiedRun("r", 10, (), heard),)), (mine,)))
    assert told.all(do.ReleaseRun) == [do.ReleaseRun(heard)]


def test_a_cancel_refused_by_a_node_in_the_batch_that_takes_it_is_stored() -> None:
    told = running()
    told(on.CancelRun("r"), on.Refused("n1", TaskId("r", "a", 1), "FENCED", "", 2, "c2"))
    assert [e.run.cancel_requested for e in told.all(do.SaveRun)] == [True]
    assert [e.handing for e in told.all(do.ReleaseRun)] == [True]


def test_a_cancelled_run_ends_though_its_attempt_never_came_to_its_node_and_later_ones_have_ended_there() -> None:
    """Another owner, beyond a cut, gave the later ones; the node knows nothing of this one and will not start it any more."""
    told = running()
    told(on.CancelRun("r"))
    passed = on.Refused("n1", TaskId("r", "a", 1), "PASSED", "attempt 155001 of this worker has ended here already")
    told(on.CancelAnswered("n1", ()), passed)
    assert [(claim.node, claim.runs) for claim in told.all(do.Claim)] == [("n1", (("r", 1),))]
    assert told.all(do.SaveTask) == [], "it may have ended there before"
    told(on.RunsClaimed("n1", {"r": 1}, {}))
    assert [e.task.status for e in told.all(do.SaveTask)] == ["returned"]
    assert [e.run.status for e in told.all(do.SaveRun)] == ["cancelled"]


def test_a_node_is_asked_for_the_end_of_what_it_was_ordered_to_end_until_it_tells() -> None:
    """Its hint may be lost, and the run have ended without it."""
    task = TaskId("r", "a", 1)
    ended = on.FactsLearned(
        "n1", "n1-store", 1, (Fact(FactKind.FINISHED, *task, at=99.0, status=TaskStatus.CANCELLED),)
    )
    told = running()
    told(on.CancelRun("r"), on.CancelAnswered("n1", (task,)))
    assert told.core.nodes["n1"].ending == {task}
    told(ended)
    assert told.core.nodes["n1"].ending == set()
    told = running()
    told(on.CancelRun("r"), ended, on.CancelAnswered("n1", (task,)))
    assert told.core.nodes["n1"].ending == set(), "it was told before the answer came"
    told = running()
    told(on.CancelRun("r"), on.CancelAnswered("n1", (task,)), on.NodeUnreachable("n1", "n1-1"))
    assert told.core.nodes["n1"].ending == set(), "once it is back it tells what it holds"


def test_an_order_that_is_refused_for_its_epoch_is_given_again_in_the_later_one_of_the_same_owner() -> None:
    task = TaskId("r", "a", 1)
    told = running()
    told(on.CancelRun("r"))
    told(on.Refused("n1", task, "FENCED", "run r belongs to c1 in epoch 3", 3, "c1"))
    told(after=RESEND_FIRST)
    assert told.all(do.Cancel) == [do.Cancel("n1", task, 3)]
    told(on.Refused("n1", task, "FENCED", "run r belongs to c2 in epoch 4", 4, "c2"))
    assert [e.head.owner for e in told.all(do.ReleaseRun)] == ["c2"]
    assert told.core.nodes["n1"].cancels == {}


def test_what_a_node_did_not_tell_before_an_adopted_run_ended_is_read_in_its_feed() -> None:
    """It answers the claim too late, and may have had an attempt that no copy told of."""
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    orphaned(told, ("n1", HEAD))
    (gather,) = told.all(do.Gather)
    told(on.Gathered(gather.head, gather.epoch, snapshot()))
    told(on.RunsClaimed("n1", {"r": 2}, {}), on.Undelivered("n2"))
    task = TaskId("r", "a", 7)
    told(on.FactsLearned("n2", "n2-store", 6, (Fact(FactKind.STARTED, *task, at=98.0, pid=1),)), on.CancelRun("r"))
    assert (told.all(do.ReadAgain), len(told.all(do.SaveCursor))) == ([], 1)
    told(on.FactsLearned("n2", "n2-store", 7, (Fact(FactKind.FINISHED, *task, at=99.0, status=TaskStatus.CANCELLED),)))
    assert [e.run.status for e in told.all(do.SaveRun)] == ["cancelled"]
    assert told.all(do.ReadAgain) == [do.ReadAgain(frozenset({"n1"}))]
    assert told.all(do.SaveCursor) == [], "or it would not be read from its start"
    assert told.core.nodes["n2"].claims == {}


@pytest.mark.parametrize("adopted", [0, 2])
def test_what_a_node_did_not_tell_before_its_runs_adopter_restarted_is_read_in_its_feed(adopted: int) -> None:
    """It was in sight at the adoption, had told the end before that, and is given up before the adopter's next life has met it."""
    task = TaskRecord("r", "a", 1, "n1", TaskStatus.RUNNING, 90.0, 91.0)
    stored = snapshot(task)
    told = Told(lost_after=3.0)
    told(on.Restore(replace(stored, run=replace(stored.run, owner="c1", epoch=2, adopted=adopted))))
    told(replace(node("n2"), claimed={"r": 2}), on.CancelRun("r"))
    assert (told.all(do.ReadAgain), told.core.nodes["n2"].claims) == ([], {})
    told(after=3.0)
    assert [e.run.status for e in told.all(do.SaveRun)] == ["cancelled"]
    assert [e.task.status for e in told.all(do.SaveTask)] == ["lost"]
    assert told.all(do.ReadAgain) == ([do.ReadAgain(frozenset({"n2"}))] if adopted else [])
    told(node("n1"), on.FactsLearned("n1", "n1-store", 1, (Fact(FactKind.FINISHED, *task.id, at=92.0),), first=True))
    assert [e.fact.id for e in told.all(do.SaveLateFact)] == [task.id]


def test_of_a_feed_that_is_read_again_all_counts_from_the_first_that_is_left() -> None:
    """Its node was out of sight as a run was taken over; what is on its way since before is told once more."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    orphaned(told, ("n1", HEAD))
    (gather,) = told.all(do.Gather)
    told(on.Gathered(gather.head, gather.epoch, snapshot()))
    assert told.all(do.ReadAgain) == [do.ReadAgain(frozenset({"n1"}))]
    heeded = []
    for number, first in ((57, False), (58, True), (59, False)):
        told(on.FactsLearned("n2", "n2-store", number, (), first))
        heeded += told.all(do.SaveCursor)
    assert heeded == [do.SaveCursor("n2", "n2-store", 58), do.SaveCursor("n2", "n2-store", 59)]


def test_an_adopter_ends_a_run_of_which_any_copy_is_cancelled() -> None:
    told = Told()
    told(coordinator("c2"), node("n1"), node("n2"))
    orphaned(told, ("n1", HEAD), ("n2", RunHead("r", "c0", "c0-store", 0, cancelled=True)))
    (gather,) = told.all(do.Gather)
    assert gather.peer == "n1"
    told(on.Gathered(gather.head, gather.epoch, snapshot()))
    assert [e.snapshot.run.cancel_requested for e in told.all(do.AdoptRun)] == [True]


@pytest.mark.parametrize(
    "cancelled",
    [
        pytest.param(replace(HEAD, number=9, cancelled=True), id="a newer state of the same owner"),
        pytest.param(RunHead("r", "c0", "c0-store", 0, number=9, cancelled=True), id="a former owner's"),
    ],
)
@pytest.mark.parametrize("fetching", [pytest.param(False, id="while asking"), pytest.param(True, id="while fetching")])
def test_an_adopter_ends_a_run_of_whose_cancel_a_page_tells_while_it_takes_it_over(
    cancelled: RunHead, fetching: bool
) -> None:
    """The owner of that page sees this coordinator already, and is not seen from here yet."""
    told = Told()
    told(coordinator("c2"), node("n1"))
    told(on.CoordinatorGone("c2", "c2-1"))
    told(after=1.0)
    told(*(on.CopiesTold(q.peer, q.token, (HEAD,) if q.peer == "n1" else ()) for q in told.all(do.AskCopies)))
    mine, other = told.all(do.AskCopies)
    assert (mine.peer, other.peer, other.runs) == ("c1", "n1", ("r",))
    told(on.CopiesTold("c1", mine.token, ()))
    answer = on.CopiesTold("n1", other.token, (HEAD,))
    told(*((answer, keep(cancelled)) if fetching else (keep(cancelled), answer)))
    (gather,) = told.all(do.Gather)
    told(on.Gathered(gather.head, gather.epoch, snapshot()))
    assert [e.snapshot.run.cancel_requested for e in told.all(do.AdoptRun)] == [True]


def test_an_owner_is_told_by_a_question_to_look_for_a_cancel_that_came_to_be_known_after_it_had_asked() -> None:
    """A former owner came back from a cut, told its cancel to one node, and was gone before anybody else saw it."""
    other = Told("c3")
    other(coordinator("c2"), coordinator("c1"), node("n1"))
    other(on.CoordinatorGone("c2", "c2-1"))
    other(after=1.0)
    other(*(on.CopiesTold(q.peer, q.token, (HEAD,) if q.peer == "n1" else ()) for q in other.all(do.AskCopies)))
    (question,) = (q for q in other.all(do.AskCopies) if q.peer == "c1")
    assert (question.owner, question.store, question.runs) == ("c2", "c2-store", ("r",))

    told = Told("c1")
    told(coordinator("c3"), node("n1"))
    told(on.Submit("r", FLOW))
    former = RunHead("r", "c2", "c2-store", 0, number=4, cancelled=True)
    told(on.OwnerInquired("c2", "c2-store"))
    told(after=1.0)
    heads = {"n1": (former,), "c1": (told.core.runs["r"].head("c1-store"),)}
    for _ in range(2):  # whose runs, then which states of them
        told(*(on.CopiesTold(q.peer, q.token, heads.get(q.peer, ())) for q in told.all(do.AskCopies)))
    assert [e.run.cancel_requested for e in told.all(do.SaveRun)] == [True]


def test_what_is_found_out_already_is_not_asked_anew_because_another_asks() -> None:
    told = Told()
    told(coordinator("c2"), coordinator("c3"), node("n1"))
    told(on.OwnerInquired("c2", "c2-store"), after=1.0)
    assert told(after=1.0).all(do.AskCopies) == [], "it is in sight"
    told(on.CoordinatorGone("c2", "c2-1"))
    assert {q.owner for q in told(after=1.0).all(do.AskCopies)} == {"c2"}
    told(
        on.OwnerInquired("c2", "c2-store"),
        *(on.CopiesTold(q.peer, q.token, ()) for q in told.all(do.AskCopies)),
    )
    assert told(after=10.0).all(do.AskCopies) == []


def test_copies_that_tell_of_a_cancel_stay_until_the_owner_has_heard() -> None:
    told = Told("c1")
    told(coordinator("c2"), coordinator("c3"), node("n1"))
    living = RunHead("r", "c3", "c3-store", 2, number=3)
    orphaned(told, ("n1", replace(HEAD, cancelled=True)), ("c3", living))
    assert told.all(do.Forget) == []
    assert told.all(do.Gather) == []
    told(after=1.0)
    heard = replace(living, cancelled=True, number=4)
    for _ in range(2):
        heads = {"n1": (replace(HEAD, cancelled=True), heard), "c3": (heard,), "c1": (heard,)}
        told(*(on.CopiesTold(q.peer, q.token, heads.get(q.peer, ())) for q in told.all(do.AskCopies)))
    assert told.all(do.Forget) == [do.Forget("n1", replace(HEAD, cancelled=True))]


def test_copies_of_an_owner_that_was_never_seen_are_asked_about() -> None:
    told = Told()
    told(node("n1"))
    told(keep(HEAD))
    told(after=1.0)
    assert {(q.owner, q.store) for q in told.all(do.AskCopies)} == {("c2", "c2-store")}
