from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from dcs_proxy.bridge.stream import SocketStream, Stream


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes: the ends of the first, and of the second."""
    ends = (*os.pipe(), *os.pipe())
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # closed by the test


def test_bytes_go_in_and_out(pipes: tuple[int, int, int, int]) -> None:
    source, far, near, sink = pipes
    stream = Stream(source, sink, b"first")
    os.write(far, b"second")
    assert [stream.recv(3), stream.recv(9), stream.recv(2), stream.recv(99)] == [
        b"fir", b"st", b"se", b"cond",
    ]  # fmt: skip
    assert stream.send(b"out") == 3
    assert os.read(near, 9) == b"out"


def test_nothing_to_read_is_a_timeout(pipes: tuple[int, int, int, int]) -> None:
    stream = Stream(pipes[0], pipes[3])
    stream.settimeout(0.01)
    with pytest.raises(TimeoutError):
        stream.recv(1)


class Poll:
    """Finds nothing, and records what is asked of it."""

    def __init__(self) -> None:
        self.registered: list[tuple[int, int]] = []
        self.limits: list[float] = []

    def register(self, fd: int, events: int) -> None:
        self.registered.append((fd, events))

    def poll(self, limit_ms: float) -> list[tuple[int, int]]:
        self.limits.append(limit_ms)
        return []


def test_the_time_limit_is_for_reading_and_for_writing(
    pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = Poll()
    monkeypatch.setattr(select, "poll", lambda: poll)
    stream = Stream(pipes[0], pipes[3])
    stream.settimeout(1.5)
    with pytest.raises(TimeoutError):
        stream.recv(1)
    monkeypatch.setattr(stream, "write", lambda *_: 0)
    with pytest.raises(TimeoutError):
        stream.send(b"more")
    assert stream.send(b"") == 0, "there is nothing to wait for"
    assert poll.limits == [1500, 1500]
    reading, writing = (pipes[0], select.POLLIN), (pipes[3], select.POLLOUT)
    assert poll.registered == [reading, (pipes[3], 0), writing]


def test_the_end_of_the_source_is_the_end(pipes: tuple[int, int, int, int]) -> None:
    stream = Stream(pipes[0], pipes[3])
    os.write(pipes[1], b"last")
    os.close(pipes[1])
    assert stream.recv(99) == b"last"
    assert stream.recv(99) == b""


def test_a_reader_that_has_gone_is_the_end_once_all_is_read(
    pipes: tuple[int, int, int, int],
) -> None:
    # Another process may hold the write end of our stdin open.
    stream = Stream(pipes[0], pipes[3])
    os.write(pipes[1], b"last")
    os.close(pipes[2])
    assert stream.recv(99) == b"last"
    assert stream.recv(99) == b""


def test_a_socket_for_both_ways_reads_until_it_is_closed() -> None:
    near, far = socket.socketpair()
    with near:
        stream = Stream(near.fileno(), near.fileno())
        with far:
            far.sendall(b"in")
            assert stream.recv(99) == b"in"
            stream.send(b"out")
            assert far.recv(99) == b"out"
        assert stream.recv(99) == b""


def test_a_sink_that_does_not_block_is_waited_for(pipes: tuple[int, int, int, int]) -> None:
    # The client may have set the flag, which it shares with us.
    _, _, near, sink = pipes
    os.set_blocking(sink, False)
    stream = Stream(pipes[0], sink)
    stream.settimeout(0.01)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += stream.send(bytes(65536))
    assert not os.get_blocking(sink)
    while sent:
        sent -= len(os.read(near, sent))
    assert stream.send(b"more") == 4


def test_a_sink_that_does_not_block_is_waited_for_no_longer_than_it_takes(
    pipes: tuple[int, int, int, int],
) -> None:
    _, _, near, sink = pipes
    os.set_blocking(sink, False)
    stream = Stream(pipes[0], sink)
    stream.settimeout(600)
    reader = threading.Timer(0.05, os.read, [near, 1 << 20])
    with pytest.raises(TimeoutError):
        while True:
            stream.send(bytes(65536))
            if not reader.is_alive() and not select.select([], [sink], [], 0)[1]:
                reader.start()
    reader.join()


def test_parts_are_written_as_far_as_there_is_room(pipes: tuple[int, int, int, int]) -> None:
    _, _, near, sink = pipes
    os.set_blocking(sink, False)
    stream = Stream(pipes[0], sink)
    assert stream.write(b"length", b"packet") == 12
    assert os.read(near, 99) == b"lengthpacket"
    room = 0
    while size := stream.write(bytes(5), bytes(65536)):
        room += size
    assert len(os.read(near, room)) == room
    assert stream.write(b"more") == 4


def test_a_closed_stream_reads_and_writes_nothing(pipes: tuple[int, int, int, int]) -> None:
    stream = Stream(pipes[0], pipes[3])
    os.write(pipes[1], b"too late")
    stream.close()
    assert stream.recv(99) == b""
    with pytest.raises(BrokenPipeError):
        stream.send(b"x")
    with pytest.raises(BrokenPipeError):
        stream.write(b"x")


@pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="pipes of one size")
def test_pipes_are_made_larger(pipes: tuple[int, int, int, int]) -> None:
    before = fcntl.fcntl(pipes[0], fcntl.F_GETPIPE_SZ)
    Stream(pipes[0], pipes[3])
    assert fcntl.fcntl(pipes[0], fcntl.F_GETPIPE_SZ) > before
    assert fcntl.fcntl(pipes[3], fcntl.F_GETPIPE_SZ) > before


def test_what_is_ready_is_taken_without_waiting(pipes: tuple[int, int, int, int]) -> None:
    stream = Stream(pipes[0], pipes[3])
    os.write(pipes[1], b"abcdef")
    assert stream.ready == 0
    assert stream.recv(1) == b"a"
    assert stream.ready == 5
    assert bytes(stream.take(3)) == b"bcd"
    assert stream.recv(9) == b"ef"
    assert stream.ready == 0


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


def test_a_tcp_socket_is_read_to_its_end(connection: tuple[socket.socket, socket.socket]) -> None:
    near, far = connection
    stream = SocketStream(near)
    stream.settimeout(0.01)
    with pytest.raises(TimeoutError):
        stream.recv(1)
    far.sendall(b"in")
    stream.settimeout(60)
    assert stream.recv(99) == b"in"
    assert stream.send(b"out") == 3
    assert far.recv(99) == b"out"
    far.close()
    assert stream.recv(99) == b""
    stream.close()
    assert stream.recv(99) == b""


def test_a_closed_tcp_socket_is_not_read(connection: tuple[socket.socket, socket.socket]) -> None:
    near, far = connection
    stream = SocketStream(near)
    far.sendall(b"too late")
    stream.close()
    assert stream.recv(99) == b""
    with pytest.raises(BrokenPipeError):
        stream.send(b"x")


@pytest.mark.parametrize(
    ("seconds", "timeval"), [(1.5, (1, 500_000)), (2, (2, 0)), (0.5, (0, 500_000))]
)
def test_the_time_limit_of_a_tcp_socket_is_the_kernels(
    connection: tuple[socket.socket, socket.socket], seconds: float, timeval: tuple[int, int]
) -> None:
    near, _ = connection
    SocketStream(near).settimeout(seconds)
    option = near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    assert struct.unpack("ll", option) == timeval


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="no such option")
def test_what_comes_first_over_tcp_is_acknowledged_at_once(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    near, far = connection
    stream = SocketStream(near)
    modes = []
    for _ in range(40):
        # Answers make the kernel delay its acknowledgements.
        far.sendall(b"question")
        assert stream.recv(99) == b"question"
        modes.append(near.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
        stream.send(b"answer")
        assert far.recv(99) == b"answer"
    assert set(modes[:32]) == {1}
    assert modes[-1] == 0, "it is left to the kernel later"


def test_a_reset_is_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    with sock:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert Stream(sock.fileno(), sock.fileno()).recv(1) == b""


@pytest.mark.parametrize(
    ("sizes", "pauses"), [([], 0), ([65535], 0), ([65536], 1), ([40_000, 40_000], 1), ([1], 0)]
)
def test_answers_to_an_upload_gather_before_they_are_read(
    connection: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
    pauses: int,
) -> None:
    """Once for each upload of 64 KiB or more; answers to less, as to a key pressed, are not."""
    near, far = connection
    paused: list[float] = []
    monkeypatch.setattr("dcs_proxy.bridge.stream.time.sleep", paused.append)
    stream = SocketStream(near)
    far.sendall(b"answer")
    for size in sizes:
        assert stream.send(bytes(size)) == size
    assert stream.recv(99) == b"answer"
    assert len(paused) == pauses
    assert all(pause <= 0.001 for pause in paused)
    far.sendall(b"again")
    assert stream.recv(99) == b"again"
    assert len(paused) == pauses
