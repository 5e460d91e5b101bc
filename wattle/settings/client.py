"""The settings of a client: of the command line and of programs that use the SDK.

A plain dataclass: importing pydantic takes longer than what most commands do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from wattle.settings.base import Problem, Rejected
from wattle.settings.values import (
    as_endpoints,
    as_file,
    as_named,
    as_path,
    as_text,
    as_timeout,
    default_data,
    socket_endpoint,
    variables,
)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a client finds the network and how long it waits."""

    role: ClassVar[str] = "client"

    data: Path = field(
        default_factory=default_data,
        metadata={
            "description": "Folder of the embedded network: its store, its files, and the socket that clients find it by.",
            "derived": "$XDG_DATA_HOME/wattle, or ~/.local/share/wattle",
        },
    )
    namespace: str = field(default="default", metadata={"description": "The namespace to speak in."})
    connect: tuple[str, ...] = field(
        default=(),
        metadata={"description": "Endpoints of peers to connect to. Empty: the socket in the data folder."},
    )
    token: str = field(
        default="",
        repr=False,
        metadata={
            "description": "The token that says who asks, where gateways want one. Better kept in a file: see token_file.",
            "derived": "none",
        },
    )
    token_file: Path | None = field(
        default=None,
        metadata={
            "description": "File with the token; it must be yours or root's, and nobody else's to read. Read again when it changes.",
            "derived": "none",
        },
    )
    bundle: Path | None = field(
        default=None,
        metadata={
            "description": "A client's bundle of a secured cluster (wattle cluster issue NAME --role client), which also says where "
            "to connect and the namespace.",
            "derived": "none",
        },
    )
    timeout: float = field(default=10.0, metadata={"description": "Seconds to wait for an answer to one request."})

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where to connect to: what ``connect`` says, else the socket in the data folder."""
        return self.connect or (socket_endpoint(self.data),)

    @classmethod
    def setting_names(cls) -> frozenset[str]:
        """The names of all its settings."""
        return frozenset(_RULES)

    @classmethod
    def build(cls, given: Mapping[str, Any]) -> Self:
        """Settings of the given values and, where those say nothing, of ``WATTLE_*`` variables; raises Rejected."""
        read = {name: text for name, text in variables().items() if name in _RULES}
        checked: dict[str, Any] = {}
        problems = []
        for name, value in {**read, **given}.items():
            try:
                checked[name] = _RULES.get(name, _unknown)(value)
            except ValueError as error:
                problems.append(Problem(name, None if name == "token" else value, str(error)))
        if problems:
            raise Rejected(problems)
        return cls(**checked)


def _unknown(_: object) -> None:
    raise ValueError("is not a setting of the client")


_RULES: dict[str, Callable[[object], Any]] = {
    "data": as_path,
    "namespace": as_named,
    "connect": as_endpoints,
    "token": as_text,
    "token_file": as_path,
    "bundle": as_file,
    "timeout": as_timeout,
}
