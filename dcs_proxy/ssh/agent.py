"""A client of the ssh-agent protocol (RFC 9987; OpenSSH's PROTOCOL.agent): list, add, remove, sign.

Every request has its own connection: requests are few, and so an agent that was restarted meanwhile
is found again.  Only a signature takes two requests on one connection, because the first of them
binds the connection to a session.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dcs_proxy.errors import AgentRefused, AgentUnavailable
from dcs_proxy.fastpath import helper
from dcs_proxy.local.log import Log, milliseconds_since
from dcs_proxy.ssh.keys import CERTIFICATE_TYPE, KEY_TYPE, KeyPair
from dcs_proxy.ssh.wire import Reader, WireError, pack_string, pack_u32
from dcs_proxy.text import clean_text

# RFC 9987 §6.1; 30 and 102 are failures of older agents, as in OpenSSH's authfd.c.
_FAILURES = (5, 30, 102)
_SUCCESS = 6
_REQUEST_IDENTITIES = 11
_IDENTITIES_ANSWER = 12
_SIGN_REQUEST = 13
_SIGN_RESPONSE = 14
_REMOVE_IDENTITY = 18
_ADD_ID_CONSTRAINED = 25
_EXTENSION = 27
_SESSION_BIND = b"session-bind@openssh.com"
_CONSTRAIN_LIFETIME = 1
_CONSTRAIN_EXTENSION = 255
_RESTRICT_DESTINATION = b"restrict-destination-v00@openssh.com"

_MAX_REPLY = 256 * 1024  # AGENT_MAX_LEN of ssh-agent.c
_MAX_LIFETIME_S = 2**32 - 1
# How long an agent may take to list its identities.  It does not ask the user, so only a stopped
# agent takes longer than milliseconds.
LIST_S = 2.0
_BACKLOG_PAUSE_S = 0.01

_UNAVAILABLE_HINT = (
    'try again; if the config file has agent = "user", check that SSH_AUTH_SOCK names a running'
    " agent (ssh-add -l)"
)
_REFUSED_HINT = (
    "unlock the agent if it is locked (ssh-add -X); 1Password and gnome-keyring refuse"
    ' certificates or lifetimes: then remove agent = "user" from the config file'
)


class AgentMissing(AgentUnavailable):
    """Nothing listens on the socket: it does not exist, or its agent has exited."""


class _ConnectionLost(AgentUnavailable):
    """The agent closed the connection before it answered."""


@dataclass(frozen=True)
class Identity:
    """A key or certificate that an agent holds: its wire `blob`, and `comment` as received."""

    blob: bytes
    comment: str


@dataclass(frozen=True)
class Destination:
    """The only host to which an identity may log in: its name, and its CA's public key blob."""

    hostname: str
    ca_blob: bytes


@dataclass(frozen=True)
class SessionBinding:
    """What proves to an agent which host a signature is for.

    `host_key` is the host's key or certificate blob, `session_id` that of RFC 4253 §7.2, and
    `signature` the host's signature blob over the session id.
    """

    host_key: bytes
    session_id: bytes
    signature: bytes


class Agent:
    """The agent on the socket `path`; `timeout_s` limits each request from connect to reply.

    Nothing is sent to another user's agent, unless that user is root.  With `log`, replies are
    logged as debug events.  Every method raises AgentUnavailable (AgentMissing if nothing listens)
    if there is no valid reply, and AgentRefused on SSH_AGENT_FAILURE unless its docstring says
    otherwise.
    """

    def __init__(
        self,
        path: str,
        *,
        timeout_s: float = 10.0,
        log: Log | None = None,
    ) -> None:
        self.path = path
        self._log = log
        self._timeout_s = timeout_s

    def identities(self) -> list[Identity]:
        """Return the agent's identities; none if it is locked."""
        reply = self._request(bytes([_REQUEST_IDENTITIES]), _IDENTITIES_ANSWER, "list identities")
        try:
            return parse_identities(reply)
        except WireError as error:
            raise self._unavailable(f"sent a malformed list: {error}") from error

    def pid(self) -> int | None:
        """Return the agent's process id, None if the system does not tell."""
        with self._connection(time.monotonic() + self._timeout_s) as sock:
            return helper.peer(sock)[1]

    def holds(self, blob: bytes) -> bool:
        """Return whether the agent holds the key or certificate `blob`."""
        return any(identity.blob == blob for identity in self.identities())

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, destination: Destination | None = None
    ) -> bool:
        """Add a bare key for `lifetime_s` seconds; see `add_certificate` for the result."""
        return self._add(key_fields(key), "an identity", comment, lifetime_s, destination)

    def add_certificate(
        self,
        key: KeyPair,
        certificate: bytes,
        *,
        comment: str,
        lifetime_s: int,
        destination: Destination | None,
    ) -> bool:
        """Add a certificate blob and its key, but not the bare key, for `lifetime_s` seconds.

        Return whether the identity is restricted to `destination`.  An agent that refuses the
        constraint (OpenSSH before 8.9) gets the identity with only its lifetime.
        """
        fields = certificate_fields(key, certificate)
        return self._add(fields, "a certificate identity", comment, lifetime_s, destination)

    def remove(self, blob: bytes) -> bool:
        """Remove the identity `blob`; return False if the agent refuses, as one without it does."""
        request = bytes([_REMOVE_IDENTITY]) + pack_string(blob)
        try:
            self._command(request, "remove an identity")
        except AgentRefused:
            return False
        return True

    def sign(self, blob: bytes, data: bytes, binding: SessionBinding) -> bytes:
        """Return the identity's signature blob over `data`, valid only for the bound session.

        An agent without session-bind (OpenSSH before 8.9) signs all the same.
        """
        bind = session_bind(binding)
        request = bytes([_SIGN_REQUEST]) + pack_string(blob) + pack_string(data) + bytes(4)
        _, reply = self._exchange(bind, request)
        body = self._body(reply, _SIGN_RESPONSE, "sign")
        try:
            reader = Reader(body)
            signature = reader.string()
            reader.finish()
        except WireError as error:
            raise self._unavailable(f"sent a malformed signature: {error}") from error
        return signature

    def _add(
        self,
        fields: bytes,
        what: str,
        comment: str,
        lifetime_s: int,
        destination: Destination | None,
    ) -> bool:
        request = bytes([_ADD_ID_CONSTRAINED]) + fields + pack_string(comment.encode())
        request += lifetime_constraint(lifetime_s)
        if destination is not None:
            try:
                self._command(request + destination_constraint(destination), f"add {what}")
            except AgentRefused:
                pass
            else:
                return True
        try:
            self._command(request, f"add {what}")
        except AgentRefused as error:
            message = f"the agent at {clean_text(self.path)} does not accept {what}"
            raise AgentRefused(message, hint=_REFUSED_HINT) from error
        return False

    def _command(self, request: bytes, action: str) -> None:
        if self._request(request, _SUCCESS, action):
            raise self._unavailable("sent a malformed reply: bytes after SSH_AGENT_SUCCESS")

    def _request(self, request: bytes, expected: int, action: str) -> bytes:
        """Return the body of the reply, whose type must be `expected`."""
        start = time.monotonic()
        (reply,) = self._exchange(request)
        if self._log is not None:
            self._log.debug("agent", asked=action, reply=reply[0], ms=milliseconds_since(start))
        return self._body(reply, expected, action)

    def _body(self, reply: bytes, expected: int, action: str) -> bytes:
        kind, body = reply[0], reply[1:]
        if kind in _FAILURES and not body:
            path = clean_text(self.path)
            raise AgentRefused(f"the agent at {path} refused to {action}", hint=_REFUSED_HINT)
        if kind != expected:
            raise self._unavailable(f"sent a malformed reply: type {kind}, {len(body)} bytes")
        return body

    def _exchange(self, *requests: bytes) -> list[bytes]:
        """Return the replies to requests on one connection, each at least one byte long.

        Requests and replies are without their length prefixes.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            return self._exchange_once(requests, deadline)
        except _ConnectionLost:
            # If the agent has just exited, because another command has ended it, AgentMissing says
            # so now.  Repeating a request is harmless.
            return self._exchange_once(requests, deadline)

    def _exchange_once(self, requests: Sequence[bytes], deadline: float) -> list[bytes]:
        with self._connection(deadline) as sock:
            return [self._ask(sock, request, deadline) for request in requests]

    @contextlib.contextmanager
    def _connection(self, deadline: float) -> Iterator[socket.socket]:
        """Connect to the agent, if it is ours or root's; raise AgentUnavailable for an OSError."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                self._connect(sock, deadline)
                self._check_peer(sock)
                yield sock
        except TimeoutError as error:
            raise self._unavailable(f"did not answer within {self._timeout_s:.3g} s") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost() from error
        except OSError as error:
            raise self._unavailable(f"cannot be used: {error.strerror or error}") from error

    def _ask(self, sock: socket.socket, request: bytes, deadline: float) -> bytes:
        _set_timeout(sock, deadline)
        sock.sendall(pack_string(request))
        length = int.from_bytes(self._receive(sock, 4, deadline), "big")
        if not 1 <= length <= _MAX_REPLY:
            raise self._unavailable(f"sent a malformed reply: {length} bytes announced")
        return self._receive(sock, length, deadline)

    def _connect(self, sock: socket.socket, deadline: float) -> None:
        while True:
            _set_timeout(sock, deadline)
            try:
                return sock.connect(self.path)
            except BlockingIOError:
                # The backlog is full: on a socket with a timeout, Linux returns EAGAIN at once.
                time.sleep(_BACKLOG_PAUSE_S)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                path = clean_text(self.path)
                message = f"no agent listens at {path}: {error.strerror}"
                raise AgentMissing(message, hint=_UNAVAILABLE_HINT) from error

    def _check_peer(self, sock: socket.socket) -> None:
        """Raise AgentUnavailable unless the agent is ours or root's."""
        if helper.is_trusted(sock, self.path):
            return
        uid, _ = helper.peer(sock)
        if uid is None:
            directory = clean_text(os.path.dirname(self.path))
            raise self._unavailable(f"may belong to another user: others can write to {directory}")
        raise self._unavailable(f"belongs to user id {uid}, not {os.geteuid()}")

    def _receive(self, sock: socket.socket, size: int, deadline: float) -> bytes:
        received = b""
        while len(received) < size:
            _set_timeout(sock, deadline)
            part = sock.recv(size - len(received))
            if not part:
                raise self._lost()
            received += part
        return received

    def _lost(self) -> AgentUnavailable:
        path = clean_text(self.path)
        message = f"the agent at {path} closed the connection in the middle of a request"
        return _ConnectionLost(message, hint=_UNAVAILABLE_HINT)

    def _unavailable(self, what: str) -> AgentUnavailable:
        message = f"the agent at {clean_text(self.path)} {what}"
        return AgentUnavailable(message, hint=_UNAVAILABLE_HINT)


def parse_identities(body: bytes) -> list[Identity]:
    """Parse the body of SSH_AGENT_IDENTITIES_ANSWER (RFC 9987 §3.5).  Raises WireError.

    uint32 count, then for each identity: string blob, string comment.  A substring search would
    also find a CA's key, which its certificates contain.
    """
    reader = Reader(body)
    identities = []
    for _ in range(reader.u32()):
        blob = reader.string()
        identities.append(Identity(blob, reader.string().decode(errors="replace")))
    reader.finish()
    return identities


def key_fields(key: KeyPair) -> bytes:
    """Return the fields of a key in an add request (RFC 9987 §3.2.3).

    string "ssh-ed25519", string public key, string private key (seed and public key).
    """
    return pack_string(KEY_TYPE) + _private_fields(key)


def certificate_fields(key: KeyPair, certificate: bytes) -> bytes:
    """Return the fields of a certificate in an add request (sshkey_private_serialize, sshkey.c).

    string "ssh-ed25519-cert-v01@openssh.com", string certificate, then the last two strings of
    `key_fields`.
    """
    return pack_string(CERTIFICATE_TYPE) + pack_string(certificate) + _private_fields(key)


def lifetime_constraint(lifetime_s: int) -> bytes:
    """Return SSH_AGENT_CONSTRAIN_LIFETIME (RFC 9987 §3.2.7.1): byte 1, uint32 seconds."""
    # 0 means no limit to some agents, and a certificate without an end would exceed a uint32.
    seconds = min(max(lifetime_s, 1), _MAX_LIFETIME_S)
    return bytes([_CONSTRAIN_LIFETIME]) + pack_u32(seconds)


def destination_constraint(destination: Destination) -> bytes:
    """Return the destination constraint, one hop from here (OpenSSH's PROTOCOL.agent §2).

    byte 255, string name, string constraints; each constraint is a string of string from, string
    to, string reserved; each hop is string user, string hostname, string reserved, then for each
    key string blob and byte is_ca.  PROTOCOL.agent omits the lengths of the inner strings;
    encode_dest_constraint in authfd.c has them.
    """
    origin = pack_string(b"") * 3
    hostname = pack_string(destination.hostname.encode())
    gateway = pack_string(b"") + hostname + pack_string(b"")
    gateway += pack_string(destination.ca_blob) + b"\x01"
    constraint = pack_string(origin) + pack_string(gateway) + pack_string(b"")
    head = bytes([_CONSTRAIN_EXTENSION]) + pack_string(_RESTRICT_DESTINATION)
    return head + pack_string(pack_string(constraint))


def session_bind(binding: SessionBinding) -> bytes:
    """Return the request that binds an agent connection to a session (OpenSSH's PROTOCOL.agent §1).

    byte 27, string "session-bind@openssh.com", string host key, string session id, string
    signature, bool is_forwarding (false: the connection is ours).
    """
    head = bytes([_EXTENSION]) + pack_string(_SESSION_BIND)
    fields = (binding.host_key, binding.session_id, binding.signature)
    return head + b"".join(map(pack_string, fields)) + b"\0"


def _private_fields(key: KeyPair) -> bytes:
    return pack_string(key.public) + pack_string(key.seed + key.public)


def _set_timeout(sock: socket.socket, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    sock.settimeout(remaining)
