"""Zenoh's words in ours and the other way round; light enough for the command line."""

from __future__ import annotations

from collections.abc import Iterable

import zenoh

from wattle.bus.base import TIMEOUT, Priority, Reply, Sample
from wattle.bus.config import reason
from wattle.errors import InvalidRequest, Unavailable

# Zenoh has a queue for each of its priorities. A query that waits for a link keeps the queue locked, so puts have queues of their
# own: on a shared one a put waited as long (seen on 1.10.2), and puts are sent from the trio thread. Just above the one for queries,
# they also leave in the order in which a peer puts and then asks. INTERACTIVE_HIGH is Zenoh's own, for declarations.
PUT_PRIORITIES = {
    Priority.CONTROL: zenoh.Priority.REAL_TIME,
    Priority.NORMAL: zenoh.Priority.DATA_HIGH,
    Priority.BULK: zenoh.Priority.DATA_LOW,
}
QUERY_PRIORITIES = {
    Priority.CONTROL: zenoh.Priority.INTERACTIVE_LOW,
    Priority.NORMAL: zenoh.Priority.DATA,
    Priority.BULK: zenoh.Priority.BACKGROUND,
}

MAX_TIMEOUT = 7 * 86_400.0  # seconds; Zenoh does not know endless ones

_TIMED_OUT = Reply("", TIMEOUT, ok=False)


def target(everyone: bool) -> zenoh.QueryTarget:
    """Whom a query is for."""
    return zenoh.QueryTarget.ALL if everyone else zenoh.QueryTarget.BEST_MATCHING


def key_expression(key: str) -> zenoh.KeyExpr:
    """``key`` as Zenoh has it; raises InvalidRequest where it is none."""
    try:
        return zenoh.KeyExpr(key)
    except zenoh.ZError as error:
        raise InvalidRequest(f"key expression {key!r}: {reason(error)}") from None


def read_bytes(data: zenoh.ZBytes | None) -> bytes | None:
    """A payload or an attachment."""
    return None if data is None else data.to_bytes()


def read_sample(sample: zenoh.Sample, gap: bool = False) -> Sample:
    """Something published."""
    payload = None if sample.kind == zenoh.SampleKind.DELETE else sample.payload.to_bytes()
    return Sample(str(sample.key_expr), payload, read_bytes(sample.attachment), gap)


def read_replies(replies: Iterable[zenoh.Reply], in_time: bool = True) -> list[Reply]:
    """The answers to one query; where its time was up, a timeout behind them.

    Both this session and the peers on the way watch the time, so there may be several timeouts: they become one.
    """
    read = [_read_reply(reply) for reply in replies]
    answers = [reply for reply in read if reply != _TIMED_OUT]
    return answers if in_time and len(answers) == len(read) else [*answers, _TIMED_OUT]


def tokens(replies: list[Reply], timeout: float) -> list[str]:
    """The liveliness tokens that were asked for; raises Unavailable where not everyone has said what it sees."""
    if any(not reply.ok for reply in replies):
        raise Unavailable(f"not everyone here has said within {timeout:g} s whom it sees")
    return list(dict.fromkeys(reply.key for reply in replies))


def _read_reply(reply: zenoh.Reply) -> Reply:
    sample = reply.ok
    if sample is not None:
        return Reply(str(sample.key_expr), sample.payload.to_bytes(), True, read_bytes(sample.attachment))
    error = reply.err
    return Reply("", b"" if error is None else error.payload.to_bytes(), ok=False)
