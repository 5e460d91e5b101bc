"""Messages between peers: what is said comes back as it was, what could hurt a peer is refused at its door."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattle.core.model import Assignment, Fact, FactKind, Input, NodeInfo, Output, RunHead, TaskStatus, Usage
from wattle.core.numbering import ATTEMPTS_PER_EPOCH
from wattle.errors import InvalidRequest
from wattle.protocol.keys import Keys
from wattle.protocol.messages import (
    ENDS,
    FIRST_TIME,
    LAST_TIME,
    MOST,
    MOST_EPOCH,
    AssignBatch,
    FactsAnswer,
    FeedEntry,
    FeedPage,
    HeldQuestion,
    TaskRef,
    check_assignments,
    decode,
    encode,
)
from wattle.protocol.records import timestamp

FACT = Fact(
    FactKind.FINISHED, "r", "w", 2, 1.5, status=TaskStatus.SUCCEEDED, exit_code=0, outputs={"o": Output("p", "d", 3)}, usage=Usage(0.1, 9)
)  # fmt: skip
MESSAGES = [
    NodeInfo("n", "i", "s", slots=3, resources={"cpus": 2.5, "memory": 1e12}, labels={"a": "b"}),
    AssignBatch("c", (Assignment("r", "w", 1, 7, "p", argv=("a", "b"), env={"A": ""}, timeout=2.0),)),
    FeedPage("s", 4, (FeedEntry(4, (FACT, Fact(FactKind.STARTED, "r", "w", 1, at=1.0, pid=5))),)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_said_comes_back(message: Any) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.parametrize("number", [f"{2 * MOST}", f"-{2 * MOST}", "1e30", "1e999", "NaN", "Infinity", "9" * 5000])
@pytest.mark.parametrize("field", ['"slots"', '"feed"', '"resources": {"cpus"'])
def test_numbers_that_no_store_or_clock_can_hold_are_refused(field: str, number: str) -> None:
    text = f'{{"name": "n", "incarnation": "i", "store": "s", {field}: {number}{"}" * field.count("{")}}}'
    with pytest.raises(InvalidRequest, match="no NodeInfo"):
        decode(NodeInfo, text.encode())


def test_the_largest_numbers_pass() -> None:
    info = NodeInfo("n", "i", "s", slots=MOST, resources={"memory": float(MOST)})
    assert decode(NodeInfo, encode(info)) == info


@given(st.binary(max_size=80))
def test_junk_is_refused_and_nothing_else_happens(junk: bytes) -> None:
    for kind in (NodeInfo, AssignBatch, FeedPage):
        with pytest.raises(InvalidRequest):
            decode(kind, junk)


def test_a_message_needs_a_payload() -> None:
    with pytest.raises(InvalidRequest, match="must carry a payload"):
        decode(NodeInfo, None)


def test_assignments_whose_names_are_paths_are_refused() -> None:
    digest = "0" * 64
    sound = Assignment("r", "w", 1, 1, "p", inputs={"k": Input("v", "o", "p", digest, 1)})
    check_assignments(AssignBatch("c", (sound,)))
    wrong = [
        Assignment("../r", "w", 1, 1, "p"),
        Assignment("r", "/w", 1, 1, "p"),
        Assignment("r", "", 1, 1, "p"),
        Assignment("r", "w", 1, 1, "p", inputs={"k": Input("..", "o", "p", digest, 1)}),
        Assignment("r", "w", 1, 1, "p", inputs={"k": Input("v", "o", "p", "../../" + digest, 1)}),
        Assignment("r", "w", 1, 1, "p", inputs={"k": Input("v", "o", "p", "**", 1)}),
    ]
    for task in wrong:
        with pytest.raises(InvalidRequest):
            check_assignments(AssignBatch("c", (sound, task)))


def test_who_answered_a_command_stands_in_its_key() -> None:
    keys = Keys()
    assert keys.cmd_peer(keys.cmd("c1", "run")) == "c1"
    with pytest.raises(InvalidRequest):
        keys.cmd_peer("wattle/other/cmd/c1/run")


@pytest.mark.parametrize("status", [None, *(status for status in TaskStatus if status not in ENDS)])
def test_a_fact_that_finishes_nothing_is_refused(status: TaskStatus | None) -> None:
    fact = replace(FACT, status=status)
    for message in (FeedPage("s", 4, (FeedEntry(4, (FACT, fact)),)), FactsAnswer((fact,))):
        with pytest.raises(InvalidRequest, match="cannot have finished as"):
            decode(type(message), encode(message))


@pytest.mark.parametrize("at", [LAST_TIME + 1, FIRST_TIME - 1])
def test_times_that_no_date_can_be_written_for_are_refused(at: float) -> None:
    for message in (FactsAnswer((replace(FACT, at=at),)), FactsAnswer((replace(FACT, started_at=at),))):
        with pytest.raises(InvalidRequest, match="no FactsAnswer"):
            decode(FactsAnswer, encode(message))
    for end in (FIRST_TIME, LAST_TIME):
        timestamp(decode(FactsAnswer, encode(FactsAnswer((replace(FACT, at=end),)))).facts[0].at)


def test_epochs_that_attempts_cannot_be_numbered_for_are_refused() -> None:
    for epoch in (MOST_EPOCH + 1, -1):
        for message in (HeldQuestion("c", (("r", epoch),)), RunHead("r", "c", "s", epoch), TaskRef("r", "w", 1, epoch)):
            with pytest.raises(InvalidRequest):
                decode(type(message), encode(message))
    assert MOST_EPOCH * ATTEMPTS_PER_EPOCH <= MOST
