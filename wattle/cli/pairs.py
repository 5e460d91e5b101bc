"""What ``wattle doctor`` makes of what every peer sees of every other: who hears and asks whom, and whose clock is off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wattle.cli.findings import Finding

CLOCK_TOLERANCE = 2.0
"""Seconds by which clocks may differ; more confuses whoever reads times of several nodes."""

WELL = 0.5
"""Seconds an answer may take."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What one peer sees of another. ``linked`` directly or not; ``clock`` is how far the other's is ahead, give or take ``took``/2."""

    one: str
    other: str
    heard: bool
    answered: bool
    linked: bool
    took: float | None = None
    clock: float | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all is as it should be."""
        return self.heard and self.answered


class Views:
    """The answer to ``get peers``."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.peers: dict[str, dict[str, Any]] = {_name(peer): peer for peer in answer["peers"]}
        self.silent = [_name(peer) for peer in answer["silent"]]
        self._sessions = {peer["session"]: name for name, peer in self.peers.items()}

    def told(self, what: str) -> dict[str, Any]:
        """What peers said of themselves to those that asked them, by their names."""
        others = (other for peer in self.peers.values() for other in peer["others"])
        return {_name(other): other[what] for other in others if other.get(what) is not None}

    def pairs(self) -> list[Pair]:
        """Every ordered pair, as far as the first of it answered."""
        return [self._pair(name, other) for name, peer in self.peers.items() for other in peer["others"]]

    def kind(self, name: str) -> str:
        """What a peer is to Zenoh, as those say that are linked with it; empty where nobody is."""
        session = self.peers.get(name, {}).get("session")
        kinds = (link["kind"] for peer in self.peers.values() for link in peer["links"] if link["session"] == session)
        return str(next(kinds, ""))

    def links(self, name: str) -> set[str]:
        """The sessions that a peer is linked with, and those that say that they are linked with it; processes have one session each."""
        session = self.peers[name]["session"]
        own = {link["session"] for link in self.peers[name]["links"]}
        return own | {
            peer["session"] for peer in self.peers.values() if session in (link["session"] for link in peer["links"])
        }

    def _pair(self, name: str, seen: dict[str, Any]) -> Pair:
        other = _name(seen)
        session = self.peers.get(other, {}).get("session")
        linked = session is not None and (session in self.links(name) or session == self.peers[name]["session"])
        known = {key: seen.get(key) for key in ("took", "clock", "problem")}
        return Pair(name, other, seen["heard"], seen["answered"], linked, **known)


def findings(views: Views) -> Iterator[Finding]:
    """All of it, in the order of what to mend first."""
    for name in views.silent:
        yield Finding(
            "peers",
            False,
            f"{name} is in sight of the gateway and does not answer it",
            f"look into its log; it may be stopped, overloaded, of an older version, or not allowed to {_RULES}",
        )
    pairs = views.pairs()
    for pair in pairs:
        if not pair.ok:
            yield Finding("pairs", False, f"{pair.one} {_failure(pair)}", _fix(views, pair))
    well = [pair for pair in pairs if pair.ok]
    if well:
        slowest = max(well, key=lambda pair: pair.took or 0.0)
        took = slowest.took or 0.0
        seen = f"{len(well)} of {len(pairs)} hear and ask each other; the slowest answer took {took * 1e3:.1f} ms "
        seen += f"({slowest.one} asked {slowest.other})"
        slow = None if took < WELL else "a machine or a link is overloaded: see how busy both are"
        yield Finding("pairs", slow is None, seen, slow)
    yield from _insecure(views)
    yield from _clocks(well)
    yield from _versions(views)


_RULES = "answer by the access rules of its router (docs/security.md)"


def _failure(pair: Pair) -> str:
    if pair.answered:
        return f"gets answers from {pair.other} and does not hear it"
    if pair.heard:
        return f"hears {pair.other} and gets no answer from it ({pair.problem})"
    return f"neither hears {pair.other} nor gets an answer from it ({pair.problem})"


def _fix(views: Views, pair: Pair) -> str:
    """What to change: peers need a direct link, clients one router or routers that are linked."""
    if pair.other in views.silent:
        return f"see what is said of {pair.other}"
    kinds = views.kind(pair.one), views.kind(pair.other)
    if pair.linked or pair.answered or pair.heard:
        return "they are connected, so one may not say or hear what it should: compare certificates, rosters and access rules of both"
    if "client" in kinds or "router" in kinds:
        return "link their routers with each other (--connect at one of them): clients reach what routers in one mesh reach"
    return (
        "peers relay for nobody: have one --connect to a --listen of the other, let that through the firewall,"
        " or make both clients of a router (--mode client --connect tls/ROUTER:7447)"
    )


def _clocks(pairs: list[Pair]) -> Iterator[Finding]:
    told = [pair for pair in pairs if pair.clock is not None and pair.took is not None]
    if not told:
        return
    off = [pair for pair in told if abs(pair.clock or 0.0) - (pair.took or 0.0) / 2 > CLOCK_TOLERANCE]
    for name, times in Counter(pair.other for pair in off).items():
        if times * 2 > sum(pair.other == name for pair in told):  # most who asked it say so: it is this one's
            pair = next(pair for pair in off if pair.other == name)
            seen = f"the clock of {name} is {pair.clock:+.3f} s off (give or take {(pair.took or 0.0) / 2:.3f} s), as {pair.one} sees it"
            yield Finding("clocks", False, seen, f"have the machine of {name} set by NTP")
    widest = max(told, key=lambda pair: abs(pair.clock or 0.0))
    uncertain = (widest.took or 0.0) / 2
    yield Finding(
        "clocks",
        not off,
        f"{len(told)} compared; the widest difference is {abs(widest.clock or 0.0) * 1e3:.1f} ms, give or take {uncertain * 1e3:.1f} ms",
        "have the machines set by NTP" if off else None,
    )


def _insecure(views: Views) -> Iterator[Finding]:
    fix = "make a cluster with certificates: wattle cluster init, docs/security.md"
    for name, insecure in sorted(views.told("insecure").items()):
        if insecure:
            yield Finding("security", False, f"{name} takes orders from whoever reaches it (--insecure)", fix)


def _versions(views: Views) -> Iterator[Finding]:
    for what, fix in (("protocol", "they may misunderstand each other: bring all to one version"), ("version", None)):
        counts = Counter(str(value) for value in views.told(what).values())
        ok = len(counts) < 2 or fix is None
        if counts and not (ok and what == "protocol"):
            seen = "; ".join(f"{value}: {count} peers" for value, count in counts.items())
            yield Finding(f"peers' {what}s", ok, seen, None if ok else fix)


def _name(peer: dict[str, Any]) -> str:
    return f"{peer['role']} {peer['name']}"
