"""The roster: who belongs to a namespace of a cluster, as its authority last said it, signed.

Zenoh's access rules know a peer by its certificate's common name, in full. So every node has to know the names that there are; the
roster is that list. It needs no secrecy within its namespace and no trusted way: whoever has the authority's certificate can check it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wattle.errors import InvalidRequest, SettingsError
from wattle.names import check_name, name_problem, peer_name

ROLES = ("coordinator", "runtime", "gateway", "router", "client")
"""What a certificate may be for."""

COMMON_NAME_MAX = 64  # X.509's own bound
_AGENTS = ("coordinator", "gateway", "runtime")


@dataclass(frozen=True, slots=True)
class Member:
    """A certificate's holder. ``endpoints`` are where others can connect to it."""

    name: str
    roles: tuple[str, ...]
    common_name: str
    endpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "member")
        strange = [role for role in self.roles if role not in ROLES]
        if strange or not self.roles or not self.common_name:
            raise SettingsError(
                f"member {self.name!r} of a roster has the roles {list(self.roles)!r}; there are {ROLES}"
            )

    @property
    def is_router(self) -> bool:
        """Whether it is a router, which joins networks and speaks for all behind it."""
        return "router" in self.roles


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of one namespace, in the order they were issued; the higher version is the newer one.

    ``token_keys`` are the public keys (PEM) by which gateways check people's tokens; empty where they ask for none.
    """

    cluster: str
    namespace: str
    version: int
    members: tuple[Member, ...] = field(default=())
    token_keys: str = ""

    def member(self, common_name: str) -> Member | None:
        """The member with this certificate; None where it is none, or no longer one."""
        return next((member for member in self.members if member.common_name == common_name), None)

    def as_text(self) -> str:
        """The text that is signed."""
        members = [
            {"name": m.name, "roles": m.roles, "common_name": m.common_name, "endpoints": m.endpoints}
            for m in self.members
        ]
        content = {"cluster": self.cluster, "namespace": self.namespace, "version": self.version, "members": members}
        return json.dumps(content | {"token_keys": self.token_keys})


def read_roster(text: str) -> Roster:
    """The roster that a text holds; raises SettingsError where it holds none."""
    try:
        data = json.loads(text)
        members = tuple(_member(item) for item in data["members"])
        namespace = check_name(data["namespace"], "namespace")
        keys = str(data.get("token_keys", ""))  # those of before there were any have none
        return Roster(str(data["cluster"]), namespace, int(data["version"]), members, keys)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, InvalidRequest) as error:
        raise SettingsError(f"a roster that cannot be read: {error}") from None


def _member(item: Any) -> Member:
    texts = (tuple(map(str, item["roles"])), str(item["common_name"]), tuple(map(str, item["endpoints"])))
    return Member(str(item["name"]), *texts)


def common_name(name: str, roles: Iterable[str], namespace: str, life: int = 1) -> str:
    """The common name of a certificate: ``runtime+gateway:node1@default``; raises SettingsError where it has no room.

    ``life`` counts how often the name was given anew after a revocation: what was revoked must not come back with the name.
    """
    text = f"{'+'.join(sorted(roles))}:{name}@{namespace}" + (f"#{life}" if life > 1 else "")
    if len(text) > COMMON_NAME_MAX:
        raise SettingsError(
            f"the certificate's name {text!r} is {len(text)} characters long and may have {COMMON_NAME_MAX}:"
            " use shorter names, or fewer roles"
        )
    return text


def peer_names(member: Member) -> dict[str, tuple[str, ...]]:
    """The names that a member's peers may have, by role: whether it runs all its roles in one process or each in its own."""
    return {
        role: tuple(dict.fromkeys((member.name, peer_name(member.name, role, member.roles))))
        for role in member.roles
        if role != "client"
    }


def taken_names(member: Member) -> frozenset[str]:
    """All names that are a member's."""
    return frozenset({member.name}.union(*peer_names(member).values()))


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Roles as they stand in certificates; raises SettingsError for a combination that no process can be."""
    chosen = tuple(role for role in ROLES if role in set(roles))
    strange = sorted(set(roles) - set(ROLES))
    if strange:
        raise SettingsError(f"role {strange[0]!r} is none of {', '.join(ROLES)}")
    if not chosen:
        raise SettingsError("a certificate is for at least one role")
    if len(chosen) > 1 and not set(chosen) <= set(_AGENTS):
        raise SettingsError(f"{' and '.join(chosen)} do not go together: a {chosen[-1]} has a certificate of its own")
    return chosen


def check_member_name(name: str) -> str:
    """A name for a certificate; raises SettingsError."""
    problem = name_problem(name)
    if problem is not None:
        raise SettingsError(f"name {name!r} {problem}")
    return name
