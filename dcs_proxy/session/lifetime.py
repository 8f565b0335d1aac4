"""How long a session may be used, in seconds."""

from __future__ import annotations

# The life of a session for which the API gives no end.
UNKNOWN_LIFE_S = 3600
# No session is used for longer, whatever the API says: an agent would hold its key for years.
LONGEST_LIFE_S = 7 * 24 * 3600
# How long an ssh may take from `prepare` to its ProxyCommand.  By then it is committed to the
# session: asking the API again would only cost time, and another session the login.
COMMITTED_S = 60
_MARGIN_S = 30.0
# How often in `reuse_seconds` the API is asked, at most, because an ssh has ended.
_DOUBTS = 30


def margin_s(life_s: float) -> float:
    """Return how much of a session that lives `life_s` must be left for an ssh to start with it.

    Logging in takes a while.  A session that lives less than a minute may be used for half of it.
    """
    return min(_MARGIN_S, life_s / 2)


def trusted_s(reuse_s: float) -> float:
    """Return how long a session that was in doubt is used without another doubt.

    A loop of short ssh would otherwise ask the API each time.
    """
    return reuse_s / _DOUBTS
