"""Requests and answers, without any network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.client.fake_gateway import T0, node, worker, workflow
from wattle.bus.base import Reply
from wattle.client import answers, requests
from wattle.client.requests import Request
from wattle.errors import Conflict, InternalError, InvalidRequest, NotFound, Unavailable
from wattle.protocol.keys import Keys

RUN = {
    "id": "r",
    "workflow": "w",
    "status": "failed",
    "created_at": T0,
    "owner": "c",
    "epoch": 2,
    "counts": {"failed": 1},
}


def ok(value: Any, attachment: Any = None) -> list[Reply]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [Reply("k", data, attachment=None if attachment is None else json.dumps(attachment).encode())]


@pytest.mark.parametrize(
    ("request_", "path", "parameters"),
    [
        (requests.run("r"), "runs/r", ""),
        (requests.run("r", 2.5), "runs/r", "wait=2.5"),
        (requests.runs("a b;c", "failed", 5, "x=1"), "runs", "workflow=a%20b%3Bc;status=failed;limit=5;after=x%3D1"),
        (requests.cancel("r"), "runs/r/cancel", ""),
        (requests.retry("r"), "runs/r/retry", ""),
        (requests.prune(["r"]), "prune", ""),
        (requests.workers("r", after="9"), "runs/r/workers", "after=9"),
        (requests.worker("r", "w"), "runs/r/workers/w", ""),
        (requests.log("r", "w", "stderr", offset=0, attempt=2), "runs/r/workers/w/logs/stderr", "offset=0;attempt=2"),
        (requests.log("r", "w", attempt=2, node="n"), "runs/r/workers/w/logs/stdout", "attempt=2;node=n"),
        (requests.workflow("w"), "workflows/w", ""),
        (requests.start("w", {"a": 1}, "r"), "workflows/w/start", ""),
        (requests.node("n", "drain"), "nodes/n/drain", ""),
        (requests.health(), "health", ""),
    ],
)
def test_path_and_parameters(request_: Request[Any], path: str, parameters: str) -> None:
    assert (request_.path, request_.parameters) == (path, parameters)


def test_pruning_is_told_which_runs_or_how_old() -> None:
    assert json.loads(requests.prune(["r"]).payload or b"") == {"runs": ["r"]}
    assert json.loads(requests.prune(older_than=0).payload or b"") == {"older_than": 0}
    for wrong in ({}, {"runs": ["r"], "older_than": 1.0}, {"runs": ["a/b"]}):
        with pytest.raises(InvalidRequest):
            requests.prune(**wrong)


def test_submission_carries_document_params_and_run(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: ä\n")
    for document, sent in (({"name": "x"}, {"name": "x"}), (b"name: x", "name: x"), (file, "name: ä\n")):
        body = json.loads(requests.submit(document, {"p": True}, "r-1").payload or b"")
        assert body == {"document": sent, "params": {"p": True}, "run": "r-1"}


@pytest.mark.parametrize(
    "make", [lambda: requests.run("a/b"), lambda: requests.worker("r", "*"), lambda: requests.log("r", "w", "x")]
)
def test_names_that_would_widen_a_key_are_refused(make: Any) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_unreadable_documents_are_invalid_requests(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot read .*missing\.yaml"):
        requests.submit(tmp_path / "missing.yaml", None, "r")
    with pytest.raises(InvalidRequest, match="UTF-8"):
        requests.submit(b"\xff", None, "r")
    with pytest.raises(InvalidRequest, match="as JSON"):
        requests.submit({"name": object()}, None, "r")
    for wrong in (None, 3, [{"name": "w"}]):
        with pytest.raises(InvalidRequest, match="a mapping, text, bytes or a Path, not"):
            requests.run_prefix(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("document", "prefix"),
    [
        ("# hi\nname: word-count # x\nworkers: []", "word-count"),
        ('{"name":"p","workers":[]}', "p"),
        ('{\n  "name": "p q"\n}', "p-q"),
        ({"name": "d"}, "d"),
        ("nonsense", "run"),
    ],
)
def test_run_ids_start_with_the_workflow(document: Any, prefix: str) -> None:
    assert requests.run_prefix(document) == prefix


def test_full_keys_and_api_paths() -> None:
    keys = Keys("lab")
    assert requests.selector("runs/x?wait=1;a=2") == ("runs/x", "wait=1;a=2", False)
    assert requests.selector("wattle/lab/state/*/*") == ("wattle/lab/state/*/*", "", True)
    assert requests.full_key(keys, "runs") == "wattle/lab/api/v1/runs"
    assert requests.full_key(keys, "wattle/lab/x") == "wattle/lab/x"
    with pytest.raises(InvalidRequest):
        requests.selector("/")


def test_a_run_is_read_and_later_fields_are_ignored() -> None:
    view = requests.run("r").answer(ok(RUN | {"later": 1}))
    assert (view.id, view.final, view.workers) == ("r", True, 1)


def test_a_worker_is_read_with_results_and_attempts() -> None:
    usage = {"cpu_seconds": 0.5, "memory_peak": 10}
    attempt = {"attempt": 1, "node": "n", "status": "failed", "assigned_at": T0, "usage": usage}
    value = worker("r", "w") | {"attempts": [attempt], "results": {"o": {"path": "p", "digest": "d", "size": 3}}}
    view = requests.worker("r", "w").answer(ok(value))
    assert view.attempts[0].usage is not None
    assert view.attempts[0].usage.memory_peak == 10
    assert view.results["o"].size == 3


def test_listings_are_pages() -> None:
    page = requests.nodes().answer(ok({"nodes": [node("a"), node("b")]}))
    assert [one.name for one in page.items] == ["a", "b"]
    assert requests.workflows().answer(ok({"workflows": [workflow("w")], "next": "t"})).next == "t"


def test_a_log_is_bytes_with_its_place() -> None:
    about = {"attempt": 2, "node": "n", "offset": 5, "next": 8, "size": 9, "running": True}
    chunk = requests.log("r", "w").answer(ok(b"\x00ab", about))
    assert (chunk.data, chunk.attempt, chunk.next, chunk.size, chunk.running) == (b"\x00ab", 2, 8, 9, True)


def test_a_log_that_no_node_has_yet_names_none() -> None:
    assert answers.log_chunk(Reply("k", b"", attachment=b'{"attempt": 0, "node": null}')).node == ""


@pytest.mark.parametrize("value", [b"no json", [1], {"id": "r"}, {"runs": 3}])
def test_answers_that_are_none_say_so(value: Any) -> None:
    with pytest.raises(InternalError):
        requests.run("r").answer(ok(value))
    with pytest.raises(InternalError):
        requests.runs().answer(ok(value))


@pytest.mark.parametrize(
    ("payload", "kind", "code"),
    [
        (b'{"code":"RUN_NOT_FOUND","message":"m","detail":[1]}', NotFound, "RUN_NOT_FOUND"),
        (b'{"code":"RUN_FINAL","message":"m"}', Conflict, "RUN_FINAL"),
        (b"Timeout", Unavailable, "TIMEOUT"),
        (b"what", InternalError, "INTERNAL"),
        (b"[]", InternalError, "INTERNAL"),
    ],
)
def test_error_replies_become_exceptions(payload: bytes, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as caught:
        requests.run("r").answer([Reply("", payload, ok=False)])
    assert caught.value.code == code  # type: ignore[attr-defined]  # all of them are WattleErrors


def test_no_reply_at_all_is_no_gateway_and_any_good_reply_wins() -> None:
    with pytest.raises(Unavailable) as caught:
        answers.first_answer([], "runs")
    assert caught.value.code == "NO_GATEWAY"
    good = Reply("k", b"1")
    assert answers.first_answer([Reply("", b"Timeout", ok=False), good], "runs") is good
