"""Relay bytes between a client's stdin and stdout and a connected socket, both ways.

For clients that cannot receive the socket itself.  With splice(2) the bytes never enter this
process.  A splice from a socket into a pipe holds the pipe's lock while it waits, on which ssh
deadlocks.  So nothing is read before poll has announced it, and every splice has SPLICE_F_NONBLOCK.

The client shares descriptors 0 and 1 with us, and so their flags, which must not change.  So each
read and write either was announced by poll or does not wait.

The relay lives as long as the connection.  To be small, it is a program of its own (``start.py
relay FD HOST HOME``) that imports very little and replaces the program that has connected.
"""

import errno
import posix as os  # every further module would cost memory for each open connection
import select
import sys
from _socket import MSG_DONTWAIT, SHUT_WR, socket
from fcntl import fcntl

# Pipes hold 64 KiB; a write of PIPE_BUF or less does not block after POLLOUT (pipe(7)).
_CHUNK = 64 * 1024
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH)
# poll reports these events even if they were not requested.
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
# File types (inode(7)).
_FIFO, _SOCKET = 0o010000, 0o140000
# fcntl(2), Linux: a larger pipe means fewer system calls.
_F_SETPIPE_SZ, _SPLICED = 1031, 512 * 1024
# Linux only; type checkers for other systems do not know them.
_splice = getattr(os, "splice", None)
_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


def relay(sock: socket, stdin: int = 0, stdout: int = 1) -> int:
    """Relay until the server has closed the connection and all its bytes are written.

    Return the exit code, which is 1 if the connection broke.  At the end of stdin the socket's
    write side is shut down, and reading continues.  Closes `sock`.
    """
    sock.setblocking(False)
    up = _Flow(stdin, sock.fileno(), splice=_kind(stdin) in (_FIFO, _SOCKET))
    # A splice into a socket waits unless the socket is non-blocking, and stdout's flags must not
    # change.
    down = _Flow(sock.fileno(), stdout, splice=_kind(stdout) == _FIFO)
    try:
        return _relay(sock, up, down, stdout)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return 1
    finally:
        up.close()
        down.close()
        sock.close()


def _relay(sock: socket, up: "_Flow", down: "_Flow", stdout: int) -> int:
    while not down.ended:
        interest = _interest(up, down)
        # poll reports errors and hang-ups of every registered descriptor.  stdout is always
        # registered, so that a client's exit is noticed while the server sends nothing.
        interest.setdefault(stdout, 0)
        poll = select.poll()
        for fd, events in interest.items():
            poll.register(fd, events)
        happened = dict(poll.poll())
        if happened.get(stdout, 0) & _ALWAYS:
            return 1
        if up.move(happened) and up.ended:
            sock.shutdown(SHUT_WR)
        down.move(happened)
    return 0


def _interest(up: "_Flow", down: "_Flow") -> dict[int, int]:
    interest: dict[int, int] = {}
    for flow in (up, down):
        if (wanted := flow.wanted()) is not None:
            fd, events = wanted
            interest[fd] = interest.get(fd, 0) | events
    return interest


class _Flow:
    """One direction: waits for its source or, while it holds bytes, for its sink.

    With splice the bytes are in a pipe.
    """

    def __init__(self, source: int, sink: int, *, splice: bool) -> None:
        self.source, self.sink = source, sink
        self.ended = False
        self.held = b""
        self.piped = 0
        self.pipe: tuple[int, int] | None = None
        if splice and _splice:
            self.pipe = os.pipe()
            try:
                fcntl(self.pipe[1], _F_SETPIPE_SZ, _SPLICED)
            except OSError:
                pass  # the user has too many large pipes; the default size works too

    def close(self) -> None:
        for fd in self.pipe or ():
            os.close(fd)

    def wanted(self) -> "tuple[int, int] | None":
        if self.held or self.piped:
            return self.sink, select.POLLOUT
        return None if self.ended else (self.source, select.POLLIN)

    def move(self, happened: dict[int, int]) -> bool:
        """Read or write as poll has announced; return False if it has announced nothing."""
        wanted = self.wanted()
        # The socket may have been registered for the other direction too.
        if wanted is None or not happened.get(wanted[0], 0) & (wanted[1] | _ALWAYS):
            return False
        if self.pipe is not None:
            self._splice(*self.pipe)
        elif self.held:
            self._write()
        else:
            self.held = os.read(self.source, _CHUNK)
            self.ended = not self.held
        return True

    def _splice(self, out: int, into: int) -> None:
        splice = _splice
        if splice is None:
            return
        try:
            if not self.piped:
                self.piped = splice(self.source, into, _SPLICED, flags=_FLAGS)
                self.ended = not self.piped
            if self.piped:
                # Usually there is room, so that a keystroke need not wait for another poll.
                self.piped -= splice(out, self.sink, self.piped, flags=_FLAGS)
        except BlockingIOError:
            pass  # until poll announces it

    def _write(self) -> None:
        try:
            self.held = self.held[_write_some(self.sink, self.held) :]
        except BlockingIOError:
            pass


def _write_some(fd: int, data: bytes) -> int:
    """Write as much as possible without waiting; return how much that was."""
    if _kind(fd) == _SOCKET:
        sock = socket(fileno=os.dup(fd))
        try:
            return int(sock.send(data, MSG_DONTWAIT))
        finally:
            sock.close()
    return os.write(fd, data[: select.PIPE_BUF])


def _kind(fd: int) -> int:
    return os.fstat(fd).st_mode & 0o170000


def _main(fd: str, host: str) -> int:
    try:
        return relay(socket(fileno=int(fd)))
    except OSError as error:
        print(f"dcs-proxy: {host}: the relay broke: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[2:4]))
