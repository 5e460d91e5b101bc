"""Keys, certificates and signatures, with the ``cryptography`` package; EC P-256 throughout."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wattle.errors import SettingsError

BACKDATED = timedelta(hours=1)
"""How long before it is made a certificate begins, for clocks that are behind."""

_SIGNED = b"wattle roster\n"  # so that what is signed as a roster is nothing else
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_HASH = hashes.SHA256()


def new_authority(seconds: float) -> tuple[bytes, bytes]:
    """A new authority's private key and certificate, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"wattle cluster {number:040x}"[:55])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), number, now - BACKDATED, now + timedelta(seconds=seconds))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certifies=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, _HASH)
    )
    return _key_pem(key), certificate.public_bytes(serialization.Encoding.PEM)


class Signer:
    """An authority's key at work; raises ValueError for a key or certificate that is none."""

    def __init__(self, key: bytes, certificate: bytes) -> None:
        loaded = serialization.load_pem_private_key(key, None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is of another kind than EC")  # noqa: TRY004 - as for any other damage
        self._key = loaded
        self._authority = x509.load_pem_x509_certificate(certificate)
        self.certificate = certificate
        self.expires_at = self._authority.not_valid_after_utc.timestamp()
        self.fingerprint = fingerprint(certificate.decode())

    def certify(self, common_name: str, hosts: Sequence[str], expires_at: float) -> tuple[bytes, bytes]:
        """A member's private key and certificate, in PEM. Only where there are ``hosts`` may others connect to it."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = datetime.fromtimestamp(expires_at, UTC)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = (
            x509.CertificateBuilder(
                self._authority.subject,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
                key.public_key(),
                x509.random_serial_number(),
                min(datetime.now(UTC), until) - BACKDATED,
                until,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certifies=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, _HASH)
        return _key_pem(key), certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, text: str) -> str:
        """A roster's signature."""
        return base64.b64encode(self._key.sign(_SIGNED + text.encode(), ec.ECDSA(_HASH))).decode()


def is_signed(text: str, signature: str, authority: str) -> bool:
    """Whether a roster's text was signed by the authority with this certificate (PEM)."""
    try:
        key = x509.load_pem_x509_certificate(authority.encode()).public_key()
        raw, signed = base64.b64decode(signature, validate=True), _SIGNED + text.encode()
    except ValueError:
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(raw, signed, ec.ECDSA(_HASH))
    except InvalidSignature:
        return False
    return True


def fingerprint(certificate: str) -> str:
    """What an authority is known by: the SHA-256 of its certificate."""
    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(_HASH).hex()


def check_host(host: str) -> str:
    """A host's name or address as certificates have it; raises SettingsError."""
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        if _HOST.fullmatch(host) is None or len(host) > 253:
            raise SettingsError(f"host {host!r} is no name or address of a machine; give it without port") from None
        return host


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=certifies,
        crl_sign=certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
