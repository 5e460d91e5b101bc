"""Copies that somebody sent and that do not hold together: they are kept unread, and refused when the run would be adopted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.bus.networks import Inbox
from tests.coordinator.world import KEYS, World, document
from wattle.coordinator.agent import CoordinatorAgent
from wattle.core import events as on
from wattle.core.model import (
    CopiedRun,
    CopyPage,
    RunHead,
    RunRecord,
    RunStatus,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    WorkerStatus,
)
from wattle.errors import Unavailable
from wattle.protocol.messages import KeepAnswer, decode, encode
from wattle.store.owned import DEFINITION, Definition, Submission, document_row, run_row, task_row, text, worker_row

RUN = RunRecord("r", "p", RunStatus.RUNNING, "gone", 1, 1.0, started_at=2.0)
WORKER = WorkerRecord("r", "a", WorkerStatus.RUNNING, attempts=1, started_at=2.0)
TASK = TaskRecord("r", "a", 1, "node1", TaskStatus.RUNNING, 1.5, started_at=2.0)
SUBMITTED = document_row(Submission(text(document("p")), "d", {}))
ROWS = [run_row(RUN), SUBMITTED, worker_row(WORKER), task_row(TASK)]
DEFINED = Definition("w", 5.0, document("w"), "d", 5.0)

BAD: dict[str, list[tuple[str, str]]] = {
    "no document": [ROWS[0], *ROWS[2:]],
    "no JSON": [("run", "{"), *ROWS[1:]],
    "a time that no clock shows": [run_row(replace(RUN, started_at=1e18)), *ROWS[1:]],
    "an epoch without attempts": [run_row(replace(RUN, adopted=2**61)), *ROWS[1:]],
    "a number that is infinite": [
        ROWS[0],
        ("document", SUBMITTED[1].replace('"params":{}', '"params":{"n":1e999}')),
        *ROWS[2:],
    ],
    "another run": [run_row(replace(RUN, id="s")), *ROWS[1:]],
    "a worker of another run": [*ROWS[:2], worker_row(replace(WORKER, run="s"))],
    "a worker that its document does not have": [*ROWS, worker_row(replace(WORKER, name="b"))],
    "an attempt at one": [*ROWS, task_row(replace(TASK, worker="b"))],
}


async def after_a_restart(net: World, page: CopyPage) -> Any:
    """What the core is told of a copy by a coordinator that keeps it and starts again."""
    await net.coordinator("c1", adopt_after=0.01)
    (reply,) = await net.client.get(KEYS.cmd("c1", "keep"), encode(page), timeout=20.0)
    assert decode(KeepAnswer, reply.payload).number == 1
    await net.stop("c1")
    net.runtime()
    told = Inbox()
    post = CoordinatorAgent.post

    def listen(self: CoordinatorAgent, event: on.CoordinatorEvent, done: Any = None) -> None:
        post(self, event, done)
        if isinstance(event, on.Gathered | on.NotGathered | on.Define):
            told(event)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CoordinatorAgent, "post", listen)
        await net.coordinator("c1", adopt_after=0.01)
        (first, *_) = await told.size(1)
    assert (await net.command("nodes"))["nodes"]
    return first


def a_copy(rows: list[tuple[str, str]], run: str = "r", **head: Any) -> CopyPage:
    return CopyPage("gone", "x", 0, 1, (CopiedRun(run, 1, tuple(rows), RunHead(run, "gone", "x", 1, 1, **head)),))


@pytest.mark.parametrize("what", BAD)
async def test_a_run_is_not_adopted_from_rows_that_do_not_hold_together(what: str, net: World) -> None:
    assert isinstance(await after_a_restart(net, a_copy(BAD[what])), on.NotGathered)


async def test_who_sends_a_page_is_told_of_a_better_state(net: World) -> None:
    await net.coordinator("c1")

    async def kept(page: CopyPage) -> KeepAnswer:
        (reply,) = await net.client.get(KEYS.cmd("c1", "keep"), encode(page), timeout=20.0)
        return decode(KeepAnswer, reply.payload)

    assert (await kept(a_copy(ROWS))).heads == ()
    former = CopyPage("c0", "y", 0, 1, (CopiedRun("r", 1, tuple(ROWS), RunHead("r", "c0", "y", 1, 1)),))
    assert (await kept(former)).heads == (RunHead("r", "gone", "x", 1, 1),)  # of the same epoch, by the higher name


async def test_a_submission_of_which_a_follower_knows_a_better_state_is_not_acknowledged(net: World) -> None:
    await net.coordinator("c1", replicas=1)
    node = net.runtime()
    await net.submit("r1")
    await node.next()  # it has been met
    node.better = (RunHead("r2", "gone", "x", 2, 1),)
    with pytest.raises(Unavailable) as caught:
        await net.submit("r2")
    assert caught.value.code == "OWNER_UNREACHABLE"
    assert [run["id"] for run in (await net.command("runs", {"limit": 10}))["runs"]] == ["r1"]


async def test_one_whose_rows_do_is(net: World) -> None:
    assert isinstance(await after_a_restart(net, a_copy(ROWS)), on.Gathered)


@pytest.mark.parametrize("change", [{"name": "v"}, {"document": document("v")}, {"document": {"name": "w"}}])
async def test_a_definition_that_is_of_another_workflow_or_none_is_not_taken(
    change: dict[str, Any], net: World
) -> None:
    row = ("definition", text(replace(DEFINED, **change)))
    page = a_copy([row], DEFINITION + "w", final=True)
    assert isinstance(await after_a_restart(net, page), on.NotGathered)


async def test_a_sound_one_is(net: World) -> None:
    page = a_copy([("definition", text(DEFINED))], DEFINITION + "w", final=True)
    assert isinstance(await after_a_restart(net, page), on.Define)
