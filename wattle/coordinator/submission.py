"""Submissions as coordinators take them: a document and parameters, parsed, checked and compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import trio
from pydantic_core import to_json

from wattle.collector import paused
from wattle.core.model import Workflow
from wattle.document.compile import compile_document, to_text
from wattle.document.load import load, load_value
from wattle.document.model import Document
from wattle.document.syntax import MAX_BYTES
from wattle.errors import InvalidRequest, WattleError
from wattle.names import check_name
from wattle.peer.asking import parse_object

INLINE = 32 * 1024
"""Bytes of a submission that are checked on the spot; a larger one is checked in a thread, so that others are served meanwhile."""


REMEMBERED = 32
"""Documents, with parameters and no larger than ``INLINE``, of which it is known what they came to: many runs of one may be submitted."""


class _Checked:
    """What a document comes to, with parameters; what these are refused for is kept until it is asked for."""

    def __init__(self, document: Document, params: Mapping[str, Any]) -> None:
        self.name = document.name
        self.body = to_text(document)
        self.digest = hashlib.sha256(self.body.encode()).hexdigest()
        self.compiled: Workflow | WattleError
        try:
            self.compiled = compile_document(document, params)
        except WattleError as error:
            self.compiled = error


_remembered: dict[tuple[str | bytes, bytes], _Checked] = {}


def _checked(document: str | dict[str, Any], params: Mapping[str, Any]) -> _Checked:
    """What a small document comes to; on one thread."""
    key = document if isinstance(document, str) else to_json(document), to_json(params)
    found = _remembered.get(key)
    if found is None:
        found = _Checked(_loaded(document), params)
        if len(found.body) <= INLINE:  # what is short as YAML may be long
            if len(_remembered) >= REMEMBERED:
                del _remembered[next(iter(_remembered))]
            _remembered[key] = found
    return found


def _loaded(document: str | bytes | dict[str, Any]) -> Document:
    return load_value(document, placed=True) if isinstance(document, dict) else load(document)


class SubmissionRequest:
    """A submission, parsed and checked: the document's name, JSON text and that text's digest, parameters, and the wished-for run id.

    What it compiles to is made along with it, in the same thread; what its parameters are refused for is told by ``compiled``.
    """

    def __init__(self, checked: _Checked, params: Mapping[str, Any], run: str | None) -> None:
        self.name, self.body, self.digest = checked.name, checked.body, checked.digest
        self.params, self.run = dict(params), run
        self._compiled = checked.compiled

    def compiled(self) -> Workflow:
        """The workflow with these parameters; raises what ``compile_document`` raises."""
        if isinstance(self._compiled, WattleError):
            raise self._compiled.with_traceback(None)  # it may be raised again for the next one
        return self._compiled

    @classmethod
    def parse(cls, body: bytes) -> SubmissionRequest:
        """Raises InvalidRequest, or InvalidDocument with every problem of the document."""
        with paused():
            return cls._parse(body)

    @classmethod
    def _parse(cls, body: bytes) -> SubmissionRequest:
        request = parse_object(body)
        unknown = sorted(set(request) - {"document", "params", "run"})
        if unknown:
            raise InvalidRequest(f"a submission has no {unknown[0]!r}; it has document, params and run")
        document = request.get("document")
        if not isinstance(document, str | dict):
            raise InvalidRequest("a submission needs a 'document': the workflow as an object, or as JSON or YAML text")
        params = request.get("params") or {}
        if not isinstance(params, dict):
            raise InvalidRequest("'params' must be an object of parameter values by name")
        run = request.get("run")
        if run is not None:
            check_name(run, "run")
        if len(body) <= INLINE:
            return cls(_checked(document, params), params, run)
        text = to_json(document) if len(body) > MAX_BYTES else document  # which may be smaller
        return cls(_Checked(_loaded(text), params), params, run)


async def parse_submission(body: bytes) -> SubmissionRequest:
    """The same as ``SubmissionRequest.parse``, for one of any size."""
    return (
        SubmissionRequest.parse(body)
        if len(body) <= INLINE
        else await trio.to_thread.run_sync(SubmissionRequest.parse, body)
    )
