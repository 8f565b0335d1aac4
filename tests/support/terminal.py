"""A program on a pseudo terminal: what it shows, and what is typed."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import Any

from tests.support.user import User
from tests.support.waiting import LIMIT_S


class Terminal:
    """Runs a command as `user` on a terminal of its own, which controls it.

    `more` is passed to :meth:`User.start`.  Use it as a context manager, or call :meth:`finish`.
    """

    def __init__(
        self, user: User, *command: str, lines: int = 24, columns: int = 120, **more: Any
    ) -> None:
        self._written = b""
        self._fd, theirs = pty.openpty()
        self.resize(lines, columns)
        self.program: subprocess.Popen[bytes] = user.start(
            *command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **more,
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        self._close()

    @property
    def shown(self) -> str:
        """What was read so far, with plain newlines."""
        return self._written.decode(errors="replace").replace("\r\n", "\n")

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until the terminal has shown a text."""
        self.read_until(lambda: text in self.shown)

    def read_until(self, condition: Callable[[], object]) -> None:
        """Read until a condition is true; fail if the program ends first."""
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, f"too late; shown was {self.shown!r}"
            assert self._read(0.02) or condition(), f"it has ended; shown was {self.shown!r}"

    def finish(self) -> int:
        """Read until the last program on the terminal has ended; return the command's status."""
        end = time.monotonic() + LIMIT_S
        while self._read(1):
            assert time.monotonic() < end, f"it does not end; shown was {self.shown!r}"
        self._close()
        return self.program.wait(LIMIT_S)

    def _read(self, limit_s: float) -> bool:
        """Read what is written within a time; return False at the end."""
        ready, _, _ = select.select([self._fd], [], [], limit_s)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError as error:  # the last program on the terminal has ended
            assert error.errno == errno.EIO
            return False
        self._written += data
        return bool(data)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
