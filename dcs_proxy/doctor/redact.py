"""Mask secrets in text that the user may show to others."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "[masked]"
# A shorter secret could be part of an ordinary word.
_LEAST = 6
# User and password of a URL, up to the last @: a password may contain one unencoded.
_USER = re.compile(r"(?<=://)[^/\s'\"]*@")
_USER_WITHOUT_SCHEME = re.compile(r"(?<![^\s=])[^/\s:=]+:[^/\s]+@")
_QUERY = re.compile(
    r"(?<=[?&])([^=&\s]*(?:key|token|secret|password|auth)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)
_KEY = re.compile(r"\b(dsk-)[A-Za-z0-9_.-]+")
_HEADER = re.compile(r"\b(Bearer\s+|x-api-key:\s*)[^\s'\"]+", re.IGNORECASE)


def mask_urls(text: str) -> str:
    """Return `text` with users, passwords and keys in URLs masked."""
    for pattern in (_USER, _USER_WITHOUT_SCHEME):
        text = pattern.sub(f"{MASK}@", text)
    return _QUERY.sub(rf"\1{MASK}", text)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with all of `secrets` masked, and anything that looks like one."""
    for secret in sorted({s for s in secrets if len(s) >= _LEAST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _HEADER.sub(rf"\1{MASK}", _KEY.sub(rf"\1{MASK}", mask_urls(text)))
