"""Broken gateways: listeners that reset connections or never answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

_BANNER = b"SSH-2.0-emulator\r\n"


class BrokenGateway:
    """Accepts connections and never answers or, with `resets`, resets them after the banner."""

    def __init__(self, *, resets: bool) -> None:
        self._resets = resets
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve listening sockets."""
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._accept, sock=sock))

    def stop(self) -> None:
        """Close all connections."""
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._resets:
            writer.write(_BANNER)
            await reader.readline()
            sock = writer.get_extra_info("socket")
            # Closing with a linger time of zero sends a reset.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        else:
            self._writers.add(writer)
            await reader.read()
            self._writers.discard(writer)
            writer.close()
