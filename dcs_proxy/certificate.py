"""Ed25519 keys, OpenSSH user certificates and the authority behind a host certificate.

Formats: OpenSSH's PROTOCOL.certkeys.  Nothing here touches a file, a socket or the clock.
`cryptography` is imported where it is used: a warm connection never comes here.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from dcs_proxy.errors import Untrusted, clean_text
from dcs_proxy.keypair import KeyPair
from dcs_proxy.names import MachineName

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHCertificate

# sshd refuses a certificate with a critical option it does not know (PROTOCOL.certkeys).
_CRITICAL_OPTIONS = frozenset({b"force-command", b"source-address"})
# A certificate made this second by a clock slightly ahead of ours is good; the gateway's own
# clock decides in the end.
START_TOLERANCE_S = 300
_FOREVER = 2**64 - 1
_MAX_LINE = 64 * 1024


@dataclass(frozen=True)
class UserCertificate:
    """A checked user certificate: its wire blob, its end (unix time), None for never."""

    blob: bytes
    ends_at: float | None

    @property
    def line(self) -> str:
        """The certificate as a line of a ``-cert.pub`` file, without comment and line end."""
        return _line(self.blob)


@dataclass(frozen=True)
class Terms:
    """What a certificate says: for whom, and from when to when (unix time; no end is None)."""

    principals: tuple[str, ...]
    begins_at: float
    ends_at: float | None


@dataclass(frozen=True)
class Authority:
    """The public key of a certificate authority for hosts."""

    blob: bytes

    @property
    def line(self) -> str:
        """The key as ``TYPE BASE64``, as known_hosts and authorized_keys have it."""
        return _line(self.blob)


def generate_key() -> KeyPair:
    """Make a new Ed25519 key pair; its private half is for an agent's memory only."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    return KeyPair(private.private_bytes_raw(), private.public_key().public_bytes_raw())


def check_user_certificate(
    text: str, *, public: bytes, username: str, now: float, machine: MachineName
) -> UserCertificate:
    """Return the user certificate in `text` if it lets `public` log in as `username` now.

    `public` is the raw Ed25519 key (32 bytes), `now` unix time.  Raises Untrusted with the check
    that failed.
    """
    try:
        _check_user_certificate(text, public, username, now)
    except ValueError as error:
        raise Untrusted(
            f"the API's certificate cannot be used: {error}",
            hint=_clock_hint(str(error)),
            machine=machine,
        ) from None
    return UserCertificate(_blob(text), _end(_load_certificate(text)))


def read_terms(text: str) -> Terms | None:
    """Return what the certificate in `text` says, unchecked; None if it is none."""
    try:
        certificate = _load_certificate(text)
    except ValueError:
        return None
    principals = [clean_text(p.decode("utf-8", "replace")) for p in certificate.valid_principals]
    return Terms(tuple(principals), float(certificate.valid_after), _end(certificate))


def parse_authority(text: str, machine: MachineName) -> Authority:
    """Return the host authority's key in `text`.  Raises Untrusted if it is not one key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        line = _one_line(text)
        if "-cert-v01@" in line.partition(" ")[0]:
            raise ValueError("it is a certificate")
        load_ssh_public_key(line.encode("ascii"))
        return Authority(_blob(text))
    except (ValueError, UnsupportedAlgorithm):
        raise Untrusted(
            "the API's host trust holds no usable public key",
            hint="no connection was made; report it to the service's support",
            machine=machine,
        ) from None


def _check_user_certificate(text: str, public: bytes, username: str, now: float) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import SSHCertificateType

    certificate = _load_certificate(text)
    if certificate.type is not SSHCertificateType.USER:
        raise ValueError("it is not a user certificate")
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey) or key.public_bytes_raw() != public:
        raise ValueError("it is for another key")
    # OpenSSH reads an empty list as "any user"; a session's certificate must name its login.
    if username.encode() not in certificate.valid_principals:
        raise ValueError(f"it is not for the session's login name {username}")
    if certificate.valid_after > now + START_TOLERANCE_S:
        raise ValueError(f"it is not valid before {_date(certificate.valid_after)}")
    if certificate.valid_before <= now:
        raise ValueError(f"it ended at {_date(certificate.valid_before)}")
    if not _CRITICAL_OPTIONS.issuperset(certificate.critical_options):
        raise ValueError("it carries a critical option that OpenSSH does not know")
    try:
        certificate.verify_cert_signature()
    except InvalidSignature:
        raise ValueError("its signature does not hold") from None


def _load_certificate(text: str) -> SSHCertificate:
    """Raise ValueError unless `text` is one well-formed certificate."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        load_ssh_public_identity,
    )

    try:
        loaded = load_ssh_public_identity(_one_line(text).encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is not a certificate that OpenSSH can read") from None
    if not isinstance(loaded, SSHCertificate):
        raise ValueError("it is a plain key, not a certificate")
    return loaded


def _end(certificate: SSHCertificate) -> float | None:
    return None if certificate.valid_before == _FOREVER else float(certificate.valid_before)


def _one_line(text: str) -> str:
    """Return the one line in `text`.  Raises ValueError for several, or for a long one."""
    line = text.removesuffix("\n").removesuffix("\r")
    if len(line) > _MAX_LINE or not line.isascii() or not line.isprintable():
        raise ValueError("it is not one line of text")
    return line


def _blob(text: str) -> bytes:
    try:
        return base64.b64decode(_one_line(text).split()[1], validate=True)
    except (IndexError, binascii.Error):
        raise ValueError("it is not in OpenSSH's one-line format") from None


def _line(blob: bytes) -> str:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    return f"{kind} {base64.b64encode(blob).decode('ascii')}"


def _date(moment: int) -> str:
    try:
        return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "a time without meaning"


def _clock_hint(problem: str) -> str:
    if "ended at" in problem or "not valid before" in problem:
        return "is this computer's clock right?"
    return "no connection was made; report it to the service's support"
