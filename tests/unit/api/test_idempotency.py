from __future__ import annotations

import time
import uuid

from dcs_proxy.api.idempotency import new_key


def test_a_key_is_a_compact_uuid_of_version_7() -> None:
    before = int(time.time() * 1000)
    key = new_key()
    assert len(key) == 32 and key == key.lower()
    parsed = uuid.UUID(hex=key)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= int(time.time() * 1000)


def test_no_two_keys_are_the_same() -> None:
    assert len({new_key() for _ in range(10_000)}) == 10_000
