"""A pair of descriptors with the interface of a socket, as paramiko expects it.

Memory is bounded, and system calls are few.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import time

# In bytes.  Large reads and pipes mean fewer switches between the client's process and ours.
_READ = 256 * 1024
_PIPE = 1024 * 1024
# More than a login and the start of a session take.
_HURRIED_READS = 32
# sshd answers every 96 KiB of an upload with a window adjust of 36 bytes.  To wake for each of them
# costs some 5 % of the speed; this many bytes and this many seconds let several gather.
_BULK, _GATHER_S = 64 * 1024, 0.001
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Stream:
    """Reads from `source` and writes to `sink`; both may be the same socket.

    `first` was already read from `source`.  The descriptors' flags are not changed, because the
    program at the other end may share them.  Only one thread at a time may read, and one write.
    """

    def __init__(self, source: int, sink: int, first: bytes = b"") -> None:
        self._closed = False  # paramiko's Transport.stop_thread reads this
        self._source, self._sink = source, sink
        self._timeout_ms = 1000
        # Allocating this for each read would take most of the time of a keystroke.
        self._buffer = memoryview(bytearray(_READ))
        self._buffer[: len(first)] = first
        self._start, self._end = 0, len(first)
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        if sink != source:
            self._poll.register(sink, 0)  # reports only a broken sink
        for fd in {source, sink}:
            _enlarge_pipe(fd)

    def settimeout(self, seconds: float) -> None:
        """Set how long `recv` and `send` may wait."""
        self._timeout_ms = int(seconds * 1000)

    @property
    def ready(self) -> int:
        """The number of bytes that can be taken without waiting."""
        return self._end - self._start

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes; b"" if the other end has gone.  Raises TimeoutError."""
        if self._start == self._end:
            self._start, self._end = 0, self._read()
        return bytes(self.take(min(size, self.ready)))

    def take(self, size: int) -> memoryview:
        """Return the next `size` bytes, at most `ready`; they are valid until the next `recv`."""
        start, self._start = self._start, self._start + size
        return self._buffer[start : self._start]

    def send(self, data: bytes) -> int:
        """Write some of `data`, return how much.  Raises TimeoutError, or OSError when broken."""
        size = self.write(data)
        if size or not data:
            return size
        poll = select.poll()
        poll.register(self._sink, select.POLLOUT)
        poll.poll(self._timeout_ms)
        raise TimeoutError

    def write(self, *parts: bytes) -> int:
        """Write some of `parts`, return how much.  Raises OSError when broken."""
        if self._closed:
            raise BrokenPipeError
        try:
            return os.writev(self._sink, parts)
        except BlockingIOError:  # a descriptor that the client has made non-blocking
            return 0

    def close(self) -> None:
        """Read and write nothing more; the descriptors stay open until the process ends."""
        self._closed = True

    def _read(self) -> int:
        """Read into the buffer; return how much, 0 if the other end has gone.

        Raises TimeoutError.
        """
        if self._closed:
            return 0
        happened = self._poll.poll(self._timeout_ms)
        for fd, _ in happened:
            if fd == self._source:
                return self._fill()
        # The client has exited, but another process has its end of our stdin open.
        if happened:
            return 0
        raise TimeoutError

    def _fill(self) -> int:
        try:
            return os.readv(self._source, [self._buffer])
        except BlockingIOError:
            raise TimeoutError from None
        except ConnectionResetError:
            return 0


class SocketStream(Stream):
    """A connected TCP socket of our own, which stays open as long as this.

    The peer's first packets are acknowledged at once: sshd sets TCP_NODELAY only when a session
    starts, and until then delays each packet until the previous one is acknowledged, which our
    kernel would do up to 40 ms later.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno(), sock.fileno())
        self._socket = sock
        self._written = 0  # in bytes, since the last read
        self._hurried = _HURRIED_READS if _QUICKACK is not None else 0

    def settimeout(self, seconds: float) -> None:
        """Set how long `recv` may wait."""
        # The kernel's own timeout saves a poll for each read.  struct timeval is two longs.
        timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def write(self, *parts: bytes) -> int:
        """Write some of `parts`, return how much.  Raises OSError when broken."""
        size = super().write(*parts)
        self._written += size
        return size

    def _read(self) -> int:
        written, self._written = self._written, 0
        if written >= _BULK:
            time.sleep(_GATHER_S)
        return 0 if self._closed else self._fill()

    def _fill(self) -> int:
        size = super()._fill()
        if self._hurried and _QUICKACK is not None:
            self._hurried -= 1
            # The kernel soon turns it off again.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return size


def _enlarge_pipe(fd: int) -> None:
    operation = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux, Python 3.10
    if operation is not None:
        with contextlib.suppress(OSError):  # not a pipe, or the user has too many large ones
            fcntl.fcntl(fd, operation, _PIPE)
