from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.errors import UsageError
from dcs_proxy.names import (
    MachineName,
    file_stem,
    is_machine_name,
    matches,
    parse_machine_name,
)


@pytest.mark.parametrize("name", ["dm-a", "dm-0", "dm-web-1", "dm-" + "a" * 250])
def test_the_contracts_names_are_names(name: str) -> None:
    assert parse_machine_name(name) == name


@pytest.mark.parametrize(
    "text",
    ["", "dm-", "dm--a", "dm-a-", "dm-A", "DM-a", "dm-a\n", "dm-a.b", "dm-ä", "xdm-a", "dm-a b",
     "dm-$(id)", "dm-';id;'", "dm-٣", "dm-" + "a" * 251],
)  # fmt: skip
def test_everything_else_is_none(text: str) -> None:
    assert not is_machine_name(text)
    with pytest.raises(UsageError) as caught:
        parse_machine_name(text)
    assert all(character.isprintable() for character in caught.value.message)


@given(st.text())
def test_a_name_holds_nothing_that_a_shell_gives_meaning_to(text: str) -> None:
    if is_machine_name(text):
        assert re.fullmatch("[a-z0-9-]+", text)


def test_files_of_long_names_stay_apart_and_fit() -> None:
    first, second = MachineName("dm-" + "a" * 249 + "b"), MachineName("dm-" + "a" * 249 + "c")
    assert file_stem(first) != file_stem(second)
    assert max(len(file_stem(first)), len(file_stem(second))) <= 200
    # A dot is in no name, so no short name is ever another's stem.
    assert "." in file_stem(first)
    assert file_stem(MachineName("dm-foo")) == "dm-foo"


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_a_pattern_matches_as_the_regular_expression_for_it(pattern: str, text: str) -> None:
    expression = pattern.replace("*", ".*").replace("?", ".")
    assert matches(pattern, text) is (re.fullmatch(expression, text) is not None)


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    assert not matches("*a" * 500, "a" * 200 + "b")
    assert matches("*a" * 200, "a" * 200)
