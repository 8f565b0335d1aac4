"""An Ed25519 key pair as plain bytes, so that using one needs no cryptography library."""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass, field

from dcs_proxy.ssh.wire import pack_string

KEY_TYPE = b"ssh-ed25519"


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair (RFC 8032): `seed` is the private key, `public` the public one.

    Both are 32 bytes; they must belong together, which is the maker's business.
    """

    seed: bytes = field(repr=False)
    public: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != 32 or len(self.public) != 32:
            raise ValueError("an Ed25519 key pair is a seed and a public key of 32 bytes each")

    @property
    def blob(self) -> bytes:
        """The public key blob, as :func:`public_blob` has it."""
        return public_blob(self.public)


def public_blob(public: bytes) -> bytes:
    """Return the blob of a public key (RFC 8709 §4): string "ssh-ed25519", string key."""
    return pack_string(KEY_TYPE) + pack_string(public)


def public_line(public: bytes) -> str:
    """Return a public key as OpenSSH writes it, without comment and line end."""
    return f"{KEY_TYPE.decode()} {b2a_base64(public_blob(public), newline=False).decode()}"
