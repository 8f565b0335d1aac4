from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.errors import UsageError
from dcs_proxy.names import (
    MachineName,
    bare,
    file_stem,
    is_machine_name,
    machine_name,
    matches,
    names_ending_so,
    natural_order,
    parse_machine_name,
    pattern_means,
    short_names,
    why_unusable,
)

UUID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
UUIDS = st.uuids().map(lambda each: MachineName(f"dm-{each}"))


@pytest.mark.parametrize("name", ["dm-a", "dm-0", "dm-web-1", "dm-" + "a" * 250])
def test_the_contracts_names_are_names(name: str) -> None:
    assert parse_machine_name(name) == name
    assert parse_machine_name(name.removeprefix("dm-")) == name
    assert parse_machine_name(name.upper()) == parse_machine_name(f"{name}.") == name


def test_a_name_is_the_id_behind_dm() -> None:
    assert machine_name(UUID) == machine_name(f"dm-{UUID}") == f"dm-{UUID}"
    assert machine_name("dm-foo") == "dm-foo" and machine_name("dmfoo") == "dm-dmfoo"
    assert why_unusable("a" * 250) == "" and why_unusable("a" * 251) != ""


@given(st.text() | st.text("adm-0"))
def test_an_id_has_a_name_or_a_reason(text: str) -> None:
    name = machine_name(text)
    assert (name is None) == bool(why_unusable(text))
    assert name is None or (is_machine_name(name) and text in (name, bare(name)))


@pytest.mark.parametrize(
    "text",
    ["", "dm-", "dm--a", "dm-a-", "dm-\u212a", "DM-", "dm-a\n", "dm-a.b", "dm-ä", "dm-a b",
     "dm-$(id)", "dm-';id;'", "dm-٣", "dm-" + "a" * 251],
)  # fmt: skip
def test_everything_else_is_none(text: str) -> None:
    assert not is_machine_name(text)
    with pytest.raises(UsageError) as caught:
        parse_machine_name(text)
    assert all(character.isprintable() for character in caught.value.message)
    assert caught.value.hint.startswith("a name is dm- followed by letters, digits and inner hyph")


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


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("", "", True), ("*", "", True), ("a*", "a", True), ("a**", "a", True), ("a?", "a", False),
        ("*ab", "aab", True), ("*a*b", "aaabab", True), ("*a?b", "aaab", True), ("a*b", "ab", True),
        ("*a", "ab", False), ("?*", "", False), ("a", "aa", False), ("*aab", "aaab", True),
    ],
)  # fmt: skip
def test_a_star_matches_any_text_and_none(pattern: str, text: str, is_match: bool) -> None:
    assert matches(pattern, text) is is_match


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    assert not matches("*a" * 500, "a" * 200 + "b")
    assert matches("*a" * 200, "a" * 200)


def name_of(text: str) -> MachineName:
    return MachineName(f"dm-{text}")


def test_a_short_name_is_the_shortest_end_that_is_nobody_else_s() -> None:
    first = name_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    second = name_of("017f22e2-79b0-7cc3-98c4-dc0c0c08398f")
    third = name_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398e")
    assert short_names([first, third])[first] == "dm-398f"
    assert short_names([first, second, third]) == {
        first: "dm-7398f", second: "dm-8398f", third: "dm-398e",
    }  # fmt: skip


def test_names_that_were_chosen_are_not_shortened_but_stand_in_the_way() -> None:
    uuid = name_of(UUID)
    chosen = [name_of("production-398f"), name_of("7398f")]
    assert short_names([uuid, *chosen]) == {
        uuid: "dm-07398f", **{name: name for name in chosen},
    }  # fmt: skip
    assert short_names([uuid], taken=["dm-398f", "dm-7398f"]) == {uuid: "dm-07398f"}


def test_a_short_name_never_begins_with_a_second_hyphen() -> None:
    ends = [f"{n:08x}-79b0-7cc3-98c4-dc0c0c07398f" for n in (1, 2)]
    assert short_names([name_of(end) for end in ends]) == {
        name_of(ends[0]): "dm-1-79b0-7cc3-98c4-dc0c0c07398f",
        name_of(ends[1]): "dm-2-79b0-7cc3-98c4-dc0c0c07398f",
    }
    # One of another generation of ids has the same end, but for the hyphen.
    uuid, other = name_of(ends[0]), MachineName("dm-web4dc0c0c07398f")
    assert short_names([uuid, other]) == {uuid: "dm-4-dc0c0c07398f", other: other}


@given(st.sets(UUIDS | st.text("ab-", min_size=1, max_size=6).map(name_of)), st.data())
def test_what_is_short_for_a_machine_means_that_one_alone(
    names: set[MachineName], data: st.DataObject
) -> None:
    names = set(filter(is_machine_name, names))
    for name, short in short_names(names).items():
        assert is_machine_name(short)
        assert short == name or (short not in names and names_ending_so(short, names) == [name])


def test_less_than_four_characters_are_no_short_name() -> None:
    uuid = name_of(UUID)
    assert names_ending_so(name_of("398f"), [uuid]) == [uuid]
    assert names_ending_so(name_of("98f"), [uuid]) == []


@pytest.mark.parametrize(
    ("pattern", "means"),
    [
        (f"dm-{UUID}", True), (UUID, True), ("398f", True), ("dm-398f", True), ("98f", False),
        ("dm-017f*", True), ("017f*", True), ("dm-web", True), ("web", True), ("w*b", True),
        ("*", True), ("dm-398e", False), ("398f*", False), ("017f", False),
    ],
)  # fmt: skip
def test_a_pattern_may_leave_the_prefix_out_and_be_short(pattern: str, means: bool) -> None:
    assert pattern_means(pattern, name_of(UUID), ["dm-web"]) is means


def test_names_are_in_the_order_in_which_people_count() -> None:
    in_order = [
        "dm-1", "dm-2", "dm-10", "dm-010b", "dm-a-1", "dm-a1b2", "dm-a1b10", "dm-a02", "dm-a2",
        "dm-a10", "dm-b" + "1" * 200, "dm-b2" + "0" * 199, "dm-c",
    ]  # fmt: skip
    names = [MachineName(name) for name in in_order]
    assert natural_order(reversed(names)) == names


def test_uuids_are_in_the_order_of_their_characters() -> None:
    ends = ["-0000-4000-8000-00000000c0de", "-0000-4000-8000-00000000c0df"]
    names = [MachineName(f"dm-{start}{end}") for start in ("10000000", "9a000000") for end in ends]
    assert natural_order(reversed(names)) == names


@pytest.mark.parametrize(
    ("machine_id", "why"),
    [
        ("", "it has no id"),
        ("a" * 251, "its id is too long for a host name"),
        ("A" * 251, "its id is too long for a host name"),
        ("web.example", "its id has characters other than lower-case letters, digits and hyphens"),
        ("A" * 250, "its id has characters other than lower-case letters, digits and hyphens"),
        ("-web", "its id begins or ends with a hyphen"),
        ("web-", "its id begins or ends with a hyphen"),
    ],
)
def test_the_reason_why_ssh_cannot_name_a_machine_is_the_right_one(
    machine_id: str, why: str
) -> None:
    assert why_unusable(machine_id) == why


def test_a_stem_is_shortened_from_201_characters_on_and_does_not_change() -> None:
    assert file_stem(name_of("a" * 197)) == "dm-" + "a" * 197
    # Files of earlier versions have this name.
    digest = "93bd3f194c1699b1153069766f3917f6"
    assert file_stem(name_of("a" * 198)) == f"dm-{'a' * 147}.{digest}"


def test_two_uuids_that_differ_in_their_first_character_are_not_shortened() -> None:
    names = [name_of(f"{first}{UUID[1:]}") for first in "01"]
    assert short_names(names) == {name: name for name in names}
    # One character less is shorter.
    names = [name_of(f"0{second}{UUID[2:]}") for second in "12"]
    assert list(short_names(names).values()) == [f"dm-{second}{UUID[2:]}" for second in "12"]
