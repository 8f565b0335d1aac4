"""When a fault strikes, and which texts are faults."""

from __future__ import annotations

import json

import pytest

from dcs_proxy.emulator.faults import STAGES, Fault, Faults, edit, parse_fault, reply_of
from dcs_proxy.errors import UsageError


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("dm-foo=503", Fault("dm-foo", "503")),
        ("*=reset/POST@3", Fault("*", "reset", method="POST", left=3)),
        ("dm-foo=429:250", Fault("dm-foo", "429", "250")),
        ("dm-foo=redirect:https://a/b@c", Fault("dm-foo", "redirect", "https://a/b@c")),
        ("dm-foo=stall~0.25", Fault("dm-foo", "stall", share=0.25)),
        ('dm-foo=set:status="odd"@1', Fault("dm-foo", "set", 'status="odd"', left=1)),
    ],
)
def test_a_text_is_a_fault(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    ["", "dm-foo", "=503", "dm-foo=", "dm-foo=999", "dm-foo=503@x", "dm-foo=503@1234567",
     "dm-foo=set:status", "dm-foo=set:status=odd", "dm-foo=503/PUT", "dm-foo=503~1.5"],
)  # fmt: skip
def test_any_other_text_is_not(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fault(text)


def test_a_fault_strikes_its_machine_stage_and_method_only() -> None:
    faults = Faults([parse_fault("dm-foo=503/POST")])
    assert not faults.strike("dm-bar", "reply", "POST")
    assert not faults.strike("dm-foo", "wire", "POST")
    assert not faults.strike("dm-foo", "reply", "GET")
    assert [fault.kind for fault in faults.strike("dm-foo", "reply", "POST")] == ["503"]


def test_a_count_runs_out_and_a_star_strikes_all() -> None:
    faults = Faults([parse_fault("*=503@2")])
    assert [len(faults.strike(name, "reply")) for name in ("dm-a", "dm-b", "dm-c")] == [1, 1, 0]


def test_a_share_strikes_sometimes() -> None:
    faults = Faults([parse_fault("*=503~0.5")])
    struck = sum(len(faults.strike("dm-a", "reply")) for _ in range(1000))
    assert 300 < struck < 700


def test_the_clock_is_ahead_for_all_or_for_one() -> None:
    faults = Faults([parse_fault("*=clock:3600"), parse_fault("dm-foo=clock:60")])
    assert faults.clock_ahead() == 3600
    assert len(faults.strike("dm-foo", "session")) == 2
    faults.clear()
    assert faults.clock_ahead() == 0


def test_a_session_is_edited_in_depth() -> None:
    body = {"connection": {"port": 22, "endpoint": "x"}, "status": "ready"}
    edit(body, Fault("*", "set", "connection.port=[1]"))
    edit(body, Fault("*", "missing", "connection.endpoint"))
    edit(body, Fault("*", "missing", "not.there"))
    assert body == {"connection": {"port": [1]}, "status": "ready"}


@pytest.mark.parametrize("kind", [kind for kind, stage in STAGES.items() if stage == "reply"])
def test_the_reply_of_a_fault_has_the_status_of_its_name(kind: str) -> None:
    reply = reply_of(Fault("*", kind, "250" if "429" in kind else "{}"))
    if kind[:3].isdigit():
        assert reply.status == int(kind[:3])
    if kind[:3] in ("429", "503") and kind != "503":
        body = json.loads(reply.body)
        scope = "read" if kind.endswith("-read") else "mutating"
        assert body["retryable"]
        if kind != "429-in-flight":
            assert body["details"]["rate_limit_scope"] == f"{scope}_lifecycle_routes"
