"""The journal: one JSON object per line for each request and connection.

It contains no credentials: requests are recorded by route, status and identifiers.
"""

from __future__ import annotations

import json
import os
import time


class Journal:
    """Appends to the file `path`; without a path it does nothing."""

    def __init__(self, path: str | None) -> None:
        self._fd = -1
        if path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)

    def note(self, event: str, **values: object) -> None:
        """Write one entry; `event` is "request", "connection", "login" or "closed"."""
        if self._fd >= 0:
            entry = {"time": round(time.time(), 3), "event": event, **values}
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
