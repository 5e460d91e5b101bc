"""The embedded network's process, forked from ``wattle run`` and handed to wattle/network.py.

It is ``wattle up`` for a user that is a program: it stops when nobody holds it (wattle/cli/holders.py), and takes its tasks along.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from wattle.cli.holders import Holders, say
from wattle.cli.hosting import ROLES, Flags, leave, run_roles
from wattle.errors import WattleError
from wattle.forked import Forked, told
from wattle.settings.values import socket_endpoint

STOP_TIMEOUT = 1.0
"""Seconds that tasks get once nobody uses the network any more; their run is cancelled or given up by then."""

_ahead: list[Forked] = []  # at most one


def fork_ahead() -> None:
    """Fork the process that ``process`` will give: it gets ready meanwhile, and ends with this one if it is not needed."""
    _ahead.append(fork())


@contextmanager
def process() -> Iterator[Callable[[], Forked]]:
    """What gives a process for a network: the one that was forked ahead, or a new one. One that nobody took is ended in the end."""
    try:
        yield lambda: _ahead.pop() if _ahead else fork()
    finally:
        while _ahead:
            _ahead.pop().kill()


def fork() -> Forked:
    """A process for a network."""
    return Forked(_main)


def _main() -> None:
    gc.disable()  # as run_roles does, which has it run again
    import_agents()
    what, (lock,) = told()
    serve(Path(what["data"]), what["namespace"], lock, what["at_rest"])


def import_agents() -> None:
    """What wattle/host.py would import for ROLES in the end."""
    import wattle.coordinator.agent
    import wattle.gateway.agent
    import wattle.host
    import wattle.runtime.agent
    import wattle.store.coordinator
    import wattle.store.runtime  # noqa: F401


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
