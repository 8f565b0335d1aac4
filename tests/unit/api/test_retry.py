from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.api.retry import (
    BACKOFF_S,
    DEFAULT_POLL_MS,
    FAILURES_KNOWN,
    FAILURES_NEW,
    MAX_BACKOFF_S,
    MAX_POLL_S,
    MIN_POLL_S,
    SPREAD_PART,
    SPREAD_S,
    RetryPolicy,
    poll_wait_s,
)

ASKED = st.floats(0, 10**6)


@given(st.lists(ASKED, min_size=1, max_size=40))
def test_no_wait_is_shorter_than_asked_or_much_longer(waits: list[float]) -> None:
    policy = RetryPolicy()
    for asked in waits:
        wait = policy.wait_s(asked, has_answered=True)
        assert wait is not None
        assert asked <= wait <= asked + max(MAX_BACKOFF_S, asked * SPREAD_PART) + 1e-6


@given(ASKED)
def test_the_first_wait_is_close_to_what_was_asked(asked: float) -> None:
    wait = RetryPolicy().wait_s(asked, has_answered=True)
    assert wait is not None and wait <= asked + max(SPREAD_S, asked * SPREAD_PART) + 1e-6


def test_a_refusal_that_names_its_wait_has_no_end_and_spreads_ever_wider() -> None:
    crowd = [RetryPolicy() for _ in range(200)]
    widths = []
    for _ in range(5000):
        waits = [policy.wait_s(0.084, has_answered=True) for policy in crowd]
        assert None not in waits
        widths.append(max(wait for wait in waits if wait is not None) - 0.084)
        if len(widths) == 10:
            crowd = crowd[:1]
    assert widths[0] < SPREAD_S < widths[3] < widths[6] < widths[9] <= MAX_BACKOFF_S
    assert max(widths) <= MAX_BACKOFF_S


def test_failures_that_name_no_wait_are_counted() -> None:
    for has_answered, limit in ((False, FAILURES_NEW), (True, FAILURES_KNOWN)):
        policy = RetryPolicy()
        waits = [policy.wait_s(None, has_answered=has_answered) for _ in range(limit)]
        assert waits[-1] is None
        for number, wait in enumerate(waits[:-1], 1):
            ceiling = min(MAX_BACKOFF_S, BACKOFF_S * 2**number)
            assert wait is not None and ceiling / 2 <= wait <= ceiling


def test_an_api_that_names_a_wait_in_between_is_alive() -> None:
    policy = RetryPolicy()
    for _ in range(3):
        for _ in range(FAILURES_KNOWN - 1):
            assert policy.wait_s(None, has_answered=True) is not None
        assert policy.wait_s(0.1, has_answered=True) is not None


@given(st.none() | st.integers(0, 10**18))
def test_polls_come_no_earlier_than_asked_and_within_bounds(asked_ms: int | None) -> None:
    asked_s = (DEFAULT_POLL_MS if asked_ms is None else asked_ms) / 1000
    least = max(MIN_POLL_S, min(asked_s, MAX_POLL_S))
    assert least <= poll_wait_s(asked_ms) <= least * 1.1 + 1e-6


def test_polls_are_spread() -> None:
    assert len({poll_wait_s(500) for _ in range(20)}) > 1
