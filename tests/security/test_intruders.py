"""Who has no certificate, another's, or the wrong one is refused by the node itself, and who has the right one is let through.

The nodes here are Zenoh sessions with the configuration of agents, which hear all that Zenoh lets through; intruders are sessions that say
what a program with that certificate could.
"""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
import zenoh

from tests.security.members import KEYS, LOOPBACK, TIMEOUT, Ear, Members, all_roles, ear, free_port, heard_of
from wattle.bus.config import ZenohOptions, open_session
from wattle.errors import Unavailable
from wattle.protocol.keys import Keys
from wattle.security.bundle import read_bundle

OTHER = Keys("other")
EVIL = ("put", "delete", "query")

MAY = {
    "c2": {  # a coordinator
        ("query", KEYS.cmd("n1", "assign")),
        ("query", KEYS.cmd("n1", "cancel")),
        ("query", KEYS.cmd("*", "discard")),
        ("query", KEYS.feed("n1")),
        ("query", KEYS.state("runtime", "n1")),
        ("put", KEYS.event_run("r")),
    },
    "n2": {  # a runtime
        ("put", KEYS.feed("n2")),
        ("put", KEYS.state("runtime", "n2")),
        ("query", KEYS.blob_from("0" * 64, "n1")),
        ("query", KEYS.cmd("*", "pruned")),
        ("put", f"{KEYS.root}/log/r/w/1/stdout"),
    },
    "alice": {  # a client
        ("query", KEYS.api("runs")),
        ("put", KEYS.api("runs/x")),
        ("delete", KEYS.api("runs/x")),
        ("query", f"{KEYS.root}/log/r/w/1/stdout"),
    },
}
"""What members say to a node and are heard with."""

WILD = [
    (what, key)
    for what in EVIL
    for key in (
        "**",
        "*/**",
        "*/default/**",
        "wattle/**",
        "wattle/*/feed/n1",
        "wattle/default/**",
        "wattle/default/*/**",
        "wattle/d$*/cmd/n1/assign",
        "wattle/default/a$*/**",
    )
]
"""Key expressions that would take in more than any rule allows."""

MAY_NOT = {
    "c2": [
        ("put", KEYS.feed("n1")),
        ("put", KEYS.state("runtime", "n1")),
        ("put", KEYS.api("runs/x")),
        ("query", KEYS.api("runs")),
        ("put", KEYS.cmd("n1", "assign")),
    ],
    "n2": [
        ("query", KEYS.cmd("n1", "assign")),
        ("query", KEYS.cmd("n1", "cancel")),
        ("query", KEYS.cmd("*", "assign")),
        ("query", KEYS.cmd("c1", "submit")),
        ("put", KEYS.feed("n1")),
        ("put", KEYS.feed()),
        ("delete", KEYS.feed("n2")),
        ("put", KEYS.state("runtime", "n1")),
        ("put", KEYS.state("coordinator", "n2")),
        ("put", KEYS.event_run("r")),
        ("query", KEYS.api("runs")),
        ("put", KEYS.api("runs/x")),
        ("query", KEYS.feed("n1")),
    ],
    "alice": [
        *((what, KEYS.feed("n1")) for what in EVIL),
        *((what, KEYS.cmd("n1", "assign")) for what in EVIL),
        *((what, KEYS.state("runtime", "n1")) for what in EVIL),
        ("put", KEYS.state("client", "alice")),
        ("put", KEYS.event_run("r")),
        ("put", f"{KEYS.root}/log/r/w/1/stdout"),
        ("query", KEYS.blob_from("0" * 64, "n1")),
    ],
    "mallory": [(what, key) for what in EVIL for key in (KEYS.api("runs"), KEYS.api(), OTHER.api("runs"))],
    "oc": [("query", KEYS.cmd("n1", "assign")), ("put", KEYS.event_run("r")), ("query", KEYS.state("runtime", "n1"))],
}
"""What they say in vain: other roles' matters, other peers', another namespace's."""


@pytest.fixture(scope="module")
def node(members: Members) -> Iterator[Ear]:
    """A runtime."""
    with ear(members.open("n1")) as listener:
        yield listener


@pytest.fixture(scope="module")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ear, Members]]:
    """A runtime without rules, to show that what others refuse would arrive."""
    made = all_roles(tmp_path_factory.mktemp("open") / "ca")
    with ear(made.open("n1", rules=False)) as listener:
        yield listener, made


@pytest.mark.parametrize("name", sorted(MAY))
def test_what_a_role_may_say_is_heard(name: str, node: Ear, members: Members) -> None:
    speaker = members.open(name, connect=members.endpoints("n1")[0])
    try:
        assert heard_of(node, speaker, sorted(MAY[name]), KEYS.roster) == MAY[name]
    finally:
        speaker.close()


@pytest.mark.parametrize("name", sorted(MAY_NOT))
def test_what_a_role_may_not_say_is_not_heard(name: str, node: Ear, members: Members) -> None:
    speaker = members.open(name, connect=members.endpoints("n1")[0])
    try:
        assert heard_of(node, speaker, [*MAY_NOT[name], *WILD], KEYS.roster) == set()
    finally:
        speaker.close()


@pytest.mark.parametrize("name", sorted(MAY_NOT))
def test_without_rules_all_of_it_would_be_heard(name: str, open_node: tuple[Ear, Members]) -> None:
    listener, members = open_node
    said = [*MAY_NOT[name], *WILD]
    speaker = members.open(name, connect=members.endpoints("n1")[0])
    try:
        assert heard_of(listener, speaker, said, KEYS.roster) == set(said)
    finally:
        speaker.close()


def _connects(options: ZenohOptions) -> bool:
    try:
        session = open_session(options)
    except Unavailable:
        return False
    session.close()
    return True


def test_without_a_certificate_of_this_cluster_nobody_connects(node: Ear, members: Members, tmp_path: Path) -> None:
    endpoint = members.endpoints("n1")[0]
    tls = read_bundle(members.folder / "bundles" / "alice.bundle").tls
    strangers = all_roles(tmp_path / "ca")
    theirs = read_bundle(strangers.folder / "bundles" / "alice.bundle").tls
    none = {"root_ca_certificate_base64": tls["root_ca_certificate_base64"], "enable_mtls": False}
    trusting = {**theirs, "root_ca_certificate_base64": tls["root_ca_certificate_base64"]}

    def with_(section: dict[str, object]) -> ZenohOptions:
        return ZenohOptions(mode="client", connect=(endpoint,), secured={"transport/link/tls": section})

    assert _connects(with_(tls))
    assert not _connects(with_(none)), "no certificate"
    assert not _connects(with_(theirs)), "another authority's certificate"
    assert not _connects(with_(trusting)), "another authority's certificate, which trusts this one"
    plain = endpoint.replace("tls/", "tcp/")
    assert not _connects(ZenohOptions(mode="client", connect=(plain,))), "no TLS"


def test_a_client_is_no_server(members: Members) -> None:
    """A client's certificate is not good for being connected to: no stolen one can pose as a gateway."""
    alice = members.member("alice").bundle
    place = f"tls/{LOOPBACK}:{free_port()}"
    poser = open_session(ZenohOptions(listen=(place,), secured={"transport/link/tls": alice.tls}))
    try:
        own = members.member("c2").bundle.tls
        assert not _connects(ZenohOptions(mode="client", connect=(place,), secured={"transport/link/tls": own}))
    finally:
        poser.close()


@pytest.mark.parametrize("rules", [True, False])
def test_nobody_serves_or_hears_what_is_anothers(rules: bool, members: Members) -> None:
    """A runtime poses as the gateway and as another runtime, and listens in on feeds; what it serves by right is there.

    Without rules it would succeed in all of it.
    """
    router = members.open("r1", rules=rules)
    endpoint = members.endpoints("r1")[0]
    poser, coordinator, alice, other = (members.open(name, connect=endpoint) for name in ("n2", "c2", "alice", "n1"))
    try:
        heard: list[str] = []
        own = KEYS.state("runtime", "n2")
        stolen = (KEYS.api(), KEYS.cmd("n1", "assign"), KEYS.state("runtime", "n1"), KEYS.feed("n1"))
        declared = [
            *(poser.declare_queryable(key, lambda query: query.reply(query.key_expr, b"x")) for key in (*stolen, own)),
            poser.declare_subscriber(KEYS.feed(), lambda sample: heard.append(str(sample.key_expr))),
        ]
        arrived = Event()
        declared.append(coordinator.declare_subscriber(KEYS.feed(), lambda _: arrived.set()))
        ends = monotonic() + TIMEOUT
        while not (_answers(coordinator, own) and _answers(other, own)):
            assert monotonic() < ends, "what it serves by right is not there"
        assert _answers(alice, KEYS.api("runs")) == ([] if rules else [b"x"])
        for key in stolen[1:]:
            assert _answers(coordinator, key) == ([] if rules else [b"x"])
        other.put(KEYS.feed("n1"), b"x")
        assert arrived.wait(TIMEOUT), "a coordinator hears it"
        assert _answers(other, own), "what the router had for the poser is there"
        assert heard == ([] if rules else [KEYS.feed("n1")])
        assert len(declared) == len(stolen) + 3
    finally:
        for session in (poser, coordinator, alice, other, router):
            session.close()


def _answers(session: zenoh.Session, key: str) -> list[bytes]:
    replies = session.get(key, target=zenoh.QueryTarget.ALL, timeout=5.0)
    return [reply.ok.payload.to_bytes() for reply in replies if reply.ok is not None]
