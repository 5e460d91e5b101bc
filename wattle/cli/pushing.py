"""``wattle cluster push``: the authority's machine tells running members of the newest rosters, as a member of no roster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wattle.bus.blocking import BlockingBus
from wattle.bus.config import ZenohOptions
from wattle.errors import WattleError
from wattle.protocol.keys import Keys
from wattle.security.bundle import KNOWN, TAKEN, Signed, signed_payload

if TYPE_CHECKING:
    from wattle.security.authority import Authority

TIMEOUT, MOMENT = 3.0, 0.2
WAIT_MS = 5_000
"""For a member that is just opening its session anew, because another one has told it."""


def push_rosters(authority: Authority, connect: Sequence[str] | None) -> dict[str, str | None]:
    """Tell each endpoint, and who is linked to it; what kept one from being told, or None."""
    found: dict[str, list[str | None]] = {}  # by namespace, one after the other
    for namespace in dict.fromkeys(name for member in authority.members for name in member.namespaces):
        roster, signature = authority.roster(namespace)
        signed, tls = (roster.as_text(), signature), authority.passing_bundle(namespace).tls
        for endpoint in connect or [end for member in roster.members for end in member.endpoints]:
            found.setdefault(endpoint, []).append(_tell(endpoint, Keys(namespace).roster, signed, tls))
    if connect:  # it may belong to one of them
        return {endpoint: None if None in problems else problems[0] for endpoint, problems in found.items()}
    return {endpoint: next(filter(None, problems), None) for endpoint, problems in found.items()}


def _tell(endpoint: str, key: str, signed: Signed, tls: dict[str, Any]) -> str | None:
    options = ZenohOptions(mode="client", connect=(endpoint,), wait_ms=WAIT_MS, secured={"transport/link/tls": tls})
    until = time.monotonic() + WAIT_MS / 1000
    while True:
        try:
            with BlockingBus(options) as bus:  # another each time: a member may have closed the last one's link
                replies = bus.get(key, signed_payload(signed), timeout=TIMEOUT, everyone=True)
            if any(reply.ok and reply.payload in (TAKEN, KNOWN) for reply in replies):
                return None
            problem = "no member of the namespace took it"
        except WattleError as error:
            problem = error.message
        if time.monotonic() >= until:
            return problem
        time.sleep(MOMENT)
