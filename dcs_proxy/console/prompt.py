"""The terminal of whoever runs ssh, for a question: its own stdin and stdout belong to ssh."""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Callable

from dcs_proxy.errors import ClientGone
from dcs_proxy.local.deadline import TURN_S

_PATH = "/dev/tty"


class Terminal:
    """The controlling terminal.

    `client_gone` tells, without waiting, that nobody cares for the answer any more; `is_forbidden`
    that whoever runs us wants no questions.
    """

    def __init__(self, client_gone: Callable[[], bool], *, is_forbidden: bool = False) -> None:
        self._client_gone = client_gone
        self._is_forbidden = is_forbidden

    def is_usable(self) -> bool:
        """Whether there is one, and we may read from it."""
        if self._is_forbidden:
            return False
        try:
            fd = os.open(_PATH, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return _is_foreground(fd)
        finally:
            os.close(fd)

    def ask(self, question: str, within_s: float) -> bool:
        """Show the question; return whether the answer was yes, and came in time.

        Raises ClientGone.
        """
        try:
            fd = os.open(_PATH, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # What was typed before was no answer.
            termios.tcflush(fd, termios.TCIFLUSH)
            os.write(fd, question.encode())
            answer = self._read_line(fd, time.monotonic() + within_s)
            if not answer.endswith(b"\n"):
                os.write(fd, b"\n")
            return answer.strip().lower() in (b"y", b"yes")
        except (OSError, termios.error):
            return False  # it has hung up
        finally:
            os.close(fd)

    def _read_line(self, fd: int, end: float) -> bytes:
        while (left := end - time.monotonic()) > 0:
            if self._client_gone():
                raise ClientGone("the program that asked for the connection has gone")
            ready, _, _ = select.select([fd], [], [], min(left, TURN_S))
            # In the background the next call would stop us (SIGTTIN), with the machine's lock held.
            if not _is_foreground(fd):
                return b""
            if ready:
                return os.read(fd, 1024)
        termios.tcflush(fd, termios.TCIFLUSH)
        return b""


def _is_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
