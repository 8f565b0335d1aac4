"""Results, on stdout.  Every command prints its results with put().

Lines are made safe here (text.py).  When the reader closes the pipe (``| head``), a command ends
silently, as Unix filters do.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from collections.abc import Iterable

from dcs_proxy.console.stderr import show
from dcs_proxy.errors import DcsError, ReaderGone
from dcs_proxy.text import safe_line


def put(*lines: str) -> None:
    """Write lines to stdout and flush it.

    Unprintable characters, including line ends, and those that the encoding lacks are replaced.

    Raises ReaderGone if the reader has closed the pipe, and DcsError if writing fails otherwise.
    """
    if sys.stdout is None:
        raise _cannot_write(os.strerror(errno.EBADF))
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for line in lines:
            sys.stdout.buffer.write(f"{safe_line(line)}\n".encode(encoding, "replace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_output()
        raise _reader_gone() from None
    except OSError as error:
        _discard_output()
        raise _cannot_write(error.strerror) from None


def put_or_show(line: str) -> None:
    """Write a line, for a command that has more to do: on stderr if stdout cannot be written.

    A line is lost without an error if the reader has closed the pipe.
    """
    try:
        put(line)
    except ReaderGone:
        pass
    except DcsError:
        show(line)


def put_json(value: object) -> None:
    """Write one JSON document.  Raises as :func:`put`."""
    put(*json.dumps(value, indent=2).split("\n"))


def pause(seconds: float) -> None:
    """Wait.  Raises ReaderGone as soon as the reader closes the pipe."""
    poll = select.poll()
    poll.register(1, 0)
    if poll.poll(seconds * 1000):  # no event was requested, so this is an error or a hang-up
        raise _reader_gone()


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows of equal length as lines with aligned columns, two spaces apart."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None if it is a file or a pipe."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def wrap(line: str, indent: int) -> list[str]:
    """Return a line in pieces that fit the terminal, the later ones indented.

    A line that goes to a file or a pipe is not wrapped.
    """
    width = terminal_width()
    if width is None:
        return [line]
    import textwrap

    return textwrap.wrap(
        line,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _reader_gone() -> ReaderGone:
    return ReaderGone("the reader closed the pipe")


def _cannot_write(reason: str | None) -> DcsError:
    return DcsError(
        f"cannot write to standard output: {reason}",
        hint="see whether the disk is full, or send the output elsewhere",
    )


def _discard_output() -> None:
    """Send what is left in the buffer to /dev/null.

    Otherwise Python would try to write it again at exit, and end with a notice and status 120.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
