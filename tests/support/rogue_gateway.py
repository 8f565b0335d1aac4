"""A gateway with the right host key that says whatever a test makes it say."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric import ed25519

from dcs_proxy.emulator.authority import Authorities, private_pem
from dcs_proxy.ssh.wire import pack_string

SERVICE_ACCEPT = b"\x06" + pack_string(b"ssh-userauth")
SUCCESS, FAILURE = b"\x34", b"\x33" + pack_string(b"publickey") + b"\0"
CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"


class Raw:
    """A message as bytes, in the place of a paramiko.Message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def asbytes(self) -> bytes:
        return self._data


class CertifiedKey(paramiko.Ed25519Key):
    """A host key that is shown with its certificate, `line`."""

    def __init__(self, path: Path, line: str) -> None:
        super().__init__(filename=os.fspath(path))
        self._certificate = paramiko.pkey.PublicBlob.from_string(line).key_blob

    def get_name(self) -> str:
        return CERTIFICATE

    def asbytes(self) -> bytes:
        return self._certificate


class RogueServer(paramiko.Transport):
    """One connection; says `answers` to each login request, and then calls `play` in a thread.

    `heard` are the numbers of the messages that came.
    """

    _handler_table: dict[int, Callable[[paramiko.Message], None]]

    def __init__(
        self,
        sock: socket.socket,
        key: paramiko.PKey,
        answers: Sequence[bytes],
        play: Callable[[RogueServer], None],
    ) -> None:
        super().__init__(sock)
        self.add_server_key(key)
        self.heard: list[int] = []
        self._answers, self._play = answers, play
        self._handler_table[5] = lambda _: self.say(SERVICE_ACCEPT)
        self._handler_table[50] = self._answer
        for number in range(80, 128):
            self._handler_table[number] = lambda _, number=number: self.heard.append(number)

    def say(self, *messages: bytes) -> None:
        """Send messages, each with its number first."""
        for message in messages:
            self._send_message(Raw(message))

    def _ensure_authed(self, number: int, message: object) -> None:
        pass

    def _answer(self, _: paramiko.Message) -> None:
        self.heard.append(50)
        self.say(*self._answers)
        threading.Thread(target=self._run_play, daemon=True).start()

    def _run_play(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the other side has had enough
            self._play(self)


class RogueGateway:
    """Listens on loopback, at `port`; `authorities` is the directory of those that sign for it."""

    def __init__(self, directory: Path) -> None:
        self.authorities = directory / "authorities"
        key, path = ed25519.Ed25519PrivateKey.generate(), directory / "host_key"
        line = Authorities(str(self.authorities)).sign_host(key, "localhost")
        path.write_bytes(private_pem(key))
        self.key: paramiko.PKey = CertifiedKey(path, line)
        self.answers: Sequence[bytes] = [SUCCESS]
        self.play: Callable[[RogueServer], None] = lambda _: None
        self.serve: Callable[[socket.socket], None] = self._serve
        self.served: list[RogueServer] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def arguments(self) -> list[str]:
        """The emulator's arguments that name this gateway."""
        return ["--ca-directory", str(self.authorities), "--gateway", f"localhost:{self.port}",
                "--endpoint", "localhost"]  # fmt: skip

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for server in self.served:
            server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self.serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        server = RogueServer(sock, self.key, self.answers, self.play)
        self.served.append(server)
        server.start_server(event=threading.Event(), server=paramiko.ServerInterface())


@contextlib.contextmanager
def rogue_gateway(directory: Path) -> Iterator[RogueGateway]:
    gateway = RogueGateway(directory)
    try:
        yield gateway
    finally:
        gateway.close()
