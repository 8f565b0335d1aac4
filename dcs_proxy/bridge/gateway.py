"""The gateway's side: an SSH client that logs in with a session's identity."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler

from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.side import Side
from dcs_proxy.bridge.stream import SocketStream
from dcs_proxy.errors import Untrusted
from dcs_proxy.ssh.agent import SessionBinding
from dcs_proxy.ssh.certificates import check_host_certificate
from dcs_proxy.ssh.wire import Reader, WireError

_CERTIFIED = "-cert-v01@openssh.com"
_POST_QUANTUM = "mlkem768x25519-sha256"
# RFC 4253 §10, RFC 4252 §6.
_SERVICE_ACCEPT, _FAILURE, _SUCCESS = 6, 51, 52


class Gateway(Side):
    """The gateway's side: `sock` is connected to the gateway of `login`, and stays open with it."""

    _preferred_keys = (
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-512",
        "rsa-sha2-256",
    )

    def __init__(
        self,
        sock: socket.socket,
        login: Login,
        inbox: Outbox,
        outbox: Outbox,
        on_end: Callable[[], None],
    ) -> None:
        if _POST_QUANTUM in self._kex_info:  # paramiko 5
            self._preferred_kex = (_POST_QUANTUM, *Side._preferred_kex)
        super().__init__(SocketStream(sock), inbox, outbox, on_end)
        self._login = login
        self._proved = b""
        self._binding: SessionBinding | None = None
        self.is_negotiated = threading.Event()
        self.has_answered = threading.Event()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Only certificates: paramiko would prefer bare keys."""
        return tuple(f"{name}{_CERTIFIED}" for name in self._preferred_keys)

    def start(self) -> None:
        """Start the connection's thread; `is_negotiated` is set after the key exchange."""
        self.completion_event = self.is_negotiated
        self.active = True
        super().start()

    def log_in(self) -> None:
        """Send the login request; `has_answered` is set when the gateway has answered or gone."""
        self.auth_handler = _LoginAnswers(self)
        # It has everything that paramiko needs from a key.
        identity: Any = _Identity(self._login, self._binding)
        try:
            self.auth_handler.auth_publickey(self._login.username, identity, self.has_answered)
        except (EOFError, OSError):
            self.has_answered.set()  # the connection is broken

    def _verify_key(self, host_key: bytes, signature: bytes) -> None:
        """Check the gateway's certificate and its signature of the exchange.

        Called in every key exchange.  As with OpenSSH, a certificate that was valid when the
        connection began may expire while it lasts.
        """
        if host_key != self._proved:
            check_host_certificate(
                host_key,
                authority=self._login.authority,
                endpoint=self._login.endpoint,
                now=time.time(),
            )
        self._check_algorithm(signature)
        # paramiko's own method, which its type stubs leave out.
        super()._verify_key(host_key, signature)  # type: ignore[misc]
        self._proved = host_key
        if self._binding is None:
            self._binding = SessionBinding(host_key, self.session_id or b"", signature)

    def _check_algorithm(self, signature: bytes) -> None:
        """Raise Untrusted unless the signature uses the negotiated algorithm, never SHA-1."""
        try:
            kind = Reader(signature).string().decode("ascii", "replace")
        except WireError:
            kind = ""
        if f"{kind}{_CERTIFIED}" != self.host_key_type:
            raise Untrusted(
                "the gateway's signature does not use the negotiated algorithm",
                hint="no connection was made; report it to the service's support",
            )


class _LoginAnswers(AuthHandler):
    """Takes the gateway's answers to a login (RFC 4252): one to each of our two requests.

    paramiko would sign once more whenever the gateway accepts the service, and would take a yes
    after a no.
    """

    _expected: tuple[int, ...] = (_SERVICE_ACCEPT,)

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        self._expect(_SERVICE_ACCEPT, then=(_SUCCESS, _FAILURE))
        super()._parse_service_accept(message)  # type: ignore[misc]  # not in the stubs

    def _parse_userauth_success(self, message: paramiko.Message) -> None:
        self._expect(_SUCCESS)
        super()._parse_userauth_success(message)  # type: ignore[misc]  # not in the stubs

    def _parse_userauth_failure(self, message: paramiko.Message) -> None:
        self._expect(_FAILURE)
        super()._parse_userauth_failure(message)  # type: ignore[misc]  # not in the stubs

    def _expect(self, number: int, then: tuple[int, ...] = ()) -> None:
        if number not in self._expected:
            raise paramiko.SSHException(f"message {number} answers no request")
        self._expected = then


class _Identity:
    """A session's identity as paramiko needs it: the blob for the gateway, and signatures."""

    def __init__(self, login: Login, binding: SessionBinding | None) -> None:
        self._login = login
        self._binding = binding
        self.public_blob = SimpleNamespace(key_type=login.algorithm, key_blob=login.offered)

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        """Let the agent sign `data` (RFC 4252 §7).  Raises AgentRefused, AgentUnavailable."""
        if self._binding is None:
            raise paramiko.SSHException("no host to bind the agent to")
        return self._login.agent.sign(self._login.identity, data, self._binding)
