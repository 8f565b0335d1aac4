"""Read the log: the previous file, the current one, and each new one after a rotation."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO

from dcs_proxy.errors import StateError
from dcs_proxy.names import MachineName

_TURN_S = 0.2


def read_log(path: str) -> Iterator[str]:
    """Yield the lines of ``path.1`` and of `path`, oldest first.  Raises StateError."""
    return _Reader(path, pause=None).lines()


def follow_log(path: str, pause: Callable[[float], None]) -> Iterator[str]:
    """Yield every line of the log, then new ones as they are written, without end.

    `pause` waits for a number of seconds.  Raises StateError.
    """
    return _Reader(path, pause).lines()


def is_about(line: str, machines: Collection[MachineName]) -> bool:
    """Return whether a line of the log names one of the machines."""
    found = re.search(r" machine=(\S+)", line)
    return found is not None and found[1] in machines


class _Reader:
    """Reads the files in the order in which they were written, each to its end.

    `file` is the one being read, `rest` is an incomplete last line.
    """

    def __init__(self, path: str, pause: Callable[[float], None] | None) -> None:
        self.path = path
        self.pause = pause
        self.file: BinaryIO | None = None
        self.rest = b""

    def lines(self) -> Iterator[str]:
        try:
            while True:
                yield from self.drain()
                if (following := self.following()) is not None:
                    # A process that opened the old file before it was renamed may still write.
                    if self.pause is not None and self.file is not None:
                        self.pause(_TURN_S)
                    yield from self.drain()
                    self.turn_to(following)
                elif self.pause is None:
                    return
                else:
                    self.pause(_TURN_S)
        finally:
            if self.file is not None:
                self.file.close()

    def drain(self) -> Iterator[str]:
        """Yield the complete lines of the file that have not been read yet."""
        while self.file is not None and (data := self.file.read(64 * 1024)):
            *complete, self.rest = (self.rest + data).split(b"\n")
            for line in complete:
                yield line.decode("utf-8", "replace")

    def following(self) -> BinaryIO | None:
        """Open the file that was started after this one; return None if there is none."""
        newest = _open(self.path)
        before = _open(f"{self.path}.1")
        if self.is_current(newest):
            chosen = None
        elif before is None or self.is_current(before):
            chosen = newest
        else:
            chosen = before  # at the start, or after two rotations since the last look
        for other in (newest, before):
            if other is not None and other is not chosen:
                other.close()
        return chosen

    def is_current(self, file: BinaryIO | None) -> bool:
        if self.file is None or file is None:
            return False
        return os.path.samestat(os.fstat(file.fileno()), os.fstat(self.file.fileno()))

    def turn_to(self, file: BinaryIO) -> None:
        if self.file is not None:
            self.file.close()
        self.file, self.rest = file, b""


def _open(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb", buffering=0, opener=_opener)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror}", hint="check its owner and mode: ls -l"
        ) from None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
