"""A person at a terminal: a program on a pseudo terminal, what it shows and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from tests.integration.harness import LIMIT_S, User


class Person:
    """Runs a command as `user` on a terminal of 24 lines and `columns`; close() when done."""

    def __init__(self, user: User, *command: str, columns: int = 120) -> None:
        self.shown = ""
        self.fd, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.program: subprocess.Popen[bytes] = user.start(
            *command, stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=take_terminal
        )
        os.close(terminal)

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self.fd)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def sees(self, text: str) -> None:
        """Wait until the terminal has shown a text."""
        end = time.monotonic() + LIMIT_S
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown, but {self.shown!r}"
            assert self._read(), f"{text!r} was not shown, but {self.shown!r}"

    def leaves(self) -> int:
        """Return the program's exit status, once it has ended and all it wrote is read."""
        end = time.monotonic() + LIMIT_S
        while self._read():
            assert time.monotonic() < end, f"it does not end; shown was {self.shown!r}"
        return self.program.wait(LIMIT_S)

    def _read(self) -> bool:
        """Read what there is within a second; False at the end."""
        ready, _, _ = select.select([self.fd], [], [], 1)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
