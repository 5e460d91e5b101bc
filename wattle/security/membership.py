"""What a bundle comes to on the machine it is used on: whom to connect to, where to listen, and the rules of the newest rosters known.

Rosters newer than the bundle's are kept in the data folder as they are learned (wattle/peer/rosters.py): they are checked against the
authority's certificate when they are learned and whenever they are read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattle.errors import SettingsError
from wattle.protocol.records import seconds
from wattle.security.access import access_control
from wattle.security.bundle import Bundle, Signed, entrances, read_bundle, read_signed, signed_payload
from wattle.security.private import replace_private
from wattle.security.roster import Member, Roster, read_roster

INSTALLED = "member.bundle"
"""The bundle that ``wattle join`` installs, in the data folder."""

SOON = 30 * 86400.0
"""Seconds before its end from which on a certificate's expiry is warned of, where a third of its whole time is not shorter."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A bundle, and the newest rosters of its namespaces, the member's own first."""

    bundle: Bundle
    signed: tuple[Signed, ...]
    rosters: tuple[Roster, ...]

    @property
    def mode(self) -> str:
        """What the member is to Zenoh: without a host of its own and with routers about, the client of one."""
        if "router" in self.bundle.roles:
            return "router"
        if self.bundle.is_client:
            return "client"
        return "client" if not self.bundle.hosts and any(m.is_router for m in self.rosters[0].members) else "peer"

    @property
    def token_keys(self) -> str:
        """By which keys a gateway of the member's namespace checks tokens (PEM); empty where it asks for none."""
        return self.rosters[0].token_keys

    @property
    def connect(self) -> tuple[str, ...]:
        """Whom to connect to. Of two that could dial each other the later one does: two links between them would be a fault."""
        if self.bundle.is_client:
            return tuple(entrances(self.rosters))
        routers = self.mode in ("router", "client")
        return tuple(dict.fromkeys(end for m in self._dialled() if m.is_router is routers for end in m.endpoints))

    @property
    def listen(self) -> tuple[str, ...]:
        """Where to listen for others."""
        if not self.bundle.hosts:
            return ()
        anywhere = "[::]" if any(":" in host for host in self.bundle.hosts) else "0.0.0.0"
        return (f"tls/{anywhere}:{self.bundle.port}",)

    def zenoh_values(self) -> dict[str, Any]:
        """What a session is to be set to, by path in Zenoh's configuration."""
        values: dict[str, Any] = {"transport/link/tls": self.bundle.tls}
        if not self.bundle.is_client:  # a client serves nothing, and passes on nothing
            values["access_control"] = access_control(self._neighbours())
        return values

    def _neighbours(self) -> list[Roster]:
        """The rosters with those that a link to is possible: where nobody can connect to this member, those it can connect to."""
        if self.bundle.hosts:
            return list(self.rosters)
        return [
            Roster(r.cluster, r.namespace, r.version, tuple(m for m in r.members if m.endpoints)) for r in self.rosters
        ]

    def _dialled(self) -> list[Member]:
        """Members that are dialled from here: those issued earlier; all, where nobody can dial this one."""
        found: list[Member] = []
        for roster in self.rosters:
            names = [member.common_name for member in roster.members]
            mine = names.index(self.bundle.common_name) if self.bundle.common_name in names else len(names)
            found += roster.members[:mine] if self.bundle.hosts else roster.members
        return found


def join(path: Path, data: Path | None = None) -> Membership:
    """The membership that a bundle stands for, with what was learned since in a data folder; raises SettingsError."""
    bundle = read_bundle(path)
    signed, rosters = [], []
    for known in bundle.rosters:
        newest = _newest(bundle, known, data)
        signed.append(newest)
        rosters.append(read_roster(newest[0]))
    if not rosters or rosters[0].namespace != bundle.namespace:
        raise SettingsError(f"bundle {path} has no roster of its namespace {bundle.namespace!r}: renew it")
    return Membership(bundle, tuple(signed), tuple(rosters))


def learn(membership: Membership, signed: Signed) -> Membership | None:
    """The membership with a newer roster; None where it is no newer, or none of the authority's about a namespace of this member."""
    try:
        roster = read_roster(signed[0])
    except SettingsError:
        return None
    for place, known in enumerate(membership.rosters):
        if (roster.cluster, roster.namespace) != (known.cluster, known.namespace) or roster.version <= known.version:
            continue
        if not _is_signed(membership.bundle, signed):
            return None
        return Membership(
            membership.bundle, _with(membership.signed, place, signed), _with(membership.rosters, place, roster)
        )
    return None


def is_genuine(membership: Membership, signed: Signed) -> bool:
    """Whether it is the authority's about a namespace of this member, of whatever version."""
    try:
        roster = read_roster(signed[0])
    except SettingsError:
        return False
    places = {(known.cluster, known.namespace) for known in membership.rosters}
    return (roster.cluster, roster.namespace) in places and _is_signed(membership.bundle, signed)


def keep(membership: Membership, data: Path) -> None:
    """Keep the rosters for the next start."""
    for roster, signed in zip(membership.rosters, membership.signed, strict=True):
        replace_private(_place(data, roster.namespace), signed_payload(signed).decode())


def _newest(bundle: Bundle, known: Signed, data: Path | None) -> Signed:
    """A roster of the bundle, or the one learned since."""
    roster = read_roster(known[0])
    kept = None if data is None else _kept(_place(data, roster.namespace))
    if kept is None:
        return known
    learned = learn(Membership(bundle, (known,), (roster,)), kept)
    return known if learned is None else learned.signed[0]


def _kept(path: Path) -> Signed | None:
    """What was kept; None where nothing was, or somebody has put something else there: the bundle's own roster counts then."""
    try:
        return read_signed(path.read_bytes())
    except OSError:
        return None


def _place(data: Path, namespace: str) -> Path:
    return data / f"roster-{namespace}.json"


def _is_signed(bundle: Bundle, signed: Signed) -> bool:
    from wattle.security.certificates import is_signed  # late: it takes the whole of cryptography along

    return is_signed(*signed, bundle.authority)


def _with(items: Sequence[Any], place: int, item: Any) -> tuple[Any, ...]:
    return (*items[:place], item, *items[place + 1 :])


# --- what can be wrong ---------------------------------------------------------------------------------------------------


def problems(membership: Membership, endpoints: Sequence[str] = (), now: float | None = None) -> list[str]:
    """What is wrong with a member's credentials, each as a sentence with what to do: expired, about to, struck off, another host's.

    ``endpoints`` are where others are to connect to it.
    """
    bundle, found = membership.bundle, []
    begin, end = seconds(bundle.issued_at) or 0.0, seconds(bundle.expires_at) or 0.0
    left = end - (time.time() if now is None else now)
    fix = f"wattle cluster renew {bundle.name}, and copy the new bundle in the place of the old one"
    if left <= 0:
        found.append(f"the certificate of {bundle.name} expired at {bundle.expires_at}: {fix}")
    elif left < min(SOON, (end - begin) / 3):
        found.append(f"the certificate of {bundle.name} expires at {bundle.expires_at}: {fix}")
    if membership.rosters[0].member(bundle.common_name) is None:
        found.append(f"{bundle.name} is on the roster no more (it was revoked): issue it a bundle under a new name")
    found += [
        f"others cannot connect to {endpoint}: the certificate of {bundle.name} is for {', '.join(bundle.hosts) or 'no host'};"
        f" issue one with --host {host}"
        for endpoint in endpoints
        if (host := _host(endpoint)) is not None and host not in bundle.hosts
    ]
    return found


def _host(endpoint: str) -> str | None:
    """The host of an endpoint for others; None for sockets and for addresses that stand for all."""
    protocol, _, address = endpoint.partition("/")
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    return None if protocol == "unixsock-stream" or host in ("", "0.0.0.0", "::") else host
