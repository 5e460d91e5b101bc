"""Rendezvous hashing: who of several peers something falls to, the same for all who see the same peers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(peers: Iterable[str], thing: str) -> list[str]:
    """The peers, the one that ``thing`` falls to first. A peer that comes or goes moves only what falls to it."""
    return sorted(
        peers, key=lambda peer: hashlib.sha256(f"{peer}/{thing}".encode(errors="replace")).digest(), reverse=True
    )
