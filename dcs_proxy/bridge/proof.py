"""Check a gateway's host certificate for an ssh whose own check is turned off.

``-o StrictHostKeyChecking=no`` on ssh's command line, as Ansible adds it, overrides the block.
Checking the connection that ssh will use would use it up, so a separate one is checked.  This
detects a gateway that is not the service's, but not an attacker who lets this connection through
and intercepts the next.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.run import explain_failure
from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.local.deadline import TURN_S, check_client


def prove_gateway(
    sock: socket.socket, login: Login, *, timeout_s: float, client_gone: Callable[[], bool]
) -> None:
    """Exchange keys with the gateway on `sock`, check its certificate, and close `sock`.

    Raises Untrusted, GatewayUnreachable or ClientGone.
    """
    gateway = Gateway(sock, login, Outbox(), Outbox(), lambda: None)
    gateway.start()
    end = time.monotonic() + timeout_s
    try:
        while not gateway.is_negotiated.wait(TURN_S):
            check_client(client_gone)
            if time.monotonic() >= end:
                raise GatewayUnreachable(
                    f"the gateway {login.endpoint} has not proved its identity within"
                    f" {timeout_s:g} s",
                    hint="try again in a minute",
                )
        if gateway.ended.is_set() or not gateway.is_active():
            gateway.ended.wait(timeout_s)
            raise explain_failure(gateway, login)
    finally:
        with contextlib.suppress(OSError):  # the gateway has gone
            sock.shutdown(socket.SHUT_RDWR)
        gateway.ended.wait(timeout_s)
        sock.close()
