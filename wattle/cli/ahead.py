"""What ``wattle run`` begins before it reads its options: the process of the network that it will probably need (wattle/cli/embedded.py).

Most of a cold run is imports. What both processes need is imported first; then the new one imports the agents, on another CPU, while this
one imports typer, reads the options and checks the document. Whether a network is needed is only guessed here, for the options decide it:
a wrong guess costs time and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wattle.collector import paused
from wattle.errors import SettingsError
from wattle.settings import ClientSettings, load_settings
from wattle.settings.values import SOCKET_NAME

_NO_NETWORK = {"--connect", "--bundle", "--help"}


def begin(arguments: Sequence[str]) -> None:
    """Fork the network's process if ``arguments``, those of ``run``, look as if it will be needed."""
    if not likely(arguments):
        return
    from wattle.cli import embedded

    with paused():
        import wattle.client.blocking
        import wattle.document.compile
        import wattle.document.load  # noqa: F401
    embedded.fork_ahead()


def likely(arguments: Sequence[str]) -> bool:
    """Whether ``wattle run`` with these will probably serve itself, and there is a second CPU to use."""
    if len(os.sched_getaffinity(0)) == 1 or any(argument.partition("=")[0] in _NO_NETWORK for argument in arguments):
        return False
    try:
        settings = load_settings(ClientSettings, flags={"data": _data(arguments)})
    except SettingsError:  # will be said by those who read all options
        return False
    return not settings.connect and settings.bundle is None and not (settings.data / SOCKET_NAME).exists()


def _data(arguments: Sequence[str]) -> Path | None:
    rest = iter(arguments)
    for argument in rest:
        name, equals, text = argument.partition("=")
        if name == "--data":
            return Path(text if equals else next(rest, ""))
    return None
