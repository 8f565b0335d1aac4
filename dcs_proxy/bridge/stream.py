"""A pair of descriptors as the socket that paramiko expects: bounded, with few system calls."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

# Large reads and large pipes: fewer switches between the client's process and ours.
_READ = 256 * 1024
_PIPE = 1024 * 1024
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Stream:
    """What comes from `source`, and goes to `sink`; both may be the same socket.

    `first` has been read from `source` before.  The descriptors' flags stay as they are, for they
    may be shared with the program at the other end.  One thread at a time may read, one write.
    """

    def __init__(self, source: int, sink: int, first: bytes = b"") -> None:
        self._closed = False  # paramiko's Transport.stop_thread reads this
        self._source, self._sink = source, sink
        self._timeout_ms = 1000
        self._data, self._offset = first, 0
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        if sink != source:
            self._poll.register(sink, 0)
        for fd in {source, sink}:
            _enlarge_pipe(fd)

    def settimeout(self, seconds: float) -> None:
        """Set how long `recv` and `send` may wait."""
        self._timeout_ms = int(seconds * 1000)

    def recv(self, size: int) -> bytes:
        """Return 1 to `size` bytes; b"" if the other end has gone.  Raises TimeoutError."""
        if self._offset == len(self._data):
            self._data, self._offset = self._read(), 0
        start, self._offset = self._offset, min(self._offset + size, len(self._data))
        return self._data[start : self._offset]

    def send(self, data: bytes) -> int:
        """Write some of `data`, return how much.  Raises TimeoutError, or OSError when broken."""
        if self._closed:
            raise BrokenPipeError
        try:
            return os.write(self._sink, data)
        except BlockingIOError:  # a descriptor that the client has made non-blocking
            poll = select.poll()
            poll.register(self._sink, select.POLLOUT)
            poll.poll(self._timeout_ms)
            raise TimeoutError from None

    def close(self) -> None:
        """Read and write nothing more; the descriptors stay open until the process ends."""
        self._closed = True

    def _read(self) -> bytes:
        if self._closed:
            return b""
        happened = dict(self._poll.poll(self._timeout_ms))
        if self._source in happened:
            try:
                return os.read(self._source, _READ)
            except BlockingIOError:
                raise TimeoutError from None
            except ConnectionResetError:
                return b""
        # A client that has died while another process holds its end of our stdin open.
        if happened.get(self._sink, 0) & _BROKEN:
            return b""
        raise TimeoutError


def _enlarge_pipe(fd: int) -> None:
    operation = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux, Python 3.10
    if operation is not None:
        with contextlib.suppress(OSError):  # not a pipe, or the user has too many large ones
            fcntl.fcntl(fd, operation, _PIPE)
