"""The embedded network's process, forked from ``wattle run`` by wattle/network.py.

It is ``wattle up`` for a user that is a program: it stops when nobody holds it (wattle/cli/holders.py), and takes its tasks along.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from wattle.cli.holders import Holders, say
from wattle.cli.hosting import ROLES, Flags, leave, run_roles
from wattle.errors import WattleError
from wattle.settings.values import socket_endpoint

STOP_TIMEOUT = 1.0
"""Seconds that tasks get once nobody uses the network any more; their run is cancelled or given up by then."""


def serve(data: Path, namespace: str, lock: int, at_rest: bool) -> NoReturn:
    """Serve until nobody holds this process, and end it. ``lock`` is the descriptor of the data folder's lock, which ends with it."""
    flags: Flags = {
        "data": data,
        "namespace": namespace,
        "listen": [socket_endpoint(data)],
        "die_with_runtime": True,
        "stop_timeout": STOP_TIMEOUT,
    }
    Holders(data).start()
    try:
        run_roles(ROLES, flags, _ready, at_rest=at_rest)
    except WattleError as error:
        say(f"error {json.dumps(error.as_dict())}")
        leave(3)
    leave(0)


def _ready(endpoints: list[str]) -> None:
    say(" ".join(["ready", *endpoints]))
