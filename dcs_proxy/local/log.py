"""The log: one file of limited size, one line per event, no secrets.

A line is ``TIME [PROCESS/PARENT] EVENT key=value ...``: UTC to the millisecond, the ids of our
process and of its parent (ssh), and values, quoted if they contain spaces.
``DCS_PROXY_LOG=debug`` adds events, ``off`` writes none.  A log that cannot be written must not
prevent a connection, so nothing here raises.
"""

from __future__ import annotations

import os
import time

from dcs_proxy.fastpath.helper import write_line
from dcs_proxy.local.lock import flock, is_current
from dcs_proxy.text import clean_text, quote_server

VARIABLE = "DCS_PROXY_LOG"
# In bytes.  A larger file is renamed to `path.1`, which replaces the previous one.
LIMIT = 1024 * 1024
_MAX_VALUE = 2000
# Read at start-up, because a process that outlives ssh gets another parent.
_PARENT = os.getppid()
_STARTED = time.monotonic()


class Log:
    """Appends to the file at `path`; `verbosity` is the value of ``DCS_PROXY_LOG``."""

    def __init__(self, path: str, verbosity: str = "") -> None:
        self.path = path
        self._is_on = verbosity != "off"
        self._is_debug = verbosity == "debug"

    def event(self, event: str, **values: object) -> None:
        """Write one line.  Values are cleaned and cut; those that are None are left out."""
        if self._is_on:
            pairs = [f" {key}={_word(value)}" for key, value in values.items() if value is not None]
            self._append(event + "".join(pairs))

    def debug(self, event: str, **values: object) -> None:
        """Write one line if the user asked for debug events."""
        if self._is_debug:
            self.event(event, **values)

    def traceback(self, error: BaseException) -> None:
        """Write where an unexpected error happened: lines of code, never values."""
        import traceback  # takes milliseconds, and is rarely needed

        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
        self.event("internal-error", kind=type(error).__name__, at=places)

    def _append(self, text: str) -> None:
        try:
            if write_line(self.path, _PARENT, text) > LIMIT:
                _rotate(self.path)
        except OSError:
            pass


def milliseconds_since(start: float = _STARTED) -> int:
    """Return the milliseconds since `start` (monotonic), by default since the program started."""
    return int((time.monotonic() - start) * 1000)


def _rotate(path: str) -> None:
    """Rename a full log to `path.1`, only once even if several processes see that it is full."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # The process that gets the lock renames the file; the others continue.
        if flock(fd) and is_current(fd, path) and os.fstat(fd).st_size > LIMIT:
            os.rename(path, f"{path}.1")
    finally:
        os.close(fd)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = clean_text(str(value), _MAX_VALUE)
    needs_quotes = not text or " " in text or '"' in text
    return quote_server(text, _MAX_VALUE) if needs_quotes else text
