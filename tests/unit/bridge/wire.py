"""A peer of one side of the bridge that writes its packets by hand, before any encryption."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from dcs_proxy.ssh.wire import pack_string, pack_u32

KEXINIT, KEX_INIT, KEX_REPLY = 20, 30, 31
CIPHERS, MACS = b"aes128-gcm@openssh.com", b"hmac-sha2-256"


class Peer:
    """The far end of a socket pair; `fd` is the near one, which a Stream may have."""

    def __init__(self) -> None:
        self._near, self.sock = socket.socketpair()
        self.sock.settimeout(60)
        self.fd = self._near.fileno()
        self._data = b""

    def close(self) -> None:
        self._near.close()
        self.sock.close()

    def greet(self, version: bytes = b"SSH-2.0-peer") -> None:
        self.sock.sendall(version + b"\r\n")
        while b"\n" not in self._data:
            self._data += self._receive()
        self._data = self._data.partition(b"\n")[2]

    def send(self, number: int, body: bytes = b"") -> None:
        """Send an unencrypted packet (RFC 4253 §6)."""
        payload = bytes([number]) + body
        padding = 8 - (5 + len(payload)) % 8
        padding += 8 if padding < 4 else 0
        head = pack_u32(1 + len(payload) + padding) + bytes([padding])
        self.sock.sendall(head + payload + bytes(padding))

    def receive(self) -> tuple[int, bytes]:
        """Return an unencrypted packet's number and body."""
        size = int.from_bytes(self._take(4), "big")
        packet = self._take(size)
        payload = packet[1 : size - packet[0]]
        return payload[0], payload[1:]

    def ends(self) -> bool:
        """Read until the side has closed its end, or says that it leaves."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def _take(self, size: int) -> bytes:
        while len(self._data) < size:
            self._data += self._receive()
        data, self._data = self._data[:size], self._data[size:]
        return data

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        assert data, "the side has closed the connection"
        return data


def kexinit(
    kex: Sequence[bytes],
    keys: Sequence[bytes],
    *,
    follows: bool = False,
    ciphers: bytes = CIPHERS,
    back: bytes | None = None,
) -> bytes:
    """Return the body of SSH_MSG_KEXINIT (RFC 4253 §7.1).

    `ciphers` are those from the client to the server, `back` those in the other direction.
    """
    back = ciphers if back is None else back
    lists = [b",".join(kex), b",".join(keys), ciphers, back, MACS, MACS, b"none", b"none"]
    lists += [b"", b""]
    return os.urandom(16) + b"".join(map(pack_string, lists)) + bytes([follows]) + bytes(4)
