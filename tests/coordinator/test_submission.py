"""Submissions: what is remembered of small documents."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import pytest

from wattle.coordinator import submission
from wattle.coordinator.submission import INLINE, REMEMBERED, SubmissionRequest
from wattle.errors import InvalidRequest


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    known: dict[Any, Any] = {}
    monkeypatch.setattr(submission, "_remembered", known)
    return known


def parsed(document: object, params: dict[str, Any] | None = None, run: str | None = None) -> SubmissionRequest:
    return SubmissionRequest.parse(json.dumps({"document": document, "params": params or {}, "run": run}).encode())


def document(**more: Any) -> dict[str, Any]:
    return {"name": "p", "workers": [{"name": "w", "command": "echo ${params.x}"}], "params": {"x": None}} | more


def test_runs_of_one_document_share_what_it_comes_to_but_not_what_was_given() -> None:
    first, second, other = (parsed(document(), {"x": x}, run) for x, run in (("1", "a"), ("1", "b"), ("2", "c")))
    assert first.compiled() is second.compiled()
    assert (first.body, first.digest) == (second.body, second.digest) == (other.body, other.digest)
    assert [one.run for one in (first, second, other)] == ["a", "b", "c"]
    assert [one.compiled().workers["w"].params for one in (first, other)] == [{"x": "1"}, {"x": "2"}]


def test_what_parameters_are_refused_for_is_told_each_time_the_same() -> None:
    depths = []
    for _ in range(3):
        with pytest.raises(InvalidRequest, match="no default") as caught:
            parsed(document()).compiled()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_the_newest_small_documents_alone_are_remembered(remembered: dict[Any, Any]) -> None:
    for number in range(REMEMBERED + 1):
        parsed(document(name=f"p{number}"), {"x": "1"})
    assert len(remembered) == REMEMBERED
    assert {found.name for found in remembered.values()} == {f"p{number}" for number in range(1, REMEMBERED + 1)}


def test_a_short_text_that_is_a_long_document_is_not_remembered(remembered: dict[Any, Any]) -> None:
    words = f"env_vars: &many {{A: {'x' * 1000}}}"
    workers = chain.from_iterable(
        (f"  - name: w{n}", "    command: 'true'", "    env_vars: *many") for n in range(INLINE // 1000 + 1)
    )
    assert len(parsed("\n".join(["name: p", words, "workers:", *workers])).body) > INLINE
    assert remembered == {}
