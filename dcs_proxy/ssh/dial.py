"""Connect to a host: look its name up, try its addresses, use the first that answers.

Only tunnel.py calls dial().  Everything else calls reach() there, which uses the HTTP proxy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.fastpath.helper import set_options
from dcs_proxy.local.deadline import TURN_S, check_client
from dcs_proxy.local.http_proxy import authority

# If an address has not answered after this time, the next is tried as well (RFC 8305 §5).
_STAGGER_S = 0.25
# An address family, and the host and port in it.
Address = tuple[int, tuple[str, int]]


def dial(
    endpoint: str,
    port: int,
    *,
    timeout_s: float,
    deadline: float,
    client_gone: Callable[[], bool],
    peer: str = "gateway",
) -> socket.socket:
    """Return a socket connected to one of the endpoint's addresses, ready to be handed over.

    Addresses are tried in the resolver's order, a little apart, and the first that answers wins
    (RFC 8305).  `timeout_s` limits the lookup and each address, `deadline` (monotonic) all of
    it.  The socket is blocking, with the options of `set_options`.  Error messages call the other
    side `peer`.  Raises GatewayUnreachable with the reason of each address, or ClientGone.
    """
    limit = min(timeout_s, max(0.0, deadline - time.monotonic()))
    addresses = look_up(endpoint, port, limit, client_gone, peer)
    race = _Race(addresses, timeout_s, deadline, client_gone)
    if (sock := race.run()) is None:
        reasons = ", ".join(dict.fromkeys(race.reasons))
        raise GatewayUnreachable(
            f"the {peer} {authority(endpoint, port)} cannot be reached: {reasons}",
            hint="check the network; a firewall may block this port",
        )
    sock.setblocking(True)
    # On macOS this fails for a connection that was reset, which the caller will notice.
    with contextlib.suppress(OSError):
        set_options(sock)
    return sock


def address_of(sock: socket.socket) -> str:
    """Return the address that `sock` is connected to; "" if the connection was reset."""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return ""


def look_up(
    endpoint: str,
    port: int,
    timeout_s: float,
    client_gone: Callable[[], bool],
    peer: str = "gateway",
) -> list[Address]:
    """Return the endpoint's addresses, in the resolver's order.

    A lookup cannot be interrupted, so it runs in a thread, which is abandoned after `timeout_s`.
    Raises GatewayUnreachable or ClientGone.
    """
    found: list[Address] = []
    problem: list[str] = []

    def run() -> None:
        try:
            for info in socket.getaddrinfo(endpoint, port, type=socket.SOCK_STREAM):
                # SOCK_STREAM gives IPv4 and IPv6 addresses, which begin with host and port.
                found.append((info[0], info[4]))  # type: ignore[arg-type]
        except OSError as error:
            problem.append(error.strerror or str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + timeout_s
    while thread.is_alive() and (left := end - time.monotonic()) > 0:
        thread.join(min(left, TURN_S))
        check_client(client_gone)
    if not found:
        reason = problem[0] if problem else f"no answer after {timeout_s:g} s"
        raise GatewayUnreachable(
            f"cannot look up the {peer} {endpoint}: {reason}",
            hint="check the network and its name servers",
        )
    return list(dict.fromkeys(found))


class _Race:
    """Connections to several addresses, started one after the other.

    `reasons` has the error of each address that failed.
    """

    def __init__(
        self,
        addresses: list[Address],
        timeout_s: float,
        deadline: float,
        client_gone: Callable[[], bool],
    ) -> None:
        self.waiting = addresses
        self.timeout_s = timeout_s
        self.deadline = deadline
        self.client_gone = client_gone
        # The sockets that are connecting, with their addresses and time limits.
        self.running: dict[socket.socket, tuple[str, float]] = {}
        self.reasons: list[str] = []

    def run(self) -> socket.socket | None:
        """Return the first socket that is connected, None if no address answers."""
        next_start = 0.0
        try:
            while self.waiting or self.running:
                now = time.monotonic()
                if self.waiting and (now >= next_start or not self.running):
                    self.start(*self.waiting.pop(0))
                    next_start = now + _STAGGER_S
                winner = self.wait(next_start if self.waiting else now + TURN_S)
                if winner is not None:
                    del self.running[winner]
                    return winner
        finally:
            for loser in self.running:
                loser.close()
        return None

    def start(self, family: int, address: tuple[str, int]) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self.reasons.append(f"{address[0]}: {error.strerror or error}")
            return
        sock.setblocking(False)
        self.running[sock] = (address[0], min(time.monotonic() + self.timeout_s, self.deadline))
        number = sock.connect_ex(address)
        if number not in (0, errno.EINPROGRESS):
            self.drop(sock, os.strerror(number))

    def wait(self, until: float) -> socket.socket | None:
        """Wait a little, at most `until`; return a connected socket, drop those that failed."""
        if not self.running:
            return None
        turn = max(0.0, min(until - time.monotonic(), TURN_S))
        _, writable, _ = select.select([], list(self.running), [], turn)
        for sock in writable:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == 0:
                return sock
            self.drop(sock, os.strerror(number))
        for sock, (_, limit) in list(self.running.items()):
            if time.monotonic() >= limit:
                self.drop(sock, f"no answer after {self.timeout_s:g} s")
        check_client(self.client_gone)
        return None

    def drop(self, sock: socket.socket, reason: str) -> None:
        self.reasons.append(f"{self.running.pop(sock)[0]}: {reason}")
        sock.close()
