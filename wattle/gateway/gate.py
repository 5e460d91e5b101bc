"""Who may come in: the token that comes with a request, against what the request does.

A request's attachment is a JSON object; ``token`` is all that is looked at, so that others may be added. A gateway without
``token_public_key`` looks at no attachment.
"""

from __future__ import annotations

import time

from wattle.errors import Denied, InvalidRequest
from wattle.gateway.request import Asked
from wattle.peer.asking import parse_object
from wattle.security.roles import Action
from wattle.security.tokens import ANONYMOUS, Checker, Identity
from wattle.settings import GatewaySettings


class Gate:
    """One gateway's. Raises SettingsError for keys that are none."""

    def __init__(self, settings: GatewaySettings) -> None:
        public = settings.token_public_key
        self._checker = None if public is None else Checker(public, settings.namespace, settings.cluster)

    def admit(self, asked: Asked, action: Action) -> Identity:
        """Who asks; raises Denied where that is not said, or is not so, or where that one may not do what is asked for."""
        if self._checker is None:
            return ANONYMOUS
        identity = self._checker.check(_token(asked.attachment), time.time())
        if identity.role is not None and not identity.role.may(action):
            raise Denied(
                f"{identity.subject!r} is {identity.role} here, which may not {action}; see the roles in docs/security.md"
            )
        return identity


def _token(attachment: bytes | None) -> str:
    if not attachment:
        raise Denied(
            "this gateway wants to know who asks: give a token (WATTLE_TOKEN_FILE, or wattle --token-file FILE)",
            code="TOKEN_MISSING",
        )
    try:
        token = parse_object(attachment).get("token")
    except InvalidRequest as error:
        raise Denied(f"the request's attachment is refused: {error.message}", code="TOKEN_INVALID") from None
    if not isinstance(token, str):
        raise Denied("the request's attachment has no 'token', which is a text", code="TOKEN_MISSING")
    return token
