"""Payloads of submissions: bare documents and documents with something around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wattle.errors import InvalidRequest
from wattle.gateway.submission import INLINE, Submission, read_submission

DOCUMENT: dict[str, Any] = {"name": "p", "workers": []}


async def read(payload: Any, run: str | None = None) -> Submission:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return await read_submission(body, run)


async def test_a_bare_document_is_handed_on_as_the_text_it_came_as() -> None:
    text = b' {"name" : "p", "workers": [] }\n'
    submission = await read(text)
    assert json.loads(submission.payload) == {"document": text.decode()}
    assert (submission.name, submission.run) == ("p", None)


async def test_yaml_too() -> None:
    text = b"# mine\nname: 'p'\nworkers: []\n"
    submission = await read(text, "r1")
    assert json.loads(submission.payload) == {"document": text.decode(), "run": "r1"}
    assert (submission.name, submission.run) == ("p", "r1")


async def test_a_wrapped_document_keeps_its_parameters_and_run() -> None:
    submission = await read({"document": DOCUMENT, "params": {"n": 1}, "run": "r1"})
    assert json.loads(submission.payload) == {"document": DOCUMENT, "params": {"n": 1}, "run": "r1"}
    assert (submission.name, submission.run) == ("p", "r1")
    assert (await read({"document": "name: q\nworkers: []"})).name == "q"
    assert (await read({"document": DOCUMENT, "run": "r1"}, "r1")).run == "r1"


async def test_what_is_wrapped_is_handed_on_as_it_came() -> None:
    text = b'{"document" : {"name": "p", "workers": []}, "run": null }'
    submission = await read(b" " + text + b"\n")
    assert submission.payload == text
    assert json.loads(submission.named("r1")) == {"document": DOCUMENT, "run": "r1"}
    assert json.loads((await read(text, "r2")).payload) == {"document": DOCUMENT, "run": "r2"}


async def test_the_run_of_the_key_is_the_run() -> None:
    submission = await read({"document": DOCUMENT}, "r1")
    assert json.loads(submission.payload)["run"] == "r1"
    with pytest.raises(InvalidRequest, match="names run 'r2', the key says 'r1'"):
        await read({"document": DOCUMENT, "run": "r2"}, "r1")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "is empty"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b'{"document": {"name": "p"}, "params": {"x": NaN}}', "no JSON"),
        (b'{"document": {"name": "p"}, "params": {"x": 1e999}}', "no JSON"),
        (b'{"document": {"name": "\\ud800"}}', "no JSON"),
        (b'{"document": {}, "run": 7}', "not a string"),
        (b'{"document": {}, "run": "../x"}', "must start with"),
    ],
)
async def test_what_cannot_be_handed_on(payload: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        await read(payload)


@pytest.mark.parametrize(
    "text", ["{", '{"name": "p", "workers": [}', "[1]", "null", "no document", '{"name": NaN}', "[" * 3000]
)
async def test_what_is_wrong_with_a_document_is_left_to_the_coordinator(text: str) -> None:
    assert json.loads((await read(text.encode())).payload) == {"document": text}


async def test_large_ones_are_read_the_same() -> None:
    document = {"name": "p", "description": "x" * 2 * INLINE, "workers": []}
    submission = await read({"document": document}, "r1")
    assert json.loads(submission.payload) == {"document": document, "run": "r1"}
    assert submission.name == "p"
