"""The user's HTTP proxy: its address, and its password, which is never shown."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")


@dataclass(frozen=True)
class HttpProxy:
    """The address of a proxy, and the login for it; `user` is "" if it needs none.

    ``str()`` gives the address alone, for messages.
    """

    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"http://{authority(self.host, self.port)}"

    def url(self) -> str:
        """Return the URL with user and password, for the HTTP library."""
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
    # Before 3.11 Python accepts any name in brackets.
    is_host = _is_host(host) and ("[" in parts.netloc) == (":" in host)
    if parts.scheme != "http" or not is_host or not port or rest or not text.isprintable():
        raise ValueError("not http://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    # RFC 7617: the user ends at the first colon.  Other characters have no agreed encoding.
    if ":" in user or not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("not a user and password that can be sent")
    if password and not user:
        raise ValueError("a password without a user")
    return HttpProxy(host, port, user, password)


def authority(host: str, port: int) -> str:
    """Return ``host:port`` as in a URL (RFC 3986 §3.2): IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(host: str) -> bool:
    if ":" not in host:
        return _NAME.match(host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
