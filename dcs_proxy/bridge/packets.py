"""paramiko's packets with size limits, and a short way for those under AES-GCM.

paramiko copies a packet about ten times between its two connections.  Under AES-GCM, which every
client of today agrees to, a packet of the connection protocol is decrypted and encrypted again as
it came, padding included, and not copied at all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.common import MSG_NAMES
from paramiko.packet import NeedRekeyException, Packetizer

from dcs_proxy.bridge.numbers import Numbers
from dcs_proxy.bridge.stream import Stream

# OpenSSH refuses packets of more than 256 KiB (PACKET_MAX_SIZE); paramiko has no limit.
_MAX_PACKET = 300_000
# In the first key exchange, before either side has proved anything.  A number of 250 KB, which
# paramiko reads in quadratic time, took seconds; no certificate has so many bytes.
_MAX_FIRST = 64 * 1024
# The version line, and what a server may say before it (RFC 4253 §4.2).
_MAX_GREETING = 64 * 1024
# RFC 4253 §6 and RFC 5647 §7.3: uint32 length, and encrypted: byte padding length, payload,
# padding.  The encrypted part has a multiple of 16 bytes.  A tag of 16 bytes follows.
_LENGTH, _BLOCK, _TAG = 4, 16, 16
_MIN_PADDING = 4
# The message numbers of the connection protocol (RFC 4250 §4.1.1).
CONNECTION = range(80, 128)
# RFC 4253 §11.2 to §11.4.
IGNORE, UNIMPLEMENTED, DEBUG = 2, 3, 4
# paramiko deals with all that it has a name for, but with these not as a bridge should.
_ORDINARY = frozenset(MSG_NAMES).difference(CONNECTION, (IGNORE, UNIMPLEMENTED, DEBUG))


_Buffer = bytes | memoryview


class Payload:
    """A message of our own or of the connection protocol, in the place of a paramiko.Message.

    `data` begins with the message's number.  `seqno`, named as in a paramiko.Message, is the
    sequence number with which the message came, None for one of our own.
    """

    __slots__ = ("_data", "seqno", "size")

    def __init__(self, data: bytes, seqno: int | None = None) -> None:
        self._data = data
        self.seqno = seqno
        self.size = len(data)

    def asbytes(self) -> bytes:
        """Return the message, its number first."""
        return self._data


class Packet(Payload):
    """A message in its decrypted `packet`: byte padding length, message, padding."""

    __slots__ = ("packet",)

    def __init__(self, packet: bytes, seqno: int) -> None:
        self.packet = packet
        self.seqno = seqno
        self.size = len(packet)

    def asbytes(self) -> bytes:
        """Return the message, its number first."""
        return self.packet[1 : self.size - self.packet[0]]


class _Gcm:
    """AES-GCM in one direction; `packets` and `bytes` count its use.

    The nonce is four fixed bytes and a counter of eight (RFC 5647 §7.1).
    """

    __slots__ = ("_counter", "_fixed", "_work", "bytes", "packets")

    def __init__(self, work: Callable[[bytes, _Buffer, bytes], bytes], nonce: bytes) -> None:
        self._work = work
        self._fixed, self._counter = nonce[:4], int.from_bytes(nonce[4:], "big")
        self.packets = self.bytes = 0

    def apply(self, packet: _Buffer, length: bytes) -> bytes:
        """Encrypt or decrypt a packet.  Raises cryptography.exceptions.InvalidTag."""
        nonce = self._fixed + self._counter.to_bytes(8, "big")
        self._counter = (self._counter + 1) & 0xFFFF_FFFF_FFFF_FFFF
        self.packets += 1
        self.bytes += len(packet)
        return self._work(nonce, packet, length)


class Packets(Packetizer):
    """Reads and writes packets of a limited size.

    `take` is called for each message that paramiko would not deal with properly, or too slowly; it
    returns whether it has.  `sent` knows the numbers of the messages that were passed on.
    """

    # paramiko's own counts, which a MAC needs when keys are renewed with another cipher.
    _Packetizer__sequence_number_in: int
    _Packetizer__sequence_number_out: int
    _initial_kex_done: bool

    def __init__(self, stream: Stream) -> None:
        # A Stream has all that a Packetizer asks of a socket.
        super().__init__(stream)  # type: ignore[arg-type]
        self._stream = stream
        self.take: Callable[[int, Any], bool] = lambda _number, _message: False
        self.sent = Numbers()
        self._greeting = 0
        self._drops = 0
        self._gcm_in: _Gcm | None = None
        self._gcm_out: _Gcm | None = None
        # paramiko's own lock is private.
        self._sending = threading.RLock()

    # paramiko passes all of it by name.
    def set_inbound_cipher(self, **cipher: Any) -> None:  # type: ignore[override]
        """Take a cipher as paramiko does; called when keys were exchanged."""
        super().set_inbound_cipher(**cipher)
        self._gcm_in = _gcm(cipher, "decrypt", "iv_in")

    # paramiko passes all of it by name.
    def set_outbound_cipher(self, **cipher: Any) -> None:  # type: ignore[override]
        """Take a cipher as paramiko does; called when keys were exchanged."""
        super().set_outbound_cipher(**cipher)
        self._gcm_out = _gcm(cipher, "encrypt", "iv_out")

    def reset_seqno_out(self) -> None:
        """Count from zero again, as paramiko does in strict key exchanges."""
        super().reset_seqno_out()
        self.sent.forget()

    def drop_next(self) -> None:
        """Skip the next message, which is a wrong guess of the key exchange (RFC 4253 §7)."""
        self._drops += 1

    def readline(self, timeout: float) -> str:
        """Read a line of the greeting, and nothing after it."""
        end = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            if self._greeting == _MAX_GREETING:
                raise paramiko.SSHException("the greeting is too long")
            try:
                byte = self._stream.recv(1)
            except TimeoutError:
                if self.closed or time.monotonic() >= end:
                    raise
                continue
            if not byte:
                raise EOFError
            line += byte
            self._greeting += 1
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read as paramiko does; called for each part of a packet."""
        if n > (_MAX_PACKET if self._initial_kex_done else _MAX_FIRST):
            raise paramiko.SSHException(f"a packet of {n} bytes")
        if 0 < n <= self._stream.ready:
            return bytes(self._stream.take(n))
        return super().read_all(n, check_rekey)

    # The stubs know no message but paramiko's own.
    def read_message(self) -> tuple[int, Any]:
        """Return the next message and its number, after those that `drop_next` or `take` removes.

        It is a paramiko.Message or, from the connection protocol on, a Payload.  Raises
        NeedRekeyException if the keys should be renewed before another message is read.
        """
        while True:
            number, message = self._read_next()
            if self._drops:
                self._drops -= 1
            elif number in _ORDINARY or not self.take(number, message):
                return number, message
            elif self.need_rekey():
                raise NeedRekeyException

    def _read_next(self) -> tuple[int, Any]:
        if self._gcm_in is not None:
            return self._read_encrypted(self._gcm_in)
        try:
            number, message = super().read_message()
        except IndexError:  # paramiko looks for the number of an empty message
            raise paramiko.SSHException("a malformed packet") from None
        if number < CONNECTION.start:
            return number, message
        return number, Payload(bytes([number]) + message.asbytes(), message.seqno)

    def _read_encrypted(self, gcm: _Gcm) -> tuple[int, Any]:
        length = self.read_all(_LENGTH, check_rekey=True)
        size = int.from_bytes(length, "big")
        if size + _TAG <= self._stream.ready:
            packet = gcm.apply(self._stream.take(size + _TAG), length)
        else:
            packet = gcm.apply(self.read_all(size + _TAG), length)
        if not size or size % _BLOCK or not _MIN_PADDING <= packet[0] <= size - 2:
            raise paramiko.SSHException("a malformed packet")
        sequence = self._Packetizer__sequence_number_in
        self._Packetizer__sequence_number_in = (sequence + 1) & 0xFFFF_FFFF
        if gcm.bytes >= self.REKEY_BYTES or gcm.packets >= self.REKEY_PACKETS:
            self._ask_for_keys()
            if gcm.bytes > self.REKEY_BYTES + self.REKEY_BYTES_OVERFLOW_MAX:
                raise paramiko.SSHException("the peer does not renew its keys")
        number = packet[1]
        if number >= CONNECTION.start:
            return number, Packet(packet, sequence)
        message = paramiko.Message(packet[2 : size - packet[0]])
        message.seqno = sequence
        return number, message

    def send_message(self, data: Any) -> None:
        """Send a paramiko.Message or a Payload."""
        with self._sending:
            sequence = self._Packetizer__sequence_number_out
            # A paramiko.Message is one of this connection's own.
            self.sent.note(sequence, data.seqno if isinstance(data, Payload) else None)
            gcm = self._gcm_out
            if gcm is None:
                super().send_message(data)
                return
            packet = data.packet if isinstance(data, Packet) else _make_packet(data.asbytes())
            length = len(packet).to_bytes(_LENGTH, "big")
            self._write(length, gcm.apply(packet, length))
            self._Packetizer__sequence_number_out = (sequence + 1) & 0xFFFF_FFFF
            if gcm.bytes >= self.REKEY_BYTES or gcm.packets >= self.REKEY_PACKETS:
                self._ask_for_keys()

    def _write(self, length: bytes, encrypted: bytes) -> None:
        # Copied only if not all of it can be written at once.
        size = self._stream.write(length, encrypted)
        if size < len(length) + len(encrypted):
            self.write_all((length + encrypted)[size:])

    def _ask_for_keys(self) -> None:
        if not self.need_rekey():
            # paramiko's own, which its type stubs leave out.
            self._trigger_rekey()  # type: ignore[attr-defined]


def _gcm(cipher: dict[str, Any], work: str, nonce: str) -> _Gcm | None:
    return _Gcm(getattr(cipher["block_engine"], work), cipher[nonce]) if cipher["aead"] else None


def _make_packet(message: bytes) -> bytes:
    padding = _BLOCK - (1 + len(message) + _MIN_PADDING) % _BLOCK + _MIN_PADDING
    return bytes([padding]) + message + os.urandom(padding)
