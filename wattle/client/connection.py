"""Where a client connects to, and in which namespace it speaks: arguments first, then ``WATTLE_*`` variables, then defaults."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wattle.bus.config import ZenohOptions
from wattle.client.credentials import Credentials
from wattle.client.steps import Policy
from wattle.errors import SettingsError
from wattle.protocol.keys import Keys
from wattle.security.clients import client_settings
from wattle.settings import ClientSettings
from wattle.values import value

if TYPE_CHECKING:
    from wattle.security.bundle import Bundle

REOPENED_MS = 3_000
"""Milliseconds in which a member of a secured cluster listens again that opens its session anew, as all do that are told something."""


@value(frozen=True, slots=True)
class Connection:
    """What both clients need to know before they open."""

    settings: ClientSettings
    keys: Keys
    credentials: Credentials
    bundle: Bundle | None = None

    def attachment(self, key: str, session: str) -> bytes | None:
        """What goes with a request of a session on ``key``: who asks, which is for gateways alone."""
        return self.credentials.attachment(session) if key.startswith(self.keys.api("")) else None

    @property
    def options(self) -> ZenohOptions:
        """A client session on the first of the endpoints that answers."""
        if self.bundle is None:
            return ZenohOptions(mode="client", connect=self.settings.endpoints)
        tls = {"transport/link/tls": self.bundle.tls}  # and no rules: a client serves nothing
        return ZenohOptions(mode="client", connect=self.settings.endpoints, wait_ms=REOPENED_MS, secured=tls)

    def policy(self, clock: Callable[[], float], patience: float) -> Policy:
        """How patient the client is."""
        where = f"{', '.join(self.settings.endpoints)} in namespace {self.settings.namespace!r}"
        return Policy(clock, where, timeout=self.settings.timeout, patience=patience)


def connection(
    connect: str | Sequence[str] | None = None,
    namespace: str | None = None,
    data: str | Path | None = None,
    timeout: float | None = None,
    bundle: str | Path | None = None,
) -> Connection:
    """The connection that arguments, variables and defaults describe; raises SettingsError."""
    endpoints = [connect] if isinstance(connect, str) else list(connect or ()) or None
    flags = {"connect": endpoints, "namespace": namespace, "data": data, "timeout": timeout, "bundle": bundle}
    settings = client_settings(flags)
    keys, credentials = Keys(settings.namespace), Credentials(settings)
    if settings.bundle is None:
        return Connection(settings, keys, credentials)
    from wattle.security.bundle import read_bundle

    member = read_bundle(settings.bundle)
    if member.has_expired(time.time()):
        raise SettingsError(
            f"the certificate in {settings.bundle} expired at {member.expires_at}; who has the cluster's folder makes a new one:"
            f" wattle cluster renew {member.name}"
        )
    return Connection(settings, keys, credentials, member)
