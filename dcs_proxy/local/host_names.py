"""Validate the host names and IP addresses that users and servers send."""

from __future__ import annotations

import ipaddress
import re

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_MAX_NAME = 253


def parse_host(text: str) -> str | None:
    """Return `text` as a lower-case host name or IP address; None if it is neither.

    A name consists of ASCII labels of 1 to 63 characters (RFC 1035 §2.3.4).  Underscores, which
    some networks use, are accepted; a zone in an IPv6 address is not.
    """
    host = text.lower()
    try:
        return str(ipaddress.ip_address(host)) if "%" not in host else None
    except ValueError:
        pass
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME or not all(_LABEL.match(label) for label in labels):
        return None
    return host
