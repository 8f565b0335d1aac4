from __future__ import annotations

import os
import pty
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dcs_proxy.bridge.choose import Way, check_descriptors, choose_way
from dcs_proxy.emulator.loopback import listen
from dcs_proxy.errors import UsageError

OPENSSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
NODE = b"SSH-2.0-ssh2js1.17.0\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int]]:
    """Our stdin, its far end, and our stdout."""
    with ExitStack() as stack:
        ends = (*os.pipe(), *os.pipe())
        for fd in ends:
            stack.callback(os.close, fd)
        yield ends[0], ends[1], ends[3]


@pytest.mark.parametrize("login", [None, "me"])
def test_one_socket_for_both_ways_is_for_a_handover(
    pair: tuple[socket.socket, socket.socket], login: str | None
) -> None:
    near, _ = pair
    assert choose_way(login, near.fileno(), near.fileno()) == (Way.HANDOVER, b"")


def test_a_client_that_has_spoken_on_the_one_socket_expects_no_handover(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    far.sendall(NODE)
    assert choose_way(None, near.fileno(), near.fileno()) == (Way.BRIDGE, b"")
    assert near.recv(99) == NODE, "nothing was taken"


def test_two_ends_without_a_login_are_bridged(pipes: tuple[int, int, int]) -> None:
    stdin, far, stdout = pipes
    os.write(far, OPENSSH)
    assert choose_way(None, stdin, stdout) == (Way.BRIDGE, b"")


@pytest.mark.parametrize(("said", "way"), [(OPENSSH, Way.RELAY), (NODE, Way.BRIDGE)])
def test_with_a_login_only_openssh_is_relayed(
    pipes: tuple[int, int, int], said: bytes, way: Way
) -> None:
    stdin, far, stdout = pipes
    os.write(far, said + b"more")
    assert choose_way("me", stdin, stdout) == (way, said + b"more")


def test_a_client_that_has_gone_said_nothing(pipes: tuple[int, int, int]) -> None:
    stdin, far, stdout = pipes
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, far)
    os.close(null)
    assert choose_way("me", stdin, stdout) == (Way.BRIDGE, b"")


def test_a_greeting_without_end_is_cut(pipes: tuple[int, int, int]) -> None:
    stdin, far, stdout = pipes
    os.write(far, b"x" * 8192)
    way, first = choose_way("me", stdin, stdout)
    assert way is Way.BRIDGE and 0 < len(first) <= 4096


def test_pipes_and_unix_sockets_are_served(
    pipes: tuple[int, int, int], pair: tuple[socket.socket, socket.socket]
) -> None:
    check_descriptors("", pipes[0], pipes[2])
    check_descriptors("", pair[0].fileno(), pair[0].fileno())


def test_a_terminal_is_not_served(pipes: tuple[int, int, int]) -> None:
    master, slave = pty.openpty()
    try:
        for stdin, stdout in ((slave, pipes[2]), (pipes[0], slave)):
            with pytest.raises(UsageError) as caught:
                check_descriptors("dm-foo", stdin, stdout)
            assert (caught.value.message, caught.value.hint) == (
                "this command is for SSH clients, which run it as their ProxyCommand",
                "to log in, type: ssh dm-foo",
            )
    finally:
        os.close(master)
        os.close(slave)


def test_a_closed_descriptor_is_not_served(pipes: tuple[int, int, int]) -> None:
    closed = os.dup(pipes[0])
    os.close(closed)
    for stdin, stdout in ((closed, pipes[2]), (pipes[0], closed)):
        with pytest.raises(UsageError, match="for SSH clients"):
            check_descriptors("", stdin, stdout)


def test_the_network_is_not_served(pipes: tuple[int, int, int]) -> None:
    for listener in listen(0):
        with listener, socket.create_connection(listener.getsockname()[:2]):
            served, _ = listener.accept()
            with served:
                for stdin, stdout in ((served.fileno(), pipes[2]), (pipes[0], served.fileno())):
                    with pytest.raises(UsageError) as caught:
                        check_descriptors("", stdin, stdout)
                    assert caught.value.message == (
                        "stdin or stdout is a network connection, so a program on another "
                        "computer could log in"
                    )
                    hint = "let an SSH client run dcs-proxy as its ProxyCommand"
                    assert caught.value.hint == hint


def test_a_greeting_that_comes_in_parts_is_read_to_its_end(pipes: tuple[int, int, int]) -> None:
    stdin, far, stdout = pipes
    reading = threading.Event()
    poll = select.poll

    class Poll:
        """Tells when our side waits for more."""

        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, limit_ms: float) -> list[tuple[int, int]]:
            reading.set()
            return self._poll.poll(limit_ms)

    def write() -> None:
        for part in (b"SSH-2.0-Open", b"SSH_9.2", b"\r\n"):
            assert reading.wait(30)
            reading.clear()
            os.write(far, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "poll", Poll)
        writer = threading.Thread(target=write)
        writer.start()
        assert choose_way("me", stdin, stdout) == (Way.RELAY, b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.join()


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH"])
def test_a_client_that_says_no_more_is_waited_for_ten_seconds(
    pipes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    stdin, far, stdout = pipes
    os.write(far, said)
    now = 1000.0
    limits = []

    class Poll:
        """Has nothing to read after what was said, and lets the time pass."""

        def register(self, fd: int, events: int) -> None:
            assert (fd, events) == (stdin, select.POLLIN)

        def poll(self, limit_ms: float) -> list[int]:
            nonlocal now
            limits.append(limit_ms)
            if said and len(limits) == 1:
                now += 4
                return [stdin]
            now += limit_ms / 1000
            return []

    monkeypatch.setattr(select, "poll", Poll)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    way = Way.RELAY if said else Way.BRIDGE
    assert choose_way("me", stdin, stdout) == (way, said)
    assert limits == ([10_000, 6_000] if said else [10_000])
