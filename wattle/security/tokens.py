"""Tokens that say who somebody is: JSON Web Tokens, signed by the cluster's key (EdDSA over Ed25519), checked by gateways.

A token's claims: ``sub`` (the person's or program's name), ``role``, ``namespaces`` (names, or ``*`` for all), ``aud`` (the cluster's id),
``iat``, ``exp`` and ``jti``. Its header's ``kid`` is the fingerprint of the public key that checks it, so that several keys can be valid
while one takes over from another.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattle.errors import Denied, InvalidRequest, SettingsError
from wattle.names import check_name, is_name
from wattle.security.private import read_private, write_private
from wattle.security.roles import Role
from wattle.values import value

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

EVERYWHERE = "*"
"""Stands for all namespaces."""

LEEWAY = 10.0
"""Seconds by which the clocks of who issues and who checks may differ."""

LONGEST = 366 * 86400.0
"""Seconds that a token may last, at most: there is no list of tokens that are called back."""

MOST_BYTES = 8192
"""Bytes of a token, at most."""

PRIVATE_NAME, PUBLIC_NAME = "token.key", "token.pub"
"""What the key's two parts are called in a cluster's folder."""

_ALGORITHM = "EdDSA"
_REQUIRED = ["sub", "role", "namespaces", "aud", "iat", "exp", "jti"]
_KEPT = 1000  # checked tokens that are remembered
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


@value(frozen=True, slots=True)
class Identity:
    """Who asks. ``token`` is the token's own id, for the audit; ``expires`` a Unix time. ``role`` is None where nobody asks for tokens."""

    subject: str
    role: Role | None = None
    namespaces: tuple[str, ...] = ()
    token: str = ""
    expires: float = 0.0


ANONYMOUS = Identity("anonymous")
"""Who asks a gateway that checks no tokens."""

UNKNOWN = Identity("unknown")
"""Who asks with a token that is none, or without one."""


# --- keys -------------------------------------------------------------------------------------------------------------


def make_key(private: Path, public: Path) -> str:
    """Make a signing key, in two files that must not be there yet; gives its fingerprint."""
    key, pem = new_key()
    write_private(private, pem, "signing key")
    try:
        with open(public, "x") as file:
            file.write(public_pem(key))
    except OSError as error:
        raise SettingsError(f"public key {public} cannot be written: {error.strerror or error}") from None
    return fingerprint(key.public_key())


def new_key() -> tuple[Ed25519PrivateKey, bytes]:
    """A new signing key, and the same in PEM."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key, key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public part of a signing key, in PEM."""
    from cryptography.hazmat.primitives import serialization as form

    return key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: Ed25519PublicKey) -> str:
    """What a public key is called: 32 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key in a file that is this user's alone; raises SettingsError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = read_private(path, "signing key")
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"signing key {path} is no private key in PEM without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"signing key {path} is no Ed25519 key; make one with: wattle token key {path}")
    return key


def _public_keys(source: Path | str) -> dict[str, Ed25519PublicKey]:
    """The keys in a file, or in a text, by fingerprint and in their order."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    name = f"token_public_key {source}" if isinstance(source, Path) else "token_public_key"
    try:
        blocks = _PEM.findall(source.read_bytes() if isinstance(source, Path) else source.encode())
        keys = [load_pem_public_key(block) for block in blocks]
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise SettingsError(f"{name} holds a public key that is none: {error}") from None
    found = {fingerprint(key): key for key in keys if isinstance(key, Ed25519PublicKey)}
    if not keys or len(found) != len(keys):
        raise SettingsError(f"{name} must hold one or more different Ed25519 public keys in PEM")
    return found


# --- issuing ------------------------------------------------------------------------------------------------------------


def issue(
    key: Path,
    *,
    subject: str,
    role: Role,
    namespaces: Collection[str],
    ttl: float,
    cluster: str | None = None,
    now: float | None = None,
) -> str:
    """A new token; ``cluster`` is by default the id of a cluster with this key alone. Raises InvalidRequest and SettingsError."""
    import jwt

    check_name(subject, "name")
    for namespace in namespaces:
        if namespace != EVERYWHERE:
            check_name(namespace, "namespace")
    if not namespaces:
        raise InvalidRequest("a token needs a namespace to be used in")
    if not 1 <= ttl <= LONGEST:
        raise InvalidRequest(f"a token lasts from 1 s to {LONGEST / 86400:.0f} d, not {ttl:g} s")
    signing = signing_key(key)
    id = fingerprint(signing.public_key())
    at = int(time.time() if now is None else now)
    claims = {
        "sub": subject,
        "role": str(role),
        "namespaces": sorted(set(namespaces)),
        "aud": cluster or id,
        "iat": at,
        "exp": at + int(ttl),
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, signing, algorithm=_ALGORITHM, headers={"kid": id})


def looks_like_token(text: str) -> bool:
    """Whether a text has the form of a token."""
    return len(text) <= MOST_BYTES and _FORM.fullmatch(text) is not None


# --- checking -----------------------------------------------------------------------------------------------------------


class Checker:
    """Checks tokens for one cluster and one namespace, by the keys of a file or in a text (PEM). Raises Denied; what a checked token
    says is remembered.
    """

    def __init__(self, public: Path | str, namespace: str, cluster: str | None = None) -> None:
        self._keys = _public_keys(public)
        self.cluster = cluster or next(iter(self._keys))
        self._namespace = namespace
        self._checked: dict[str, Identity] = {}

    def read(self, token: str, now: float) -> Identity:
        """Whose token this is, whether it still counts or not."""
        identity = self._checked.get(token)
        if identity is None:
            identity = self._read(token, now)
            if len(self._checked) >= _KEPT:
                self._checked.clear()
            self._checked[token] = identity
        return identity

    def check(self, identity: Identity, now: float) -> None:
        """Raise Denied for one whose time is over, or who has no business in this namespace."""
        if now >= identity.expires + LEEWAY:
            raise Denied(
                f"the token of {identity.subject!r} has expired; ask for a new one (wattle token issue)",
                code="TOKEN_EXPIRED",
            )
        if self._namespace not in identity.namespaces and EVERYWHERE not in identity.namespaces:
            allowed = ", ".join(identity.namespaces)
            raise Denied(f"this token is for namespace {allowed}, not for {self._namespace!r}", code="FORBIDDEN")

    def _read(self, token: str, now: float) -> Identity:
        import jwt

        if not looks_like_token(token):
            raise _invalid("it is no JSON Web Token")
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise _invalid("it is not signed by a key of this cluster")
            claims = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=self.cluster,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidAudienceError:
            raise _invalid(f"it is for another cluster than {self.cluster}") from None
        except (jwt.InvalidTokenError, RecursionError) as error:
            raise _invalid(str(error)) from None
        return _identity(claims, now)


def _identity(claims: Mapping[str, Any], now: float) -> Identity:
    """What the claims of a token with a good signature say."""
    subject, role, namespaces, token = (claims[name] for name in ("sub", "role", "namespaces", "jti"))
    if not is_name(subject) or role not in list(Role) or not isinstance(token, str):
        raise _invalid("its sub is no name, or its role none of Wattle's")
    if not isinstance(namespaces, list) or not all(isinstance(name, str) for name in namespaces):
        raise _invalid("its namespaces are no list of names")
    issued, expires = _moment(claims["iat"]), _moment(claims["exp"])
    if issued > now + LEEWAY:
        raise _invalid(f"it was issued {issued - now:.0f} s in the future; the clocks differ")
    return Identity(subject, Role(role), tuple(namespaces), token, expires)


def _moment(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise _invalid("its times are no Unix times")
    return float(value)


def _invalid(problem: str) -> Denied:
    return Denied(f"the token is refused: {problem}", code="TOKEN_INVALID")
