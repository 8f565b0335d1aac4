"""A gateway with the right host key, and a client, that say whatever a test makes them say."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko
import paramiko.packet
from cryptography.hazmat.primitives.asymmetric import ed25519

from dcs_proxy.emulator.authority import Authorities, private_pem
from dcs_proxy.ssh.wire import pack_string
from tests.support.waiting import LIMIT_S

SERVICE_ACCEPT = b"\x06" + pack_string(b"ssh-userauth")
SUCCESS, FAILURE = b"\x34", b"\x33" + pack_string(b"publickey") + b"\0"
LOGIN = b"\x32" + b"".join(map(pack_string, [b"anybody", b"ssh-connection", b"none"]))
_CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"


class Raw:
    """A message as bytes, in the place of a paramiko.Message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def asbytes(self) -> bytes:
        return self._data


# RFC 4253 §11.2 to §11.4: padding, a refusal, a text.  And numbers that nobody uses.
GENERIC = (2, 3, 4)
UNUSED = (0, 8, 19, 22, 29, 35, 42, 54, 79, 128, 191, 192, 193, 255)


class _Listening(paramiko.packet.Packetizer):
    """Notes the messages that paramiko would not pass to a handler."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.generic: list[bytes] = []

    def read_message(self) -> tuple[int, paramiko.Message]:
        number, message = super().read_message()
        if number in GENERIC:
            self.generic.append(bytes([number]) + message.asbytes()[:100])
        # paramiko does not take a refusal within a key exchange, where it may come.
        return (2 if number == 3 else number), message


class Rogue(paramiko.Transport):
    """One end of a connection.

    `heard` are the messages of the connection protocol that came.  While `reads` is clear it reads
    nothing.  `said` counts what it has sent.
    """

    packetizer: _Listening

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes128-ctr")
    _handler_table: dict[int, Callable[[paramiko.Message], None]]

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, packetizer_class=_Listening)
        self.heard: list[bytes] = []
        self.said = 0
        self.reads = threading.Event()
        self.reads.set()
        for number in range(80, 128):
            self._handler_table[number] = lambda m, number=number: self.hear(number, m)

    def hear(self, number: int, message: paramiko.Message) -> None:
        self.reads.wait()
        self.heard.append(bytes([number]) + message.asbytes())

    @property
    def generic(self) -> list[bytes]:
        """The messages from 2 to 4 that came, each cut to a hundred bytes."""
        return self.packetizer.generic

    @property
    def next_number(self) -> int:
        """The sequence number of the next message that is sent (RFC 4253 §6.4)."""
        # paramiko's own, which its type stubs leave out.
        return self.packetizer._Packetizer__sequence_number_out  # type: ignore[attr-defined,no-any-return]

    @property
    def last_number(self) -> int:
        """The sequence number of the last message that came."""
        # paramiko's own, which its type stubs leave out.
        return self.packetizer._Packetizer__sequence_number_in - 1  # type: ignore[attr-defined,no-any-return]

    def say(self, *messages: bytes) -> None:
        """Send messages, each with its number first."""
        for message in messages:
            data: Any = Raw(message)
            self._send_message(data)
            self.said += 1

    def leave_exchange(self) -> None:
        """Begin a key exchange and never go on with it."""
        self.ignore_exchanges()
        self._send_kex_init()  # type: ignore[attr-defined]  # not in the stubs

    def ignore_exchanges(self) -> None:
        """Answer no key exchange that the other side begins."""
        for number in (20, *range(30, 42)):
            self._handler_table[number] = lambda _: None

    def _ensure_authed(self, number: int, message: object) -> None:
        pass

    def _parse_debug(self, message: paramiko.Message) -> None:
        pass  # paramiko would quote it byte by byte for a log


class RogueClient(Rogue):
    """A client on `sock`, which has exchanged keys and asked for nothing yet."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.is_let_in = threading.Event()
        self._handler_table[6] = lambda _: None
        self._handler_table[51] = lambda _: None
        self._handler_table[52] = lambda _: self.is_let_in.set()
        self._handler_table[53] = lambda _: self.reads.wait() and None
        self._handler_table[60] = lambda _: self.reads.wait() and None
        self.start_client(timeout=LIMIT_S)

    def log_in(self) -> None:
        """Log in without a key."""
        self.say(b"\x05" + pack_string(b"ssh-userauth"), LOGIN)
        assert self.is_let_in.wait(LIMIT_S)


class RogueServer(Rogue):
    """A server; in a thread, says `answers` to each login request, and then calls `play`."""

    def __init__(
        self,
        sock: socket.socket,
        key: paramiko.PKey,
        answers: Sequence[bytes],
        play: Callable[[RogueServer], None],
    ) -> None:
        super().__init__(sock)
        self.add_server_key(key)
        self.logins = 0
        self.has_answered = threading.Event()
        self._answers, self._play = answers, play
        self._handler_table[5] = lambda _: self.say(SERVICE_ACCEPT)
        self._handler_table[50] = self._answer
        self._handler_table[61] = lambda m: self.hear(61, m)

    def _answer(self, _: paramiko.Message) -> None:
        self.logins += 1
        threading.Thread(target=self._run_play, daemon=True).start()

    def _run_play(self) -> None:
        with contextlib.suppress(EOFError, OSError):  # the other side has had enough
            self.say(*self._answers)
            self.has_answered.set()
            self._play(self)


class _CertifiedKey(paramiko.Ed25519Key):
    """A host key that is shown with its certificate, `line`."""

    def __init__(self, path: Path, line: str) -> None:
        super().__init__(filename=os.fspath(path))
        self._certificate = paramiko.pkey.PublicBlob.from_string(line).key_blob

    def get_name(self) -> str:
        return _CERTIFICATE

    def asbytes(self) -> bytes:
        return bytes(self._certificate)


class RogueGateway:
    """Listens on loopback, at `port`; `authorities` is the directory of those that sign for it.

    `serve` gets each connection; unless a test replaces it, that makes a RogueServer of it, or what
    `make` is, which is appended to `served`.
    """

    def __init__(self, directory: Path) -> None:
        self.authorities = directory / "authorities"
        key, path = ed25519.Ed25519PrivateKey.generate(), directory / "host_key"
        line = Authorities(str(self.authorities)).sign_host(key, "localhost")
        path.write_bytes(private_pem(key))
        self._key = _CertifiedKey(path, line)
        self.answers: Sequence[bytes] = [SUCCESS]
        self.play: Callable[[RogueServer], None] = lambda _: None
        self.serve: Callable[[socket.socket], None] = self._serve
        self.make: type[RogueServer] = RogueServer
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
            server.reads.set()
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
        server = self.make(sock, self._key, self.answers, self.play)
        self.served.append(server)
        server.start_server(event=threading.Event(), server=paramiko.ServerInterface())


@contextlib.contextmanager
def rogue_gateway(directory: Path) -> Iterator[RogueGateway]:
    gateway = RogueGateway(directory)
    try:
        yield gateway
    finally:
        gateway.close()
