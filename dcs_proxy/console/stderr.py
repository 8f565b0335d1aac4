"""Errors, notices and progress: lines on stderr.

On a terminal, draw() shows lines that change in place, until the next lines replace them.
Lines are made safe here (text.py).
"""

from __future__ import annotations

import os
import stat
import sys

from dcs_proxy.text import LINE_LIMIT, safe_line

# The lines that draw() has left on the terminal.
_drawn: tuple[str, ...] = ()


def show(*lines: str) -> None:
    """Write lines at once.  Once stderr cannot be written, all later calls do nothing."""
    global _drawn
    erase, _drawn = _erase(), ()
    _write(erase + "".join(f"{safe_line(line, 2 * LINE_LIMIT)}\n" for line in lines))


def draw(*lines: str) -> None:
    """Show lines in place of those drawn before; with no lines, only erase those.

    Lines are cut to the terminal's width and limited to its height, because a line that wraps or
    scrolls off could not be erased.  The cursor stays behind the last line.
    """
    global _drawn
    columns, rows = _terminal_size()
    cut = tuple(_cut(safe_line(line), columns - 1) for line in lines[-(rows - 1) :])
    if cut == _drawn:
        return
    erase, _drawn = _erase(), ()  # Ctrl-C may interrupt the write
    _write(erase + "\n".join(cut))
    _drawn = cut


def is_discarded() -> bool:
    """Return whether stderr is closed or the null device, so that users do not see what we show."""
    try:
        status, null = os.fstat(2), os.stat(os.devnull)
    except OSError:
        return True
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == null.st_rdev


def can_draw() -> bool:
    """Return whether stderr is a terminal that can redraw lines, and we are in the foreground."""
    if not os.isatty(2) or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal, so there is no background


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _erase() -> str:
    """Return the control sequence that erases the drawn lines (ECMA-48).

    It moves to the first column of the first line, then erases to the end of the screen.
    """
    if not _drawn:
        return ""
    up = f"\x1b[{len(_drawn) - 1}A" if len(_drawn) > 1 else ""
    return f"\r{up}\x1b[J"


def _write(text: str) -> None:
    if sys.stderr is None:  # closed when we started; print() would use stdout
        return
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        # Otherwise Python would write the rest of the buffer at exit, and end with status 120.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def _terminal_size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(2)
    except OSError:
        return 80, 24
    return max(size.columns or 80, 20), max(size.lines or 24, 2)
