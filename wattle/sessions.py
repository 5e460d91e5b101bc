"""How an agent's settings become those of its Zenoh session, and which of them it does not start with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattle.bus.config import ZenohOptions, open_ways
from wattle.errors import SettingsError
from wattle.logs import get_logger
from wattle.settings import AgentSettings

log = get_logger("wattle.host")


def finds_others(settings: AgentSettings) -> bool:
    """Whether a session may find others by itself. One that only listens has nobody in sight when it opens, and so no name to look for."""
    return bool(settings.connect or settings.multicast or settings.zenoh_config)


def refuse_open_ways(settings: AgentSettings) -> None:
    """Start no agent that whoever comes could command, unless that is what its settings say."""
    ways = open_ways(zenoh_options(settings))
    if not ways:
        return
    if not settings.insecure:
        raise SettingsError(
            f"{' and '.join(ways)}: without certificates whoever reaches this can run commands here. Make a cluster and give this agent"
            " its bundle (wattle cluster init, --bundle), use sockets, or say --insecure where everybody who reaches it may do that",
            code="INSECURE",
            detail=ways,
        )
    log.warning("insecure: whoever reaches this can run commands here", ways=ways)


def zenoh_options(settings: AgentSettings) -> ZenohOptions:
    """What the session is opened with: a Zenoh configuration's own words hold where nothing else was said."""
    given = settings.model_fields_set
    return ZenohOptions(
        mode=settings.mode if settings.zenoh_config is None or "mode" in given else None,
        listen=settings.endpoints if settings.zenoh_config is None or "listen" in given else (),
        connect=settings.connect,
        multicast=settings.multicast if settings.zenoh_config is None or "multicast" in given else None,
        lease_ms=round(settings.lease * 1000) if settings.zenoh_config is None or "lease" in given else None,
        config_file=settings.zenoh_config,
        secured=_secured(settings),
    )


def _secured(settings: AgentSettings) -> Mapping[str, Any]:
    if settings.bundle is None:
        return {}
    from wattle.security.membership import join

    return join(settings.bundle, settings.data).zenoh_values()
