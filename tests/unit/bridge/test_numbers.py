"""Which message of one connection is which of the other."""

from __future__ import annotations

import sys

from dcs_proxy.bridge.numbers import Numbers


def test_a_message_is_found_by_the_number_with_which_it_came() -> None:
    numbers = Numbers()
    came = {7: 100, 8: 101, 9: None, 10: 102, 11: 104, 12: 105}
    for sent, number in came.items():
        numbers.note(sent, number)
    assert {sent: numbers.origin(sent) for sent in came} == came


def test_nothing_is_known_of_a_message_from_before_the_first() -> None:
    numbers = Numbers()
    assert numbers.origin(0) is None
    numbers.note(5, 5)
    assert numbers.origin(4) is None


def test_numbers_go_on_at_zero_after_the_last() -> None:
    numbers = Numbers()
    for step in range(4):
        numbers.note((2**32 - 2 + step) % 2**32, (2**32 - 3 + step) % 2**32)
    assert numbers.origin(2**32 - 2) == 2**32 - 3
    assert numbers.origin(1) == 0
    assert numbers.origin(0) == 2**32 - 1


def test_only_the_latest_changes_are_remembered() -> None:
    numbers = Numbers()
    for sent in range(100_000):
        numbers.note(sent, 2 * sent)
    assert len(numbers._changes) == 32
    assert sys.getsizeof(numbers._changes) < 1000
    assert numbers.origin(99_999) == 2 * 99_999
    assert numbers.origin(99_968) == 2 * 99_968
    assert numbers.origin(99_967) is None


def test_nothing_is_remembered_when_numbers_begin_again() -> None:
    numbers = Numbers()
    numbers.note(0, 50)
    numbers.forget()
    assert numbers.origin(0) is None
