"""An HTTP proxy on loopback that supports only CONNECT, and resolves made-up host names."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_LIMIT_S = 60


@dataclass
class ConnectProxy:
    """Connects to loopback whatever is asked for; the port is the one that is asked for.

    `asked` are the heads of the requests, as they came.  `answer` is sent in place of doing it;
    with `token` only requests that have it as Basic credentials are served.  `greeting` comes
    together with the answer, as a gateway's that is fast.
    """

    port: int
    asked: list[str] = field(default_factory=list)
    answer: bytes | None = None
    token: str = ""
    greeting: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [head.split()[1] for head in self.asked]

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed: the test has ended
                return
            threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def _serve_one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(_LIMIT_S)
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1)
            self.asked.append(head.decode())
            if self.answer is not None:
                client.sendall(self.answer)
                client.recv(1)  # until the other side has had enough
                return
            if (
                self.token
                and f"\r\nProxy-Authorization: Basic {self.token}\r\n" not in self.asked[-1]
            ):
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            found = re.match(r"CONNECT \S+:([0-9]+) HTTP/1\.[01]\r\n", self.asked[-1])
            assert found, head
            with socket.create_connection(("127.0.0.1", int(found[1])), _LIMIT_S) as server:
                client.sendall(
                    b"HTTP/1.1 200 Connection established\r\nVia: a\r\n\r\n" + self.greeting
                )
                up = threading.Thread(target=_copy, args=(client, server), daemon=True)
                up.start()
                _copy(server, client)
                up.join(_LIMIT_S)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def connect_proxy() -> Iterator[ConnectProxy]:
    """Run a ConnectProxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = ConnectProxy(listener.getsockname()[1])
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(_LIMIT_S)
