"""Taking secrets out of text that a person is about to show to others."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "[masked]"
# Shorter ones would take ordinary words with them.
_LEAST = 6
# What stands before the host, up to the last @: a password may hold one that is not encoded.
_USER = re.compile(r"(?<=://)[^/\s'\"]*@")
_USER_WITHOUT_SCHEME = re.compile(r"(?<![^\s=])[^/\s:=]+:[^/\s]+@")
_QUERY = re.compile(
    r"(?<=[?&])([^=&\s]*(?:key|token|secret|password|auth)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)
_KEY = re.compile(r"\b(dsk-)[A-Za-z0-9_.-]+")
_HEADER = re.compile(r"\b(Bearer\s+|x-api-key:\s*)[^\s'\"]+", re.IGNORECASE)


def mask_urls(text: str) -> str:
    """Return `text` without the users, passwords and keys that its URLs may hold."""
    for pattern in (_USER, _USER_WITHOUT_SCHEME):
        text = pattern.sub(f"{MASK}@", text)
    return _QUERY.sub(rf"\1{MASK}", text)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without any of `secrets`, and without what looks like one."""
    for secret in sorted({s for s in secrets if len(s) >= _LEAST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _HEADER.sub(rf"\1{MASK}", _KEY.sub(rf"\1{MASK}", mask_urls(text)))
