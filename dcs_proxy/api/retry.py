"""Retry policy: backoff, jitter, and when to give up.

No clock and no network here: contrib/dev/simulate.py runs these rules for ten thousand clients.
"""

from __future__ import annotations

import random

# Failures in a row before giving up.  Few while the API has never answered: this computer is
# probably offline.  More once it has: a wake is worth waiting for.
FAILURES_NEW, FAILURES_KNOWN = 4, 8
BACKOFF_S, MAX_BACKOFF_S = 0.25, 8.0
# The jitter added to a wait that the API asks for: at most this time, or this part of the wait.
SPREAD_S, SPREAD_PART = 0.05, 0.1
DEFAULT_POLL_MS, MIN_POLL_S, MAX_POLL_S = 500, 0.05, 30.0


class RetryPolicy:
    """Decides on the retries of one request."""

    def __init__(self) -> None:
        self._failures = 0
        self._spread_s = SPREAD_S

    def wait_s(self, asked_s: float | None, *, has_answered: bool) -> float | None:
        """Return the seconds to wait before the next try, None to give up.

        `asked_s` is the wait that the API asked for, None if it did not; `has_answered` says
        whether the API has ever answered.  An API that asks to wait is alive, so only the caller's
        deadline ends those retries: users whose ssh gave up would just start another one.
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
        """Return the jitter for a wait that the API asked for; it doubles with each refusal.

        Clients that are refused together are asked to wait equally long: without jitter they would
        come back, and be refused, together again.
        """
        spread_s = max(self._spread_s, asked_s * SPREAD_PART)
        self._spread_s = min(MAX_BACKOFF_S, spread_s * 2)
        return random.uniform(0, spread_s)


def new_machine_wait_s(tries: int) -> float:
    """Return the seconds to wait before asking again for a machine that was just created."""
    return min(MAX_BACKOFF_S, BACKOFF_S * float(2 ** min(tries, 10))) * random.uniform(1.0, 1.1)


def poll_wait_s(asked_ms: int | None) -> float:
    """Return the seconds to wait before polling a session that is not ready.

    Never less than asked, with jitter so that many clients do not poll in step.
    """
    asked_s = (DEFAULT_POLL_MS if asked_ms is None else asked_ms) / 1000
    return max(MIN_POLL_S, min(asked_s, MAX_POLL_S)) * random.uniform(1.0, 1.1)
