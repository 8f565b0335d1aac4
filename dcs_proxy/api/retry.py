"""How long to wait before the API is asked once more, and when to leave it.

No clock and no network here: contrib/dev/simulate.py runs these rules for ten thousand clients.
"""

from __future__ import annotations

import random

# LastFailure in a row before giving up: few while the API has never answered, for then it is most
# likely this computer that has no network; more once it has, for a wake is worth waiting for.
FAILURES_NEW, FAILURES_KNOWN = 4, 8
BACKOFF_S, MAX_BACKOFF_S = 0.25, 8.0
# What is added to a wait that the API asks for: at least this, or this part of it.
SPREAD_S, SPREAD_PART = 0.05, 0.1
DEFAULT_POLL_MS, MIN_POLL_S, MAX_POLL_S = 500, 0.05, 30.0


class RetryPolicy:
    """What is left of it for one request, which is sent again until it is answered."""

    def __init__(self) -> None:
        self._failures = 0
        self._spread_s = SPREAD_S

    def wait_s(self, asked_s: float | None, *, has_answered: bool) -> float | None:
        """Return the seconds to wait before the next try, None when there should be none.

        `asked_s` is the wait that the API named, None where it named none or did not answer;
        `has_answered` says whether it ever has.  An API that says when to come back is alive, so
        that only the caller's deadline ends that; whoever gave up would come back as a new ssh.
        """
        if asked_s is not None:
            self._failures = 0
            return asked_s + self._spread(asked_s)
        self._failures += 1
        if self._failures >= (FAILURES_KNOWN if has_answered else FAILURES_NEW):
            return None
        ceiling = min(MAX_BACKOFF_S, BACKOFF_S * float(2**self._failures))
        return random.uniform(ceiling / 2, ceiling)

    def _spread(self, asked_s: float) -> float:
        """Return what to add to a wait that was asked for, twice as much each time.

        All who are refused at once are asked to wait equally long: if they came back together,
        they would be refused together.
        """
        spread_s = max(self._spread_s, asked_s * SPREAD_PART)
        self._spread_s = min(MAX_BACKOFF_S, spread_s * 2)
        return random.uniform(0, spread_s)


def poll_wait_s(asked_ms: int | None) -> float:
    """Return the seconds until a session that wakes is looked at again.

    Never earlier than asked, and spread so that a fleet does not ask in step.
    """
    asked_s = (DEFAULT_POLL_MS if asked_ms is None else asked_ms) / 1000
    return max(MIN_POLL_S, min(asked_s, MAX_POLL_S)) * random.uniform(1.0, 1.1)
