"""A cluster of every role in two namespaces, sessions with its bundles, and ways to say things that rules may refuse."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from typing import Any

import zenoh

from wattle.bus.config import ZenohOptions, open_session
from wattle.protocol.keys import Keys
from wattle.security.authority import Authority, Wanted
from wattle.security.membership import Membership, join

LOOPBACK = "127.0.0.1"
KEYS = Keys()
TIMEOUT = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Members:
    """An authority's folder and its members' bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        Authority.create(folder)

    def issue(self, *wanted: Wanted) -> list[Path]:
        with Authority.open(self.folder) as authority:
            return authority.issue(wanted)

    def member(self, name: str) -> Membership:
        """A member, with the newest rosters."""
        return join(self.bundle(name))

    def bundle(self, name: str) -> Path:
        """Its file."""
        return self.folder / "bundles" / f"{name}.bundle"

    def open(self, name: str, *, connect: str | None = None, rules: bool = True) -> zenoh.Session:
        """A session of a member: one that listens where it has a host and nothing to connect to, else a client."""
        member = self.member(name)
        secured = member.zenoh_values()
        if connect is not None or not rules:
            secured.pop("access_control", None)
        if connect is not None:
            return open_session(ZenohOptions(mode="client", connect=(connect,), secured=secured))
        return open_session(ZenohOptions(mode="peer", listen=self.endpoints(name), secured=secured))

    def endpoints(self, name: str) -> tuple[str, ...]:
        member = self.member(name)
        found = member.rosters[0].member(member.bundle.common_name)
        assert found is not None
        return found.endpoints


def all_roles(folder: Path) -> Members:
    """Members of all roles in ``default``, some in ``other``; whoever has a host can be connected to."""
    made = Members(folder)
    made.issue(
        *(
            Wanted(name, (role,), (LOOPBACK,), free_port())
            for name, role in (("c1", "coordinator"), ("n1", "runtime"), ("g1", "gateway"))
        ),
        Wanted("r1", ("router",), (LOOPBACK,), free_port(), ("default", "other")),
        Wanted("c2", ("coordinator",)),
        Wanted("n2", ("runtime",)),
        Wanted("alice", ("client",)),
        Wanted("mallory", ("client",), namespaces=("other",)),
        Wanted("oc", ("coordinator",), namespaces=("other",)),
    )
    return made


class Ear:
    """A session that hears all that reaches it, and answers every query."""

    def __init__(self, session: zenoh.Session) -> None:
        self.session = session
        self.heard: list[tuple[str, str]] = []
        self._changed = Condition()
        # On the thread that reads the link, so that what was said first is heard first.
        self._declared: list[Any] = [
            session.declare_subscriber("**", zenoh.handlers.Callback(self._on_sample, indirect=False)),
            session.declare_queryable("**", zenoh.handlers.Callback(self._on_query, indirect=False)),
        ]

    def _on_sample(self, sample: zenoh.Sample) -> None:
        self._note("delete" if sample.kind == zenoh.SampleKind.DELETE else "put", str(sample.key_expr))

    def _on_query(self, query: zenoh.Query) -> None:
        with query:
            self._note("query", str(query.key_expr))
            query.reply_err("heard")

    def _note(self, what: str, key: str) -> None:
        with self._changed:
            self.heard.append((what, key))
            self._changed.notify_all()

    def until(self, what: str, key: str) -> None:
        """Wait until it has heard something."""
        with self._changed:
            assert self._changed.wait_for(lambda: (what, key) in self.heard, TIMEOUT), f"{what} {key} was not heard"


@contextmanager
def ear(session: zenoh.Session) -> Iterator[Ear]:
    try:
        yield Ear(session)
    finally:
        session.close()


def say(session: zenoh.Session, what: str, key: str) -> None:
    """Put, delete or ask, as any program could."""
    if what == "query":
        for _ in session.get(key, target=zenoh.QueryTarget.ALL, timeout=TIMEOUT):
            pass
    elif what == "put":
        session.put(key, b"x")
    else:
        session.delete(key)


def heard_of(
    listener: Ear, speaker: zenoh.Session, said: Sequence[tuple[str, str]], marker: str
) -> set[tuple[str, str]]:
    """What the listener hears of what is said to it. ``marker`` is a key that any certificate may ask on: it is asked last, and what is
    said on one link at one priority arrives in order."""
    listener.heard.clear()
    for what, key in said:
        say(speaker, what, key)
    say(speaker, "query", marker)
    listener.until("query", marker)
    return set(listener.heard) - {("query", marker)}
