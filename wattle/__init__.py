"""Wattle: a workflow scheduler without a server.

``Client`` (blocking) and ``TrioClient`` are the SDK: see docs/client.md. They are imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wattle.client.blocking import Client
    from wattle.client.client import TrioClient

__version__ = "0.1.0"
__all__ = ["Client", "TrioClient", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from wattle.client.blocking import Client

        return Client
    if name == "TrioClient":
        from wattle.client.client import TrioClient

        return TrioClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
