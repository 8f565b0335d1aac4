"""Detect a gateway that accepts connections and sends nothing.

Both sides of an SSH connection send their version line at once (RFC 4253 §4.2), so a silent gateway
usually does not work.  But some wait for the client's line first, such as multiplexers that have to
find out which protocol the client speaks.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable

from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.local.deadline import TURN_S, check_client

# How long a gateway may take to speak first.
_FIRST_S = 3.0
_VERSION_LINE = b"SSH-2.0-dcs_proxy\r\n"


def check_speaks(
    sock: socket.socket,
    connect_again: Callable[[], socket.socket],
    *,
    where: str,
    timeout_s: float,
    client_gone: Callable[[], bool],
) -> None:
    """Return once the gateway has sent something on `sock`, which is not read.

    If it stays silent, send a version line on a second connection.  A gateway that answers there is
    waiting for the client's line on `sock` too, so `sock` can be used.  `where` names the gateway
    in messages, `timeout_s` limits the wait for the answer.  Raises GatewayUnreachable or
    ClientGone.
    """
    if _wait([sock], _FIRST_S, client_gone):
        return
    with connect_again() as second, contextlib.suppress(OSError):
        second.sendall(_VERSION_LINE)
        ready = _wait([sock, second], timeout_s, client_gone)
        if sock in ready or (second in ready and second.recv(1)):
            return
    raise GatewayUnreachable(
        f"the gateway {where} accepts connections but sends nothing",
        hint="try again in a minute; if this persists, report it to the service's support",
    )


def _wait(
    sockets: list[socket.socket], seconds: float, client_gone: Callable[[], bool]
) -> list[socket.socket]:
    """Return those of the sockets from which something can be read, none after `seconds`."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check_client(client_gone)
        ready, _, _ = select.select(sockets, [], [], min(left, TURN_S))
        if ready:
            return ready
    return []
