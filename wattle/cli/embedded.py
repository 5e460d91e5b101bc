"""The embedded network's process: ``python -m wattle.cli.embedded DATA NAMESPACE LOCK [--at-rest]``, started by wattle/network.py.

It is ``wattle up`` for a user that is a program: it stops when nobody holds it (wattle/cli/holders.py), and takes its tasks along.
``LOCK`` is the descriptor of the data folder's lock. How soon it is ready is how soon ``wattle run`` begins, so it imports no command
line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from wattle.cli.holders import Holders, say
from wattle.cli.hosting import ROLES, Flags, leave, run_roles
from wattle.errors import WattleError
from wattle.settings.values import socket_endpoint

STOP_TIMEOUT = 1.0
"""Seconds that tasks get once nobody uses the network any more; their run is cancelled or given up by then."""


def main(arguments: list[str]) -> int:
    """Serve until nobody holds this process; the exit status."""
    data, namespace, lock = Path(arguments[0]), arguments[1], int(arguments[2])
    os.set_inheritable(lock, False)
    flags: Flags = {
        "data": data,
        "namespace": namespace,
        "listen": [socket_endpoint(data)],
        "die_with_runtime": True,
        "stop_timeout": STOP_TIMEOUT,
    }
    Holders(data).start()
    try:
        run_roles(ROLES, flags, _ready, at_rest="--at-rest" in arguments)
    except WattleError as error:
        say(f"error {json.dumps(error.as_dict())}")
        return 3
    return 0


def _ready(endpoints: list[str]) -> None:
    say(" ".join(["ready", *endpoints]))


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
