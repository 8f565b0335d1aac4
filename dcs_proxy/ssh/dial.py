"""From ssh's file descriptors to the gateway: dial, hand over, or say why not.

Under ProxyUseFdpass ssh dups one end of a socketpair to our stdin and stdout and waits for a
connected socket; every other client gives two different ends and wants a relay (relay.py).
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import dcs_proxy
from dcs_proxy.errors import ClientGone, GatewayUnreachable
from dcs_proxy.local.http_proxy import authority

Socket = socket.socket

# RFC 8305 §5: the next address is tried when the one before has not answered in this time.
_STAGGER_S = 0.25
_TURN_S = 0.1
# How long a failed connection is kept open for ssh to read why.
_DRAIN_S = 10
# RFC 4253 §11.1 and §12.
_MSG_DISCONNECT = 1
_BY_APPLICATION = 11
_MAX_DESCRIPTION = 2000


def is_fdpass(stdin: int = 0, stdout: int = 1) -> bool:
    """Tell whether both descriptors are one and the same socket, as under ProxyUseFdpass."""
    first, second = os.fstat(stdin), os.fstat(stdout)
    same = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    return same and stat.S_ISSOCK(first.st_mode)


def client_gone(stdout: int = 1) -> bool:
    """Tell, without waiting or taking anything, whether the program that runs us has gone.

    A terminal or a file never has.  Its end of our stdin says nothing: that may be closed early.
    """
    poll = select.poll()
    poll.register(stdout, 0)
    return bool(poll.poll(0))


def dial(
    endpoint: str,
    port: int,
    *,
    timeout_s: float,
    deadline: float,
    client_gone: Callable[[], bool],
    whom: str = "gateway",
) -> Socket:
    """Return a socket connected to one of the endpoint's addresses, ready to be handed over.

    Addresses are tried in the resolver's order, a little apart, and the first that answers wins
    (RFC 8305); `timeout_s` is the limit for each, `deadline` (monotonic) that for all.  The socket
    is blocking, with TCP_NODELAY and SO_KEEPALIVE, which ssh would set late or not at all.
    Messages call the other side `whom`.  Raises GatewayUnreachable with the reason for each
    address, or ClientGone.
    """
    race = _Race(endpoint, port, timeout_s, deadline, client_gone, whom)
    sock = race.run()
    sock.setblocking(True)
    # Before the first packet: ssh sets it so late that its first packets wait for a delayed ACK.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def look_up(
    endpoint: str,
    port: int,
    timeout_s: float,
    client_gone: Callable[[], bool],
    whom: str = "gateway",
) -> list[tuple[int, tuple[str, int]]]:
    """Return families and addresses, in the resolver's order.

    A lookup cannot be interrupted, so it runs in a thread and is left behind after `timeout_s`.
    Raises GatewayUnreachable or ClientGone.
    """
    found: list[tuple[int, tuple[str, int]]] = []
    problem: list[str] = []

    def run() -> None:
        try:
            for info in socket.getaddrinfo(endpoint, port, type=socket.SOCK_STREAM):
                # With SOCK_STREAM the address is of IPv4 or IPv6: host and port come first.
                found.append((info[0], info[4]))  # type: ignore[arg-type]
        except OSError as error:
            problem.append(error.strerror or str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + timeout_s
    while thread.is_alive() and (left := end - time.monotonic()) > 0:
        thread.join(min(left, _TURN_S))
        _check_client(client_gone)
    if thread.is_alive() or problem or not found:
        why = problem[0] if problem else f"no answer after {timeout_s:g} s"
        raise GatewayUnreachable(
            f"the {whom}'s name {endpoint} cannot be looked up: {why}",
            hint="check the network and its name servers",
        )
    return list(dict.fromkeys(found))


def hand_over(sock: Socket, fd: int = 1) -> None:
    """Pass a connected socket to ssh, as monitor_fdpass.c's mm_receive_fd expects it."""
    _send_fd(sock.fileno(), fd)


def become_relay(sock: Socket, host: str, home: str) -> NoReturn:
    """Let the relay of `sock` (relay.py) take the place of this program.

    It gets no environment, for ours may hold the API key; `host` and the state directory `home`
    are for whoever looks at the list of processes.
    """
    sock.set_inheritable(True)
    start = os.path.join(os.path.dirname(dcs_proxy.__file__), "start.py")
    words = [sys.executable, "-I", "-S", start, "relay", str(sock.fileno()), host, home]
    os.execve(sys.executable, words, {})


def disconnect_bytes(message: str) -> bytes:
    """Return a version line and one unencrypted SSH_MSG_DISCONNECT (RFC 4253 §4.2, §6, §11.1).

    byte 1, uint32 reason, string description (UTF-8), string language tag.  `message` should be
    one line: ssh prints control characters as octal.
    """
    description = message.encode()[:_MAX_DESCRIPTION].decode(errors="ignore").encode()
    payload = struct.pack(">BII", _MSG_DISCONNECT, _BY_APPLICATION, len(description))
    payload += description + struct.pack(">I", 0)
    # The whole, with its length field, is a multiple of 8 and has 4 bytes of padding or more.
    padding = 8 - (4 + 1 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    packet = struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)
    return b"SSH-2.0-dcs_proxy\r\n" + packet


def send_disconnect(message: str, *, fdpass: bool, stdin: int = 0, stdout: int = 1) -> None:
    """Let ssh, and whatever uses it, print `message` as the reason why the connection ended.

    ssh writes its own version line first and would meet a broken pipe, and never read ours, if
    the other end were closed; so it stays open until ssh has closed its own.  Never raises: there
    is nobody left to tell.
    """
    data = disconnect_bytes(message)
    try:
        if not fdpass:
            os.write(stdout, data)
            _drain(stdin)
            return
        ours, theirs = socket.socketpair()
        ours.sendall(data)
        _drain_in_background(ours, theirs)
        _send_fd(theirs.fileno(), stdout)
    except OSError:
        pass


class _Race:
    """Connections to every address of one endpoint, started one after the other."""

    def __init__(
        self,
        endpoint: str,
        port: int,
        timeout_s: float,
        deadline: float,
        client_gone: Callable[[], bool],
        whom: str,
    ) -> None:
        self.whom = whom
        self.endpoint, self.port = endpoint, port
        self.timeout_s = timeout_s
        self.deadline = deadline
        self.client_gone = client_gone
        self.running: dict[Socket, tuple[str, float]] = {}
        self.reasons: list[str] = []

    def run(self) -> Socket:
        limit = min(self.timeout_s, max(0.0, self.deadline - time.monotonic()))
        waiting = look_up(self.endpoint, self.port, limit, self.client_gone, self.whom)
        next_start = 0.0
        try:
            while waiting or self.running:
                now = time.monotonic()
                if waiting and (now >= next_start or not self.running):
                    self.start(*waiting.pop(0))
                    next_start = now + _STAGGER_S
                winner = self.wait(next_start if waiting else now + _TURN_S)
                if winner is not None:
                    del self.running[winner]
                    return winner
        finally:
            for loser in self.running:
                loser.close()
        raise GatewayUnreachable(
            f"the {self.whom} {authority(self.endpoint, self.port)} cannot be reached: "
            f"{', '.join(dict.fromkeys(self.reasons))}",
            hint="check the network; a firewall may forbid this port",
        )

    def start(self, family: int, address: tuple[str, int]) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self.note(address[0], error.strerror or str(error))
            return
        sock.setblocking(False)
        number = sock.connect_ex(address)
        if number in (0, 115, 36):  # EINPROGRESS on Linux and on the BSDs
            limit = min(time.monotonic() + self.timeout_s, self.deadline)
            self.running[sock] = (address[0], limit)
        else:
            sock.close()
            self.note(address[0], os.strerror(number))

    def wait(self, until: float) -> Socket | None:
        """Wait for a turn at most; return a connected socket, drop those that failed."""
        if not self.running:
            return None
        turn = max(0.0, min(until - time.monotonic(), _TURN_S))
        _, writable, _ = select.select([], list(self.running), [], turn)
        for sock in writable:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == 0:
                return sock
            self.drop(sock, os.strerror(number))
        for sock, (_, limit) in list(self.running.items()):
            if time.monotonic() >= limit:
                self.drop(sock, f"no answer after {self.timeout_s:g} s")
        self.check_client()
        return None

    def drop(self, sock: Socket, reason: str) -> None:
        self.note(self.running.pop(sock)[0], reason)
        sock.close()

    def note(self, address: str, reason: str) -> None:
        self.reasons.append(f"{address}: {reason}")

    def check_client(self) -> None:
        _check_client(self.client_gone)


def _check_client(client_gone: Callable[[], bool]) -> None:
    if client_gone():
        raise ClientGone("the program that asked for the connection has gone")


def _send_fd(passed: int, over: int) -> None:
    with socket.socket(fileno=os.dup(over)) as channel:
        fds = array.array("i", [passed])
        channel.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])


def _drain(fd: int) -> None:
    """Read what ssh still sends, until it closes its end or has had time enough."""
    end = time.monotonic() + _DRAIN_S
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while (left := end - time.monotonic()) > 0 and poll.poll(left * 1000):
        if not os.read(fd, 65536):
            return


def _drain_in_background(ours: Socket, theirs: Socket) -> None:
    """Keep `ours` open and drained in a process of its own, for ssh waits for us to exit."""
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        ours.close()
        return
    # The child: a grandchild does it, so that nobody has to wait for it.  No Python code of the
    # parent's may run on, whatever happens.
    try:
        os.setsid()
        if os.fork() == 0:
            signal.alarm(_DRAIN_S)
            theirs.close()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.closerange(3, ours.fileno())
            os.closerange(ours.fileno() + 1, 256)
            _drain(ours.fileno())
    finally:
        os._exit(0)
