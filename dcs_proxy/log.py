"""The log: one capped file, one line for each event, no secrets.

A line is time, process, event and ``key=value`` pairs.  A log that cannot be written is no reason
to refuse a connection, so nothing here raises.
"""

from __future__ import annotations

import os
import time
import traceback

from dcs_proxy.errors import clean_text

_LIMIT = 1024 * 1024


class Log:
    """Appends to the file at `path`; the file before it is kept as ``path.1``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def event(self, event: str, **values: object) -> None:
        """Write one line.  Values are cleaned of control characters and cut."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pairs = "".join(f" {key}={_word(value)}" for key, value in values.items())
        self._append(f"{stamp} [{os.getpid()}] {event}{pairs}\n")

    def traceback(self, error: BaseException) -> None:
        """Write where an unexpected error happened: places in the code, never values."""
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
        self.event("internal-error", kind=type(error).__name__, at=places[:2000])

    def _append(self, line: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self.path, flags, 0o600)
            try:
                # One write for one line: O_APPEND keeps lines of many processes whole.
                os.write(fd, line.encode("utf-8", "replace"))
                full = os.fstat(fd).st_size > _LIMIT
            finally:
                os.close(fd)
            if full:
                os.replace(self.path, f"{self.path}.1")
        except OSError:
            pass


def _word(value: object) -> str:
    text = clean_text(str(value), 2000)
    return f'"{text}"' if " " in text or not text else text
