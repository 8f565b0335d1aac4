from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dcs_proxy.errors import ClientGone, GatewayUnreachable
from dcs_proxy.ssh import silence

Serve = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "_FIRST_S", 0.2)


@contextlib.contextmanager
def gateway(serve: Serve) -> Iterator[Callable[[], socket.socket]]:
    """Serve each connection in a thread; yield what connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=[sock], daemon=True).start()

        def run(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                serve(sock)

        threading.Thread(target=accept, daemon=True).start()
        yield lambda: socket.create_connection(listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)


def speak_first(sock: socket.socket) -> None:
    sock.sendall(b"SSH-2.0-gateway\r\n")
    sock.recv(100)


def answer(sock: socket.socket) -> None:
    line = sock.recv(100)
    sock.sendall(b"SSH-2.0-gateway\r\n" if line.startswith(b"SSH-2.0-") else b"")
    sock.recv(100)


def say_nothing(sock: socket.socket) -> None:
    while sock.recv(100):
        pass


def hang_up(sock: socket.socket) -> None:
    sock.recv(100)
    sock.close()


def check(connect: Callable[[], socket.socket], sock: socket.socket, timeout_s: float = 20) -> None:
    silence.check_speaks(
        sock, connect, where="gw.example:22", timeout_s=timeout_s, client_gone=lambda: False
    )


def test_what_a_gateway_says_is_left_for_ssh() -> None:
    with gateway(speak_first) as connect, connect() as sock:
        check(lambda: pytest.fail("no second connection is needed"), sock)
        assert sock.recv(100) == b"SSH-2.0-gateway\r\n"


def test_a_gateway_that_waits_for_the_clients_line_still_gets_it() -> None:
    with gateway(answer) as connect, connect() as sock:
        check(connect, sock)
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        assert sock.recv(100) == b"SSH-2.0-gateway\r\n"


@pytest.mark.parametrize("serve", [say_nothing, hang_up])
def test_a_gateway_that_says_nothing_is_named(serve: Serve) -> None:
    with gateway(serve) as connect, connect() as sock:
        with pytest.raises(GatewayUnreachable) as caught:
            check(connect, sock, timeout_s=0.2)
        assert "gateway gw.example:22 accepts connections but sends nothing" in str(caught.value)


def test_a_gateway_that_closes_is_left_to_ssh() -> None:
    with gateway(lambda sock: sock.close()) as connect, connect() as sock:
        check(lambda: pytest.fail("no second connection is needed"), sock)


def test_a_client_that_has_gone_is_noticed() -> None:
    with gateway(say_nothing) as connect, connect() as sock, pytest.raises(ClientGone):
        silence.check_speaks(sock, connect, where="gw", timeout_s=20, client_gone=lambda: True)


def test_a_second_connection_that_breaks_says_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silence, "_FIRST_S", 0.01)
    first, far = socket.socketpair()
    with first, far:

        def connect_again() -> socket.socket:
            second, gone = socket.socketpair()
            gone.close()
            return second

        with pytest.raises(GatewayUnreachable, match="accepts connections but sends nothing"):
            check(connect_again, first)


def test_a_gateway_that_speaks_late_on_the_first_connection_can_be_used() -> None:
    first, far = socket.socketpair()
    second, other = socket.socketpair()

    def connect_again() -> socket.socket:
        far.sendall(b"SSH-2.0-late\r\n")
        return second

    with first, far, other:
        check(connect_again, first)
        assert first.recv(100) == b"SSH-2.0-late\r\n"


def test_a_gateway_has_three_seconds_to_speak_first_and_then_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that goes on only while we wait."""
    monkeypatch.undo()
    now = [1000.0]

    def wait(*arguments: Any) -> Any:
        now[0] += arguments[-1]
        return [], [], []

    connected: list[float] = []
    first, far = socket.socketpair()
    second, other = socket.socketpair()
    monkeypatch.setattr(silence.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(silence.select, "select", wait)
    with first, far, other:

        def connect_again() -> socket.socket:
            connected.append(now[0])
            return second

        with pytest.raises(GatewayUnreachable) as caught:
            check(connect_again, first, timeout_s=7)
        assert caught.value.hint.startswith("try again in a minute")
        assert connected == [pytest.approx(1003)] and now[0] == pytest.approx(1010)
        assert second.fileno() == -1, "the second connection is of no use any more"
        assert other.recv(100) == b"SSH-2.0-dcs_proxy\r\n"
        with pytest.raises(BlockingIOError):
            far.recv(100, socket.MSG_DONTWAIT)
