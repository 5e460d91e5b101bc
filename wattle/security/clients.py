"""A client's settings, with what its bundle says where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattle.settings import ClientSettings, load_settings


def client_settings(flags: Mapping[str, Any]) -> ClientSettings:
    """The settings that flags, variables and a bundle make; raises SettingsError. Without a bundle nothing more is imported."""
    settings = load_settings(ClientSettings, flags=flags)
    if settings.bundle is None:
        return settings
    from wattle.security.joining import settings_of_member

    return settings_of_member(ClientSettings, settings.bundle, settings.data, flags=flags)
