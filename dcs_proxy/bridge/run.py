"""One bridge, from the client's first packet until both connections have ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from types import FrameType

import paramiko

from dcs_proxy.bridge.choose import OPENSSH
from dcs_proxy.bridge.client import Client
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.host_keys import ensure_host_keys, write_known_hosts
from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.side import BY_APPLICATION, Farewell
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.console.progress import Progress
from dcs_proxy.errors import DcsError, GatewayUnreachable, LoginRefused, Untrusted
from dcs_proxy.local.deadline import TURN_S, check_client
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.ssh.handover import client_gone
from dcs_proxy.text import clean_text, quote_server

# OpenSSH waits for its login as long as necessary.  Other clients may give up after a few seconds
# (with node's ssh2, the program that uses it sets the limit).
_PATIENCE_S = 2.0
# Clients that print the text of a disconnect message.
_SHOW_REASONS = (OPENSSH, "SSH-2.0-dropbear", "SSH-2.0-PuTTY")
# From the gateway's first byte to the end of the login.
_LOGIN_S = 30.0
# How often to look whether the client is still there.
_LOOK_S = 1.0
# How long the last messages to one side may take when the other has ended.
_LAST_S = 5.0
# The same after a signal.
_SIGNALLED_S = 2.0


class Bridge:
    """Answers the client on stdin and stdout, and later connects it to its gateway.

    `host` is the machine's name as the user typed it, `first` was already read from stdin.
    """

    def __init__(self, host: str, state: StateDirectory, first: bytes = b"") -> None:
        self._host = host
        self._bell = _Bell()
        self._signal = 0
        self._to_client, self._to_gateway = Outbox(), Outbox()
        ed25519, ecdsa = ensure_host_keys(state)
        write_known_hosts(state)
        keys = [paramiko.Ed25519Key(filename=ed25519), paramiko.ECDSAKey(filename=ecdsa)]
        self._client = Client(
            Stream(0, 1, first), keys, self._to_client, self._to_gateway, self._bell.ring
        )
        self.progress = _Banners(self._client)
        self._client.start()
        self._patience = threading.Timer(_PATIENCE_S, self._run_out_of_patience)
        self._patience.daemon = True
        self._patience.start()

    def client_gone(self) -> bool:
        """Return whether the client has disconnected.

        Its own thread does not notice while it waits for a gateway that reads nothing.
        """
        return self._client.ended.is_set() or client_gone()

    @property
    def client_version(self) -> str:
        """The client's version line, cleaned."""
        return clean_text(self._client.remote_version, 80)

    @property
    def shows_reasons(self) -> bool:
        """Whether the client is known to show its user why a connection ended."""
        return self._client.remote_version.startswith(_SHOW_REASONS)

    def log_in(self, sock: socket.socket, login: Login) -> Gateway:
        """Return the gateway on the connected `sock`, logged in.

        Raises Untrusted, LoginRefused, GatewayUnreachable, ClientGone, AgentRefused or
        AgentUnavailable; then `sock` is of no more use.
        """
        gateway = Gateway(sock, login, self._to_gateway, self._to_client, self._bell.ring)
        gateway.start()
        try:
            end = time.monotonic() + _LOGIN_S
            self._await(gateway, gateway.is_negotiated, end, login)
            gateway.log_in()
            self._await(gateway, gateway.has_answered, end, login)
            if not gateway.is_authenticated():
                raise LoginRefused(
                    f"the gateway {login.endpoint} refuses the session's login",
                    hint=f"dcs-proxy close {self._host}, then try again",
                )
        except DcsError:
            with contextlib.suppress(OSError):  # the gateway has gone
                sock.shutdown(socket.SHUT_RDWR)
            # The next socket may get this one's number, and the gateway's thread must not read it.
            if gateway.ended.wait(_LAST_S):
                sock.close()
            raise
        return gateway

    def pass_on(self, gateway: Gateway) -> int:
        """Pass messages on until one side ends; return an exit code."""
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, self._end_soon)
        # Ctrl-C goes to the client too.  If it ends by that, so do we.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._patience.cancel()
        self._client.let_in()
        self._to_gateway.open(gateway)
        while not (self._signal or self.client_gone() or gateway.ended.is_set()):
            self._bell.wait(_LOOK_S)
        if self._signal or not gateway.ended.is_set():
            # ssh sends SIGHUP when it ends.  What it has written before must still be passed on.
            self._client.ended.wait(_SIGNALLED_S / 2)
        if gateway.ended.is_set() and not self.client_gone():
            self._to_client.wait_until_empty(_LAST_S)
            self._leave_client(
                gateway.farewell or self._explain("the gateway has closed the connection")
            )
            return 0 if gateway.farewell else 1
        self._to_gateway.wait_until_empty(_LAST_S)
        gateway.disconnect(self._client.farewell or Farewell(BY_APPLICATION, ""), _LAST_S)
        if not self.client_gone():
            self._client.disconnect(self._explain(f"ended by signal {self._signal}"), _LAST_S)
        # Closed too early, the connection would be reset, and the message lost.
        gateway.ended.wait(_SIGNALLED_S)
        return 0

    def fail(self, error: DcsError) -> None:
        """Tell the client why there is no connection."""
        self._patience.cancel()
        self._leave_client(Farewell(BY_APPLICATION, error.one_line()))

    def _leave_client(self, farewell: Farewell) -> None:
        self._client.disconnect(farewell, _LAST_S)
        # A client that is still writing would meet a broken pipe and not read why.
        self._client.ended.wait(_LAST_S)

    def _explain(self, what: str) -> Farewell:
        return Farewell(BY_APPLICATION, f"{self._host}: {what}")

    def _run_out_of_patience(self) -> None:
        if not self._client.remote_version.startswith(OPENSSH):
            self._client.let_in()

    def _await(self, gateway: Gateway, event: threading.Event, end: float, login: Login) -> None:
        while not event.wait(TURN_S):
            check_client(self.client_gone)
            if time.monotonic() >= end:
                raise GatewayUnreachable(
                    f"the gateway {login.endpoint} did not complete the login in {_LOGIN_S:g} s",
                    hint="try again; if this persists, report it to the service's support",
                )
        if gateway.ended.is_set() or not gateway.is_active():
            gateway.ended.wait(_LAST_S)
            raise explain_failure(gateway, login)

    def _end_soon(self, number: int, frame: FrameType | None) -> None:
        # A peer that reads nothing must not block us: SIGALRM ends the process.
        signal.setitimer(signal.ITIMER_REAL, _SIGNALLED_S)
        self._signal = number
        self._bell.ring()


class _Banners(Progress):
    """Shows the client what happens while a machine wakes."""

    def __init__(self, client: Client) -> None:
        super().__init__(is_quiet=False, in_place=False)
        self._client = client

    def notice(self, text: str) -> None:
        self._client.show(f"dcs-proxy: {text}")


class _Bell:
    """Wakes the main thread, also from a signal handler, which must not take locks."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the pipe is full: the thread will wake up
            os.write(self._write, b"!")

    def wait(self, timeout_s: float) -> None:
        """Wait until `ring` has been called since the last wait, or for `timeout_s`."""
        if select.select([self._read], [], [], timeout_s)[0]:
            os.read(self._read, 1024)


def explain_failure(gateway: Gateway, login: Login) -> DcsError:
    """Return why the gateway's side ended before the login was complete."""
    error = gateway.get_exception()  # paramiko's failures to read a version line have a context
    if isinstance(error, DcsError):
        return error
    where = f"{login.endpoint}:{login.port}"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        if "host key" in str(error):
            return Untrusted(
                f"the gateway {where} has no host certificate",
                hint="no connection was made; report it to the service's support",
            )
        why = f"no common algorithms: {quote_server(str(error))}"
    elif gateway.farewell is not None:
        why = f"it says {quote_server(gateway.farewell.text)}"
    elif error is None or isinstance(error, EOFError) or isinstance(error.__context__, EOFError):
        why = "it closed the connection"
    elif isinstance(error.__context__, TimeoutError):
        why = "it sends no version line"
    elif isinstance(error, paramiko.SSHException | OSError):
        why = quote_server(str(error))
    else:  # whatever paramiko meets in a message that it cannot parse
        why = "it breaks the SSH protocol"
    return GatewayUnreachable(
        f"the gateway {where} did not complete the login: {why}",
        hint="try again; if this persists, report it to the service's support",
    )
