from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.session.records import Attempt, ReadySession, Record, parse_failure, parse_record
from dcs_proxy.ssh.keys import public_blob

ATTEMPT = Attempt("key-1", "ab" * 32, "/agent.sock", 2000.0, "account", "wssh-1", True)
READY = ReadySession(
    "ssh.example", 22, "wssh-1", "ssh-ed25519 AAAA", "", True, 3000.0, 1000.0, 1000.0
)
RECORD = Record(ATTEMPT, READY, "cd" * 6, "wssh-0")
DATA = json.dumps(asdict(RECORD)).encode()


def test_a_record_cut_short_at_any_byte_is_no_record() -> None:
    assert parse_record(DATA) == RECORD
    for length in range(len(DATA)):
        assert parse_record(DATA[:length]) is None


@given(st.binary())
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    assert parse_record(data) is None


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())


@given(st.sampled_from(["attempt", "ready"]), st.data(), VALUES)
def test_a_value_of_the_wrong_type_is_no_record(
    part: str, data: st.DataObject, value: object
) -> None:
    fields = json.loads(DATA)
    name = data.draw(st.sampled_from(sorted(fields[part])))
    kind = type(fields[part][name])
    fields[part][name] = value
    record = parse_record(json.dumps(fields).encode())
    if type(value) is not kind and not (kind is float and type(value) is int):
        assert record is None


def test_records_of_another_version_are_none() -> None:
    more = {**json.loads(DATA), "brand_new": 1}
    assert parse_record(json.dumps(more).encode()) is None
    fewer = json.loads(DATA)
    del fewer["attempt"]["account"]
    assert parse_record(json.dumps(fewer).encode()) is None


def test_the_identity_is_the_certificate_or_the_bare_key() -> None:
    assert RECORD.identity == public_blob(ATTEMPT.public)
    ready = replace(READY, certificate="kind Y2VydA==", bare_key=False)
    assert replace(RECORD, ready=ready).identity == b"cert"
    assert replace(RECORD, ready=replace(ready, bare_key=True)).identity == RECORD.identity
    broken = replace(RECORD, ready=replace(ready, certificate="kind"))
    assert parse_record(json.dumps(asdict(broken)).encode()) is None


@given(st.binary())
def test_any_bytes_are_a_failure_or_none(data: bytes) -> None:
    assert parse_failure(data) is None


def test_the_logins_are_those_of_the_session_and_of_the_one_before_it() -> None:
    assert RECORD.logins == ["wssh-1", "wssh-0"]
    assert replace(RECORD, previous_username="").logins == ["wssh-1"]
    assert Record(ATTEMPT).logins == []
    assert Record(ATTEMPT, previous_username="wssh-0").logins == ["wssh-0"]


def test_a_record_is_of_use_until_its_session_ends_or_until_its_key_does() -> None:
    assert RECORD.ends_at() == 3000
    assert Record(ATTEMPT).ends_at() == 2000


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"attempt"', b"{", b"[" * 100_000])
def test_json_that_is_no_object_is_no_record(data: bytes) -> None:
    assert parse_record(data) is None
    assert parse_failure(data) is None
