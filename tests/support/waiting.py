"""Waiting for a condition, with a limit that no test should come near."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_S = 120.0


def wait_until(condition: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """Return the condition's first true value; fail when none comes within `limit_s`."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def connects(port: int) -> socket.socket | None:
    """Return a connection to a port on loopback; None if no program listens there yet."""
    try:
        return socket.create_connection(("127.0.0.1", port), 1)
    except OSError:
        return None


def wait_until_stuck(count: Callable[[], int], seconds: float = 1.0) -> None:
    """Wait until a count no longer grows.  On a slow computer that may be too early."""
    end, last, since = time.monotonic() + LIMIT_S, -1, time.monotonic()
    while time.monotonic() - since < seconds:
        if (now := count()) != last:
            last, since = now, time.monotonic()
        assert time.monotonic() < end
        time.sleep(0.05)
