"""The HTTP proxy that the user has set: its address, and its password, which is never shown."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")


@dataclass(frozen=True)
class HttpProxy:
    """Where the proxy is, and as whom to speak to it; `user` is "" where it asks nobody's name.

    As text it is what messages call it: the address alone.
    """

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"http://{authority(self.host, self.port)}"

    def url(self) -> str:
        """Return the whole as a URL, password included: for the library that asks the API."""
        if not self.user:
            return str(self)
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"http://{login}@{authority(self.host, self.port)}"


def parse_http_proxy(text: str) -> HttpProxy:
    """Return the proxy that ``http://[USER:PASSWORD@]HOST:PORT`` names.

    Raises ValueError, which does not quote `text`.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        rest = parts.path.rstrip("/") + parts.query + parts.fragment
    except ValueError:
        raise ValueError("not a URL") from None
    # Before 3.11 Python takes any name in brackets.
    is_host = _is_host(host) and ("[" in parts.netloc) == (":" in host)
    if parts.scheme != "http" or not is_host or not port or rest or not text.isprintable():
        raise ValueError("not http://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    # RFC 7617: the user ends with the first colon.  What is not ASCII has no agreed encoding.
    if ":" in user or not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("not a user and password that can be sent")
    if password and not user:
        raise ValueError("a password without a user")
    return HttpProxy(host, port, user, password)


def authority(host: str, port: int) -> str:
    """Return ``host:port`` as it stands in a URL (RFC 3986 §3.2): IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.match(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
