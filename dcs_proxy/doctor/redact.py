"""Mask secrets in text that the user may show to others."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from dcs_proxy.text import MASK, replace_secrets

# Masking shorter secrets would make any text unreadable.
_LEAST = 3
# The limits keep the search linear in a text that others chose.
_USER = re.compile(r"(?<=://)[^/\s'\"]*@")
_USER_WITHOUT_SCHEME = re.compile(r"(?<![^\s=])[^/\s:=]{1,200}:[^/\s]{1,400}@")
_QUERY = re.compile(
    r"(?<=[?&])(?=[^=&?\s]{0,60}?(?:key|token|secret|password|auth))([^=&?\s]{1,80}=)[^&\s'\"]+",
    re.IGNORECASE,
)
_KEY = re.compile(r"\b(dsk-)[A-Za-z0-9_.-]+")
_HEADER = re.compile(r"\b(Bearer\s+|x-api-key:\s*)[^\s'\"]+", re.IGNORECASE)


def mask_url(url: str) -> str:
    """Return a URL, such as a proxy variable's value, with user, password and keys masked.

    The user and password end at the last ``@``: they may contain any character, unencoded.
    """
    userinfo, at, rest = url.rpartition("@")
    scheme = userinfo.partition("://")[0] + "://" if "://" in userinfo else ""
    return _QUERY.sub(rf"\1{MASK}", f"{scheme}{MASK}@{rest}" if at else url)


def secrets_in_url(url: str) -> set[str]:
    """Return the secrets in a URL, in each form in which they may be shown or sent."""
    userinfo, at, _ = url.rpartition("@")
    if not at:
        return set()
    userinfo = userinfo.partition("://")[2] or userinfo
    user, _, password = userinfo.partition(":")
    password = password or user
    plain = unquote(password)
    # A variable may contain bytes that are not UTF-8.
    token = base64.b64encode(os.fsencode(f"{unquote(user)}:{plain}")).decode()
    return {userinfo, password, plain, quote(os.fsencode(plain), safe=""), token}


def mask(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with all of `secrets` masked, and anything that looks like one."""
    known = [secret for secret in secrets if len(secret) >= _LEAST]
    # The log writes ' instead of ".
    text = replace_secrets(text, {*known, *(secret.replace('"', "'") for secret in known)})
    for pattern in (_USER, _USER_WITHOUT_SCHEME):
        text = pattern.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    return _HEADER.sub(rf"\1{MASK}", _KEY.sub(rf"\1{MASK}", text))
