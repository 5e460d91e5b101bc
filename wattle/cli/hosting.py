"""Agents as the commands start them: settings of each role out of one set of flags, then the host. Imports no typer."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from wattle.settings import AgentSettings

ROLES = ("coordinator", "gateway", "runtime")
"""What ``up`` and an embedded network run."""

RUNTIME_FLAGS = frozenset({"slots", "labels", "resources", "stop_timeout", "die_with_runtime"})
"""Flags that only a runtime has."""

Flags = dict[str, Any]


def run_roles(roles: Sequence[str], flags: Flags, ready: Callable[[list[str]], None], *, at_rest: bool = False) -> None:
    """Run agents until they are stopped; see ``wattle.host.run_agents``. ``flags`` may name a file of settings as ``config``."""

    def load() -> dict[str, AgentSettings]:
        return {role: _settings(role, flags) for role in roles}

    def started(endpoints: list[str]) -> None:
        gc.enable()
        ready(endpoints)

    gc.disable()  # what is imported stays: looking through it for what may go is a twelfth of the start
    try:
        from wattle.host import run_agents

        run_agents(load(), ready=started, at_rest=at_rest, load=load)
    finally:
        gc.enable()


def _settings(role: str, flags: Flags) -> AgentSettings:
    from wattle.settings import load_settings
    from wattle.settings.agents import AGENTS

    kind, config = AGENTS[role], flags.get("config")
    given = {
        name: value
        for name, value in flags.items()
        if name != "config" and (role == "runtime" or name not in RUNTIME_FLAGS)
    }
    settings = load_settings(kind, config=config, flags=given)
    if settings.bundle is None:
        return settings
    from wattle.security.joining import settings_of_member

    return settings_of_member(kind, settings.bundle, settings.data, config=config, flags=given)


def leave(status: int) -> NoReturn:
    """End this process now that all is closed and said.

    Python would take its modules apart first, which took 0.1 s for a client and 0.3 s for an agent.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # as when started with 2>&-
                stream.flush()
        except (OSError, ValueError):  # whoever read it is gone, or it is closed
            pass
    os._exit(status)
