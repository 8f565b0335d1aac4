"""The service's two certificate authorities: for users' keys and for the gateway's host key."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.files import make_directories, write_atomically
from dcs_proxy.local.trusted_file import read_trusted

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey
_BACKDATED_S, _HOUR_S, _YEAR_S = 60, 3600, 365 * 86400
_EXTENSIONS = (
    b"permit-X11-forwarding",
    b"permit-agent-forwarding",
    b"permit-port-forwarding",
    b"permit-pty",
    b"permit-user-rc",
)


class Authorities:
    """Two Ed25519 keys, stored as ``user_ca`` and ``host_ca`` in `directory`, or only in memory.

    Raises ConfigError if a key file in `directory` cannot be read, or if other users can read or
    replace it.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.user_ca = _load_or_make(directory, "user_ca")
        self.host_ca = _load_or_make(directory, "host_ca")

    def sign_user(
        self,
        public_line: str,
        username: str,
        ends_at: float,
        fault: str = "",
        *,
        ahead: float = 0.0,
    ) -> str:
        """Return a line with a user certificate for `username` that ends at `ends_at` (unix time).

        A `fault` of stage "certificate" makes the certificate invalid in that way.  `ahead` is how
        many seconds the service's clock is ahead.
        """
        now = time.time() + ahead
        request = _Request(parse_public_key(public_line), username, now, ends_at + ahead)
        authority: PrivateKey = self.user_ca
        match fault:
            case "certificate-other-key":
                request.key = ed25519.Ed25519PrivateKey.generate().public_key()
            case "certificate-other-principal":
                request.principal = "another-user"
            case "certificate-host":
                request.kind = SSHCertificateType.HOST
            case "certificate-expired":
                request.begins_at, request.ends_at = now - 2 * _HOUR_S, now - _HOUR_S
            case "certificate-future":
                request.begins_at, request.ends_at = now + _HOUR_S, now + 2 * _HOUR_S
            case "certificate-critical":
                request.critical = (b"unheard-of@example.com",)
            case "certificate-garbage":
                return "ssh-ed25519-cert-v01@openssh.com AAAAgarbage"
            case "certificate-rsa":
                authority = rsa.generate_private_key(65537, 3072)
            case "certificate-ecdsa":
                authority = ec.generate_private_key(ec.SECP256R1())
        line = request.sign(authority)
        return f"{line}\n{line}" if fault == "certificate-two-lines" else line

    def sign_host(self, host_key: PrivateKey, name: str, fault: str = "") -> str:
        """Return a line with a host certificate for `name` alone, changed by `fault`."""
        now = time.time()
        request = _Request(host_key.public_key(), name, now, now + _YEAR_S)
        request.kind = SSHCertificateType.HOST
        authority = self.host_ca
        if fault == "gateway-other-name":
            request.principal = "elsewhere.example"
        elif fault == "gateway-expired":
            request.begins_at, request.ends_at = now - 2 * _HOUR_S, now - _HOUR_S
        elif fault == "gateway-other-authority":
            authority = ed25519.Ed25519PrivateKey.generate()
        return request.sign(authority)


@dataclass
class _Request:
    key: PublicKey
    principal: str
    begins_at: float
    ends_at: float
    kind: SSHCertificateType = SSHCertificateType.USER
    critical: tuple[bytes, ...] = ()

    def sign(self, authority: PrivateKey) -> str:
        builder = (
            SSHCertificateBuilder()
            .public_key(self.key)
            .serial(1)
            .type(self.kind)
            .key_id(self.principal.encode())
            .valid_principals([self.principal.encode()])
            .valid_after(int(self.begins_at) - _BACKDATED_S)
            .valid_before(int(self.ends_at))
        )
        for name in self.critical:
            builder = builder.add_critical_option(name, b"")
        if self.kind == SSHCertificateType.USER:
            for name in _EXTENSIONS:
                builder = builder.add_extension(name, b"")
        return builder.sign(authority).public_bytes().decode()


def parse_public_key(line: str) -> PublicKey:
    """Return the key of an OpenSSH public key line.  Raises ValueError if it is not one."""
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, PublicKey):
        raise ValueError("keys of this type are not certified")
    return key


def public_line(key: PrivateKey | PublicKey) -> str:
    """Return a key's public half as ``TYPE BASE64``."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    return public.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def private_pem(key: PrivateKey) -> bytes:
    """Return a key as an OpenSSH private key file."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _load_or_make(directory: str | None, name: str) -> ed25519.Ed25519PrivateKey:
    if directory is None:
        return ed25519.Ed25519PrivateKey.generate()
    path = os.path.join(os.path.abspath(directory), name)
    # A user who knows or chooses this key gets a shell as the user who runs the emulator.
    file = read_trusted(path, "the authority's key", ConfigError)
    if file is None:
        return _make(path)
    if not file.is_private:
        raise ConfigError(f"the authority's key {path} is readable by other users", hint=file.hint)
    try:
        key = serialization.load_ssh_private_key(file.data, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"the authority's key {path} cannot be read: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"the authority's key {path} is not an Ed25519 key")
    return key


def _make(path: str) -> ed25519.Ed25519PrivateKey:
    make_directories(os.path.dirname(path))
    key = ed25519.Ed25519PrivateKey.generate()
    write_atomically(path, private_pem(key))
    write_atomically(f"{path}.pub", public_line(key).encode() + b"\n", 0o644)
    return key
