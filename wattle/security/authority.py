"""The authority of a cluster: a folder with the key that makes members, kept on one machine that runs nothing else of importance.

::

    DIR/ca.key         the private key (EC P-256, mode 0600): who has it can make itself anything
    DIR/ca.pem         its certificate, which every bundle carries
    DIR/token.key      the key that signs people's tokens; DIR/token.pub, by which gateways check them (wattle/security/tokens.py)
    DIR/members.json   who was issued what, written before a bundle is; and whether gateways ask for tokens
    DIR/bundles/       the bundles (wattle/security/bundle.py), one per member

Nothing here runs all the time or is asked over the network: members check certificates and rosters by the authority's certificate.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from wattle.errors import NotFound, SettingsError
from wattle.names import check_name
from wattle.protocol.records import timestamp
from wattle.security import certificates
from wattle.security.bundle import Bundle
from wattle.security.private import read_private, replace_private
from wattle.security.roster import (
    Member,
    Roster,
    check_member_name,
    check_roles,
    common_name,
    taken_names,
)
from wattle.security.tokens import PRIVATE_NAME, PUBLIC_NAME, new_key, public_pem, signing_key

CA_DAYS, MEMBER_DAYS = 3650.0, 365.0
DAY = 86400.0
PORT = 7447
_KEY, _CERTIFICATE, _MEMBERS, _BUNDLES = "ca.key", "ca.pem", "members.json", "bundles"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a certificate is asked for. Without ``hosts`` its holder can connect to others and nobody to it."""

    name: str
    roles: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    port: int = PORT
    namespaces: tuple[str, ...] = ("default",)
    seconds: float = MEMBER_DAYS * DAY


@dataclass(frozen=True, slots=True)
class Issued:
    """What a member was issued: the newest certificate of the name."""

    name: str
    roles: tuple[str, ...]
    hosts: tuple[str, ...]
    port: int
    namespaces: tuple[str, ...]
    seconds: float
    life: int
    expires_at: float
    revoked: bool = False

    @property
    def common_name(self) -> str:
        """The certificate's."""
        return common_name(self.name, self.roles, self.namespaces[0], self.life)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where others can connect to it."""
        return tuple(f"tls/{_bracketed(host)}:{self.port}" for host in self.hosts)

    def member(self) -> Member:
        """Its line in a roster."""
        return Member(self.name, self.roles, self.common_name, self.endpoints)


class Authority:
    """An authority's folder, held by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            (folder / _KEY).stat()
            certificate = (folder / _CERTIFICATE).read_bytes()
            content = json.loads((folder / _MEMBERS).read_text())
            self._signer = certificates.Signer(read_private(folder / _KEY, "the authority's key"), certificate)
            self._version: int = content["version"]
            self._issued = {item["name"]: _issued(item) for item in content["members"]}
        except OSError as error:
            raise SettingsError(
                f"{folder} is no cluster's folder: {error.strerror} ({error.filename}); make one with wattle cluster init {folder}"
            ) from None
        except (ValueError, LookupError, TypeError) as error:
            raise SettingsError(f"{folder} is damaged: {error!r}") from None
        self.tokens: bool = content.get("tokens", False)  # whether gateways ask for them

    @classmethod
    def create(cls, folder: Path, *, seconds: float = CA_DAYS * DAY, tokens: bool = False) -> None:
        """Make a new authority in a folder that holds none; of a cluster whose gateways ask for ``tokens``, or do not."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"cluster folder {folder} cannot be made: {error.strerror}; choose another") from None
        with _locked(folder):
            if (folder / _KEY).exists():
                raise SettingsError(f"{folder} has a cluster already: issue to it, or choose another folder")
            os.chmod(folder, 0o700)
            key, certificate = certificates.new_authority(seconds)
            replace_private(folder / _MEMBERS, _members_text(0, (), tokens))
            replace_private(folder / _CERTIFICATE, certificate.decode())
            if not (folder / PRIVATE_NAME).exists():
                replace_private(folder / PRIVATE_NAME, new_key()[1].decode())
            replace_private(folder / PUBLIC_NAME, public_pem(signing_key(folder / PRIVATE_NAME)))
            replace_private(folder / _KEY, key.decode())  # last: with it the folder is whole

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Self]:
        """The authority of a folder; no other process changes it meanwhile. Raises SettingsError."""
        with _locked(folder):
            yield cls(folder)

    @property
    def id(self) -> str:
        """The cluster's: the authority's fingerprint."""
        return self._signer.fingerprint

    @property
    def members(self) -> list[Issued]:
        """Who was issued what, in order; the revoked ones too."""
        return list(self._issued.values())

    def issue(self, wanted: Sequence[Wanted]) -> list[Path]:
        """Make new members; their bundles' files, in the same order. Raises SettingsError before anything is changed."""
        fresh = dict(self._issued)
        for one in wanted:
            made = self._checked(one, fresh)
            fresh.pop(one.name, None)  # who comes back comes last
            fresh[one.name] = made
        self._save(fresh, self._newer())
        return [self._write_bundle(self._issued[one.name]) for one in wanted]

    def renew(self, names: Iterable[str]) -> list[Path]:
        """Make new keys and certificates for members, valid as long as the first were. The old ones last until they expire."""
        chosen = [self._member(name) for name in names]
        fresh = {one.name: replace(one, expires_at=self._from_now(one.seconds)) for one in chosen}
        paths = [
            self._write_bundle(one) for one in fresh.values()
        ]  # first: what is broken off here is still to be renewed
        self._save(self._issued | fresh, self._version)
        return paths

    def revoke(self, names: Iterable[str]) -> None:
        """Strike members off the roster, for good: who comes back under the name has another common name."""
        chosen = [self._member(name) for name in names]
        self._save(self._issued | {one.name: replace(one, revoked=True) for one in chosen}, self._newer())
        for one in chosen:
            self.bundle_file(one.name).unlink(missing_ok=True)

    def ask_for_tokens(self, wanted: bool) -> None:
        """Have gateways ask for tokens, or ask for none, as soon as they learn the new roster."""
        self.tokens = wanted
        self._save(self._issued, self._newer())

    def new_token_key(self) -> None:
        """Sign tokens with a new key from now on. What older ones signed still counts, until they are forgotten."""
        key, pem = new_key()
        replace_private(self._folder / PUBLIC_NAME, self._token_keys() + public_pem(key))
        replace_private(self._folder / PRIVATE_NAME, pem.decode())
        self._save(self._issued, self._newer())

    def forget_old_token_keys(self) -> None:
        """Have gateways refuse what others than the newest key signed."""
        replace_private(self._folder / PUBLIC_NAME, public_pem(signing_key(self._folder / PRIVATE_NAME)))
        self._save(self._issued, self._newer())

    def _token_keys(self) -> str:
        try:
            return (self._folder / PUBLIC_NAME).read_text()
        except OSError as error:
            raise SettingsError(f"{self._folder} is damaged: {error.strerror} ({error.filename})") from None

    def roster(self, namespace: str) -> tuple[Roster, str]:
        """The newest roster of a namespace, and its signature."""
        members = tuple(
            one.member() for one in self._issued.values() if namespace in one.namespaces and not one.revoked
        )
        keys = self._token_keys() if self.tokens else ""
        roster = Roster(self._signer.fingerprint, namespace, self._version, members, keys)
        return roster, self._signer.sign(roster.as_text())

    def passing_bundle(self, namespace: str) -> Bundle:
        """Credentials that last for minutes and are on no roster: enough to hand members a newer one."""
        one = Issued("authority", ("client",), (), PORT, (namespace,), 600.0, 1, self._from_now(600.0))
        return self._bundle(one)

    def bundle_file(self, name: str) -> Path:
        """Where a member's bundle is."""
        return self._folder / _BUNDLES / f"{name}.bundle"

    # --- inside -------------------------------------------------------------------------------------------------------

    def _member(self, name: str) -> Issued:
        found = self._issued.get(name)
        if found is None or found.revoked:
            known = ", ".join(one.name for one in self._issued.values() if not one.revoked) or "nobody"
            raise NotFound(f"{name!r} is no member of this cluster; members are {known}", code="MEMBER_NOT_FOUND")
        return found

    def _checked(self, wanted: Wanted, issued: Mapping[str, Issued]) -> Issued:
        roles = check_roles(wanted.roles)
        check_member_name(wanted.name)
        for namespace in wanted.namespaces:
            check_name(namespace, "namespace")
        if len(wanted.namespaces) != 1 and roles != ("router",):
            raise SettingsError(f"{wanted.name}: a {roles[0]} belongs to one namespace; only routers serve several")
        if roles == ("client",) and wanted.hosts:
            raise SettingsError(f"{wanted.name}: nobody connects to a client, so it has no --host")
        if len(set(wanted.namespaces)) != len(wanted.namespaces):
            raise SettingsError(f"{wanted.name}: a namespace is named twice")
        if not 1 <= wanted.port <= 65535:
            raise SettingsError(f"{wanted.name}: there is no port {wanted.port}; ports are 1 to 65535")
        if wanted.seconds <= 0:
            raise SettingsError(f"{wanted.name}: a certificate has to last for some time")
        before = issued.get(wanted.name)
        life = 1 if before is None else before.life + 1
        made = Issued(
            wanted.name,
            roles,
            tuple(certificates.check_host(host) for host in wanted.hosts),
            wanted.port,
            wanted.namespaces,
            wanted.seconds,
            life,
            self._from_now(wanted.seconds),
        )
        standing = [other for other in issued.values() if not other.revoked]
        taken = {name: other.name for other in standing for name in taken_names(other.member())}
        for name in sorted(taken_names(made.member())):
            if name in taken:
                raise SettingsError(
                    f"{wanted.name}: the name {name!r} is {taken[name]}'s; renew that one, revoke it, or choose another name"
                )
        return made

    def _from_now(self, seconds: float) -> float:
        """When a certificate ends that lasts so long, unless the authority's own ends before."""
        return min(float(int(time.time() + seconds)), self._signer.expires_at)

    def _newer(self) -> int:
        """The version of the next roster: also newer than those that were made since where the folder is a copy of an earlier one."""
        return max(self._version + 1, int(time.time()))

    def _save(self, issued: dict[str, Issued], version: int) -> None:
        replace_private(self._folder / _MEMBERS, _members_text(version, issued.values(), self.tokens))
        self._issued, self._version = issued, version

    def _write_bundle(self, one: Issued) -> Path:
        file = self.bundle_file(one.name)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        replace_private(file, self._bundle(one).as_text())
        return file

    def _bundle(self, one: Issued) -> Bundle:
        key, certificate = self._signer.certify(one.common_name, one.hosts, one.expires_at)
        rosters = [self.roster(namespace) for namespace in one.namespaces]
        return Bundle(
            name=one.name,
            roles=one.roles,
            namespace=one.namespaces[0],
            common_name=one.common_name,
            hosts=one.hosts,
            port=one.port if one.hosts else None,
            issued_at=timestamp(time.time()) or "",
            expires_at=timestamp(one.expires_at) or "",
            rosters=tuple((roster.as_text(), signature) for roster, signature in rosters),
            key=key.decode(),
            certificate=certificate.decode(),
            authority=self._signer.certificate.decode(),
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have an authority's folder to oneself."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsError(
            f"cluster folder {folder}: {error.strerror}; make one with wattle cluster init {folder}"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _issued(item: dict[str, Any]) -> Issued:
    lists = {name: tuple(item[name]) for name in ("roles", "hosts", "namespaces")}
    return Issued(**{**item, **lists})


def _members_text(version: int, issued: Iterable[Issued], tokens: bool) -> str:
    content = {"version": version, "tokens": tokens, "members": [asdict(one) for one in issued]}
    return json.dumps(content, indent=1) + "\n"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
