"""The fields of the API's responses, whatever they are about."""

from __future__ import annotations

import pytest

from dcs_proxy.api.fields import Fields, load_json, load_object, not_json
from dcs_proxy.errors import ApiProtocolError
from dcs_proxy.names import MachineName
from dcs_proxy.text import add_secret

NAME = MachineName("dm-foo")


def test_no_string_of_a_response_contains_a_secret_of_ours() -> None:
    add_secret("dsk-very-secret")
    body = b'{"dsk-very-secret": ["dsk-very-secret", {"a": "dsk-very-secret"}]}'
    assert "very" not in str(load_json(body))


def test_what_cannot_be_encoded_is_replaced() -> None:
    assert load_json(b'["\\ud800", {"\\udfff": "\\ud800x"}]') == ["?", {"?": "?x"}]


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"[]", b"1", b"[" * 100_000])
def test_what_is_no_object_may_come_from_a_proxy(body: bytes) -> None:
    with pytest.raises(ApiProtocolError) as caught:
        load_object(body, NAME)
    assert caught.value.machine == NAME
    assert caught.value.hint == not_json(None).hint
    assert "DEDALUS_BASE_URL" in caught.value.hint


def test_a_cursor_is_a_text_or_a_number() -> None:
    for value, cursor in (("a", "a"), (7, "7"), (0, "0"), ("", None), (None, None)):
        assert Fields({"next": value}, None).cursor("next") == cursor
    for wrong in (True, 1.5, []):
        with pytest.raises(ApiProtocolError, match="next has the wrong type") as caught:
            Fields({"next": wrong}, None).cursor("next")
        assert "update dcs-proxy" in caught.value.hint


def test_gos_zero_time_is_none() -> None:
    fields = Fields({"at": "0001-01-01T00:00:00Z"}, None)
    assert fields.time("at") is fields.shown_time("at") is None
