"""Invalid certificates, written field by field."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dcs_proxy.ssh.keys import KEY_TYPE, public_blob
from dcs_proxy.ssh.wire import pack_string, pack_u32

FORGER = Ed25519PrivateKey.generate()
KIND = b"ssh-ed25519-cert-v01@openssh.com"


def packed(*values: bytes) -> bytes:
    return b"".join(pack_string(value) for value in values)


@dataclass(frozen=True)
class Forgery:
    """A certificate of an Ed25519 key; what is not said is as it should be, for ``me`` and ever.

    `inside` and `after` are bytes left over in its signature and after it.
    """

    nonce: bytes = b"nonce"
    key_id: bytes = b"id"
    principals: bytes = packed(b"me")
    critical_options: bytes = b""
    extensions: bytes = b""
    reserved: bytes = b""
    inside: bytes = b""
    after: bytes = b""
    valid_after: int = 0
    valid_before: int = 2**64 - 1

    def line(self, public: bytes) -> str:
        """Return it for a raw public key, with a signature that holds for what it says."""
        body = packed(KIND, self.nonce, public) + bytes(8) + pack_u32(1)
        body += packed(self.key_id, self.principals)
        body += self.valid_after.to_bytes(8, "big") + self.valid_before.to_bytes(8, "big")
        body += packed(self.critical_options, self.extensions, self.reserved)
        body += pack_string(public_blob(FORGER.public_key().public_bytes_raw()))
        signature = packed(KEY_TYPE, FORGER.sign(body)) + self.inside
        blob = body + pack_string(signature) + self.after
        return f"{KIND.decode()} {base64.b64encode(blob).decode()}"
