"""The way to a gateway: directly, or through an HTTP proxy (CONNECT, RFC 9110 §9.3.6)."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from functools import partial

from dcs_proxy import __version__
from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.local.deadline import TURN_S, check_client
from dcs_proxy.local.http_proxy import HttpProxy, authority
from dcs_proxy.ssh.dial import dial
from dcs_proxy.text import quote_server

_SETTING_HINT = "check proxy in the config file"
_MAX_HEAD = 16 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# RFC 9112 §4: version, status, and a reason that may be empty.
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([0-9]{3})(?: |\Z)")


def reach(
    proxy: HttpProxy | None,
    endpoint: str,
    port: int,
    *,
    timeout_s: float,
    deadline: float,
    client_gone: Callable[[], bool],
) -> socket.socket:
    """Return a socket connected to the endpoint, through `proxy` unless that is None.

    Arguments, socket and exceptions are those of :func:`dcs_proxy.ssh.dial.dial`.  The proxy, which
    looks the endpoint up, has `timeout_s` to accept the connection, and as long again to answer.
    """
    connect = partial(dial, timeout_s=timeout_s, deadline=deadline, client_gone=client_gone)
    if proxy is None:
        return connect(endpoint, port)
    try:
        sock = connect(proxy.host, proxy.port, peer="HTTP proxy")
    except GatewayUnreachable as error:
        error.hint = _SETTING_HINT
        raise
    try:
        _open_tunnel(sock, proxy, authority(endpoint, port), timeout_s, deadline, client_gone)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_tunnel(
    sock: socket.socket,
    proxy: HttpProxy,
    where: str,
    timeout_s: float,
    deadline: float,
    client_gone: Callable[[], bool],
) -> None:
    """Ask for the tunnel.  Raises GatewayUnreachable quoting the proxy's answer, or ClientGone."""
    until = min(time.monotonic() + timeout_s, deadline)
    sock.settimeout(TURN_S)
    line, hint = "", _SETTING_HINT
    try:
        sock.sendall(connect_request(proxy, where))
        line = read_head(sock, until, client_gone).partition(b"\n")[0].decode("latin-1").strip()
    except TimeoutError:
        problem = f"did not answer within {timeout_s:g} s"
    except OSError as error:
        problem = f"failed: {error.strerror or error}"
    else:
        if _status(line).startswith("2"):
            sock.setblocking(True)
            return
        problem, hint = f"answered {quote_server(line)}", _hint(line)
    raise GatewayUnreachable(
        f"the gateway {where} cannot be reached: the HTTP proxy {proxy} {problem}", hint=hint
    )


def connect_request(proxy: HttpProxy, where: str) -> bytes:
    """Return the request that asks `proxy` for a tunnel to `where` (host:port)."""
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", f"User-Agent: dcs-proxy/{__version__}"]
    if proxy.user:
        lines.append(f"Proxy-Authorization: Basic {proxy.token()}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def read_head(sock: socket.socket, until: float, client_gone: Callable[[], bool]) -> bytes:
    """Read the proxy's answer and nothing after it: the next bytes are the gateway's.

    Raises TimeoutError, OSError or ClientGone.
    """
    head = b""
    while True:
        check_client(client_gone)
        if time.monotonic() >= until:
            raise TimeoutError
        try:
            seen = sock.recv(4096, socket.MSG_PEEK)
        except TimeoutError:
            continue
        end = _HEAD_END.search(head + seen)
        head += sock.recv(end.end() - len(head) if end else len(seen))
        if end:
            return head
        if not seen:
            raise OSError("it closed the connection")
        if len(head) > _MAX_HEAD:
            raise OSError("its answer is too long")


def _status(status_line: str) -> str:
    """Return the three digits of a status line, "" if it is not one."""
    found = _STATUS_LINE.match(status_line)
    return found[1] if found else ""


def _hint(status_line: str) -> str:
    status = _status(status_line)
    if status == "407":
        return 'set the login in the config file: proxy = "http://user:password@host:port"'
    if status.startswith("4"):
        return "ask the proxy's administrator to allow CONNECT to the gateway"
    if status.startswith("5"):
        return "try again later; then ask the proxy's administrator whether it reaches the gateway"
    return _SETTING_HINT
