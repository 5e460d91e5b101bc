"""Who may come in: the token that comes with a request, against what the request does; and the audit of what was asked.

A request's attachment is a JSON object: ``token`` says who asks; ``session`` is what the asker says is its session in Zenoh, which tells of
nobody who asked. It is recorded as it was said, with the certificate of the session's link where there is one to this gateway.

What changes something is recorded before it is asked of anybody: so a change that was allowed has its record, wherever this process ends.
What became of it is recorded afterwards; where that is missing the gateway ended before it knew.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from wattle.errors import Denied, InvalidRequest
from wattle.gateway.request import Answer, Asked, Method
from wattle.gateway.submission import INLINE
from wattle.peer.asking import parse_object
from wattle.protocol.records import timestamp
from wattle.security.roles import Action
from wattle.security.tokens import ANONYMOUS, UNKNOWN, Checker, Identity
from wattle.settings import GatewaySettings

if TYPE_CHECKING:
    from wattle.bus.base import Link
    from wattle.store.audit import AuditStore  # which brings a database along


MOST_ATTACHED = 16384
"""Bytes of an attachment that is read, at most."""

_SESSION = re.compile(r"[0-9a-f]{1,32}")


class Gate:
    """One gateway's. Raises SettingsError for keys that are none."""

    def __init__(
        self, name: str, settings: GatewaySettings, audit: AuditStore | None, links: Callable[[], Sequence[Link]]
    ) -> None:
        public = settings.token_public_key
        self._checker = None if public is None else Checker(public, settings.namespace, settings.cluster_id)
        self._name, self._audit, self._links = name, audit, links

    @property
    def asks(self) -> bool:
        """Whether requests need a token."""
        return self._checker is not None

    @property
    def head(self) -> dict[str, Any] | None:
        """Number and hash of the newest record: who notes them elsewhere can tell later that none was cut off since."""
        return None if self._audit is None else {"number": self._audit.number, "hash": self._audit.hash}

    async def admit(self, asked: Asked, path: str, action: Action) -> int | None:
        """The number of the record where there is one; raises Denied for who does not say who it is, or may not do this."""
        identity = UNKNOWN
        try:
            identity = self._identify(asked.attachment)
            self._check(identity, action)
        except Denied as error:
            await self._record(asked, path, action, identity, error.code)
            raise
        return await self._record(asked, path, action, identity, None)

    def done(self, record: int | None, code: str, answer: Answer | None = None) -> None:
        """Record what became of a request."""
        if record is not None and self._audit is not None:
            run = {} if answer is None else _run_of(answer)
            self._audit.append({"kind": "outcome", "at": timestamp(time.time()), "of": record, "code": code, **run})

    def _identify(self, attachment: bytes | None) -> Identity:
        return ANONYMOUS if self._checker is None else self._checker.read(_token(attachment), time.time())

    def _check(self, identity: Identity, action: Action) -> None:
        if self._checker is None or identity.role is None:
            return
        self._checker.check(identity, time.time())
        if not identity.role.may(action):
            who = f"{identity.subject!r} is {identity.role} here"
            raise Denied(f"{who}, which may not {action}; see the roles in docs/security.md", code="FORBIDDEN")

    async def _record(
        self, asked: Asked, path: str, action: Action, identity: Identity, refused: str | None
    ) -> int | None:
        if self._audit is None or not action.changes:
            return None
        digest = None if asked.payload is None else await _digest(asked.payload)
        session = _session(asked.attachment)
        return self._audit.append(
            {
                "kind": "request",
                "at": timestamp(time.time()),
                "who": identity.subject,
                "role": identity.role,
                "token": identity.token,
                "session": session,
                "certificate": self._certificate(session),
                "method": "get" if asked.method is Method.POST else asked.method,
                "path": path,
                "action": action,
                "payload": digest,
                "allowed": refused is None,
                "code": refused,
                "gateway": self._name,
            }
        )

    def _certificate(self, session: str | None) -> str | None:
        """Whose certificate the link was opened with on which a session is linked here; None where it is not."""
        return (
            next((link.certificate or None for link in self._links() if link.id == session), None) if session else None
        )


async def _digest(payload: bytes) -> str:
    """The sha256 of a payload; of a large one in a thread, so that others are served meanwhile."""
    if len(payload) <= INLINE:
        return hashlib.sha256(payload).hexdigest()
    return (await trio.to_thread.run_sync(hashlib.sha256, payload)).hexdigest()


def _run_of(answer: Answer) -> dict[str, str]:
    """The id of the run or the name of the workflow or node that an answer shows, where it is not long."""
    if len(answer.body) > INLINE:
        return {}
    view = json.loads(answer.body)
    shown = view.get("id") or view.get("name")
    return {"shown": str(shown)} if shown else {}


def _about(attachment: bytes) -> dict[str, Any]:
    """What a request's attachment says; raises InvalidRequest for what is none, or so long that reading it would keep others waiting."""
    if len(attachment) > MOST_ATTACHED:
        raise InvalidRequest(f"it has {len(attachment)} bytes; at most {MOST_ATTACHED} are read")
    return parse_object(attachment)


def _session(attachment: bytes | None) -> str | None:
    """The session that a request says it comes from; None where it says nothing that could be one."""
    if not attachment:
        return None
    try:
        session = _about(attachment).get("session")
    except InvalidRequest:  # which nothing but a token would be missed in
        return None
    return session if isinstance(session, str) and _SESSION.fullmatch(session) else None


def _token(attachment: bytes | None) -> str:
    try:
        token = _about(attachment).get("token") if attachment else None
    except InvalidRequest as error:
        raise Denied(f"the request's attachment is refused: {error.message}", code="TOKEN_INVALID") from None
    if token is None:
        raise Denied(
            "this gateway wants to know who asks: give a token (WATTLE_TOKEN_FILE, or wattle --token-file FILE);"
            " wattle token issue makes one",
            code="TOKEN_MISSING",
        )
    if not isinstance(token, str):
        raise Denied("the 'token' in the request's attachment is no text", code="TOKEN_INVALID")
    return token
