"""A bundle: one file with all that a member needs, which is copied to its machine and named with ``--bundle``.

It is a configuration that any Zenoh client can be opened with as it is (mode client, TLS with the member's key and certificate), and holds
what Wattle knows beside that in Zenoh's ``metadata``: who the member is and the rosters of its namespaces. The key is in it, so it is
its owner's alone (mode 0600) and is refused otherwise. Nothing is ever unpacked from it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattle.errors import InvalidRequest, SettingsError
from wattle.names import check_name
from wattle.protocol.records import seconds
from wattle.security.private import read_private
from wattle.security.roster import Roster, check_roles, read_roster

FORMAT = 1
MOST_BYTES = 1 << 20
"""Bytes of a roster on its way, at most."""

Signed = tuple[str, str]
"""A roster's text, and its signature."""

TAKEN, KNOWN = b'"taken"', b'"known"'
"""What a member answers to a roster that it learned from, or that is its own; to an older one it answers with its own."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the file says. ``key``, ``certificate`` and ``authority`` (the authority's certificate) are PEM."""

    name: str
    roles: tuple[str, ...]
    namespace: str
    common_name: str
    hosts: tuple[str, ...]
    port: int | None
    issued_at: str
    expires_at: str
    rosters: tuple[Signed, ...]
    key: str
    certificate: str
    authority: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"<Bundle {self.common_name}>"

    @property
    def is_client(self) -> bool:
        """Whether it is for commands and programs that ask, not for agents."""
        return self.roles == ("client",)

    def has_expired(self, now: float) -> bool:
        """Whether its certificate is good for nothing any more."""
        return (seconds(self.expires_at) or 0.0) <= now

    def may_ask(self) -> bool:
        """Whether requests to the API are let through under this certificate."""
        return "client" in self.roles or "gateway" in self.roles

    @property
    def tls(self) -> dict[str, Any]:
        """Zenoh's ``transport/link/tls`` section."""
        key, certificate, authority = (_base64(text) for text in (self.key, self.certificate, self.authority))
        return {
            "root_ca_certificate_base64": authority,
            "enable_mtls": True,
            "verify_name_on_connect": True,
            "close_link_on_expiration": True,
            "listen_private_key_base64": key,
            "listen_certificate_base64": certificate,
            "connect_private_key_base64": key,
            "connect_certificate_base64": certificate,
        }

    def as_text(self) -> str:
        """The file's content."""
        about = {
            "format": FORMAT,
            "name": self.name,
            "roles": self.roles,
            "namespace": self.namespace,
            "common_name": self.common_name,
            "hosts": self.hosts,
            "port": self.port,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "rosters": self.rosters,
        }
        zenoh = {
            "metadata": {"wattle": about},
            "mode": "client",
            "connect": {"endpoints": entrances(self.newest_rosters())},
            "scouting": {"multicast": {"enabled": False}},
            "transport": {"link": {"tls": self.tls}, "shared_memory": {"enabled": False}},
        }
        return json.dumps(zenoh, indent=1) + "\n"

    def newest_rosters(self) -> list[Roster]:
        """The rosters as they were when the bundle was made."""
        return [read_roster(text) for text, _ in self.rosters]


def entrances(rosters: Iterable[Roster]) -> list[str]:
    """Where clients connect: at routers and gateways, which let their requests through."""
    return [
        endpoint
        for roster in rosters
        for member in roster.members
        if {"gateway", "router"} & set(member.roles)
        for endpoint in member.endpoints
    ]


def read_bundle(path: Path) -> Bundle:
    """The bundle in a file; raises SettingsError that says what to do where it cannot be used."""
    content = read_private(path, "bundle")
    try:
        zenoh = json.loads(content)
        about = zenoh["metadata"]["wattle"]
        tls = zenoh["transport"]["link"]["tls"]
        if about["format"] != FORMAT:
            raise SettingsError(
                f"bundle {path} has format {about['format']!r}, and this Wattle reads {FORMAT}: renew it"
            )
        bundle = _bundle(about, tls)
        bundle.newest_rosters()
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, InvalidRequest) as error:
        raise SettingsError(
            f"{path} is no bundle ({error or type(error).__name__}); wattle cluster issue makes one"
        ) from None
    return bundle


def _bundle(about: Mapping[str, Any], tls: Mapping[str, str]) -> Bundle:
    port = about["port"]
    return Bundle(
        name=check_name(about["name"], "name"),
        roles=check_roles(about["roles"]),
        namespace=check_name(about["namespace"], "namespace"),
        common_name=str(about["common_name"]),
        hosts=tuple(map(str, about["hosts"])),
        port=None if port is None else int(port),
        issued_at=_time(about["issued_at"]),
        expires_at=_time(about["expires_at"]),
        rosters=tuple((str(text), str(signature)) for text, signature in about["rosters"]),
        key=_from_base64(tls["listen_private_key_base64"]),
        certificate=_from_base64(tls["listen_certificate_base64"]),
        authority=_from_base64(tls["root_ca_certificate_base64"]),
    )


def signed_payload(signed: Signed) -> bytes:
    """A roster and its signature as they travel, and as they are kept."""
    return json.dumps(signed).encode()


def read_signed(payload: bytes | None) -> Signed | None:
    """The inverse; None where it is none."""
    if payload is None or len(payload) > MOST_BYTES:
        return None
    try:
        text, signature = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        return None
    return (text, signature) if isinstance(text, str) and isinstance(signature, str) else None


def _time(text: str) -> str:
    seconds(text)  # raises ValueError where it is none
    return text


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _from_base64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()
