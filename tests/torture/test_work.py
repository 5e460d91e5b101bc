"""The work is the same for the same seed; the watcher notices a final result that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.torture.site import Site
from tests.torture.work import Watcher, work


def test_work_repeats_and_is_of_every_shape() -> None:
    given = work(3, 300, 20, 100, 12, Path("/ledger"))
    assert given == work(3, 300, 20, 100, 12, Path("/ledger"))
    assert {len(document["workers"]) for document in given.documents.values()} == {100}
    needs = [max(len(worker["needs"]) for worker in document["workers"]) for document in given.documents.values()]
    assert set(needs) == {0, 10, 4}
    assert 0 == given.due["run01"] < given.due["run20"] < 300


@pytest.fixture
def watcher(tmp_path: Path) -> Watcher:
    nowhere: Any = None
    site: Site = nowhere  # note() asks nobody
    return Watcher(site)


def view(status: str, at: str | None = None, epoch: int = 2, **counts: int) -> dict[str, Any]:
    return {"id": "r", "status": status, "completed_at": at, "counts": counts, "owner": "c", "epoch": epoch}


def test_a_final_result_may_be_told_again_but_not_change(watcher: Watcher) -> None:
    for told in (
        view("running", running=1),
        view("succeeded", "now", succeeded=1),
        view("succeeded", "now", succeeded=1),
    ):
        watcher.note(told)
    assert (watcher.changed, watcher.redated) == ([], [])
    watcher.note(view("succeeded", "then", succeeded=1))
    assert watcher.changed == []
    assert len(watcher.redated) == 1
    watcher.note(view("running", running=1))
    watcher.note(view("running", running=1))
    assert len(watcher.changed) == 1
    watcher.note(view("failed", "later", failed=1))
    assert len(watcher.changed) == 2


def test_a_former_owner_may_show_a_run_as_it_had_it_but_no_other_end(watcher: Watcher) -> None:
    watcher.note(view("succeeded", "now", succeeded=1))
    watcher.note(view("running", epoch=1, running=1))
    assert (watcher.changed, watcher.behind) == ([], 1)
    watcher.note(view("running", epoch=3, running=1))
    watcher.note(view("failed", "later", epoch=1, failed=1))
    assert len(watcher.changed) == 2
