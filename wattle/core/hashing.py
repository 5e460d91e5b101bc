"""Rendezvous hashing: who of several peers something falls to, the same for all who see the same peers. And places for many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def place_of(name: str, places: int) -> int:
    """One of so many places, from 0: the same for a name at all times, and seldom the same for two."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="replace")).digest()[:8], "big") % places


def ranked(peers: Iterable[str], thing: str) -> list[str]:
    """The peers, the one that ``thing`` falls to first. A peer that comes or goes moves only what falls to it."""
    return sorted(
        peers, key=lambda peer: hashlib.sha256(f"{peer}/{thing}".encode(errors="replace")).digest(), reverse=True
    )
