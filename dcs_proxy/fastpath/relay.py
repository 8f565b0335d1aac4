"""Bytes both ways between a client's stdin and stdout and a connected socket.

For clients that do not take the socket itself.  Where the platform has splice(2) the bytes never
enter this process.  splice from a socket into a pipe holds the pipe's lock while it waits, and ssh
deadlocks on it, so nothing is read before poll, and every move has SPLICE_F_NONBLOCK.

The descriptors 0 and 1 are shared with the client, and so are their flags: they stay as they are,
and every read and write is one that poll has announced or that does not wait.

It lives as long as the connection, so it is a program of its own (``start.py relay FD HOST HOME``)
that takes the place of whatever has connected, and imports next to nothing.
"""

import errno
import posix as os  # each module more is memory for every open connection
import select
import sys
from _socket import MSG_DONTWAIT, SHUT_WR, socket
from fcntl import fcntl

# Pipes hold 64 KiB; a write of PIPE_BUF or less does not block after POLLOUT (pipe(7)).
_CHUNK = 64 * 1024
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH)
# What poll reports unasked.
_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
# inode(7): kinds of file.
_FIFO, _SOCKET = 0o010000, 0o140000
# Fewer, larger steps: fcntl(2), Linux.
_F_SETPIPE_SZ, _SPLICED = 1031, 512 * 1024
_CAN_SPLICE = hasattr(os, "splice")


def relay(sock: socket, stdin: int = 0, stdout: int = 1) -> int:
    """Relay until the server has closed and all that it sent is written; return an exit code.

    The end of stdin is passed on by shutting the socket's write side down, and reading goes on.
    1 means that the connection broke.  Takes `sock` over and closes it.
    """
    sock.setblocking(False)
    up = _Flow(stdin, sock.fileno(), splice=_kind(stdin) in (_FIFO, _SOCKET))
    # A splice into a socket waits unless that socket is non-blocking, and stdout is not ours to
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
        # Errors and hang-ups are reported for every descriptor that is registered.  stdout always
        # is, so that a client that has died is noticed while the server says nothing.
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
    """One direction: waits for its source, or, while it holds bytes, for its sink.

    With splice the bytes are held in a pipe.
    """

    def __init__(self, source: int, sink: int, *, splice: bool) -> None:
        self.source, self.sink = source, sink
        self.ended = False
        self.held = b""
        self.piped = 0
        self.pipe: tuple[int, int] | None = None
        if splice and _CAN_SPLICE:
            self.pipe = os.pipe()
            try:
                fcntl(self.pipe[1], _F_SETPIPE_SZ, _SPLICED)
            except OSError:
                pass  # the user has too many large pipes: it goes on in smaller steps

    def close(self) -> None:
        for fd in self.pipe or ():
            os.close(fd)

    def wanted(self) -> "tuple[int, int] | None":
        if self.held or self.piped:
            return self.sink, select.POLLOUT
        return None if self.ended else (self.source, select.POLLIN)

    def move(self, happened: dict[int, int]) -> bool:
        """Do what poll has announced; return whether anything was."""
        wanted = self.wanted()
        # The socket may have been asked about for the other direction too.
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
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        try:
            if not self.piped:
                self.piped = os.splice(self.source, into, _SPLICED, flags=flags)
                self.ended = not self.piped
            if self.piped:
                # Most often there is room, and a keystroke need not wait for poll once more.
                self.piped -= os.splice(out, self.sink, self.piped, flags=flags)
        except BlockingIOError:
            pass  # poll will tell

    def _write(self) -> None:
        try:
            self.held = self.held[_write_some(self.sink, self.held) :]
        except BlockingIOError:
            pass


def _write_some(fd: int, data: bytes) -> int:
    """Write what can be written without waiting; return how much."""
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
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"dcs-proxy: {host}: the relay broke: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[2:4]))
