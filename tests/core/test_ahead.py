"""Workers told ahead to the node of what they wait for: when, how many, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests.core.harness import Cluster, worker, workflow
from tests.core.outcomes import Outcome
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.ahead import AHEAD_MOST
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.invariants import check_coordinator
from wattle.core.model import Fact, FactKind, NodeInfo, Retries, TaskId, TaskStatus, WorkerSpec, Workflow


def seen(name: str, life: int = 1, slots: int = 4, held: Sequence[TaskId] = ()) -> on.NodeSeen:
    info = NodeInfo(name, f"{name}-{life}", f"{name}-store", slots=slots, resources={"cpus": float(slots)})
    return on.NodeSeen(info, dict.fromkeys(held, 1))


class Told:
    """A coordinator core with nodes whose tasks are known to take a millisecond, and what it gave out in the last batch."""

    def __init__(self, *nodes: str) -> None:
        self.core = CoordinatorCore("c1", CoordinatorOptions(replicas=0), lambda: 0.5, store="c1-store")
        self.now = 100.0
        self.numbers: dict[str, int] = {}
        self(*map(seen, nodes))
        for name in nodes:
            self.core.nodes[name].learn_duration(0.001)

    def __call__(self, *events: on.CoordinatorEvent, after: float = 0.0) -> list[tuple[str, str, tuple[str, ...]]]:
        self.now += after
        self.effects = self.core.handle(events or (on.Tick(),), self.now)
        check_coordinator(self.core)
        given = [effect for effect in self.effects if isinstance(effect, do.Assign)]
        return [
            (a.node, a.assignment.worker, tuple(f"{need}/{attempt}" for need, attempt in a.assignment.after))
            for a in given
        ]

    def submit(self, flow: Workflow) -> list[tuple[str, str, tuple[str, ...]]]:
        return self(on.Submit("r", flow))

    def end(self, name: str, status: str = "succeeded", *, attempt: int = 1, node: str = "n1", ran: bool = True):  # type: ignore[no-untyped-def]  # as __call__
        number = self.numbers[node] = self.numbers.get(node, 0) + 1
        at = self.now if ran else None
        fact = Fact(FactKind.FINISHED, "r", name, attempt, at=self.now, status=TaskStatus(status), started_at=at)
        return self(on.FactsLearned(node, f"{node}-store", number, (fact,)))

    def cancels(self) -> list[str]:
        return [effect.task.worker for effect in self.effects if isinstance(effect, do.Cancel)]

    def status(self, name: str) -> str:
        return self.core.runs["r"].workers[name].status.value


def chain(names: str, **keys: Any) -> Iterable[WorkerSpec]:
    before: tuple[str, ...] = ()
    for name in names:
        yield worker(name, *before, **keys)
        before = (name,)


def test_a_chain_is_given_whole_each_link_with_what_it_waits_for() -> None:
    told = Told("n1")
    assert told.submit(workflow(*chain("abc"))) == [("n1", "a", ()), ("n1", "b", ("a/1",)), ("n1", "c", ("b/1",))]
    assert told.end("a") == []
    assert [told.status(name) for name in "abc"] == ["succeeded", "ready", "created"]
    told.end("b")
    told.end("c")
    assert "r" not in told.core.runs


def test_on_one_node_all_that_waits_for_what_is_there() -> None:
    flow = workflow(worker("a"), worker("b", "a"), worker("c", "a"), worker("d", "b", "c"))
    assert Told("n1").submit(flow)[1:] == [("n1", "b", ("a/1",)), ("n1", "c", ("a/1",)), ("n1", "d", ("b/1", "c/1"))]


def test_with_two_nodes_only_links_of_chains() -> None:
    flow = workflow(worker("a"), worker("b", "a"), worker("c", "b"), worker("d", "b"), worker("e", "c", "d"))
    told = Told("n1", "n2")
    assert [name for _, name, _ in told.submit(flow)] == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"outputs": {"out": "o"}}, {"reads": "a"}),
        ({}, {"labels": {"lab": "3"}}),
        ({}, {"resources": {"cpus": 99.0}}),
    ],
    ids=["a file to pass", "a label the node lacks", "more than the node has"],
)
def test_not_where_something_is_left_to_decide(first: dict[str, object], second: dict[str, object]) -> None:
    needs = () if "reads" in second else ("a",)
    told = Told("n1")
    assert told.submit(workflow(worker("a", **first), worker("b", *needs, **second))) == [("n1", "a", ())]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["levels", "sequential"])
def test_not_where_stages_end_first(mode: str) -> None:
    assert Told("n1").submit(workflow(*chain("ab"), mode=mode)) == [("n1", "a", ())]


def test_not_where_tasks_are_long_or_unknown() -> None:
    for seconds in (None, 10.0):
        told = Told("n1")
        told.core.nodes["n1"].mean_seconds = seconds
        assert told.submit(workflow(*chain("ab"))) == [("n1", "a", ())]


def test_there_is_a_most_and_the_rest_follows_as_there_is_room() -> None:
    told = Told("n1")
    names = [f"w{i}" for i in range(AHEAD_MOST + 10)]
    flow = workflow(*(worker(name, *names[max(i - 1, 0) : i]) for i, name in enumerate(names)))
    assert len(told.submit(flow)) == 1 + AHEAD_MOST
    assert told.end("w0") == [("n1", f"w{AHEAD_MOST + 1}", (f"w{AHEAD_MOST}/1",))]


def test_what_waits_there_takes_up_nothing_of_the_node() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("abcdefgh", resources={"cpus": 1.0})))
    assert told.core.nodes["n1"].used == {"cpus": 1.0}
    other = workflow(*(worker(f"x{i}", resources={"cpus": 1.0}) for i in range(3)))
    assert len(told(on.Submit("other", other))) == 3
    told.end("a")
    assert told.core.nodes["n1"].used == {"cpus": 4.0}, "it is b's turn"


def test_what_is_sent_again_says_what_it_waits_for_by_then() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("abc")))
    told(on.Undelivered("n1"))
    assert told(after=10.0) == [("n1", "a", ()), ("n1", "b", ("a/1",)), ("n1", "c", ("b/1",))]
    told.end("a")
    told(on.Undelivered("n1"))
    assert told(after=10.0) == [("n1", "b", ()), ("n1", "c", ("b/1",))]


def test_when_what_they_wait_for_fails_they_are_skipped_and_cancelled() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("abc")))
    told.end("a", "failed")
    assert "r" not in told.core.runs
    assert sorted(told.cancels()) == ["b", "c"]


def test_one_handed_back_with_a_retried_need_is_given_again_and_the_node_is_not_held_back() -> None:
    told = Told("n1")
    told.submit(workflow(worker("a", retries=Retries(max=1)), worker("b", "a")))
    told.end("a", "failed")
    told.end("b", "returned", ran=False)
    assert told.core.nodes["n1"].hold_until is None
    assert told.status("b") == "created"
    assert told(after=60.0) == [("n1", "a", ()), ("n1", "b", ("a/2",))]


def test_a_lost_node_counts_no_loss_for_what_never_started() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("ab")))
    told(on.NodeUnreachable("n1", "n1-1"))
    told(after=1000.0)
    workers = told.core.runs["r"].workers
    assert (workers["a"].losses, workers["b"].losses) == (1, 0)
    assert told.status("b") == "created"
    told(seen("n2"))
    told.core.nodes["n2"].learn_duration(0.001)
    assert workers["a"].node == "n2"


def test_a_lost_need_takes_those_that_wait_with_it() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("ab")))
    told.end("a", "lost")
    assert told.status("a") == "ready"
    assert told.core.runs["r"].workers["a"].open.keys() == {2}
    assert told.end("b", "returned", ran=False) == []
    assert told.end("a", attempt=2) == [("n1", "b", ())]


def test_a_cancelled_run_ends_what_waits() -> None:
    told = Told("n1")
    told.submit(workflow(*chain("ab")))
    told(on.CancelRun("r"))
    assert sorted(told.cancels()) == ["a", "b"]


# --- with a runtime ---------------------------------------------------------------------------------------------------


def short(nodes: int = 1, slots: int = 1) -> Cluster:
    """A network that has seen its tasks to be short."""
    cluster = Cluster()
    cluster.outcome = lambda assignment: Outcome(0.001)
    for number in range(1, nodes + 1):
        cluster.node(f"n{number}", slots)
    cluster.submit(workflow(*(worker(f"s{i}") for i in range(4 * nodes * slots))), run="seen")
    cluster.finish("seen")
    return cluster


@pytest.mark.parametrize("crashed", ["coordinator", "runtime", "both"])
def test_a_crash_in_the_middle_of_a_chain_runs_nothing_twice(crashed: str) -> None:
    cluster = short()
    names = [f"w{i}" for i in range(20)]
    cluster.submit(workflow(*(worker(name, *names[max(i - 1, 0) : i]) for i, name in enumerate(names))))
    cluster.until(lambda: cluster.worker("w7").status == "succeeded")
    if crashed != "runtime":
        cluster.crash_coordinator()
    if crashed != "coordinator":
        cluster.crash_runtime("n1")
        cluster.start_runtime("n1")
    if crashed != "runtime":
        cluster.start_coordinator()
    assert cluster.finish().status == "succeeded"
    assert {cluster.starts["r", name] for name in names} == {1}


def test_a_failing_link_skips_the_rest_which_never_ran() -> None:
    cluster = short()
    cluster.outcome = lambda a: Outcome(0.001, exit_code=a.worker == "c")
    cluster.submit(workflow(*chain("abcdef")))
    assert cluster.finish().status == "failed"
    assert [cluster.worker(name).status for name in "bcdef"] == ["succeeded", "failed", "skipped", "skipped", "skipped"]
    assert not any(cluster.starts.get(("r", name)) for name in "def")
