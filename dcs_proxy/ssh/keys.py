"""Ed25519 keys as bytes, so that using them needs no cryptography library."""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass, field

from dcs_proxy.ssh.wire import pack_string

KEY_TYPE = b"ssh-ed25519"
CERTIFICATE_TYPE = b"ssh-ed25519-cert-v01@openssh.com"


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair (RFC 8032): the private key `seed` and the `public` key, 32 bytes each.

    Does not check that they belong together.
    """

    seed: bytes = field(repr=False)
    public: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != 32 or len(self.public) != 32:
            raise ValueError("an Ed25519 seed and public key have 32 bytes each")

    @property
    def blob(self) -> bytes:
        """The public key blob; see :func:`public_blob`."""
        return public_blob(self.public)


def public_blob(public: bytes) -> bytes:
    """Return the blob of a public key (RFC 8709 §4): string "ssh-ed25519", string key."""
    return pack_string(KEY_TYPE) + pack_string(public)


def public_line(public: bytes) -> str:
    """Return a public key in OpenSSH's format, without comment and newline."""
    return f"{KEY_TYPE.decode()} {b2a_base64(public_blob(public), newline=False).decode()}"
