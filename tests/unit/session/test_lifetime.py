from __future__ import annotations

import pytest

from dcs_proxy.session.lifetime import (
    COMMITTED_S,
    LONGEST_LIFE_S,
    UNKNOWN_LIFE_S,
    margin_s,
    trusted_s,
)


def test_the_lives_are_an_hour_a_week_and_a_minute() -> None:
    assert (UNKNOWN_LIFE_S, LONGEST_LIFE_S, COMMITTED_S) == (3600, 604_800, 60)


@pytest.mark.parametrize(
    ("life_s", "margin"),
    [(3600, 30), (61, 30), (60, 30), (59, 29.5), (10, 5), (0, 0), (-1, 0), (-1e9, 0)],
)
def test_half_a_minute_must_be_left_or_half_of_a_short_life(life_s: float, margin: float) -> None:
    assert margin_s(life_s) == margin


def test_a_session_without_doubt_is_trusted_for_a_thirtieth_of_its_reuse() -> None:
    assert (trusted_s(60), trusted_s(3600), trusted_s(0)) == (2, 120, 0)
