from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.api.fields import CONTRACT_HINT, parse_time
from dcs_proxy.api.host_trust import HostTrust
from dcs_proxy.api.model import (
    ApiErrorBody,
    Listing,
    Machine,
    join_pages,
    parse_closed,
    parse_endpoint,
    parse_error_body,
    parse_machine,
    parse_machines,
    parse_session,
)
from dcs_proxy.errors import ApiProtocolError
from dcs_proxy.names import MachineId, MachineName, is_machine_name

NAME = MachineName("dm-foo")
READY: dict[str, Any] = {
    "machine_id": "dm-foo",
    "session_id": "wssh-1",
    "status": "ready",
    "created_at": "2026-01-02T03:04:05Z",
    "expires_at": "2026-01-02T04:04:05.5Z",
    "connection": {
        "endpoint": "ssh.example",
        "port": 22,
        "ssh_username": "wssh-1",
        "user_certificate": "ssh-ed25519-cert-v01@openssh.com AAAA",
        "host_trust": {
            "kind": "cert_authority",
            "host_pattern": "*.example",
            "public_key": "ssh-ed25519 AAAA",
        },
    },
}


def body(changes: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """Return READY as JSON, with fields replaced; a dotted path in `changes` goes deeper."""
    value: dict[str, Any] = json.loads(json.dumps(READY))
    for path, new in {**fields, **(changes or {})}.items():
        *parents, last = path.split(".")
        place = value
        for parent in parents:
            place = place[parent]
        if new is ...:
            del place[last]
        else:
            place[last] = new
    return json.dumps(value).encode()


def test_a_ready_session_is_parsed_whole() -> None:
    session = parse_session(body(), NAME)
    assert session.is_ready and not session.is_over
    assert (session.machine, session.session_id) == (NAME, "wssh-1")
    assert session.expires_at == datetime(2026, 1, 2, 4, 4, 5, 500000, timezone.utc)
    assert session.connection is not None
    assert (session.connection.endpoint, session.connection.port) == ("ssh.example", 22)
    assert session.connection.host_trust == HostTrust(
        "cert_authority", "*.example", "ssh-ed25519 AAAA"
    )
    assert session.connection.user_certificate == "ssh-ed25519-cert-v01@openssh.com AAAA"
    assert session.began_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    session = parse_session(body(ready_at="2026-01-02T03:05:05Z"), NAME)
    assert session.began_at == datetime(2026, 1, 2, 3, 5, 5, tzinfo=timezone.utc)
    assert (session.error_code, session.error_message) == ("", "")


def test_what_a_session_failed_with_is_kept_as_it_came() -> None:
    data = body(status="failed", error_code="BOOM", error_message="it\x1b broke", connection=...)
    session = parse_session(data, NAME)
    assert (session.error_code, session.error_message) == ("BOOM", "it\x1b broke")


def test_words_of_the_api_that_are_shown_on_one_line_are_cut() -> None:
    session = parse_session(body(status="s" * 50, connection=...), NAME)
    (machine,) = parse_machines(page({**MACHINE, "phase": "p" * 50}))[0].machines
    assert (session.status, machine.phase) == ("s" * 37 + "...", "p" * 37 + "...")


@pytest.mark.parametrize("status", ["wake_in_progress", "ssh_in_progress", "brand_new", ""])
def test_a_status_that_nobody_knows_is_pending(status: str) -> None:
    session = parse_session(body(status=status, connection=..., expires_at=None), NAME)
    assert not session.is_ready and not session.is_over


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_is_over_needs_no_connection(status: str) -> None:
    assert parse_session(body(status=status, connection=...), NAME).is_over


def test_optional_parts_may_be_missing_and_unknown_ones_there() -> None:
    missing = {"connection.user_certificate": ..., "connection.host_trust": ..., "extra": [1]}
    session = parse_session(body(missing), NAME)
    assert session.connection is not None
    assert session.connection.user_certificate is None
    assert session.connection.host_trust is None


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("machine_id", ..., "machine_id is missing"),
        ("session_id", "a b", "session_id is not an identifier"),
        ("session_id", "../x", "session_id is not an identifier"),
        ("status", 7, "status has the wrong type"),
        ("created_at", "yesterday", "created_at is not a date and time"),
        ("ready_at", "yesterday", "ready_at is not a date and time"),
        ("expires_at", "2026-13-01T00:00:00Z", "expires_at is not a date and time"),
        ("connection", ..., "connection is missing from a session that is ready"),
        ("connection", [], "connection has the wrong type"),
        ("connection.port", ..., "connection.port is not a port"),
        ("connection.port", None, "connection.port is not a port"),
        ("connection.port", 0, "connection.port is not a port"),
        ("connection.port", 65536, "connection.port is not a port"),
        ("connection.port", True, "connection.port has the wrong type"),
        ("connection.port", 22.5, "connection.port has the wrong type"),
        ("connection.port", "22", "connection.port has the wrong type"),
        ("connection.endpoint", "a\nb", "connection.endpoint is not a host name or address"),
        (
            "connection.endpoint",
            "-oProxyCommand=id",
            "connection.endpoint is not a host name or address",
        ),
        ("connection.endpoint", "a,b", "connection.endpoint is not a host name or address"),
        (
            "connection.ssh_username",
            "-oProxyCommand=id",
            "connection.ssh_username is not a login name",
        ),
        ("connection.ssh_username", "$(id)", "connection.ssh_username is not a login name"),
        ("connection.ssh_username", "a b", "connection.ssh_username is not a login name"),
        ("connection.ssh_username", "a\n", "connection.ssh_username is not a login name"),
        ("connection.ssh_username", "", "connection.ssh_username is not a login name"),
        ("connection.user_certificate", 1, "connection.user_certificate has the wrong type"),
        ("connection.host_trust.kind", ..., "connection.host_trust.kind is missing"),
    ],
)
def test_what_breaks_the_contract_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(ApiProtocolError) as caught:
        parse_session(body({path: value}), NAME)
    assert caught.value.summary() == f"dm-foo: the API's response breaks its contract: {named}"


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port_are_ports(port: int) -> None:
    session = parse_session(body({"connection.port": port}), NAME)
    assert session.connection is not None and session.connection.port == port


@pytest.mark.parametrize("parse", [parse_session, parse_machine])
@pytest.mark.parametrize(
    ("data", "said"),
    [(b"[]", "is not a JSON object"), (b"null", "is not a JSON object")]
    + [(data, "is not JSON") for data in (b"", b"{", b"\xff", b"[" * 100_000)],
)
def test_what_is_no_json_object_is_refused(parse: Any, data: bytes, said: str) -> None:
    with pytest.raises(ApiProtocolError) as caught:
        parse(data, NAME)
    assert caught.value.summary() == f"dm-foo: the API's response {said}"


@pytest.mark.parametrize("parse", [parse_session, parse_machine])
def test_an_answer_about_another_machine_is_refused(parse: Any) -> None:
    with pytest.raises(ApiProtocolError) as caught:
        parse(body(machine_id="dm-bar"), NAME)
    assert caught.value.summary() == "dm-foo: the API's response is about another machine"
    assert caught.value.hint == CONTRACT_HINT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PATHS = ["machine_id", "session_id", "status", "created_at", "expires_at", "retry_after_ms",
         "error_message", "connection", "connection.endpoint", "connection.port",
         "connection.ssh_username", "connection.user_certificate", "connection.host_trust",
         "connection.host_trust.host_pattern"]  # fmt: skip


@given(st.sampled_from(PATHS), JSON)
def test_any_value_in_any_place_gives_a_session_or_a_clear_error(path: str, value: Any) -> None:
    try:
        session = parse_session(body({path: value}), NAME)
    except ApiProtocolError as error:
        assert error.message.isprintable()
    else:
        assert session.status.isprintable()
        if session.connection is not None:
            assert session.connection.ssh_username[0] not in "-$"
            assert set(session.connection.endpoint) <= set(
                "abcdefghijklmnopqrstuvwxyz0123456789.:-"
            )


@given(st.binary())
def test_any_bytes_give_a_session_or_a_clear_error(data: bytes) -> None:
    with pytest.raises(ApiProtocolError):
        parse_session(data, NAME)
    parse_error_body(data)


@given(st.integers())
def test_any_wait_is_a_time_that_can_be_waited(asked: int) -> None:
    session = parse_session(body(retry_after_ms=asked), NAME)
    assert session.retry_after_ms is not None and 0 <= session.retry_after_ms <= 2**53


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5)),
        ("2026-01-02t03:04:05z", datetime(2026, 1, 2, 3, 4, 5)),
        ("2026-01-02T03:04:05.25Z", datetime(2026, 1, 2, 3, 4, 5, 250000)),
        ("2026-01-02T03:04:05.123456789+02:00", datetime(2026, 1, 2, 1, 4, 5, 123457)),
        ("2026-01-02T03:04:05-08:00", datetime(2026, 1, 2, 11, 4, 5)),
        ("9999-12-31T23:59:59.5Z", datetime(9999, 12, 31, 23, 59, 59, 500000)),
        # "Never" and "unset", as .NET and others write them.
        ("9999-12-31T23:59:59.9999999Z", datetime.max),
        ("9999-12-31T23:59:59.999999999Z", datetime.max),
        ("9999-12-31T20:00:00-08:00", datetime.max),
        ("9999-12-31T23:59:60Z", datetime.max),
        ("0001-01-01T00:00:00+23:00", datetime.min),
        ("0001-01-01T00:00:00.5+00:01", datetime.min),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1)),
        ("2016-12-31T15:59:60.25-08:00", datetime(2017, 1, 1, 0, 0, 0, 250000)),
    ],
)
def test_rfc_3339_dates_are_understood(text: str, expected: datetime) -> None:
    moment = parse_time(text)
    assert moment == expected.replace(tzinfo=timezone.utc)
    assert moment is not None and moment.tzinfo is timezone.utc


@pytest.mark.parametrize(
    "text", ["", "2026-01-02", "2026-01-02T03:04:05", "2026-02-30T00:00:00Z",
             "0000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "10000-01-01T00:00:00Z",
             "2026-01-02T03:04:61Z", "2026-01-02T03:60:00Z", "2026-01-02T03:04:05+24:00",
             "2026-01-02T24:00:01Z", "٢٠٢٦-01-02T03:04:05Z"],
)  # fmt: skip
def test_other_dates_are_not(text: str) -> None:
    assert parse_time(text) is None


@given(st.datetimes(timezones=st.timezones(), max_value=datetime(9998, 1, 1),
                    min_value=datetime(2, 1, 1)))  # fmt: skip
def test_pythons_dates_come_back(moment: datetime) -> None:
    moment = moment.replace(fold=0, microsecond=0)
    offset = moment.utcoffset() or timedelta()
    if offset.total_seconds() % 60 == 0:
        assert parse_time(moment.isoformat()) == moment.astimezone(timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SSH.Example", "ssh.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", None),
        ("a_b", None),
        ("a..b", None),
        ("a" * 64 + ".example", None),
        ("x." * 126 + "x", "x." * 126 + "x"),
        ("x." * 126 + "xx", None),
        ("ssh.example.", "ssh.example"),
        ("ssh.example..", None),
        (".", None),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("[::1]:22", None),
        ("2001:db8::1]", None),
        ("[2001:db8::1", None),
        ("x2001:db8::1]", None),
        ("[ssh.example]", None),
        ("[]", None),
        (".example", None),
        ("x." * 127 + "x", None),
        ("münchen.example", None),
        ("", None),
    ],
)
def test_an_endpoint_is_a_name_or_an_address(text: str, expected: str | None) -> None:
    assert parse_endpoint(text) == expected


def test_errors_come_in_two_shapes() -> None:
    fault = parse_error_body(
        b'{"error_code": "RATE_LIMITED", "message": "m", "retryable": true, "retry_after_ms": 84}'
    )
    assert fault is not None
    assert (fault.error_code, fault.retryable, fault.retry_after_ms) == ("RATE_LIMITED", True, 84)
    problem = parse_error_body(
        b'{"title": "Bad Request", "detail": "no such field", "status": 400}'
    )
    assert problem is not None
    assert problem == ApiErrorBody("", "no such field", False, None)
    assert parse_error_body(b'{"title": "Bad Request"}') == ApiErrorBody(
        "", "Bad Request", False, None
    )
    assert parse_error_body(b"<html>") is None
    assert parse_error_body(b"[]") is None
    assert parse_error_body(b"{}") is None


@pytest.mark.parametrize("wait", [True, "84", float("nan"), [84], None, ...])
def test_a_wait_that_is_no_number_of_milliseconds_is_none(wait: Any) -> None:
    fields = {"error_code": "RATE_LIMITED", "message": "m", "retryable": 1, "retry_after_ms": wait}
    data = json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()
    assert parse_error_body(data) == ApiErrorBody("RATE_LIMITED", "m", False, None)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"error_code": "RATE_LIMITED", "message": None}, None),
        ({"error_code": None, "message": "m"}, "m"),
        ({"message": "m"}, "m"), ({"error": "e"}, "e"), ({"error": {"code": 1}}, None),
        ({"message": 1, "error": "e"}, "e"),
    ],
)  # fmt: skip
def test_an_error_of_no_known_shape_is_its_text(fields: object, text: str | None) -> None:
    expected = None if text is None else ApiErrorBody("", text, False, None)
    assert parse_error_body(json.dumps(fields).encode()) == expected


def test_no_time_to_wait_is_none_at_all() -> None:
    assert parse_session(body(retry_after_ms=0), NAME).retry_after_ms == 0


MACHINE = {
    "machine_id": "dm-foo",
    "phase": "sleeping",
    "desired_state": "sleeping",
    "vcpu": 0.5,
    "memory_mib": 512,
    "storage_gib": 20,
    "autosleep_seconds": 300,
    "created_at": "2026-01-02T03:04:05Z",
}


def page(*items: object, **more: object) -> bytes:
    return json.dumps({"items": items, **more}).encode()


def test_a_machine_is_read_from_either_shape() -> None:
    listing, cursor = parse_machines(page(MACHINE, next_cursor="more"))
    assert listing.machines == [
        Machine(
            MachineId(NAME),
            "sleeping",
            0.5,
            512,
            20,
            300,
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        )
    ]
    assert cursor == "more"
    status = {"phase": "failed", "reason": "no\x1b[31m room"}
    shown = parse_machine(json.dumps({**MACHINE, "phase": "x", "status": status}).encode(), NAME)
    assert (shown.machine_id, shown.phase) == (NAME, "failed")
    assert (shown.phase, shown.reason, shown.vcpu) == ("failed", "no [31m room", 0.5)
    with pytest.raises(ApiProtocolError, match="another machine"):
        parse_machine(json.dumps(MACHINE).encode(), MachineName("dm-bar"))


@pytest.mark.parametrize("field", sorted(MACHINE.keys() - {"machine_id"}))
def test_what_a_machine_leaves_out_is_unknown(field: str) -> None:
    fewer = {key: value for key, value in MACHINE.items() if key != field}
    for body in (fewer, {**MACHINE, field: None}):
        (machine,) = parse_machines(page(body))[0].machines
        assert machine.machine_id == NAME
        assert field == "desired_state" or getattr(machine, field) in (None, "unknown")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vcpu", "2"), ("vcpu", True), ("memory_mib", -1), ("memory_mib", 2**53),
        ("storage_gib", float("nan")), ("storage_gib", float("inf")), ("autosleep_seconds", -1),
        ("created_at", "yesterday"), ("created_at", 1795712678), ("created_at", ""),
    ],
)  # fmt: skip
def test_an_odd_value_that_is_only_shown_is_unknown(field: str, value: object) -> None:
    odd = {**MACHINE, field: value}
    (in_list,) = parse_machines(page(odd))[0].machines
    alone = parse_machine(json.dumps(odd).encode(), NAME)
    assert getattr(in_list, field) is getattr(alone, field) is None
    assert in_list.phase == MACHINE["phase"]


def test_a_phase_may_be_the_status_itself_in_any_case() -> None:
    rest = {key: value for key, value in MACHINE.items() if key != "phase"}
    (machine,) = parse_machines(page({**rest, "status": "Running"}))[0].machines
    assert machine.phase == "running" and machine.is_awake


@pytest.mark.parametrize("asked", [8.5, "8.5", [8], True, float("nan"), float("inf")])
def test_a_session_is_not_refused_for_an_odd_wait(asked: Any) -> None:
    session = parse_session(body(retry_after_ms=asked), NAME)
    assert session.retry_after_ms == {"8.5": 8, "inf": 2**53}.get(repr(asked))


def test_a_status_without_a_phase_is_an_unknown_phase() -> None:
    rest = {key: value for key, value in MACHINE.items() if key != "phase"}
    odd = {**rest, "status": {"reason": "no room"}}
    machine = parse_machine(json.dumps(odd).encode(), NAME)
    assert (machine.phase, machine.reason) == ("unknown", "no room")


def test_an_empty_certificate_is_no_certificate() -> None:
    session = parse_session(body({"connection.user_certificate": ""}), NAME)
    assert session.connection is not None and session.connection.user_certificate is None


def test_a_status_may_be_in_capitals() -> None:
    assert parse_session(body(status="READY"), NAME).is_ready


@pytest.mark.parametrize("field", ["machine_id", "phase", "status"])
def test_a_machine_that_breaks_the_contract_is_named_by_field(field: str) -> None:
    with pytest.raises(ApiProtocolError) as alone:
        parse_machine(json.dumps({**MACHINE, field: 1}).encode(), NAME)
    said = "the API's response breaks its contract"
    assert alone.value.summary() == f"dm-foo: {said}: {field} has the wrong type"


@pytest.mark.parametrize("changes", [{"phase": 1}, {"status": []}, {"status": {"phase": {}}}])
def test_a_machine_in_an_odd_phase_is_listed_with_the_others(changes: dict[str, Any]) -> None:
    other = {**MACHINE, "machine_id": "dm-bar"}
    listing, _ = parse_machines(page({**MACHINE, **changes}, other))
    assert [(each.name, each.phase) for each in listing.machines] == [
        (NAME, "unknown"), ("dm-bar", "sleeping"),
    ]  # fmt: skip
    assert not listing.machines[0].is_awake


@pytest.mark.parametrize("item", [None, 1, "dm-bar", [], {}, {"machine_id": 17}, {"id": "dm-bar"}])
def test_an_item_that_is_no_machine_hides_no_other(item: object) -> None:
    listing, _ = parse_machines(page(item, MACHINE))
    assert [each.name for each in listing.machines] == [NAME]
    assert [each.why for each in listing.unusable] == ["it has no id"]


def test_a_cursor_may_be_a_number() -> None:
    assert parse_machines(page(MACHINE, next_cursor=20))[1] == "20"


@pytest.mark.parametrize("field", ["created_at", "ready_at", "expires_at"])
@pytest.mark.parametrize("text", ["", "0001-01-01T00:00:00Z"])
def test_a_time_that_is_not_set_is_missing(field: str, text: str) -> None:
    assert parse_session(body({field: text}), NAME) == parse_session(body({field: None}), NAME)
    (machine,) = parse_machines(page({**MACHINE, "created_at": text}))[0].machines
    assert machine.created_at is None


@pytest.mark.parametrize("odd", [{}, ["x"], 7, False])
def test_what_is_only_shown_of_a_session_refuses_none(odd: object) -> None:
    session = parse_session(body(error_code=odd, error_message=odd), NAME)
    assert (session.is_ready, session.error_code, session.error_message) == (True, "", "")


def test_a_port_may_be_written_with_a_point() -> None:
    session = parse_session(body({"connection.port": 22.0}), NAME)
    assert session.connection is not None and session.connection.port == 22


def test_a_status_that_breaks_the_contract_is_named_by_field() -> None:
    with pytest.raises(ApiProtocolError) as caught:
        parse_machine(json.dumps({**MACHINE, "status": {"phase": 1}}).encode(), NAME)
    said = "the API's response breaks its contract: status.phase has the wrong type"
    assert caught.value.summary() == f"dm-foo: {said}"


def test_a_machine_may_have_none_of_something() -> None:
    (machine,) = parse_machines(page({**MACHINE, "autosleep_seconds": 0}))[0].machines
    assert machine.autosleep_seconds == 0


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"{}", "is missing"),
        (b'{"items": 1}', "has the wrong type"),
    ],
)
def test_a_page_that_is_no_list_of_machines_is_refused(body: bytes, what: str) -> None:
    with pytest.raises(ApiProtocolError) as caught:
        parse_machines(body)
    assert caught.value.summary() == f"the API's response breaks its contract: items {what}"


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda d: page(d)))
def test_any_page_is_machines_or_a_protocol_error(body: bytes) -> None:
    try:
        listing, _ = parse_machines(body)
    except ApiProtocolError:
        return
    assert all(is_machine_name(machine.name) for machine in listing.machines)


UUID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(
    ("machine_id", "why"),
    [
        (None, "it has no id"),
        ("", "it has no id"),
        ("M-1", "its id has characters other than lower-case letters, digits and hyphens"),
        ("a\x1b[31m", "its id has characters other than lower-case letters, digits and hyphens"),
        ("-a", "its id begins or ends with a hyphen"),
        ("a" * 251, "its id is too long for a host name"),
    ],
)
def test_a_machine_that_ssh_cannot_name_is_kept_with_the_reason(
    machine_id: str | None, why: str
) -> None:
    listing, _ = parse_machines(page(MACHINE, {**MACHINE, "machine_id": machine_id}))
    assert [machine.name for machine in listing.machines] == [NAME]
    (unusable,) = listing.unusable
    assert (unusable.why, unusable.phase) == (why, "sleeping")
    assert unusable.machine_id.isprintable() and len(unusable.machine_id) <= 60


def test_joined_pages_have_the_machines_of_all_pages() -> None:
    names = (("dm-10", "dm-2", "M-1"), ("dm-1", "", "dm-3"))
    pages = [
        parse_machines(page(*({**MACHINE, "machine_id": name} for name in each)))[0]
        for each in names
    ]
    listing = join_pages(pages)
    assert [machine.name for machine in listing.machines] == ["dm-1", "dm-2", "dm-3", "dm-10"]
    assert [machine.machine_id for machine in listing.unusable] == ["M-1", ""]


@pytest.mark.parametrize("length", [2048, 2049])
def test_a_cursor_has_a_greatest_length(length: int) -> None:
    body = page(next_cursor="x" * length)
    if length == 2048:
        assert parse_machines(body)[1] == "x" * length
        return
    with pytest.raises(ApiProtocolError, match="next_cursor is too long"):
        parse_machines(body)


@pytest.mark.parametrize(
    ("body", "is_closed"),
    [
        (b"", True), (b" \n", True), (b"null", True), (b"[]", True), (b'"ready"', True),
        (b"{}", True), (b'{"status": null}', True), (b'{"status": 7}', True),
        (b'{"status": "closed"}', True), (b'{"status": "ready"}', False),
        (b'{"status": "READY"}', False), (b"{", None), (b"<html>", None), (b"\xff", None),
    ],
)  # fmt: skip
def test_a_session_that_is_still_ready_was_not_closed(body: bytes, is_closed: bool | None) -> None:
    if is_closed is not None:
        assert parse_closed(body, NAME) is is_closed
        return
    with pytest.raises(ApiProtocolError) as caught:
        parse_closed(body, NAME)
    assert caught.value.summary() == "dm-foo: the API's response is not JSON"


@pytest.mark.parametrize(
    ("status", "code", "is_unreachable"),
    [
        ("failed", "machine_not_found", True), ("failed", "MACHINE_NOT_ROUTABLE", True),
        ("failed", "boom", False), ("closed", "machine_not_found", False),
        ("ready", "machine_not_routable", False),
    ],
)  # fmt: skip
def test_a_failed_session_tells_whether_the_machine_cannot_be_reached(
    status: str, code: str, is_unreachable: bool
) -> None:
    session = parse_session(body(status=status, error_code=code), NAME)
    assert session.is_unreachable is is_unreachable


def test_null_is_an_empty_list() -> None:
    assert parse_machines(b'{"items": null, "next_cursor": null}') == (Listing([], []), None)


@pytest.mark.parametrize("ids", [(UUID, f"dm-{UUID}"), (f"dm-{UUID}", UUID)])
def test_of_two_ids_with_one_name_the_one_that_is_typed_is_used(ids: tuple[str, str]) -> None:
    pages = [parse_machines(page({**MACHINE, "machine_id": each}))[0] for each in (*ids, ids[0])]
    listing = join_pages(pages)
    assert [machine.machine_id for machine in listing.machines] == [f"dm-{UUID}"]
    assert {machine.machine_id for machine in listing.unusable} == {UUID}
    assert listing.unusable[0].why == f"another machine has the id dm-{UUID}"


@pytest.mark.parametrize("sent", [UUID, f"dm-{UUID}"])
def test_an_answer_may_name_the_machine_either_way(sent: str) -> None:
    name = MachineName(f"dm-{UUID}")
    assert parse_session(body(machine_id=sent), name).machine == name
    assert parse_machine(json.dumps({**MACHINE, "machine_id": sent}).encode(), name).name == name


@pytest.mark.parametrize("session_id", ["ss-test", UUID, "a", "a" * 253, "A._~-9"])
def test_a_session_s_id_is_one_of_any_service(session_id: str) -> None:
    assert parse_session(body(session_id=session_id), NAME).session_id == session_id


@pytest.mark.parametrize("session_id", ["", "a" * 254, "a/b", "a-", "-a", "a b"])
def test_other_session_ids_are_refused(session_id: str) -> None:
    with pytest.raises(ApiProtocolError, match="session_id is not an identifier"):
        parse_session(body(session_id=session_id), NAME)


@pytest.mark.parametrize(
    ("phase", "is_awake", "is_going"),
    [
        ("accepted", True, False), ("placement_pending", True, False), ("starting", True, False),
        ("running", True, False), ("stopping", False, False), ("sleeping", False, False),
        ("failed", False, False), ("destroying", False, True), ("destroyed", False, True),
        ("hibernating", False, False),
    ],
)  # fmt: skip
def test_a_phase_tells_whether_a_machine_is_awake(
    phase: str, is_awake: bool, is_going: bool
) -> None:
    machine = Machine(MachineId(NAME), phase)
    assert (machine.is_awake, machine.is_going) == (is_awake, is_going)
