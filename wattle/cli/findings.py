"""What a look at a network comes to: one matter each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One matter: whether it is well, what was seen, and what to change where it is not."""

    what: str
    ok: bool
    seen: str
    fix: str | None = None
