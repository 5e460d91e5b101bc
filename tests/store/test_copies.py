"""Copies: what an owner commits arrives at followers as it was, from memory or from the store, however far behind they are."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim import stores
from wattle.coordinator import journal as journal_module
from wattle.coordinator.journal import Journal
from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.copies import Copies
from wattle.core.model import CopiedRun, CopyPage, Fact, FactKind, NodeInfo, Output, RunHead, Snapshot, TaskStatus
from wattle.document.compile import compile_document, to_json, to_text
from wattle.document.load import load
from wattle.protocol.messages import decode, encode
from wattle.store import copies as copies_module
from wattle.store.coordinator import CoordinatorStore
from wattle.store.owned import DEFINITION, Definition, Submission, recover, recover_definition
from wattle.store.runtime import RuntimeStore

DOCUMENT = load(
    '{"name": "flow", "workers": [{"name": "a", "command": "true", "outputs": {"out": "o"}}, '
    '{"name": "b", "command": "true", "needs": ["a"]}, {"name": "c", "command": "true", "retries": {"max": 2, "delay": 0}}]}'
)
WORKFLOW = compile_document(DOCUMENT, {})
SUBMISSION = Submission(to_text(DOCUMENT), "d" * 64, {})


class Follower:
    """A store that keeps copies, told by encoded pages as over the network."""

    def __init__(self, path: Path) -> None:
        self.store = RuntimeStore(path)
        self.copies = Copies()
        self.number = 0

    def ship(self, journal: Journal) -> None:
        """Bring it up to date."""
        for page in journal.pages(self.number):
            self.keep(page)

    def keep(self, page: CopyPage) -> None:
        """Take a page."""
        sent = decode(CopyPage, encode(page))
        save, self.number = self.copies.keep(sent)
        assert self.number == page.number
        if save:
            with self.store.transaction():
                self.store.copies.keep(sent)


class Owner:
    """A coordinator's core and store, and a node that does as chance will have it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = CoordinatorStore(path, owner="c1")
        self.core = CoordinatorCore("c1", CoordinatorOptions(), self.rng.random, store=self.store.id)
        self.journal = Journal(self.store, self.core)
        self.assigned: list[do.Assign] = []
        self.facts = 0
        self.now = 1.0
        self.tell(on.CoordinatorSeen("c2", "i", "s"), on.NodeSeen(NodeInfo("n1", "i", "s1", slots=4)))

    def tell(self, *events: on.CoordinatorEvent) -> None:
        """One batch, as the agent handles it."""
        self.now += 1.0
        effects = self.core.handle(events, self.now)
        with self.store.transaction():
            self.store.save(effects, self.core.number)
        if self.core.number != self.store.number:
            self.store.number = self.core.number
            self.journal.note(self.core.number, effects)
        self.assigned += [e for e in effects if isinstance(e, do.Assign)]

    def commit(self, effect: do.CoordinatorEffect) -> None:
        """One batch that saves this, without the core."""
        self.core.number += 1
        with self.store.transaction():
            self.store.save([effect], self.core.number)
        self.store.number = self.core.number
        self.journal.note(self.core.number, [effect])

    def step(self) -> None:
        """Something happens."""
        if not self.assigned or self.rng.random() < 0.2:
            self.tell(on.Submit(f"r{len(self.core.runs)}-{self.core.number}", WORKFLOW, SUBMISSION))
            return
        if self.rng.random() < 0.1:
            name = self.rng.choice(("other", "third"))  # not what runs are submitted with
            document = {**to_json(DOCUMENT), "name": name}
            self.tell(on.Define(Definition(name, self.now, document, f"{self.core.number}", self.now)))
            return
        task = self.assigned.pop(self.rng.randrange(len(self.assigned))).assignment
        self.facts += 1
        good = self.rng.random() < 0.7
        outputs = {name: Output(path, f"{self.facts:064x}", 1) for name, path in task.outputs.items()} if good else {}
        status = TaskStatus.SUCCEEDED if good else TaskStatus.FAILED
        started = Fact(FactKind.STARTED, *task.id, at=self.now, pid=1)
        ended = Fact(
            FactKind.FINISHED, *task.id, at=self.now, started_at=self.now, status=status, exit_code=0, outputs=outputs
        )
        self.tell(on.FactsLearned("n1", "s1", self.facts, (started, ended)))
        if self.rng.random() < 0.2:
            self.tell(on.FactsLearned("n1", "s1", self.facts + 1, (replace(ended, status=TaskStatus.LOST),)))  # late
            self.facts += 1


def test_what_every_follower_has_leaves_the_memory_but_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "REMEMBERED_LEAST", 4)
    owner = Owner(tmp_path / "owner.db", 0)
    owner.tell(on.CoordinatorSeen("c3", "i", "s"))
    for _ in range(10):
        owner.tell(on.Submit(f"r{owner.core.number}", WORKFLOW, SUBMISSION))
    newest = owner.core.number

    def remembered(after: int) -> bool:
        (page, *more) = owner.journal.pages(after)
        return not more and page.number > after

    for peer, kept in (("c2", newest), ("n1", newest), ("c3", 3)):
        assert remembered(1)  # until the last of them says that it has more
        owner.tell(on.Kept(peer, kept))
        owner.journal.forget()
    assert not remembered(1)
    assert remembered(3)
    owner.tell(on.Kept("c3", newest))
    owner.journal.forget()
    assert remembered(newest - 1)
    assert not remembered(newest - 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_follower_has_what_its_owner_has_however_far_it_was_behind(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "REMEMBERED_MOST", 40)
    for module in (journal_module, copies_module):
        monkeypatch.setattr(module, "ROWS_MOST", 3)
    monkeypatch.setattr("wattle.store.owned.ROWS_MOST", 3)
    close, far = Follower(tmp_path / "close.db"), Follower(tmp_path / "far.db")
    owner = Owner(tmp_path / "owner.db", seed)  # opened last: peewee's tables are this store's
    for step in range(60):
        owner.step()
        if owner.rng.random() < 0.7:
            close.ship(owner.journal)
        if step == 40:
            far.ship(owner.journal)
    for follower in (close, far):
        while follower.number < owner.store.number:
            follower.ship(owner.journal)
        told = {head.run for head in follower.store.copies.heads_by("c1", owner.store.id)}
        assert told == {run for _, run in owner.store.owned.changed(0)}
        for run in told:
            mine = owner.store.owned.head(run)
            (head,) = follower.store.copies.heads_of([run])
            assert mine is not None
            assert replace(head, number=0) == replace(mine, number=0)
            rows = _rows(follower, head)
            if run.startswith(DEFINITION):
                assert recover_definition(rows) == owner.store.owned.definition(run.removeprefix(DEFINITION))
            else:
                want = recover(owner.store.owned.all(run))
                found = recover(rows)
                untouched = {name: worker for name, worker in want.workers.items() if name not in found.workers}
                assert all(worker.attempts == 0 for worker in untouched.values())
                assert replace(found, workers={**untouched, **found.workers}) == want


def test_of_a_run_that_was_let_go_meanwhile_no_part_is_left_at_a_follower_that_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ROWS_MOST", 1)  # a commit in each page
    follower = Follower(tmp_path / "follower.db")
    owner = Owner(tmp_path / "owner.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    first, second = (a.assignment.id for a in owner.assigned)
    ended = Fact(FactKind.FINISHED, *first, at=2.0, status=TaskStatus.FAILED, exit_code=1)
    owner.tell(on.FactsLearned("n1", "s1", 1, (ended,)))
    owner.tell(on.FactsLearned("n1", "s1", 2, (replace(ended, status=TaskStatus.LOST),)))  # late: the run is told whole
    owner.tell(on.FactsLearned("n1", "s1", 3, (Fact(FactKind.STARTED, *second, at=3.0, pid=1),)))
    owner.tell(on.Kept("c2", 1, (RunHead("r", "c2", "s", 9, 5),)))
    assert owner.store.run("r") is None
    while follower.number < owner.store.number:
        follower.ship(owner.journal)
        for head in follower.store.copies.heads_by("c1", owner.store.id):
            recover(_rows(follower, head))


def test_of_a_run_that_was_let_go_and_adopted_again_no_change_from_before_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "ROWS_MOST", 1)  # a commit in each page
    near, far = Follower(tmp_path / "near.db"), Follower(tmp_path / "far.db")
    owner = Owner(tmp_path / "owner.db", 1)

    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    start = recover(owner.store.owned.all("r"))
    near.ship(owner.journal)
    first, second = (a.assignment.id for a in owner.assigned)
    owner.tell(on.FactsLearned("n1", "s1", 1, (Fact(FactKind.STARTED, *first, at=2.0, pid=1),)))
    owner.tell(on.FactsLearned("n1", "s1", 2, (Fact(FactKind.STARTED, *second, at=3.0, pid=2),)))
    owner.commit(do.ReleaseRun(RunHead("r", "c2", "s", 2, 5)))
    adopted = replace(start, run=replace(start.run, epoch=3))
    owner.commit(do.AdoptRun(Snapshot(adopted.run, WORKFLOW, start.workers, start.tasks, start.holders, SUBMISSION)))
    for follower in (near, far):
        before = [list(_rows(follower, head)) for head in follower.store.copies.heads_by("c1", owner.store.id)]
        while follower.number < owner.store.number:
            follower.ship(owner.journal)
            for head in follower.store.copies.heads_by("c1", owner.store.id):
                assert _rows(follower, head) in before or recover(_rows(follower, head)) == adopted


def test_of_a_run_that_was_let_go_and_submitted_again_only_the_new_one_is_told(tmp_path: Path) -> None:
    follower, owner = Follower(tmp_path / "follower.db"), Owner(tmp_path / "owner.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    follower.ship(owner.journal)
    started = Fact(FactKind.STARTED, *owner.assigned[0].assignment.id, at=2.0, pid=1)
    owner.tell(on.FactsLearned("n1", "s1", 1, (started,)))
    follower.ship(owner.journal)
    owner.commit(do.ReleaseRun(RunHead("r", "c2", "s", 2, 5)))
    owner.commit(do.CreateRun(owner.core.runs["r"].record(), WORKFLOW, {"a", "c"}, (), SUBMISSION))
    follower.ship(owner.journal)
    (head,) = follower.store.copies.heads_by("c1", owner.store.id)
    assert not [key for key, _ in _rows(follower, head) if key.startswith("t/")]


@pytest.mark.parametrize("stand_in", [False, True], ids=["store", "stand-in of the simulator"])
def test_what_is_dropped_while_its_owner_tells_it_is_told_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: bool
) -> None:
    monkeypatch.setattr("wattle.store.owned.ROWS_MOST", 2)
    store, simulated, cursors = RuntimeStore(tmp_path / "follower.db"), stores.Copies(), Copies()
    copies = simulated if stand_in else store.copies
    owner = Owner(tmp_path / "owner.db", 1)
    for run in ("r", "s"):
        owner.tell(on.Submit(run, WORKFLOW, SUBMISSION))
    owner.journal = Journal(owner.store, owner.core)  # as after a restart: what was before is told whole
    pages, dropped = list(owner.journal.pages(0)), owner.store.owned.head("r")
    assert dropped is not None

    def take(page: CopyPage) -> int:
        save, number = cursors.keep(page)
        if save:
            with store.transaction():
                copies.keep(page)
        return number

    def kept(run: str) -> list[str]:
        if stand_in:
            copy = simulated.kept.get(("c1", owner.store.id, run))
            return [] if copy is None else sorted(copy.rows)
        return [key for key, _ in store.copies.rows("c1", owner.store.id, run)]

    def whole() -> bool:
        return len(copies.heads_of(["r", "s"])) == 2 and all(
            kept(run) == sorted(key for key, _ in owner.store.owned.all(run)) for run in ("r", "s")
        )

    for before in range(len(pages) + 1):
        for page in pages[:before]:
            take(page)
        with store.transaction():
            copies.forget(dropped)
        cursors.forget("c1", owner.store.id)
        told = [take(page) for page in pages[before:]]
        assert whole() if owner.store.number in told else not kept("r")
        assert [take(page) for page in pages][-1] == owner.store.number
        assert whole()
        for head in copies.heads_of(["r", "s"]):
            with store.transaction():
                copies.forget(head)
        cursors.forget("c1", owner.store.id)


class Witness(Owner):
    """An owner that remembers each state that it had of each run."""

    def tell(self, *events: on.CoordinatorEvent) -> None:
        super().tell(*events)
        self.had: dict[tuple[str, int], list[tuple[str, str]]]
        self.had = getattr(self, "had", {})
        for number, run in self.store.owned.changed(self.core.number - 1):
            if not run.startswith(DEFINITION):
                self.had[run, number] = list(self.store.owned.all(run))


@pytest.mark.parametrize("remembered", [1000, 12])
@pytest.mark.parametrize("seed", range(3))
def test_whenever_an_owner_dies_each_copy_is_a_state_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, remembered: int
) -> None:
    monkeypatch.setattr(journal_module, "REMEMBERED_MOST", remembered)
    monkeypatch.setattr(journal_module, "REMEMBERED_LEAST", 2)
    for name in (
        "wattle.coordinator.journal.ROWS_MOST",
        "wattle.store.owned.ROWS_MOST",
        "wattle.store.copies.ROWS_MOST",
    ):
        monkeypatch.setattr(name, 3)
    follower, seen = Follower(tmp_path / "follower.db"), 0
    owner = Witness(tmp_path / "owner.db", seed)
    for _ in range(30):
        owner.step()
        if owner.rng.random() < 0.3:
            owner.journal = Journal(owner.store, owner.core)  # as after a restart: what was before is told whole
        for turn, sent in enumerate(owner.journal.pages(follower.number)):
            follower.keep(sent)
            for head in follower.store.copies.heads_of([copied.run for copied in sent.runs]):
                if not head.run.startswith(DEFINITION):
                    want, found = recover(owner.had[head.run, head.number]), recover(_rows(follower, head))
                    untouched = {n: worker for n, worker in want.workers.items() if n not in found.workers}
                    assert all(worker.attempts == 0 for worker in untouched.values())
                    assert replace(found, workers={**untouched, **found.workers}) == want
                    seen += 1
            if turn < 3:
                owner.step()  # while the next page is on its way
    assert seen > 50


@pytest.mark.parametrize("stand_in", [False, True], ids=["store", "stand-in of the simulator"])
def test_the_parts_of_a_run_told_whole_count_once_its_head_is_here(tmp_path: Path, stand_in: bool) -> None:
    store, simulated = RuntimeStore(tmp_path / "r.db"), stores.Copies()
    copies = simulated if stand_in else store.copies

    def keep(*runs: CopiedRun) -> dict[str, str]:
        with store.transaction():
            copies.keep(page("c1", 3, *runs, after=3))
        if not stand_in:
            return dict(store.copies.rows("c1", "c1-store", "r"))
        copy = simulated.kept.get(("c1", "c1-store", "r"))
        return {} if copy is None else dict(copy.rows)

    def told(number: int, *keys: str) -> CopiedRun:
        return CopiedRun("r", number, tuple((key, f"{key} {number}") for key in keys))

    def end(number: int, upto: int = 0) -> CopiedRun:
        return CopiedRun("r", number, (), head("c1", 1, upto or number))

    first = {"run": "run 3", "w/a": "w/a 3", "t/a/1": "t/a/1 3"}
    assert keep(CopiedRun("r", 3, tuple(first.items()), head("c1", 1, 3))) == first
    assert keep(told(5, "run", "t/a/9")) == first
    assert keep(told(7, "run")) == first  # its owner began anew
    assert keep(end(5)) == first  # and this was late
    assert [h.number for h in copies.heads_of(["r"])] == [3]
    assert keep(told(7, "w/a")) == first
    second = {"run": "run 7", "w/a": "w/a 7"}
    assert keep(end(7, 8)) == second  # told up to a later commit than it was begun with
    assert keep(CopiedRun("r", 7, (("w/a", "older"),), head("c1", 1, 7))) == second
    assert keep(end(7)) == second  # told twice
    assert [h.number for h in copies.heads_of(["r"])] == [8]
    keep(told(9, "run", "w/a"))
    with store.transaction():
        assert copies.take_up() == {("c1", "c1-store"): 3}
    assert keep(end(9)) == second  # a restart has dropped its parts
    keep(told(9, "run", "w/a"))
    with store.transaction():
        copies.forget(RunHead("another", "c1", "c1-store", 1))
    assert keep(end(9)) == second  # as has an order to drop a copy of that owner's
    keep(told(9, "run", "w/a"))
    assert keep(CopiedRun("r", 9, forgotten=True)) == keep(end(9)) == {}
    assert copies.heads_of(["r"]) == []  # nor is there one without rows
    assert stand_in or store.query("SELECT count(*) FROM copies") == [(0,)]


def _rows(follower: Follower, head: RunHead) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    while more := follower.store.copies.rows(head.owner, head.store, head.run, rows[-1][0] if rows else ""):
        rows += more
    return rows


def page(owner: str, number: int, *runs: CopiedRun, after: int = 0) -> CopyPage:
    return CopyPage(owner, f"{owner}-store", after, number, runs)


def head(owner: str, epoch: int, number: int = 1, **more: object) -> RunHead:
    return RunHead("r", owner, f"{owner}-store", epoch, number, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("stand_in", [False, True], ids=["store", "stand-in of the simulator"])
@pytest.mark.parametrize("retried", [1, 0], ids=["counts more", "counts less"])
def test_a_pruned_state_leaves_the_copy_of_an_owner_that_tells_only_what_it_changes(
    tmp_path: Path, retried: int, stand_in: bool
) -> None:
    store, simulated = RuntimeStore(tmp_path / "r.db"), stores.Copies()
    copies = simulated if stand_in else store.copies
    rows = {"document": "d", "run": "1", "w/a": "1"}
    before = RunHead("r", "c3", "", 1)  # it merely stands in for a state of an owner of which nothing else is here
    pruned = head("c1", 1, 9, final=True, pruned_at=5.0)
    with store.transaction():
        copies.put("c3", "", CopiedRun("r", 0, (("run", "0"),), before))
        copies.keep(page("c1", 7, CopiedRun("r", 7, (("run", "ended"),), head("c1", 1, 7, final=True))))
        copies.keep(page("c2", 10, CopiedRun("r", 10, tuple(rows.items()), head("c2", 2, 10, retried=retried))))
        copies.keep(page("c1", 9, CopiedRun("r", 9, (), pruned, forgotten=True), after=7))
        later = head("c2", 2, 11, retried=retried)
        copies.keep(page("c2", 11, CopiedRun("r", 11, (("run", "2"),), later), after=10))
    kept = simulated.kept[("c2", "c2-store", "r")].rows if stand_in else dict(store.copies.rows("c2", "c2-store", "r"))
    assert kept == {**rows, "run": "2"}
    assert set(copies.heads_of(["r"])) == {pruned, later}
    assert stand_in or store.query("SELECT count(*) FROM copies WHERE owner <> 'c2'") == [(0,)]


def test_an_older_row_never_replaces_a_newer_one(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    with store.transaction():
        store.copies.keep(page("c1", 5, CopiedRun("r", 5, (("run", "new"),), head("c1", 1, 5))))
        store.copies.keep(page("c1", 5, CopiedRun("r", 3, (("run", "old"),), head("c1", 1, 3))))
    assert store.copies.rows("c1", "c1-store", "r") == [("run", "new")]
    assert [h.number for h in store.copies.heads_of(["r"])] == [5]


def test_each_owners_state_is_kept_until_its_owner_has_it_no_more_or_it_is_dropped(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    with store.transaction():
        store.copies.keep(page("c1", 5, CopiedRun("r", 5, (("run", "1"),), head("c1", 1))))
        store.copies.keep(page("c2", 5, CopiedRun("r", 5, (("run", "2"),), head("c2", 2))))
    assert {h.owner for h in store.copies.heads_of(["r"])} == {"c1", "c2"}  # c1 may only have been cut off
    with store.transaction():
        store.copies.keep(page("c1", 6, CopiedRun("r", 6, forgotten=True), after=5))
    assert {h.owner for h in store.copies.heads_of(["r"])} == {"c2"}
    assert store.copies.rows("c1", "c1-store", "r") == []
    assert store.copies.cursors() == {("c1", "c1-store"): 6, ("c2", "c2-store"): 5}
    with store.transaction():
        store.copies.forget(head("c2", 2, 0))
    assert {h.owner for h in store.copies.heads_of(["r"])} == {"c2"}  # it has gone on since it was judged
    with store.transaction():
        store.copies.forget(head("c2", 2))
    assert store.copies.heads_of(["r"]) == []
    assert store.copies.cursors() == {("c1", "c1-store"): 6}  # c2 has to tell everything anew, should it come back


@pytest.mark.parametrize("stand_in", [False, True], ids=["store", "stand-in of the simulator"])
@pytest.mark.parametrize(
    "since",
    [
        pytest.param(head("c2", 1, 0, final=True, completed_at=5.0, cancelled=True), id="an end that nobody else has"),
        pytest.param(head("c2", 1, 0, cancelled=True), id="a cancel that nobody else has"),
        pytest.param(head("c2", 1, 5), id="a newer copy"),
    ],
)
def test_an_order_to_drop_a_state_leaves_what_has_come_in_its_place(
    tmp_path: Path, since: RunHead, stand_in: bool
) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    copies = stores.Copies() if stand_in else store.copies
    told = head("c2", 1, 4)
    with store.transaction():
        copies.keep(page("c2", 4, CopiedRun("r", 4, (("run", "1"),), told)))
        copies.forget(told)  # as one coordinator ordered
        copies.put("c2", "c2-store", CopiedRun("r", since.number, (("run", "2"),), since))
        copies.forget(told)  # as another did late, on what it had been told before
    assert copies.heads_of(["r"]) == [since]
    with store.transaction():
        copies.forget(since)
    assert copies.heads_of(["r"]) == []


def test_a_stand_in_goes_when_a_real_copy_of_its_owner_comes(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    with store.transaction():
        store.copies.put("c2", "", CopiedRun("r", 0, (("run", "old"),), RunHead("r", "c2", "", 2)))
        store.copies.keep(page("c2", 5, CopiedRun("r", 5, (("run", "2"),), head("c2", 2))))
    assert [(h.owner, h.store) for h in store.copies.heads_of(["r"])] == [("c2", "c2-store")]


@pytest.mark.parametrize("whole", [True, False])
def test_nothing_is_left_of_what_stood_in_for_a_copy(tmp_path: Path, whole: bool) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    real = (("document", "d"), ("run", "2"))
    told = (
        [CopiedRun("r", 5, real), CopiedRun("r", 5, (), head("c2", 2, 5))]
        if whole
        else [CopiedRun("r", 5, real, head("c2", 2, 5))]
    )
    with store.transaction():
        store.copies.put("c2", "c2-store", CopiedRun("r", 0, (("run", "1"), ("t/a/7", "c1 gave it")), head("c2", 2, 0)))
        for copied in told:
            store.copies.keep(page("c2", 5, copied))
    assert store.copies.rows("c2", "c2-store", "r") == list(real)


def test_what_stands_in_stays_where_the_copy_that_comes_is_of_an_earlier_retry(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    with store.transaction():
        store.copies.put("c2", "", CopiedRun("r", 0, (("run", "retried"),), RunHead("r", "c2", "", 2, retried=1)))
        store.copies.keep(page("c2", 5, CopiedRun("r", 5, (("run", "2"),), head("c2", 2, 5))))
    assert {(h.store, h.retried) for h in store.copies.heads_of(["r"])} == {("", 1), ("c2-store", 0)}


def test_a_run_told_whole_takes_the_place_of_what_its_owner_had_of_it_before(tmp_path: Path) -> None:
    store = RuntimeStore(tmp_path / "r.db")
    with store.transaction():
        store.copies.keep(
            page("c1", 3, CopiedRun("r", 3, (("run", "1"), ("t/a/7", "of its first ownership")), head("c1", 1, 3)))
        )
        store.copies.keep(page("c1", 3, CopiedRun("r", 9, (("run", "3"),)), after=3))
        assert len(store.copies.rows("c1", "c1-store", "r")) == 2  # until all of it is here
        end = page("c1", 3, CopiedRun("r", 9, (), head("c1", 3, 9)), after=3)
        store.copies.keep(end)
        store.copies.keep(page("c1", 10, CopiedRun("r", 10, (("w/a", "later"),), head("c1", 3, 10)), after=3))
        store.copies.keep(end)  # told twice
    assert store.copies.rows("c1", "c1-store", "r") == [("run", "3"), ("w/a", "later")]


def test_nothing_stands_in_where_a_copy_of_that_owners_is(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "c.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    with owner.store.transaction():
        owner.store.copies.keep(page("c2", 5, CopiedRun("r", 5, (("run", "2"),), head("c2", 2, 5))))
        owner.store.save([do.ReleaseRun(head("c2", 2, 6, final=True))], 100)
    assert owner.store.copies.rows("c2", "c2-store", "r") == [("run", "2")]
    assert [h.number for h in owner.store.copies.heads_of(["r"])] == [5]
    assert owner.store.forgotten.left("r") == 1  # no copy here need tell of an epoch as late as that


def test_a_run_that_is_handed_over_stays_ones_own_beside_the_copy(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "c.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    with owner.store.transaction():
        owner.store.save([do.ReleaseRun(RunHead("r", "c2", "", 2), handing=True)], 100)
    assert owner.store.run("r") is not None
    (kept,) = owner.store.copies.heads_of(["r"])
    assert (kept.owner, kept.epoch, kept.cancelled) == ("c2", 2, True)


def test_the_epoch_of_a_run_let_go_of_is_remembered_until_it_is_taken_over_again(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "c.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    found = recover(owner.store.owned.all("r"))
    ended = head("c2", 2, 9, final=True)

    def adopt(epoch: int) -> None:
        run = replace(found.run, owner="c1", epoch=epoch, adopted=epoch)
        snapshot = Snapshot(run, WORKFLOW, found.workers, found.tasks, found.holders, found.submission)
        owner.store.save([do.AdoptRun(snapshot)], 100)

    with owner.store.transaction():
        adopt(2)
        owner.store.save([do.ReleaseRun(ended)], 101)
    assert owner.store.forgotten.left("r") == 2
    with owner.store.transaction():
        adopt(3)
        owner.store.save([do.ReleaseRun(ended), do.ReleaseRun(replace(ended, epoch=3))], 102)  # two followers say so
    assert owner.store.forgotten.left("r") == 3
    assert owner.store.owned.head("r") is owner.store.forgotten.pruned("r") is None
    with owner.store.transaction():
        adopt(4)
    assert owner.store.forgotten.left("r") == 0


def test_an_adopted_run_is_the_adopters_and_a_released_one_stays_as_a_copy(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "c.db", 1)
    owner.tell(on.Submit("r", WORKFLOW, SUBMISSION))
    before = recover(owner.store.owned.all("r"))
    with owner.store.transaction():
        owner.store.save([do.ReleaseRun(RunHead("r", "c2", "", 2))], 100)
    assert owner.store.run("r") is None
    (kept,) = owner.store.copies.heads_of(["r"])
    assert (kept.owner, kept.epoch, kept.number) == ("c2", 2, 0)
    found = recover(owner.store.copies.rows("c2", "", "r"))
    assert found == before
    assert owner.store.owned.changed(99) == [(100, "r")]
    again = replace(found.run, owner="c1", epoch=3, adopted=3)
    snapshot = Snapshot(again, WORKFLOW, found.workers, found.tasks, found.holders, found.submission)
    with owner.store.transaction():
        owner.store.save([do.AdoptRun(snapshot)], 101)
    row = owner.store.run("r")
    assert row is not None
    assert (row.owner, row.epoch, row.adopted, row.number) == ("c1", 3, 3, 101)
    assert recover(owner.store.owned.all("r")) == replace(before, run=again)
    assert owner.store.snapshot("r", WORKFLOW).tasks == before.tasks
