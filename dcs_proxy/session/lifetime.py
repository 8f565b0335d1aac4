"""How long a session may be used, in seconds."""

from __future__ import annotations

# The assumed life of a session for which the API gives no end.
UNKNOWN_LIFE_S = 3600
# No session is used for longer, even if the API allows it: an agent would hold its key for years.
LONGEST_LIFE_S = 7 * 24 * 3600
# How long an ssh may take from `prepare` to its ProxyCommand.  By then it is committed to the
# session: asking the API again would waste time, and with another session the login would fail.
COMMITTED_S = 60
_MARGIN_S = 30.0
# A shorter session may end while ssh logs in, so the user is warned.
SHORT_LIFE_S = 5
# How many times within `reuse_seconds` the API is asked, at most, because an ssh has ended.
_DOUBTS = 30


def margin_s(life_s: float) -> float:
    """Return how much of a session's life `life_s` must be left for an ssh to start with it.

    Logging in takes a while.  A session that lives less than a minute is used for half its life.
    `life_s` is negative if the API says that the session ends before it begins.
    """
    return max(0.0, min(_MARGIN_S, life_s / 2))


def trusted_s(reuse_s: float) -> float:
    """Return how long a session is not doubted again after the API has confirmed it.

    A script that runs many short ssh in a row would otherwise ask the API each time.
    """
    return reuse_s / _DOUBTS
