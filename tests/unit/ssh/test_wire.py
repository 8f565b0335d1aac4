from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.ssh.wire import Reader, WireError, pack_string, pack_u32


def test_a_string_is_its_length_and_its_bytes() -> None:
    assert pack_string(b"testing") == bytes.fromhex("00000007 74657374696e67")
    assert pack_string(b"") == bytes(4)


def test_a_u32_is_big_endian_and_bounded() -> None:
    assert pack_u32(699921578) == bytes.fromhex("29b7f4aa")
    for value in (-1, 2**32):
        with pytest.raises(OverflowError):
            pack_u32(value)


def test_fields_come_back_in_order() -> None:
    reader = Reader(b"\x01" + pack_u32(2) + bytes(7) + b"\x03" + pack_string(b"four"))
    fields = (reader.u8(), reader.u32(), reader.u64(), reader.string())
    assert fields == (1, 2, 3, b"four")
    reader.finish()


@pytest.mark.parametrize("data", [b"", bytes(3), pack_u32(1), pack_u32(5) + b"four", b"\xff" * 9])
def test_a_string_that_does_not_end_within_the_data_is_an_error(data: bytes) -> None:
    reader = Reader(data)
    with pytest.raises(WireError, match="bytes expected"):
        reader.string()
    assert reader.remaining == len(data)


def test_bytes_left_over_are_an_error_to_finish() -> None:
    with pytest.raises(WireError, match="1 bytes too many"):
        Reader(b"x").finish()


@given(st.lists(st.binary()))
def test_strings_survive_the_round_trip(values: list[bytes]) -> None:
    reader = Reader(b"".join(map(pack_string, values)))
    assert [reader.string() for _ in values] == values
    reader.finish()


@given(st.binary(), st.lists(st.sampled_from(["u8", "u32", "u64", "string"])))
def test_nothing_is_read_past_the_end(data: bytes, calls: list[str]) -> None:
    reader = Reader(data)
    for call in calls:
        before = reader.remaining
        try:
            getattr(reader, call)()
        except WireError:
            assert reader.remaining == before
    assert 0 <= reader.remaining <= len(data)
