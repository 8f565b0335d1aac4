"""What both of the bridge's connections share: algorithms, passing messages on, and their end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.kex_curve25519 import KexCurve25519

from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.packets import CONNECTION, DEBUG, IGNORE, UNIMPLEMENTED, Packets, Payload
from dcs_proxy.bridge.stream import Stream
from dcs_proxy.ssh.wire import Reader, WireError, pack_string, pack_u32
from dcs_proxy.text import clean_text, safe_line

# RFC 4250 §4.1.2.
_DISCONNECT, _EXT_INFO, _NEWKEYS, _GLOBAL_REQUEST = 1, 7, 21, 80
BY_APPLICATION = 11
# The fastest here; packets.py has a short way for them.
GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
# These requests are about one connection's host keys (OpenSSH's PROTOCOL §2.5), which the other
# connection does not use.
_WITHHELD = (b"hostkeys-00@openssh.com", b"hostkeys-prove-00@openssh.com")
_UNKNOWN_REQUEST = pack_string(b"withheld@dcs-proxy")
_MAX_REASON = 2000

# paramiko's thread would print its tracebacks on the client's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Farewell:
    """A peer's SSH_MSG_DISCONNECT: its reason code, and its text on one line."""

    code: int
    text: str


class Side(paramiko.Transport):
    """One of the two connections: `inbox` is for messages to its peer, `outbox` for those from it.

    `on_end` is called in the connection's own thread when the connection has ended.
    """

    _active_check_timeout = 1.0  # paramiko's 0.1 s wakes an idle process ten times as often
    _CLIENT_ID = "dcs_proxy"  # the software version in the line that paramiko sends first
    # By its RFC name too, which dropbear guesses.  paramiko's own table is a mutable class
    # attribute that its type stubs leave out.
    _kex_info = {**paramiko.Transport._kex_info, "curve25519-sha256": KexCurve25519}  # type: ignore[attr-defined]  # noqa: RUF012
    _preferred_ciphers: tuple[str, ...] = (*GCM, "aes128-ctr", "aes192-ctr", "aes256-ctr")
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
        "hmac-sha1",
    )
    _preferred_kex: tuple[str, ...] = (
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha256",
    )
    _preferred_compression = ("none",)
    packetizer: Packets
    # An attribute of the instance that may be extended (since paramiko 3.4).
    _handler_table: dict[int, Callable[[Any], None]]

    def __init__(
        self, stream: Stream, inbox: Outbox, outbox: Outbox, on_end: Callable[[], None]
    ) -> None:
        # A Stream has all that a Transport asks of a socket.
        super().__init__(stream, packetizer_class=Packets)  # type: ignore[arg-type]
        self.inbox, self._outbox = inbox, outbox
        self.farewell: Farewell | None = None
        self.ended = threading.Event()
        self._on_end = on_end
        self._said_farewell = False
        self._newkeys = self._handler_table[_NEWKEYS]
        self._handler_table[_NEWKEYS] = self._take_keys
        self._handler_table[_EXT_INFO] = lambda _message: None
        self.packetizer.take = self._take_special
        for number in CONNECTION:
            self._handler_table[number] = self._pass_on
        self._handler_table[_GLOBAL_REQUEST] = self._pass_on_request

    def run(self) -> None:
        """Serve the connection; the body of its thread."""
        try:
            super().run()
        finally:
            self.inbox.close(self)
            self.ended.set()
            self._on_end()

    def disconnect(self, farewell: Farewell, timeout_s: float) -> None:
        """Send the peer, at most once, why the connection ends.

        Gives up after `timeout_s`: a peer that reads nothing must not block us.
        """
        if self._said_farewell or self.ended.is_set():
            return
        self._said_farewell = True
        text = safe_line(farewell.text).encode()[:_MAX_REASON].decode(errors="ignore").encode()
        message = bytes([_DISCONNECT]) + pack_u32(farewell.code) + pack_string(text)
        thread = threading.Thread(target=self._send_last, args=(message,), daemon=True)
        thread.start()
        thread.join(timeout_s)

    def send(self, message: bytes) -> None:
        """Send a message of our own; waits for a key exchange to end."""
        # paramiko only calls asbytes() on a message.
        self._send_user_message(Payload(message))  # type: ignore[attr-defined]

    def _send_last(self, message: bytes) -> None:
        # It may also be sent during a key exchange (RFC 4253 §7.1).
        try:
            self.packetizer.send_message(Payload(message + bytes(4)))
        except (EOFError, OSError):
            pass  # the connection is broken

    def _take_keys(self, message: paramiko.Message) -> None:
        self._newkeys(message)
        self.inbox.flush()

    def _take_special(self, number: int, message: Any) -> bool:
        """Deal with a message that is to be passed on, or that paramiko does not know.

        Return whether it was dealt with.  In the first key exchange none is, and paramiko ends the
        connection: an attacker on the network could have added it.
        """
        if number in CONNECTION:
            return self._take_connection(number, message)
        if not self.initial_kex_done:
            return False
        self._ensure_authed(number, message)
        if number == UNIMPLEMENTED:
            self._pass_on_refusal(message)
        elif number not in (IGNORE, DEBUG):
            self.packetizer.send_message(_refusal(message.seqno))
        elif self.authenticated:
            # Padding, a sign of life, or a text for the user, from one end for the other.
            self._pass_on(Payload(bytes([number]) + message.asbytes(), message.seqno))
        return True

    def _take_connection(self, number: int, message: Payload) -> bool:
        """Pass a message of the connection protocol on without paramiko's detours.

        Return whether it was.  Before the login and in a key exchange paramiko checks the order.
        """
        if not self.authenticated or not self.clear_to_send.is_set():
            return False
        self._handler_table[number](message)
        return True

    def _pass_on_refusal(self, message: paramiko.Message) -> None:
        """Pass on that the peer does not know a message: uint32 number (RFC 4253 §11.4).

        The other peer knows that message by the number with which it came.  Dropped if it was one
        of ours, to which nobody waits for an answer.
        """
        try:
            origin = self.packetizer.sent.origin(Reader(message.asbytes()).u32())
        except WireError as error:
            raise paramiko.SSHException(f"a malformed refusal: {error}") from None
        if origin is not None:
            self._pass_on(_refusal(origin))

    def _ensure_authed(self, number: int, message: object) -> None:
        """Raise SSHException for a message that must not come before the login (RFC 4252 §6)."""
        if number >= CONNECTION.start and not self.authenticated:
            raise paramiko.SSHException(f"message {number} before the login")

    def _pass_on(self, message: Payload) -> None:
        # During its own key exchange this thread must keep reading.
        self._outbox.put(message, may_wait=self.clear_to_send.is_set())

    def _pass_on_request(self, message: Payload) -> None:
        """Pass a global request on: string name, boolean want reply, more (RFC 4254 §4)."""
        reader = Reader(message.asbytes()[1:])
        try:
            name, wants_reply = reader.string(), reader.u8()
        except WireError as error:
            raise paramiko.SSHException(f"a malformed global request: {error}") from None
        if name not in _WITHHELD:
            self._pass_on(message)
        elif wants_reply:
            # Replies come in the order of requests: the other peer must refuse this one.
            request = bytes([_GLOBAL_REQUEST]) + _UNKNOWN_REQUEST + b"\x01"
            self._pass_on(Payload(request, message.seqno))

    def _parse_debug(self, message: paramiko.Message) -> None:
        """Ignore the message: paramiko would quote it byte by byte for a log that is off."""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        """Note the peer's farewell: uint32 reason, string description (RFC 4253 §11.1)."""
        reader = Reader(message.asbytes())
        try:
            code, text = reader.u32(), reader.string()
        except WireError:
            code, text = BY_APPLICATION, b""
        self.farewell = Farewell(code, clean_text(text.decode("utf-8", "replace"), _MAX_REASON))


def _refusal(number: int) -> Payload:
    """Return SSH_MSG_UNIMPLEMENTED: uint32 number of the message (RFC 4253 §11.4)."""
    return Payload(bytes([UNIMPLEMENTED]) + pack_u32(number))
