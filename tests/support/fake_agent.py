"""An agent on a Unix socket whose replies the test chooses."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator

from dcs_proxy.ssh.keys import KEY_TYPE, public_blob
from dcs_proxy.ssh.wire import Reader, pack_string, pack_u32


def framed(*replies: bytes) -> Callable[[bytes], bytes]:
    """Answer the requests with `replies` in turn, each with its length, the last for ever."""
    left = list(replies)
    return lambda _request: pack_string(left.pop(0) if len(left) > 1 else left[0])


class FakeAgent:
    """Answers each connection's requests, `per_connection`, with `answer(request)`, then closes.

    The bytes are sent as they are, length and all.  `requests` are those received, without
    their length.
    """

    def __init__(self, path: str, backlog: int = 16) -> None:
        self.path = path
        self.answer: Callable[[bytes], bytes] = framed(b"\x05")
        self.requests: list[bytes] = []
        self.per_connection = 1
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(backlog)
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            # A client that has given up is no concern of the agent's.
            with connection, contextlib.suppress(OSError):
                for _ in range(self.per_connection):
                    length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
                    self.requests.append(connection.recv(length, socket.MSG_WAITALL))
                    connection.sendall(self.answer(self.requests[-1]))

    def stop(self) -> None:
        # A plain close would leave the thread in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if self.thread.ident is not None:
            self.thread.join(10)


@contextlib.contextmanager
def socket_directory() -> Iterator[str]:
    """Make a directory of our own with a path short enough for a socket."""
    directory = tempfile.mkdtemp(prefix="dcs")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def fake_agent() -> Iterator[FakeAgent]:
    """Run a FakeAgent; it answers SSH_AGENT_FAILURE until told otherwise."""
    with socket_directory() as directory:
        agent = FakeAgent(os.path.join(directory, "agent.sock"))
        agent.thread.start()
        try:
            yield agent
        finally:
            agent.stop()


class Store:
    """Answers as an agent that takes everything; `held` is what it holds, blob to comment.

    One that is locked lists nothing, with a refusal as some do.
    """

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.refuses_certificates = False
        self.is_locked = False

    def __call__(self, request: bytes) -> bytes:
        reader = Reader(request)
        match reader.u8():
            case 11 if not self.is_locked:
                listed = [pack_string(blob) + pack_string(c) for blob, c in self.held.items()]
                return pack_string(b"\x0c" + pack_u32(len(listed)) + b"".join(listed))
            case 18:
                return pack_string(b"\x05" if self.held.pop(reader.string(), None) is None
                                   else b"\x06")  # fmt: skip
            case 25:
                return pack_string(self._add(reader))
        return pack_string(b"\x05")

    def _add(self, reader: Reader) -> bytes:
        if reader.string() == KEY_TYPE:
            blob = public_blob(reader.string())
        elif self.refuses_certificates:
            return b"\x05"
        else:
            blob = reader.string()
            reader.string()
        reader.string()
        self.held[blob] = reader.string()
        return b"\x06"
