"""What comes with a submission: a document, with or without parameters and a run id around it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import trio
from pydantic_core import to_json

from wattle.errors import InvalidRequest
from wattle.names import check_name
from wattle.peer.asking import parse_object
from wattle.values import value

INLINE = 32 * 1024
"""Bytes of a payload that are looked at on the spot; a larger one in a thread, so that others are served meanwhile."""


@value(frozen=True, slots=True)
class Submission:
    """``payload`` is what the coordinator gets; ``name`` the document's, unchecked and perhaps empty; ``run`` the wished-for id."""

    payload: bytes
    name: str
    run: str | None

    def named(self, run: str) -> bytes:
        """The payload with a run id in it; for one that came without: of two the last one counts, should it have none in so many words."""
        return self.payload[:-1] + b',"run":' + to_json(run) + b"}"  # an object that has a document


async def read_submission(payload: bytes | None, run: str | None = None) -> Submission:
    """``{"document", "params", "run"}``, or a bare document in JSON or YAML; ``run`` is the id in the key, if any.

    A bare document is handed on as the text it came as, so that errors name its lines. Raises InvalidRequest.
    """
    if not payload:
        raise InvalidRequest("the payload is empty; it must be a workflow document")
    if len(payload) <= INLINE:
        return _read(payload, run)
    return await trio.to_thread.run_sync(_read, payload, run)


def _read(payload: bytes, run: str | None) -> Submission:
    value: Any = None
    if payload.lstrip()[:1] == b"{":
        try:
            value = parse_object(payload)
        except InvalidRequest:
            if _wrapped(payload):
                raise
            value = None  # a bare document: the coordinator says what is wrong with it, and where
    if isinstance(value, dict) and "document" in value and "workers" not in value:
        submission, body = value, payload.strip()  # what has been read as JSON is handed on as it came
    else:
        try:
            submission = {"document": payload.decode()}
            body = to_json(submission)
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the payload is no text in UTF-8: {error.reason} at byte {error.start}") from None
    told = submission.get("run")
    if told is not None:
        check_name(told, "run")
        if run is not None and told != run:
            raise InvalidRequest(f"the payload names run {told!r}, the key says {run!r}; make them the same")
    document = value if value is not None and submission is not value else submission["document"]
    found = Submission(body, _name(document), run or told)
    return found if told is not None or run is None else replace(found, payload=found.named(run))


def _wrapped(payload: bytes) -> bool:
    """Whether a payload with values that JSON has no words for, such as NaN, is a submission with a document inside."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "document" in value and "workers" not in value


def _name(document: Any) -> str:
    """The name in a document that has not been checked yet, or nothing: to choose a coordinator, which then checks it."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            lines = document.splitlines()
            return next((line[5:].strip().strip("'\"") for line in lines if line.startswith("name:")), "")
    return str(document.get("name", "")) if isinstance(document, dict) else ""
