"""New Ed25519 keys, and checks of OpenSSH certificates and of the hosts' certificate authority.

The format is OpenSSH's PROTOCOL.certkeys.  Nothing here uses a file, a socket or the clock.
Certificates are parsed here; `cryptography` generates keys and checks signatures, and is imported
only where that is done.  Its own parser of OpenSSH's formats takes three times as long to import,
so it only handles authorities whose keys are not Ed25519.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType

from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.keys import CERTIFICATE_TYPE, KEY_TYPE, KeyPair
from dcs_proxy.ssh.wire import Reader, WireError
from dcs_proxy.text import clean_text

# The types of host certificates, and the number of fields of the public key in each.
_HOST_TYPES = {
    CERTIFICATE_TYPE: 1,
    b"ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp384-cert-v01@openssh.com": 2,
    b"ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
    b"ssh-rsa-cert-v01@openssh.com": 2,
}
_USER, _HOST = 1, 2  # SSH_CERT_TYPE_USER, SSH_CERT_TYPE_HOST
_SHA1_SIGNATURE = b"ssh-rsa"  # the type of an RSA signature over SHA-1 (RFC 4253 §6.6)
# sshd refuses a certificate with a critical option it does not know (PROTOCOL.certkeys).
_CRITICAL_OPTIONS = frozenset({b"force-command", b"source-address", b"verify-required"})
_MAX_PRINCIPALS = 256  # SSHKEY_CERT_MAX_PRINCIPALS of sshkey.c
# A certificate may have been issued just now, by a clock ahead of ours.  The gateway checks it by
# its own clock anyway.
START_TOLERANCE_S = 300
_FOREVER = 2**64 - 1
# In bytes.  A certificate of DCS has about 700.  An agent must be able to list several, and
# OpenSSH's clients accept no list over 256 KiB.
_MAX_LINE = 16 * 1024


@dataclass(frozen=True)
class UserCertificate:
    """A checked user certificate: its wire blob, and its end in unix time (None if it has none)."""

    blob: bytes
    ends_at: float | None

    @property
    def line(self) -> str:
        """The certificate as in a ``-cert.pub`` file, without comment and newline."""
        return _line(self.blob)


@dataclass(frozen=True)
class Terms:
    """A certificate's principals and validity in unix time (`ends_at` is None if it has no end)."""

    principals: tuple[str, ...]
    begins_at: float
    ends_at: float | None


@dataclass(frozen=True)
class Authority:
    """The public key of a certificate authority for hosts."""

    blob: bytes

    @property
    def line(self) -> str:
        """The key as ``TYPE BASE64``, as in known_hosts and authorized_keys."""
        return _line(self.blob)


def generate_key() -> KeyPair:
    """Return a new Ed25519 key pair, whose private half must only be stored in an agent."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    return KeyPair(private.private_bytes_raw(), private.public_key().public_bytes_raw())


def check_user_certificate(
    text: str, *, public: bytes, username: str, now: float, machine: MachineName
) -> UserCertificate:
    """Return the user certificate in `text` if `public` can log in as `username` with it now.

    `public` is the raw Ed25519 key (32 bytes), `now` unix time.  Raises Untrusted, which says
    what is wrong with the certificate.
    """
    try:
        blob = _blob(text)
        certificate = _parse_certificate(blob)
        _check_user_certificate(certificate, public, username, now)
        _check_signature(certificate, blob)
    except ValueError as error:
        raise Untrusted(
            f"the API's certificate cannot be used: {error}",
            hint=_clock_hint(str(error)),
            machine=machine,
        ) from None
    return UserCertificate(blob, certificate.ends_at)


def check_host_certificate(blob: bytes, *, authority: Authority, endpoint: str, now: float) -> None:
    """Check that the host certificate `blob` is valid for `endpoint` at `now` (unix time).

    Stricter than OpenSSH, which accepts wildcards in principals: a session's gateway has one name.
    Raises Untrusted, which says what is wrong with the certificate.
    """
    try:
        certificate = _parse_certificate(blob, _HOST_TYPES)
        if certificate.kind != _HOST:
            raise ValueError("it is not a host certificate")
        if certificate.authority != authority.blob:
            raise ValueError("it is not signed by the session's authority")
        if endpoint.encode() not in certificate.principals:
            raise ValueError(f"it does not name {endpoint}")
        if any(character in p for p in certificate.principals for character in b"*?"):
            raise ValueError("it names hosts by a pattern")
        if certificate.critical_options:
            raise ValueError("it has a critical option")
        _check_validity(certificate, now)
        _check_signature(certificate, blob)
    except ValueError as error:
        raise Untrusted(
            f"the gateway's host key cannot be trusted: {error}",
            hint=_clock_hint(str(error)),
        ) from None


def read_terms(text: str) -> Terms | None:
    """Return the terms of the certificate in `text`, unchecked; None if it cannot be parsed."""
    try:
        certificate = _parse_certificate(_blob(text))
    except ValueError:
        return None
    principals = [clean_text(p.decode("utf-8", "replace")) for p in certificate.principals]
    return Terms(tuple(principals), float(certificate.valid_after), certificate.ends_at)


def parse_authority(text: str, machine: MachineName) -> Authority:
    """Return the host authority's key in `text`.  Raises Untrusted if that is not one key."""
    try:
        authority = Authority(_blob(text))
        if _raw_key(authority.blob) is None:
            _check_other_key(authority)
        return authority
    except ValueError:
        raise Untrusted(
            "the API's host trust contains no usable public key",
            hint="no connection was made; report it to the service's support",
            machine=machine,
        ) from None


@dataclass(frozen=True)
class _Certificate:
    """The fields of a certificate (PROTOCOL.certkeys); times are unix times.

    `public` is the last field of the public key; an Ed25519 key has only one.  `authority` and
    `signature` are blobs; the signature covers the first `signed` bytes of the certificate.
    """

    public: bytes
    kind: int
    principals: list[bytes]
    valid_after: int
    valid_before: int
    critical_options: list[bytes]
    authority: bytes
    signature: bytes
    signed: int

    @property
    def ends_at(self) -> float | None:
        return None if self.valid_before == _FOREVER else float(self.valid_before)


def _parse_certificate(
    blob: bytes, types: Mapping[bytes, int] = MappingProxyType({CERTIFICATE_TYPE: 1})
) -> _Certificate:
    """Parse a certificate of one of the `types`.  Raises ValueError.

    string type, string nonce, the fields of the public key (for Ed25519 one string), uint64
    serial, uint32 kind, string key id, string principals, uint64 valid after, uint64 valid before,
    string critical options, string extensions, string reserved, string signature key, string
    signature.
    """
    reader = Reader(blob)
    try:
        fields = types.get(reader.string(), 0)
        if not fields:
            wanted = "a certificate of an Ed25519 key" if len(types) == 1 else "a certificate"
            raise ValueError(f"it is not {wanted}")
        reader.string()
        public = [reader.string() for _ in range(fields)][-1]
        reader.u64()
        kind = reader.u32()
        _check_texts([reader.string()])
        principals = _principals(reader.string())
        valid_after, valid_before = reader.u64(), reader.u64()
        critical_options = _names(reader.string())
        _names(reader.string())
        reader.string()
        authority = reader.string()
        signed = len(blob) - reader.remaining
        signature = reader.string()
        reader.finish()
    except WireError:
        raise ValueError("it is not a certificate that OpenSSH can read") from None
    return _Certificate(
        public, kind, principals, valid_after, valid_before, critical_options, authority,
        signature, signed,
    )  # fmt: skip


def _principals(data: bytes) -> list[bytes]:
    """Parse principals.  Raises WireError if OpenSSH would refuse them."""
    found = _strings(data)
    _check_texts(found)
    if len(found) > _MAX_PRINCIPALS:
        raise WireError("too many principals")
    return found


def _names(data: bytes) -> list[bytes]:
    """Parse options, which are names and values in turn; return the names.  Raises WireError."""
    found = _strings(data)
    if len(found) % 2:
        raise WireError("the last option has no value")
    _check_texts(found[::2])
    return found[::2]


def _strings(data: bytes) -> list[bytes]:
    reader, found = Reader(data), []
    while reader.remaining:
        found.append(reader.string())
    return found


def _check_texts(values: list[bytes]) -> None:
    """Raise WireError for a NUL: OpenSSH rejects strings that C would cut there."""
    if any(b"\0" in value for value in values):
        raise WireError("a string contains a NUL")


def _check_user_certificate(
    certificate: _Certificate, public: bytes, username: str, now: float
) -> None:
    if certificate.kind != _USER:
        raise ValueError("it is not a user certificate")
    if certificate.public != public:
        raise ValueError("it certifies another key")
    # OpenSSH accepts an empty list for any user; a session's certificate must name its login.
    if username.encode() not in certificate.principals:
        raise ValueError(f"it is not for the session's login name {username}")
    _check_validity(certificate, now)
    if not _CRITICAL_OPTIONS.issuperset(certificate.critical_options):
        raise ValueError("it has a critical option that OpenSSH does not know")


def _check_validity(certificate: _Certificate, now: float) -> None:
    if certificate.valid_after > now + START_TOLERANCE_S:
        raise ValueError(f"it is not valid before {_date(certificate.valid_after)}")
    if certificate.valid_before <= now:
        raise ValueError(f"it ended at {_date(certificate.valid_before)}")


def _check_signature(certificate: _Certificate, blob: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        # cryptography accepts SHA-1 from an RSA authority, OpenSSH does not.
        if Reader(certificate.signature).string() == _SHA1_SIGNATURE:
            raise ValueError("its signature uses SHA-1")
        raw = _raw_key(certificate.authority)
        if raw is None:
            return _check_other_signature(blob)
        signature = _raw_signature(certificate.signature)
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, blob[: certificate.signed])
    except (InvalidSignature, WireError):
        raise ValueError("its signature is invalid") from None


def _raw_key(blob: bytes) -> bytes | None:
    """Return the 32 bytes of an Ed25519 key from its blob; None if it is another kind of key.

    Raises WireError if the blob is malformed.
    """
    reader = Reader(blob)
    if reader.string() != KEY_TYPE:
        return None
    raw = reader.string()
    reader.finish()
    if len(raw) != 32:
        raise WireError("an Ed25519 key has 32 bytes")
    return raw


def _raw_signature(blob: bytes) -> bytes:
    """Return the signature bytes of an Ed25519 signature blob (RFC 8709 §6), else b""."""
    reader = Reader(blob)
    kind, signature = reader.string(), reader.string()
    reader.finish()
    return signature if kind == KEY_TYPE else b""


def _check_other_signature(blob: bytes) -> None:
    """Check a certificate whose authority's key is not Ed25519.

    Raises InvalidSignature or ValueError.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        load_ssh_public_identity,
    )

    try:
        loaded = load_ssh_public_identity(_line(blob).encode("ascii"))
        if isinstance(loaded, SSHCertificate):
            loaded.verify_cert_signature()
    except UnsupportedAlgorithm:
        raise ValueError("it is signed by an unknown kind of key") from None


def _check_other_key(authority: Authority) -> None:
    """Check an authority's key that is not Ed25519.  Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    if "-cert-v01@" in authority.line:
        raise ValueError("it is a certificate")
    try:
        load_ssh_public_key(authority.line.encode("ascii"))
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def _one_line(text: str) -> str:
    """Return the only line in `text`.  Raises ValueError if there are more, or it is too long."""
    line = text.removesuffix("\n").removesuffix("\r")
    if len(line) > _MAX_LINE or not line.isascii() or not line.isprintable():
        raise ValueError("it is not one line of text")
    return line


def _blob(text: str) -> bytes:
    """Return the blob in a line.  Raises ValueError unless the line is exactly as ssh writes it.

    Only the blob is checked later, so the type before it must not contradict it.
    """
    words = _one_line(text).split()
    try:
        blob = base64.b64decode(words[1])
        if " ".join(words[:2]) != _line(blob):
            raise ValueError
    except (IndexError, ValueError):
        raise ValueError("it is not a certificate that OpenSSH can read") from None
    return blob


def _line(blob: bytes) -> str:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    return f"{kind} {base64.b64encode(blob).decode('ascii')}"


def _date(moment: int) -> str:
    try:
        return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "an impossible date"


def _clock_hint(problem: str) -> str:
    if "ended at" in problem or "not valid before" in problem:
        return "check this computer's clock"
    return "no connection was made; report it to the service's support"
