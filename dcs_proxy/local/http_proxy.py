"""The user's HTTP proxy: its address, and its password, which must never be shown."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from dcs_proxy.local.host_names import parse_host
from dcs_proxy.text import add_secret

_FORM = '"http://host:port" or "http://user:password@host:port"'
# What ends the authority of a URL: user, host and port (RFC 3986 §3.2).
_AUTHORITY_END = re.compile(r"[/?#]")


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

    def __post_init__(self) -> None:
        if self.password:
            add_secret(self.password)
            add_secret(self.token())

    def token(self) -> str:
        """Return user and password, encoded for Basic authentication (RFC 7617)."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def url(self) -> str:
        """Return the URL with user and password, for the HTTP library."""
        if not self.user:
            return str(self)
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"http://{login}@{authority(self.host, self.port)}"


def parse_http_proxy(text: str, default_port: int | None = None) -> HttpProxy:
    """Parse ``http://[USER:PASSWORD@]HOST:PORT``.

    Without `default_port` the port is required.  Raises ValueError with a message that completes
    "VARIABLE …" and does not quote `text`, which may contain a password.
    """
    if "@" in "".join(_AUTHORITY_END.split(text.partition("//")[2])[1:]):
        raise ValueError("has a user or password with #, / or ?: write %23, %2F or %3F")
    try:
        parts = urlsplit(text)
        port = default_port if parts.port is None else parts.port
    except ValueError:
        raise ValueError("has an impossible host or port") from None
    if parts.scheme != "http" or not parts.hostname or port is None:
        raise ValueError(f"must be {_FORM}")
    host = parse_host(parts.hostname)
    # Before 3.11 Python accepts any name in brackets.
    if not host or not port or ("[" in parts.netloc) != (":" in host) or not text.isprintable():
        raise ValueError("has an impossible host or port")
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        raise ValueError(f"has something after the port: it must be {_FORM}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    # RFC 7617: the user ends at the first colon.  Other characters have no agreed encoding.
    if ":" in user or not (user + password).isascii() or not (user + password).isprintable():
        raise ValueError("has a user or password with characters that cannot be sent")
    if password and not user:
        raise ValueError("has a password but no user")
    return HttpProxy(host, port, user, password)


def authority(host: str, port: int) -> str:
    """Return ``host:port`` as in a URL (RFC 3986 §3.2): IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
