"""Idempotency keys, in the form that the service's own client library gives them."""

from __future__ import annotations

import secrets
import time

_VERSION, _VARIANT = 7, 0b10
_RANDOM_A_BITS, _RANDOM_B_BITS = 12, 62


def new_key() -> str:
    """Return a new key: a UUIDv7 (RFC 9562 §5.7) as 32 hexadecimal digits, without dashes.

    The contract says `string`; dedalus-sdk 0.6 says that the API requires this form.
    """
    key = int(time.time() * 1000) & (1 << 48) - 1
    key = key << 4 | _VERSION
    key = key << _RANDOM_A_BITS | secrets.randbits(_RANDOM_A_BITS)
    key = key << 2 | _VARIANT
    key = key << _RANDOM_B_BITS | secrets.randbits(_RANDOM_B_BITS)
    return f"{key:032x}"
