from __future__ import annotations

import contextlib
import errno
import os
import posix
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

import dcs_proxy.fastpath.relay
from dcs_proxy.fastpath.relay import _main, _write_some, relay

DATA = random.Random(1).randbytes(5_000_000)


@dataclass
class Ends:
    """Both sides of a running relay: the client's two descriptors, and the server's socket."""

    to_relay: int
    from_relay: int
    server: socket.socket
    status: list[int] = field(default_factory=list)
    thread: threading.Thread = field(default_factory=threading.Thread)
    closed: set[int] = field(default_factory=set)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := os.read(self.from_relay, 1 << 20)):
            data += part
        return data

    def close(self, *fds: int) -> None:
        """Close what is still open of the client's descriptors `fds`."""
        for fd in fds:
            if fd not in self.closed:
                self.closed.add(fd)
                os.close(fd)

    def finish(self) -> int:
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.status[0]


def pipes() -> tuple[int, int, int, int]:
    stdin, to_relay = os.pipe()
    from_relay, stdout = os.pipe()
    return stdin, stdout, to_relay, from_relay


def sockets() -> tuple[int, int, int, int]:
    """What asyncssh gives: a socket for each way."""
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    return a.detach(), c.detach(), b.detach(), d.detach()


def one_socket() -> tuple[int, int, int, int]:
    """The same socket on both descriptors, with --relay."""
    a, b = socket.socketpair()
    return a.fileno(), os.dup(a.detach()), b.fileno(), os.dup(b.detach())


@pytest.fixture(params=["splice", "copy"])
def can_splice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "copy":
        monkeypatch.setattr(dcs_proxy.fastpath.relay, "_splice", None)
    return str(request.param)


@pytest.fixture(params=[pipes, sockets, one_socket])
def ends(request: pytest.FixtureRequest, can_splice: str) -> Iterator[Ends]:
    make: Callable[[], tuple[int, int, int, int]] = request.param
    stdin, stdout, to_relay, from_relay = make()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    made = Ends(to_relay, from_relay, server)

    def run() -> None:
        made.status.append(relay(sock, stdin, stdout))
        os.close(stdin)
        os.close(stdout)

    made.thread = threading.Thread(target=run, daemon=True)
    made.thread.start()
    yield made
    server.close()
    made.close(to_relay, from_relay)
    made.thread.join(30)


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_all(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(1 << 20)):
        data += part
    return data


def test_bytes_go_both_ways_at_once_and_whole(ends: Ends) -> None:
    up = in_background(lambda: write_all(ends.to_relay, DATA))
    down = in_background(lambda: ends.server.sendall(DATA[::-1]))
    received: list[bytes] = []
    reader = in_background(lambda: received.append(ends.read(len(DATA))))
    assert read_all(ends.server, len(DATA)) == DATA
    for thread in (up, down, reader):
        thread.join(30)
    assert received == [DATA[::-1]]


def test_the_end_of_input_is_passed_on_and_output_goes_on(ends: Ends) -> None:
    os.write(ends.to_relay, b"question")
    if os.fstat(ends.to_relay).st_ino == os.fstat(ends.from_relay).st_ino:
        with socket.socket(fileno=os.dup(ends.to_relay)) as sock:
            sock.shutdown(socket.SHUT_WR)
    else:
        ends.close(ends.to_relay)
    assert read_all(ends.server, 100) == b"question"
    ends.server.sendall(b"answer")
    ends.server.close()
    assert ends.read(100) == b"answer"
    assert ends.finish() == 0


def test_the_end_of_output_ends_it_though_input_is_open(ends: Ends) -> None:
    ends.server.sendall(b"bye")
    ends.server.close()
    assert ends.read(100) == b"bye"
    assert ends.finish() == 0


def test_a_client_that_dies_ends_it_while_the_server_says_nothing(ends: Ends) -> None:
    ends.close(ends.to_relay, ends.from_relay)
    assert ends.finish() == 1
    assert ends.server.recv(1) == b""


def test_a_reset_by_the_server_ends_it(ends: Ends) -> None:
    ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.server.close()
    assert ends.finish() == 1


def test_it_wakes_only_when_there_is_something_to_do(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = 0
    make = select.poll

    def count() -> select.poll:
        nonlocal polls
        polls += 1
        return make()

    monkeypatch.setattr(select, "poll", count)
    # Half closed is where a careless relay spins.
    if os.fstat(ends.to_relay).st_ino != os.fstat(ends.from_relay).st_ino:
        ends.close(ends.to_relay)
        assert ends.server.recv(1) == b""
    for _ in range(10):
        ends.server.sendall(b"y")
        assert ends.read(1) == b"y"
    assert polls < 60


def test_a_client_that_does_not_read_can_still_send(ends: Ends) -> None:
    ends.server.settimeout(60)
    # So that what follows never fits exactly.
    ends.server.sendall(b"first")
    assert select.select([ends.from_relay], [], [], 30)[0]
    flood = in_background(lambda: ends.server.sendall(DATA * 3))
    sent = in_background(lambda: write_all(ends.to_relay, DATA[:1_000_000]))
    assert read_all(ends.server, 1_000_000) == DATA[:1_000_000]
    assert flood.is_alive(), "the relay and the sockets between hold less than was sent"
    assert ends.read(5 + 3 * len(DATA)) == b"first" + DATA * 3
    flood.join(30)
    sent.join(30)


def await_stall(ends: Ends, sent: list[int]) -> None:
    """Return once the relay takes no more of what the client sends, though it goes on.

    Then the client's side is full, and stays so while bytes pass the other way.
    """
    idle = 0
    while idle < 5:
        before = len(sent)
        ends.server.sendall(b"x")
        assert select.select([ends.from_relay], [], [], 30)[0], "the relay does not go on"
        assert os.read(ends.from_relay, 1) == b"x"
        is_full = not select.select([], [ends.to_relay], [], 0)[1]
        idle = idle + 1 if is_full and len(sent) == before else 0


def test_a_server_that_does_not_read_can_still_send(ends: Ends) -> None:
    ends.server.settimeout(60)
    sent: list[int] = []

    def send() -> None:
        for at in range(0, len(DATA) * 3, 10_000):
            write_all(ends.to_relay, DATA[at % len(DATA) :][:10_000])
            sent.append(at)

    flood = in_background(send)
    await_stall(ends, sent)
    ends.server.sendall(DATA[:1_000_000])
    received: list[bytes] = []
    reader = in_background(lambda: received.append(ends.read(1_000_000)))
    reader.join(30)
    assert received == [DATA[:1_000_000]]
    assert flood.is_alive(), "the relay and the sockets between hold less than was sent"
    assert len(read_all(ends.server, 3 * len(DATA))) == 3 * len(DATA)
    flood.join(30)


def test_bytes_between_pipes_and_the_network_do_not_enter_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("read", "write"):
        monkeypatch.setattr(posix, name, lambda *_: pytest.fail("bytes were copied"))

    def splice(source: int, sink: int, size: int, *, flags: int) -> int:
        assert flags & os.SPLICE_F_NONBLOCK, "ssh deadlocks on a pipe that waits"
        return os.splice(source, sink, size, flags=flags)

    monkeypatch.setattr(dcs_proxy.fastpath.relay, "_splice", splice)
    stdin, stdout, to_relay, from_relay = pipes()
    near, far = socket.socketpair()
    with far:
        os.write(to_relay, b"up")
        far.sendall(b"down")
        far.shutdown(socket.SHUT_WR)
        assert relay(near, stdin, stdout) == 0
        assert (far.recv(9), os.read(from_relay, 9)) == (b"up", b"down")
    for fd in (stdin, stdout, to_relay, from_relay):
        os.close(fd)


class Broken:
    """Stands for select.poll on a connection that breaks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def register(self, fd: int, events: int) -> None:
        pass

    def poll(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN,
                                    errno.ETIMEDOUT, errno.EHOSTUNREACH])  # fmt: skip
def test_a_connection_that_breaks_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(select, "poll", lambda: Broken(number))
    a, b = socket.socketpair()
    stdin, stdout, *others = pipes()
    with a, b:
        assert relay(a, stdin, stdout) == 1
        assert a.fileno() == -1
    for fd in (stdin, stdout, *others):
        os.close(fd)


def test_a_user_who_may_have_no_more_large_pipes_has_a_relay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int, command: int, size: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(dcs_proxy.fastpath.relay, "fcntl", refuse)
    a, b = socket.socketpair()
    stdin, stdout, to_relay, from_relay = pipes()
    b.sendall(b"bye")
    b.close()
    with a:
        assert relay(a, stdin, stdout) == 0
    assert os.read(from_relay, 100) == b"bye"
    for fd in (stdin, stdout, to_relay, from_relay):
        os.close(fd)


def test_any_other_error_is_named_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(select, "poll", lambda: Broken(errno.ENOMEM))
    a, b = socket.socketpair()
    with b:
        assert _main(str(a.detach()), "dm-foo") == 1
    assert capsys.readouterr().err == (
        f"dcs-proxy: dm-foo: the relay broke: {os.strerror(errno.ENOMEM)}\n"
    )


def test_what_does_not_fit_is_held_until_poll_announces_room_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise BlockingIOError

    flow = dcs_proxy.fastpath.relay._Flow(3, 4, splice=False)
    flow.held = b"x"
    monkeypatch.setattr(dcs_proxy.fastpath.relay, "_write_some", refuse)
    assert flow.move({4: select.POLLOUT})
    assert flow.held == b"x" and flow.wanted() == (4, select.POLLOUT)


def test_a_client_whose_socket_is_full_is_not_waited_for() -> None:
    """The other direction would stand still, and both sides could wait for each other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with contextlib.suppress(BlockingIOError):
            while ours.send(bytes(65536), socket.MSG_DONTWAIT):
                pass
        assert ours.getblocking()
        with pytest.raises(BlockingIOError):
            _write_some(ours.fileno(), b"x")
