"""Access rules: what the holder of a certificate may say to a node, as Zenoh's ``access_control`` section. Default deny.

A node looks at what comes from each neighbour (``ingress``) by the common name of the neighbour's certificate, and at what goes out to
it (``egress``). ``grants`` is the one table of who may say what; docs/security.md shows it. A rule allows a message whose whole key
expression lies within one of the rule's, so a put on ``**`` or ``*/...`` is no way around any of them.

A router speaks for everybody behind it, so its neighbours can hold it to the namespace alone; whom it lets through is decided by its
own copy of these rules. The same holds of a gateway, which passes on what clients ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from wattle.protocol.keys import Keys
from wattle.protocol.verbs import CHANGES, COPIES, KEEP, NODE_CARE, OF_RUNTIMES, ORDERS, PROBE, PRUNED, READS
from wattle.security.roster import Member, Roster, peer_names

PUBLISH = ("put",)
REQUEST = ("query", "put", "delete")
SUBSCRIBE = ("declare_subscriber",)
SERVE = ("declare_queryable", "reply")
ASK = ("query",)
REPLY = ("reply",)
BE_ALIVE = ("liveliness_token",)
WATCH = ("declare_liveliness_subscriber", "liveliness_query")
ALL = tuple(dict.fromkeys((*REQUEST, *SUBSCRIBE, *SERVE, *BE_ALIVE, *WATCH)))

LOCAL_LINKS = ("unixsock-stream",)
"""Links within the machine: as open as the data folder, which is its owner's alone."""

SECURE_LINKS = ("tls", "quic")


class Grant(NamedTuple):
    """Messages that may be sent on keys."""

    messages: tuple[str, ...]
    keys: tuple[str, ...]


def grants(role: str, names: Sequence[str], keys: Keys) -> list[Grant]:
    """What a peer of ``role`` with one of ``names`` may say in a namespace."""
    if role == "router":
        return [Grant(ALL, (keys.everything,))]
    if role == "client":
        return _of_clients(keys)
    return [
        Grant(SERVE, tuple(keys.state(role, name) for name in names)),
        Grant(BE_ALIVE, tuple(keys.alive(role, name) for name in names)),
        Grant(WATCH, (keys.alive(),)),
        Grant(ASK, (keys.state(),)),
        Grant(ASK, (keys.cmd("*", PROBE),)),
        Grant(SERVE, tuple(keys.cmd(name, PROBE) for name in names)),
        # An error is answered on the very key that was asked for, which is everybody's.
        Grant(REPLY, (keys.cmd("*", PROBE),)),
        *_OF_AGENTS[role](names, keys),
    ]


def _of_clients(keys: Keys) -> list[Grant]:
    return [
        Grant(REQUEST, (keys.api(),)),
        Grant(SUBSCRIBE, (keys.events, keys.logs)),
        Grant(ASK, (keys.logs,)),
    ]


def _of_gateways(names: Sequence[str], keys: Keys) -> Iterator[Grant]:
    yield from _of_clients(keys)  # those at its sockets, for whom it speaks
    yield Grant((*SERVE, *SUBSCRIBE), (keys.api(),))
    yield Grant(PUBLISH, (keys.event_rejected,))
    yield Grant(ASK, tuple(keys.cmd("*", verb) for verb in (*READS, *CHANGES, *NODE_CARE)))
    yield Grant(BE_ALIVE, tuple(keys.duty(name) for name in names))
    yield Grant(WATCH, (keys.duty(),))


def _of_coordinators(names: Sequence[str], keys: Keys) -> Iterator[Grant]:
    yield Grant(PUBLISH, (keys.events,))
    yield Grant(SERVE, tuple(keys.cmd(name, "*") for name in names))
    # An error is answered on the very key that was asked for, which is all coordinators' where all were asked.
    yield Grant(REPLY, tuple(keys.cmd("*", verb) for verb in (*READS, *CHANGES, PRUNED)))
    yield Grant(ASK, tuple(keys.cmd("*", verb) for verb in (*ORDERS, KEEP, *COPIES)))
    yield Grant(SUBSCRIBE, (keys.feed(), keys.state("runtime")))
    yield Grant(ASK, (keys.feed(),))


def _of_runtimes(names: Sequence[str], keys: Keys) -> Iterator[Grant]:
    yield Grant((*PUBLISH, *SERVE), tuple(keys.feed(name) for name in names))
    yield Grant(PUBLISH, tuple(keys.state("runtime", name) for name in names))
    yield Grant(SERVE, tuple(keys.cmd(name, verb) for name in names for verb in OF_RUNTIMES))
    yield Grant(ASK, (keys.cmd("*", PRUNED), keys.blob(), keys.blob_from("*", "*")))
    yield Grant(SERVE, (keys.blob(), *(keys.blob_from("*", name) for name in names)))
    yield Grant((*PUBLISH, *SERVE), (keys.logs,))


_OF_AGENTS = {"coordinator": _of_coordinators, "runtime": _of_runtimes, "gateway": _of_gateways}


def access_control(rosters: Sequence[Roster]) -> dict[str, Any]:
    """Zenoh's ``access_control`` section for a node of these rosters' namespaces: one, or those that a router serves."""
    rules: list[dict[str, Any]] = []
    subjects: dict[str, list[str]] = {}  # common names -> rules
    for one in rosters:
        keys = Keys(one.namespace)
        for member in one.members:
            own = _rules_of(member, keys, rules)
            subjects.setdefault(member.common_name, []).extend(own)
    local, exchange = _common_rules([Keys(one.namespace) for one in rosters], rules)
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": [
            {"id": "local", "link_protocols": list(LOCAL_LINKS)},
            {"id": "certified", "link_protocols": list(SECURE_LINKS)},
            *({"id": name, "cert_common_names": [name], "link_protocols": list(SECURE_LINKS)} for name in subjects),
        ],
        "policies": [
            {"rules": local, "subjects": ["local"]},
            {"rules": exchange, "subjects": ["certified"]},
            *({"rules": given, "subjects": [name]} for name, given in subjects.items()),
        ],
    }


def _rules_of(member: Member, keys: Keys, rules: list[dict[str, Any]]) -> list[str]:
    """The ids of a member's rules in a namespace, which are added to ``rules``."""
    mine = f"{keys.namespace}/{member.common_name}"
    names = peer_names(member)
    found = [grant for role in member.roles for grant in grants(role, names.get(role, ()), keys)]
    said = [_rule(f"{mine}/{number}", "ingress", *grant) for number, grant in enumerate(found)]
    heard = _rule(f"{mine}/heard", "egress", *_heard(member, keys))
    rules += (*said, heard)
    return [rule["id"] for rule in (*said, heard)]


def _heard(member: Member, keys: Keys) -> Grant:
    """What a node may tell a member: a client hears what it may ask for, others hear what their namespace tells them."""
    if member.roles == ("client",):
        return Grant(ALL, (keys.api(), keys.events, keys.logs))
    return Grant(ALL, (keys.everything,))


def _common_rules(namespaces: Sequence[Keys], rules: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The ids of what links within the machine may do, and of what any certificate may: tell of a newer roster."""
    everything = tuple(keys.everything for keys in namespaces)
    exchange = tuple(keys.roster for keys in namespaces)
    both = [
        _rule(f"{who}/{flow}", flow, *grant)
        for who, grant in (("local", Grant(ALL, everything)), ("certified", Grant((*ASK, *SERVE), exchange)))
        for flow in ("ingress", "egress")
    ]
    rules += both
    ids = [rule["id"] for rule in both]
    return ids[:2], ids[2:]


def _rule(identity: str, flow: str, messages: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    return {
        "id": identity,
        "permission": "allow",
        "flows": [flow],
        "messages": list(messages),
        "key_exprs": list(keys),
    }
