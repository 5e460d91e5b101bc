"""Every error Wattle raises on purpose, in one flat tree.

::

    WattleError                 has a code, a message and a detail list; the same three travel in error replies
     ├── InvalidRequest         INVALID_REQUEST: a key, selector, payload or argument that cannot be understood
     │    └── InvalidDocument   INVALID_DOCUMENT: a workflow document; detail lists every problem with its place and fix
     ├── NotFound               WORKFLOW_NOT_FOUND, RUN_NOT_FOUND, WORKER_NOT_FOUND, NODE_NOT_FOUND, LOG_NOT_FOUND, KEY_NOT_FOUND,
     │                         MEMBER_NOT_FOUND (of a cluster's folder); between peers NOT_HERE
     ├── Conflict               RUN_EXISTS, RUN_NOT_FINAL, RUN_FINAL, RUN_PRUNED, NAME_IN_USE: right in form, wrong for what is there now
     ├── Unavailable            NO_NETWORK, NO_GATEWAY, NO_COORDINATOR, NO_QUORUM, NODE_UNREACHABLE, OWNER_UNREACHABLE, TIMEOUT, BUSY:
     │                         try later
     ├── Denied                 TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, FORBIDDEN: who asks may not, as far as the gateway knows
     ├── StoreError             STORE_IN_USE, STORE_NEWER, STORE_DAMAGED, STORE_FULL, STORE_UNUSABLE: its data folder cannot be used
     ├── SettingsError          INVALID_SETTINGS, INSECURE: a settings file, variable or flag
     └── InternalError          INTERNAL: a fault of Wattle's own, logged where it happened
"""

from __future__ import annotations

from typing import Any


class WattleError(Exception):
    """The root. ``code`` is stable and for programs, ``message`` is for people, ``detail`` lists particulars as JSON values."""

    code = "INTERNAL"

    def __init__(self, message: str, *, code: str | None = None, detail: list[Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.detail: list[Any] = detail or []

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of an error reply."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


class InvalidRequest(WattleError):
    """A key, selector, payload or argument that cannot be understood."""

    code = "INVALID_REQUEST"


class InvalidDocument(InvalidRequest):
    """A workflow document with one or more problems; ``detail`` holds them as dicts."""

    code = "INVALID_DOCUMENT"


class NotFound(WattleError):
    """What the request names does not exist; the code says what kind of thing."""

    code = "KEY_NOT_FOUND"


class Conflict(WattleError):
    """The request is right in form and does not fit what is there now."""

    code = "RUN_EXISTS"


class Unavailable(WattleError):
    """Nobody could answer now; the same request may work later."""

    code = "TIMEOUT"


class Denied(WattleError):
    """Who asks does not say who it is, or may not do what it asks for."""

    code = "FORBIDDEN"


class StoreError(WattleError):
    """This process cannot use its data folder; the message names the file and what to do."""

    code = "STORE_DAMAGED"


class SettingsError(WattleError):
    """A settings file, environment variable or flag with a wrong value."""

    code = "INVALID_SETTINGS"


class InternalError(WattleError):
    """A fault of Wattle's own, logged where it happened."""

    code = "INTERNAL"


_BY_CODE: dict[str, type[WattleError]] = {
    "INVALID_REQUEST": InvalidRequest,
    "INVALID_DOCUMENT": InvalidDocument,
    "NOT_HERE": NotFound,
    "RUN_EXISTS": Conflict,
    "RUN_NOT_FINAL": Conflict,
    "RUN_FINAL": Conflict,
    "RUN_PRUNED": Conflict,
    "NAME_IN_USE": Conflict,
    "NO_NETWORK": Unavailable,
    "NO_GATEWAY": Unavailable,
    "NO_COORDINATOR": Unavailable,
    "NO_QUORUM": Unavailable,
    "NODE_UNREACHABLE": Unavailable,
    "OWNER_UNREACHABLE": Unavailable,
    "TIMEOUT": Unavailable,
    "BUSY": Unavailable,
    "TOKEN_MISSING": Denied,
    "TOKEN_INVALID": Denied,
    "TOKEN_EXPIRED": Denied,
    "FORBIDDEN": Denied,
    "STORE_IN_USE": StoreError,
    "STORE_NEWER": StoreError,
    "STORE_DAMAGED": StoreError,
    "STORE_FULL": StoreError,
    "STORE_UNUSABLE": StoreError,
    "INVALID_SETTINGS": SettingsError,
    "INSECURE": SettingsError,
}


def error_from_dict(data: dict[str, Any]) -> WattleError:
    """The exception that an error reply stands for: the class by its code, the rest as sent."""
    code = str(data.get("code", "INTERNAL"))
    kind = NotFound if code.endswith("_NOT_FOUND") else _BY_CODE.get(code, InternalError)
    detail = data.get("detail")
    return kind(str(data.get("message", "")), code=code, detail=detail if isinstance(detail, list) else None)
