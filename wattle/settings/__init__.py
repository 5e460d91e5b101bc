"""Settings of every role: see wattle/settings/load.py for where they come from, docs/settings.md for what there is.

The classes of agents are imported at first use, because pydantic takes longer to import than most commands of a client run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wattle.settings.client import ClientSettings
from wattle.settings.load import load_settings
from wattle.settings.values import default_data, default_name, socket_endpoint

if TYPE_CHECKING:
    from wattle.settings.agents import (
        AgentSettings,
        CoordinatorSettings,
        GatewaySettings,
        RouterSettings,
        RuntimeSettings,
    )

__all__ = [
    "AgentSettings",
    "ClientSettings",
    "CoordinatorSettings",
    "GatewaySettings",
    "RouterSettings",
    "RuntimeSettings",
    "default_data",
    "default_name",
    "load_settings",
    "socket_endpoint",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wattle.settings import agents

    return getattr(agents, name)
