"""paramiko's packets with limits, and messages that are passed on as they came."""

from __future__ import annotations

import paramiko
from paramiko.packet import Packetizer

# OpenSSH refuses packets of more than 256 KiB (PACKET_MAX_SIZE); paramiko has no limit.
_MAX_PACKET = 300_000
# The version line, and what a server may say before it (RFC 4253 §4.2).
_MAX_GREETING = 64 * 1024


class Payload:
    """A message's bytes, in the place of a paramiko.Message: its number first."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def asbytes(self) -> bytes:
        """Return the bytes."""
        return self._data


class Packets(Packetizer):
    """Packets of a limited size, each without `drop_next` if that was called before."""

    def __init__(self, socket: object) -> None:
        # A Stream has all that a Packetizer asks of a socket.
        super().__init__(socket)  # type: ignore[arg-type]
        self._greeting = 0
        self._drops = 0

    def drop_next(self) -> None:
        """Let the next message be lost, a wrongly guessed key exchange (RFC 4253 §7)."""
        self._drops += 1

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read as paramiko does; called for each part of a packet."""
        if n > _MAX_PACKET:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        return super().read_all(n, check_rekey)

    def read_message(self) -> tuple[int, paramiko.Message]:
        """Read as paramiko does, but for the messages to be dropped."""
        while self._drops:
            super().read_message()
            self._drops -= 1
        return super().read_message()

    def _read_timeout(self, timeout: float) -> bytes:
        """Read as paramiko does; called for the lines of a greeting only."""
        # paramiko's own, which its type stubs leave out.
        data: bytes = super()._read_timeout(timeout)  # type: ignore[misc]
        self._greeting += len(data)
        if self._greeting > _MAX_GREETING:
            raise paramiko.SSHException("a greeting without end")
        return data
