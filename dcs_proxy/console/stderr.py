"""What people read that is no result: lines on stderr, whether or not anybody is there.

On a terminal the last line may be one that is written over again and again (`redraw`); whatever
comes after it takes its place.
"""

from __future__ import annotations

import os
import sys

# ECMA-48: to the first column, and erase to the end of the line.
_ERASE = "\r\x1b[K"
_drawn = False  # there is but one stderr, and one last line on it


def show(*lines: str) -> None:
    """Write lines at once; if nobody reads them any more, go on without."""
    global _drawn
    erase, _drawn = _ERASE if _drawn else "", False
    _write(erase + "".join(f"{line}\n" for line in lines))


def redraw(line: str) -> None:
    """Write a line without its end, in place of the one that was drawn before."""
    global _drawn
    erase, _drawn = _ERASE if _drawn else "", True
    # One that is wider than the terminal could not be erased any more.
    _write(erase + line[: _columns() - 1])


def can_redraw() -> bool:
    """Tell whether stderr is a terminal that a person looks at, and ours to write over."""
    if not os.isatty(2) or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return True  # not the terminal that controls us


def _write(text: str) -> None:
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        # What is left in the buffer would fail once more when Python ends, with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
