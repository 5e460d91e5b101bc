"""Cuts in a network of two coordinators (tests/namespaces/site.py): what users see while it lasts, and what is there after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.events import Events
from tests.namespaces.gates import ADOPTED, Gates
from tests.namespaces.hosts import IpError
from tests.namespaces.site import COORDINATORS, RUNTIMES, Site, attempts, owner, run_of, site
from tests.network.processes import ApiError, StockClient, wait_until

pytestmark = pytest.mark.namespaces
long = pytest.mark.skipif("WATTLE_CUTS" not in os.environ, reason="takes long: `make cuts` runs it")

NODE_AWAY = ("NODE_UNREACHABLE", "the log is on node 'far', which is out of sight")


@pytest.fixture(scope="module")
def patient_site() -> Iterator[Site]:
    """Lost nodes are waited for; owners are not."""
    with site({"WATTLE_LOST_AFTER": "300", "WATTLE_ADOPT_AFTER": "0.2"}) as made:
        yield made


@pytest.fixture(scope="module")
def hasty_site() -> Iterator[Site]:
    """Nodes out of sight are soon given up."""
    with site({"WATTLE_LOST_AFTER": "3"}) as made:
        yield made


@pytest.fixture
def patient(patient_site: Site) -> Iterator[Site]:
    yield patient_site
    patient_site.mend()


@pytest.fixture
def hasty(hasty_site: Site) -> Iterator[Site]:
    yield hasty_site
    hasty_site.mend()


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Gates]:
    made = Gates(tmp_path / "gates", "first", "second", "third", "fourth", attempts=(1, 2, ADOPTED))
    yield made
    made.close()


def worker(name: str, script: str, *needs: str, node: str | None = None) -> dict[str, Any]:
    return {"name": name, "script": script, "needs": needs, "place": {"node": node}}


def submit(client: StockClient, run: str, *workers: dict[str, Any]) -> Events:
    """Submit a run of these workers; its events."""
    events = Events(client, run)
    client.get("runs", {"document": {"name": "cut", "workers": workers}, "run": run})
    return events


def execute(client: StockClient, run: str) -> dict[str, Any]:
    """Submit a run of one worker and wait for its end."""
    return client.run({"name": "quick", "workers": [{"name": "w", "command": "true"}]}, run=run)


def code(client: StockClient, path: str, payload: Any = None) -> str:
    """The code of the error that a request is answered with."""
    return refusal(lambda: client.get(path, payload))[0]


def refusal(ask: Callable[[], object]) -> tuple[str, str]:
    """Code and message of the error that a question is answered with."""
    with pytest.raises(ApiError) as refused:
        ask()
    return refused.value.code, refused.value.error["message"]


def insist(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask again as long as the answer is that somebody is out of sight: anybody may who names the run."""
    answers: list[dict[str, Any]] = []

    def answered() -> bool:
        try:
            answers.append(ask())
        except ApiError as error:
            if error.code not in ("NO_COORDINATOR", "OWNER_UNREACHABLE", "TIMEOUT"):
                raise
        return bool(answers)

    wait_until(answered, "an answer", 120)
    return answers[0]


def log(client: StockClient, run: str, worker: str, attempt: int) -> str:
    return client.raw(f"runs/{run}/workers/{worker}/logs/stdout?attempt={attempt}").decode()


@contextmanager
def only_on(client: StockClient, node: str) -> Iterator[None]:
    """What is placed meanwhile is placed on this node."""
    others = [name for name in RUNTIMES if name != node]
    for name in others:
        client.get(f"nodes/{name}/drain")
    try:
        yield
    finally:
        for name in others:
            client.get(f"nodes/{name}/resume")


def test_the_runs_of_an_owner_cut_off_go_on_with_another_coordinator(patient: Site, gates: Gates) -> None:
    door, side, run = patient.door, patient.clients["side"], run_of("one")
    events = submit(door, run, worker("first", gates.script), worker("second", gates.script, "first"))
    gates.arrived("first.1")
    patient.cut("one")
    late = [run_of(name) for name in COORDINATORS]  # one of them falls to the owner that is cut off
    ended = {name: execute(door, name) for name in late}
    unnamed = door.run({"name": run_of("one"), "workers": [{"name": "w", "command": "true"}]})
    gates.open("first.1")
    assert events.wait(owner="two")["epoch"] == 2
    gates.arrived(f"second.{ADOPTED}")
    assert owner(door, run) == ("two", 2)
    assert owner(side, run) == ("one", 1)  # what the former owner knows
    wait_until(lambda: side.get("nodes/near")["status"] == "unreachable", "it misses the nodes")
    assert side.get(f"runs/{run}/workers/first")["unreachable"] is True
    patient.heal("one")
    wait_until(lambda: owner(side, run) == ("two", 2), "the former owner has stepped down")
    gates.open(f"second.{ADOPTED}")
    final = events.wait(status="succeeded", owner="two")
    for client in (door, side):
        assert client.wait(run)["completed_at"] == final["completed_at"]
        assert [(n, status) for n, _, status in attempts(client, run, "first")] == [(1, "succeeded")]
        second = (gates.numbers[f"second.{ADOPTED}"], "succeeded")
        assert [(n, status) for n, _, status in attempts(client, run, "second")] == [second]
        for name, seen in [*ended.items(), (unnamed["id"], unnamed)]:
            assert seen["status"] == "succeeded"
            assert client.get(f"runs/{name}")["completed_at"] == seen["completed_at"]


def test_a_coordinator_cut_off_alone_takes_no_work_from_the_others(patient: Site, gates: Gates) -> None:
    door, side, run = patient.door, patient.clients["side"], run_of("two")
    submit(door, run, worker("first", gates.script), worker("second", gates.script, "first"))
    gates.arrived("first.1")
    before = patient.count("one", "coordinator unreachable")
    patient.cut("one")
    wait_until(lambda: patient.count("one", "coordinator unreachable") > before, "it sees the owner no more")
    gates.open("first.1")
    gates.arrived("second.1")  # which no copy at the coordinator that is cut off tells of
    patient.heal("one")
    assert owner(door, run) == owner(side, run) == ("two", 1)
    gates.open("second.1")
    assert side.wait(run)["status"] == "succeeded"
    assert [(n, status) for n, _, status in attempts(door, run, "second")] == [(1, "succeeded")]


def test_a_gateway_cut_off_says_so_and_the_others_go_on(patient: Site, gates: Gates) -> None:
    door, rear, run = patient.door, patient.clients["rear"], run_of("one")
    submit(door, run, worker("first", gates.script))
    gates.arrived("first.1")
    patient.cut("door")
    assert code(door, f"runs/{run}") == "NO_COORDINATOR"  # asked before anybody can have noticed
    assert code(door, "runs", {"document": {"name": "n", "workers": [{"name": "w", "command": "true"}]}}) == (
        "NO_COORDINATOR"
    )
    assert code(door, "nodes/near/drain") == "NODE_NOT_FOUND"
    assert door.get("nodes")["nodes"] == []
    assert door.get("health")["status"] == "degraded"
    gates.open("first.1")
    assert rear.wait(run)["status"] == "succeeded"
    assert execute(rear, run_of("two"))["status"] == "succeeded"
    patient.heal("door")
    assert door.wait(run)["status"] == "succeeded"


def test_a_broken_link_between_two_coordinators_is_no_reason_to_take_over(patient: Site, gates: Gates) -> None:
    door = patient.door
    runs = {name: run_of(name) for name in COORDINATORS}
    submit(door, runs["one"], worker("first", gates.script), worker("second", gates.script, "first"))
    submit(door, runs["two"], worker("third", gates.script), worker("fourth", gates.script, "third"))
    gates.arrived("first.1", "third.1")
    seen = patient.count("one", "coordinator unreachable"), patient.count("two", "coordinator unreachable")
    patient.lan.part(patient.lan["one"], patient.lan["two"])
    for name, before in zip(COORDINATORS, seen, strict=True):
        wait_until(lambda n=name, b=before: patient.count(n, "coordinator unreachable") > b, "the cut is noticed")  # type: ignore[misc]
    gates.open("first.1")
    gates.open("third.1")
    gates.arrived("second.1", "fourth.1")
    for _ in range(3):  # what they find out about each other takes less
        for name in COORDINATORS:
            ended = execute(door, run_of(name))
            assert (ended["status"], ended["epoch"]) == ("succeeded", 1)
    assert [owner(door, run) for run in runs.values()] == [("one", 1), ("two", 1)]
    gates.open("second.1")
    gates.open("fourth.1")
    for name, run in runs.items():
        final = door.wait(run)
        assert (final["status"], final["owner"], final["epoch"]) == ("succeeded", name, 1)


def test_a_broken_link_between_the_owner_and_a_node_stops_nothing_else(patient: Site, gates: Gates) -> None:
    door, run = patient.door, run_of("one")
    away = worker("first", gates.script, node="near")
    events = submit(door, run, away, worker("second", gates.script, node="far"), worker("third", "true", "second"))
    gates.arrived("first.1", "second.1")
    events.wait(name="first", status="running")
    patient.lan.part(patient.lan["one"], patient.lan["near"])
    events.wait(name="first", unreachable=True)
    gates.open("first.1")
    gates.open("second.1")
    events.wait(name="third", status="succeeded")
    assert attempts(door, run, "third") == [(1, "far", "succeeded")]
    shown = door.get(f"runs/{run}/workers/first")
    assert (shown["status"], shown["unreachable"]) == ("running", True)
    assert owner(door, run) == ("one", 1)
    patient.lan.rejoin()
    assert door.wait(run)["status"] == "succeeded"
    assert attempts(door, run, "first") == [(1, "near", "succeeded")]
    assert owner(door, run) == ("one", 1)


def test_a_node_cut_off_is_shown_unreachable_and_its_logs_are_where_it_is(patient: Site, gates: Gates) -> None:
    door, rear, run = patient.door, patient.clients["rear"], run_of("one")
    events = submit(door, run, worker("first", f"echo begun\n{gates.script}echo done", node="far"))
    gates.arrived("first.1")
    events.wait(name="first", status="running")
    patient.cut("far")
    assert refusal(lambda: log(door, run, "first", 1))[0] == "NODE_UNREACHABLE"  # asked before anybody can have noticed
    events.wait(name="first", unreachable=True)
    wait_until(lambda: door.get("nodes/far")["status"] == "unreachable", "all miss it")
    shown = door.get(f"runs/{run}/workers/first")
    assert (shown["status"], shown["unreachable"], shown["node"]) == ("running", True, "far")
    assert refusal(lambda: log(door, run, "first", 1)) == NODE_AWAY
    assert code(rear, f"runs/{run}") == "NO_COORDINATOR"
    assert log(rear, run, "first", 1) == "begun\n"  # on the other side of the cut
    gates.open("first.1")  # ends while nobody can see it
    patient.heal("far")
    assert door.wait(run)["status"] == "succeeded"
    assert attempts(door, run, "first") == [(1, "far", "succeeded")]
    assert door.get(f"runs/{run}/workers/first")["unreachable"] is False
    assert log(door, run, "first", 1) == log(rear, run, "first", 1) == "begun\ndone\n"


@long
def test_the_work_of_a_node_cut_off_for_long_is_done_elsewhere_and_all_logs_are_kept(hasty: Site, gates: Gates) -> None:
    door, rear, run = hasty.door, hasty.clients["rear"], run_of("one")
    script = f'echo "begun $WATTLE_ATTEMPT"\n{gates.script}'
    with only_on(door, "far"):
        events = submit(door, run, worker("first", script), worker("second", script))
        gates.arrived("first.1", "second.1")
    hasty.cut("far")
    gates.arrived("first.2", "second.2")
    wait_until(lambda: door.get("nodes/far")["status"] == "lost", "all have given it up")
    assert [(n, node) for n, node, _ in attempts(door, run, "first")] == [(1, "far"), (2, "near")]
    assert refusal(lambda: log(door, run, "first", 1)) == NODE_AWAY
    assert log(door, run, "first", 2) == "begun 2\n"
    assert log(rear, run, "first", 1) == "begun 1\n"
    gates.open("first.2")
    events.wait(name="first", status="succeeded")
    gates.open("second.1")  # ends while nobody can see it, and before the other attempt
    hasty.heal("far")
    assert door.wait(run)["status"] == "succeeded"
    wait_until(
        lambda: attempts(door, run, "first") == [(1, "far", "superseded"), (2, "near", "succeeded")], "first ended"
    )
    wait_until(
        lambda: attempts(door, run, "second") == [(1, "far", "succeeded"), (2, "near", "superseded")], "second ended"
    )
    for client in (door, rear):
        assert [log(client, run, "first", n) for n in (1, 2)] == ["begun 1\n", "begun 2\n"]


@long
def test_both_sides_of_a_split_go_on_and_one_result_stands(hasty: Site, gates: Gates) -> None:
    def end(client: StockClient, run: str) -> str:
        return str(client.get(f"runs/{run}")["completed_at"])

    door, rear = hasty.door, hasty.clients["rear"]
    here, there = run_of("one"), run_of("one")  # and where their first result will be
    with only_on(door, "near"):
        submit(door, here, worker("third", gates.script))
        gates.arrived("third.1")
    with only_on(door, "far"):
        submit(door, there, worker("first", gates.script), worker("second", "true", "first"))
        gates.arrived("first.1")
    hasty.cut("two", "far")
    gates.arrived("first.2", f"third.{ADOPTED}")  # each side has given up the other's node
    assert owner(door, here) == owner(door, there) == ("one", 1)
    assert owner(rear, here) == owner(rear, there) == ("two", 2)
    gates.open("third.1")
    mine = door.wait(here)
    gates.open("first.1")
    theirs = rear.wait(there)
    gates.open("first.2")  # a second result of the same run, later
    assert door.wait(there)["completed_at"] > theirs["completed_at"]
    hasty.heal("two", "far")
    beyond = (gates.numbers[f"third.{ADOPTED}"], "far", "superseded")
    wait_until(
        lambda: end(door, here) == end(rear, here) != "None", "one result stands, the first or the later owner's"
    )
    assert door.get(f"runs/{here}")["status"] == mine["status"]
    for client in (door, rear):
        wait_until(lambda c=client: end(c, there) == theirs["completed_at"], "the later owner's result stands")  # type: ignore[misc]
        wait_until(
            lambda c=client: attempts(c, here, "third") == [(1, "near", "succeeded"), beyond],  # type: ignore[misc]
            "the attempt beyond the cut was ended and is told of",
        )
        wait_until(
            lambda c=client: attempts(c, there, "first") == [(1, "far", "succeeded"), (2, "near", "superseded")],  # type: ignore[misc]
            "both attempts of the first are told of",
        )
    listed = [shown["id"] for shown in door.get("runs?limit=100")["runs"]]
    assert len(listed) == len(set(listed))


@long
def test_lost_packets_cost_time_and_nothing_else(hasty: Site, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    line = f'echo "$WATTLE_RUN $WATTLE_WORKER $WATTLE_ATTEMPT" >> {ledger}'
    try:
        for host in hasty.lan.hosts.values():
            hasty.lan.lose(host, 0.3)
    except IpError as error:
        pytest.skip(f"this kernel loses no packets on purpose: {error}")
    runs = [run_of(name) for name in COORDINATORS]
    made = [worker(f"w{n}", line, *([f"w{n - 4}"] if n > 3 else [])) for n in range(16)]
    for run in runs:
        document = {"name": "lossy", "workers": made}
        assert insist(lambda r=run, d=document: hasty.door.get("runs", {"document": d, "run": r}))["id"] == run  # type: ignore[misc]
    for run in runs:
        assert insist(lambda r=run: hasty.door.wait(r))["status"] == "succeeded"  # type: ignore[misc]
    hasty.calm()
    happened = {tuple(row.split()) for row in ledger.read_text().splitlines()}

    def told() -> set[tuple[str, ...]]:
        return {
            (run, name, str(attempt["attempt"]))
            for run in runs
            for name, seen in hasty.door.workers(run).items()
            for attempt in seen["attempts"]
        }

    wait_until(lambda: told() >= happened, "every attempt is told of")
    assert len({(run, name) for run, name, _ in happened}) == 2 * len(made)


@long
def test_with_a_quorum_the_smaller_side_gives_out_nothing_and_says_why(gates: Gates) -> None:
    with site({"WATTLE_QUORUM": "3", "WATTLE_LOST_AFTER": "300"}, mid="near") as strict:
        door, rear, run, late = strict.door, strict.clients["rear"], run_of("two"), run_of("two")
        submit(door, run, worker("first", gates.script, node="far"), worker("second", "true", "first"))
        gates.arrived("first.1")
        strict.cut("two", "far")
        wait_until(lambda: owner(door, run) == ("one", 2), "the larger side has taken over")
        gates.open("first.1")
        wait_until(lambda: rear.get(f"runs/{run}/workers/second")["status"] == "ready", "the smaller side works on")
        seen = rear.get(f"runs/{run}/workers/second")
        assert (seen["status"], seen["attempts"]) == ("ready", [])
        assert seen["waiting_for"] == "waits for a quorum: 2 of 3 peers are in sight"
        quick = {"document": {"name": "q", "workers": [{"name": "w", "command": "true"}]}, "run": late}
        for path, payload in (("runs", quick), (f"runs/{run}/cancel", None)):
            refused = refusal(lambda p=path, b=payload: rear.get(p, b))  # type: ignore[misc]
            said = "2 of 3 peers are in sight at coordinator 'two': without that quorum nothing is changed"
            assert refused == ("NO_QUORUM", said)
        strict.heal("two", "far")
        assert rear.get("runs", quick)["owner"] == "two"
        for name, last in ((run, "one"), (late, "two")):
            final = door.wait(name)
            assert (final["status"], final["owner"]) == ("succeeded", last)
        assert attempts(rear, run, "first") == [(1, "far", "succeeded")]
        ends = [status for _, _, status in attempts(rear, run, "second")]  # the former owner may give it out once more
        assert (ends.count("succeeded"), set(ends) - {"succeeded", "superseded", "returned"}) == (1, set())
