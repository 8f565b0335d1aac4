"""What a failure leaves behind, and which processes it is repeated to."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dcs_proxy.api.host_trust import HostTrust
from dcs_proxy.api.model import Connection, Session
from dcs_proxy.emulator.authority import public_line
from dcs_proxy.errors import (
    AgentUnavailable,
    DeadlineExceeded,
    IdempotencyConflict,
    MachineNotFound,
    MachineUnreachable,
    SessionFailed,
    Untrusted,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.ssh.user_agent import UserAgent
from tests.unit.session.fakes import AUTHORITIES, NAME, Fakes, events


def test_an_unknown_machine_leaves_nothing_behind(fakes: Fakes) -> None:
    fakes.api.statuses = [MachineNotFound("no such")]
    with pytest.raises(MachineNotFound):
        fakes.resolve()
    assert fakes.store.held == {}
    assert fakes.state.load(NAME) is None


def test_one_idempotency_conflict_is_an_accident_and_two_are_not(fakes: Fakes) -> None:
    first = fakes.resolve()
    fakes.settings = replace(fakes.settings, reuse_seconds=0)
    fakes.api.statuses = ["closed", IdempotencyConflict("used"), "ready"]
    record = fakes.resolve()
    assert len(fakes.api.keys) == 3
    assert record.previous_username == first.attempt.session_id
    assert events(fakes, "idempotency-conflict") == ["idempotency-conflict machine=dm-foo"]
    fakes.api.statuses = [IdempotencyConflict("used")]
    fakes.store.held.clear()
    with pytest.raises(IdempotencyConflict):
        fakes.resolve()


@pytest.mark.parametrize("part", ["host_trust", "other_principal"])
def test_a_session_that_cannot_be_trusted_never_reaches_the_agent(fakes: Fakes, part: str) -> None:
    trust = HostTrust("cert_authority", "ssh.example", public_line(AUTHORITIES.host_ca))
    key = public_line(AUTHORITIES.user_ca)
    certificate_text = AUTHORITIES.sign_user(key, "wssh-0", time.time() + 100)
    connection = Connection("ssh.example", 22, "wssh-0", certificate_text, trust)
    if part == "host_trust":
        connection = replace(connection, host_trust=None)
    fakes.api.changes = {"connection": connection}
    with pytest.raises(Untrusted):
        fakes.resolve()
    assert fakes.store.held == {}
    assert fakes.state.load(NAME) is None


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcs_proxy.session.steps.new_machine_wait_s", lambda _tries: 0.0)


def unreachable(fakes: Fakes, times: int) -> None:
    """Let the service say so often that it cannot reach the machine."""
    fakes.api.statuses = ["failed"] * times + ["ready"]
    make = fakes.api.session

    def session(session_id: str, public_key: str) -> Session:
        made = make(session_id, public_key)
        return replace(made, error_code="machine_not_routable", error_message="not yet")

    # In place of the method, which knows no error code.
    fakes.api.session = session  # type: ignore[method-assign]


def test_a_machine_that_cannot_be_reached_yet_gets_a_new_session(
    fakes: Fakes, no_wait: None
) -> None:
    unreachable(fakes, 3)
    record = fakes.resolve()
    assert record.ready is not None and len(fakes.api.keys) == 4
    assert set(fakes.store.held) == {record.identity}, "nothing is left of the failed ones"
    said = (
        'dm-foo: the service cannot reach the machine yet (the session is failed: "not yet" '
        "(machine_not_routable)); trying again"
    )
    assert fakes.notices == [said]
    assert len(events(fakes, "unreachable")) == 3


@pytest.mark.parametrize("tries", [0, 2])
def test_one_that_never_can_fails_as_the_service_says(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    # In the last second an attempt would fail for lack of time, and hide what the service said.
    monkeypatch.setattr(
        "dcs_proxy.session.steps.new_machine_wait_s", lambda tried: 0.0 if tried < tries else 29.5
    )
    unreachable(fakes, 99)
    with pytest.raises(SessionFailed, match="machine_not_routable"):
        fakes.resolve(seconds=30)
    assert len(fakes.api.keys) == tries + 1 and len(fakes.notices) == min(tries, 1)
    assert fakes.store.held == {}
    assert fakes.state.load(NAME) is None


def test_one_whose_wait_outlasts_the_deadline_fails_as_the_service_says(
    fakes: Fakes, no_wait: None
) -> None:
    """As when the computer is suspended meanwhile."""

    class Suspended(Deadline):
        def sleep(self, seconds: float) -> None:
            raise DeadlineExceeded("not ready in time")

    unreachable(fakes, 99)
    with pytest.raises(SessionFailed, match="machine_not_routable"):
        fakes.resolve(deadline=Suspended(30))
    assert fakes.store.held == {} and fakes.state.load(NAME) is None


def test_a_machine_that_is_listed_and_not_found_is_asked_for_again(
    fakes: Fakes, no_wait: None
) -> None:
    fakes.api.listed = ["dm-foo"]
    fakes.api.statuses = [MachineUnreachable("machine_not_found")] * 2 + ["ready"]
    record = fakes.resolve()
    assert len(fakes.api.keys) == 3 and set(fakes.store.held) == {record.identity}
    assert fakes.notices[0].startswith("dm-foo: the service cannot reach the machine yet (machine")


@pytest.mark.parametrize(("listed", "phase"), [(["dm-bar"], "running"), (["dm-foo"], "destroyed")])
def test_one_that_is_not_listed_is_not(fakes: Fakes, listed: list[str], phase: str) -> None:
    fakes.api.listed, fakes.api.phase = listed, phase
    fakes.api.statuses = [MachineUnreachable("no such")]
    with pytest.raises(MachineNotFound):
        fakes.resolve()
    assert fakes.api.count("POST") == 1 and fakes.api.count("LIST") == 1
    assert fakes.store.held == {}


def test_an_agent_that_cannot_be_reached_is_named(fakes: Fakes) -> None:
    with pytest.raises(AgentUnavailable):
        fakes.resolve(agents=UserAgent({"SSH_AUTH_SOCK": "/none.sock"}))
    assert fakes.api.journal == [], "no session is asked for that could not be used"
