"""Listen on loopback, on the same port for IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket

_TRIES = 50
_BACKLOG = 256


def listen(port: int) -> list[socket.socket]:
    """Return sockets that listen on `port` of 127.0.0.1 and, with IPv6, of ::1.

    Port 0 stands for a port that is free on both.  Raises OSError.
    """
    for _ in range(_TRIES):
        first = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        try:
            return [first, *_listen_6(first.getsockname()[1])]
        except OSError as error:
            first.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free on both 127.0.0.1 and ::1")


def closed_port() -> int:
    """Return a port on which no program listens."""
    sockets = listen(0)
    port = int(sockets[0].getsockname()[1])
    for sock in sockets:
        sock.close()
    return port


def _listen_6(port: int) -> list[socket.socket]:
    try:
        return [socket.create_server(("::1", port), family=socket.AF_INET6, backlog=_BACKLOG)]
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return []
        raise
