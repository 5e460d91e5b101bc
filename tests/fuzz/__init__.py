"""Fuzz campaigns: what comes from outside, in millions. ``python -m tests.fuzz --help``, or ``make fuzz``."""

from __future__ import annotations

from tests.fuzz.agents import Agents
from tests.fuzz.engine import Target
from tests.fuzz.targets import (
    Assignments,
    Documents,
    Instances,
    KeyParsers,
    Messages,
    Params,
    SettingsFiles,
    SettingsValues,
    Texts,
    Yaml,
)

TARGETS: dict[str, type[Target]] = {
    kind.name: kind
    for kind in (
        KeyParsers,
        Texts,
        Messages,
        Assignments,
        SettingsValues,
        SettingsFiles,
        Params,
        Documents,
        Yaml,
        Instances,
        Agents,
    )
}
"""By name."""
