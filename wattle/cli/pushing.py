"""``wattle cluster push``: the authority's machine tells running members of the newest rosters, as a member of no roster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wattle.bus.blocking import BlockingBus
from wattle.bus.config import ZenohOptions
from wattle.errors import WattleError
from wattle.protocol.keys import Keys
from wattle.security.bundle import signed_payload

if TYPE_CHECKING:
    from wattle.security.authority import Authority

TIMEOUT = 3.0


def push_rosters(authority: Authority, connect: Sequence[str] | None) -> dict[str, str | None]:
    """Tell each endpoint, and who is linked to it; what kept one from being told, or None."""
    told: dict[str, str | None] = {}
    for namespace in dict.fromkeys(name for member in authority.members for name in member.namespaces):
        roster, signature = authority.roster(namespace)
        tls = authority.passing_bundle(namespace).tls
        for endpoint in connect or [end for member in roster.members for end in member.endpoints]:
            options = ZenohOptions(mode="client", connect=(endpoint,), secured={"transport/link/tls": tls})
            try:
                with BlockingBus(options) as bus:
                    bus.get(
                        Keys(namespace).roster,
                        signed_payload((roster.as_text(), signature)),
                        timeout=TIMEOUT,
                        everyone=True,
                    )
                told.setdefault(endpoint, None)
            except WattleError as error:
                told[endpoint] = error.message
    return told
