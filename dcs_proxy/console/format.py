"""Moments and lengths of time as text: for people, and for programs."""

from __future__ import annotations

from datetime import datetime, timezone

_LAST = datetime.max.replace(tzinfo=timezone.utc).timestamp() - 1
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def in_words(seconds: float) -> str:
    """Return a length of time in the largest unit of which there are two or more: "119 min"."""
    whole = int(max(0.0, seconds))
    for size, unit in _UNITS:
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def rfc3339(moment: float) -> str:
    """Return unix time as a date-time in UTC, to the millisecond; past all dates, the last one."""
    date = datetime.fromtimestamp(min(moment, _LAST), timezone.utc)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
