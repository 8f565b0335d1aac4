"""Times and durations as text, for people and for programs."""

from __future__ import annotations

from datetime import datetime, timezone

_LAST = datetime.max.replace(tzinfo=timezone.utc).timestamp() - 1
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def in_words(seconds: float) -> str:
    """Return a duration in the largest unit of which there are at least two: "119 min"."""
    whole = int(max(0.0, seconds))
    for size, unit in _UNITS:
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def rfc3339(moment: float) -> str:
    """Return unix time as an RFC 3339 date-time in UTC, to the millisecond.

    A time after the year 9999 becomes the last second of that year.
    """
    date = datetime.fromtimestamp(min(moment, _LAST), timezone.utc)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
