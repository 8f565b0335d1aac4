from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy import errors
from dcs_proxy.errors import DcsError, GatewayUnreachable, clean_text, quote_server


def test_what_a_person_reads_is_an_error_and_a_hint() -> None:
    error = GatewayUnreachable("it is gone", hint="come back", machine="dm-foo")
    assert error.lines() == ["dcs-proxy: dm-foo: it is gone", "dcs-proxy: hint: come back"]
    assert error.one_line() == "dm-foo: it is gone; hint: come back"
    assert DcsError("so").lines() == ["dcs-proxy: so"]
    assert DcsError("so").one_line() == "so"


def test_every_exit_code_has_one_class_but_for_its_subclasses() -> None:
    direct = DcsError.__subclasses__()
    codes = [kind.exit_code for kind in direct]
    assert len(set(codes)) == len(codes)
    assert errors.IdempotencyConflict.exit_code == errors.ApiProtocolError.exit_code


@given(st.text(), st.integers(1, 300))
def test_cleaned_text_is_one_short_printable_line(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert cleaned.isprintable() and len(cleaned) <= limit
    assert "\n" not in cleaned and cleaned == cleaned.strip()


def test_terminal_escapes_and_overrides_are_gone() -> None:
    assert quote_server("a\x1b[31mb\r\nc\u202ed\u2028e\x00") == '"a [31mb c d e"'
    assert quote_server("x" * 10**6) == '"' + "x" * 199 + '…"'
