from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.api.fields import parse_time
from dcs_proxy.console.format import in_words, rfc3339


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"),
        (7200, "2 h"), (172799, "47 h"), (172800, "2 d"), (86400 * 400, "400 d"),
    ],
)  # fmt: skip
def test_a_length_of_time_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@given(st.integers(0, 4_000_000_000))
def test_a_moment_is_written_as_it_is_read(moment: int) -> None:
    read = parse_time(rfc3339(moment))
    assert read is not None and read.timestamp() == moment


def test_a_moment_past_all_dates_is_the_last_one() -> None:
    assert rfc3339(2.0**63).startswith("9999-12-31T23:59:5")


def test_a_moment_has_milliseconds_and_the_zone_of_rfc_3339() -> None:
    assert rfc3339(1767323045.678) == "2026-01-02T03:04:05.678Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
