"""Serving the content that this node holds to others."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import trio

from wattle.bus.base import Bus, Query
from wattle.errors import InvalidRequest
from wattle.logs import get_logger
from wattle.peer.asking import parse_number, parse_parameters, refuse
from wattle.protocol.keys import Keys
from wattle.runtime.blobs import BlobIndex, first_held, read_chunk

CHUNK = 4 << 20
"""Bytes of the largest chunk that is asked for or given. Each costs 1 to 2 ms of processor time at either end, whatever its size."""

_READERS = 2  # threads that read for others
_SIZE_MAX = 2**62

_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = get_logger("wattle.runtime.serving")


class ContentServer:
    """Answers who asks for content: ``blob/<digest>`` with JSON if it is held here, ``blob/<digest>/<peer>`` with bytes.

    The JSON says ``peer``, ``size`` and ``executable``: a program passed from task to task stays one.
    """

    def __init__(self, bus: Bus, keys: Keys, peer: str, index: BlobIndex) -> None:
        self._keys = keys
        self._peer = peer
        self._index = index
        self._token = trio.lowlevel.current_trio_token()
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="wattle-blobs")
        self._declarations = [
            bus.serve(keys.blob(), self._on_question, complete=False),
            bus.serve(keys.blob_from("*", peer), self._on_chunk),
        ]

    def undeclare(self) -> None:
        """Answer nobody any more."""
        for declaration in self._declarations:
            declaration.undeclare()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _on_question(self, query: Query) -> None:
        def held() -> bytes | None:
            blob = first_held(records)
            if blob is None:
                return None
            answer = {"peer": self._peer, "size": blob.size, "executable": os.access(blob.path, os.X_OK)}
            return json.dumps(answer).encode()

        try:
            digest = self._digest(query)
        except InvalidRequest as error:
            refuse(query, error)
            return
        records = self._index.find(digest)
        self._answer(query, self._keys.blob(digest), held)

    def _on_chunk(self, query: Query) -> None:
        def chunk() -> bytes | None:
            blob = first_held(records)
            return None if blob is None else read_chunk(blob, offset, limit)

        try:
            digest = self._digest(query)
            parameters = parse_parameters(query.parameters)
            offset = parse_number(parameters, "offset", 0, 0, _SIZE_MAX)
            limit = parse_number(parameters, "limit", CHUNK, 1, CHUNK)
        except InvalidRequest as error:
            refuse(query, error)
            return
        records = self._index.find(digest)
        self._answer(query, self._keys.blob_from(digest, self._peer), chunk)

    def _digest(self, query: Query) -> str:
        digest = self._keys.blob_digest(query.key)
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidRequest(f"{digest[:80]!r} is no digest; content is named by 64 hexadecimal digits (sha256)")
        return digest

    def _answer(self, query: Query, key: str, work: Callable[[], bytes | None]) -> None:
        """Do ``work`` on a thread and answer with what it gives; None is no answer."""

        def reply(payload: bytes | None) -> None:
            try:
                if payload is not None:
                    query.reply(payload, key=key)
            except trio.ClosedResourceError:
                _log.debug("asker or bus gone before the answer", key=key)
            finally:
                query.finish()

        def run() -> None:
            payload = work()
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(reply, payload)

        try:
            self._threads.submit(run)
        except RuntimeError:  # undeclared meanwhile
            query.finish()
