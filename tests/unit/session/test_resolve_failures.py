"""What a failure leaves behind, and which processes it is repeated to."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from dcs_proxy.api.model import Connection, HostTrust, Session
from dcs_proxy.emulator.authority import public_line
from dcs_proxy.errors import (
    AgentUnavailable,
    IdempotencyConflict,
    MachineNotFound,
    SessionFailed,
    Untrusted,
)
from dcs_proxy.session.next_step import Half
from dcs_proxy.ssh.agent import Agent
from tests.unit.session.fakes import AUTHORITIES, NAME, Stage, events


def test_an_unknown_machine_leaves_nothing_behind(stage: Stage) -> None:
    stage.plane.statuses = [MachineNotFound("no such")]
    with pytest.raises(MachineNotFound):
        stage.resolve()
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_one_idempotency_conflict_is_an_accident_and_two_are_not(stage: Stage) -> None:
    first = stage.resolve()
    stage.settings = replace(stage.settings, reuse_seconds=0)
    stage.plane.statuses = ["closed", IdempotencyConflict("used"), "ready"]
    record = stage.resolve()
    assert len(stage.plane.keys) == 3
    assert record.previous_username == first.attempt.session_id
    assert events(stage, "idempotency-conflict") == ["idempotency-conflict machine=dm-foo"]
    stage.plane.statuses = [IdempotencyConflict("used")]
    stage.store.held.clear()
    with pytest.raises(IdempotencyConflict):
        stage.resolve()


@pytest.mark.parametrize("part", ["host_trust", "other_principal"])
def test_a_session_that_cannot_be_trusted_never_reaches_the_agent(stage: Stage, part: str) -> None:
    trust = HostTrust("cert_authority", "ssh.example", public_line(AUTHORITIES.host_ca))
    key = public_line(AUTHORITIES.user_ca)
    certificate_text = AUTHORITIES.sign_user(key, "wssh-0", time.time() + 100)
    connection = Connection("ssh.example", 22, "wssh-0", certificate_text, trust)
    if part == "host_trust":
        connection = replace(connection, host_trust=None)
    stage.plane.changes = {"connection": connection}
    with pytest.raises(Untrusted):
        stage.resolve()
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcs_proxy.session.steps.new_machine_wait_s", lambda _tries: 0.0)


def unreachable(stage: Stage, times: int) -> None:
    """Let the service say so often that it cannot reach the machine."""
    stage.plane.statuses = ["failed"] * times + ["ready"]
    make = stage.plane.session

    def session(session_id: str, public_key: str) -> Session:
        made = make(session_id, public_key)
        return replace(made, error_code="machine_not_routable", error_message="not yet")

    stage.plane.session = session  # type: ignore[method-assign]


def test_a_machine_that_cannot_be_reached_yet_gets_a_new_session(
    stage: Stage, no_wait: None
) -> None:
    unreachable(stage, 3)
    record = stage.resolve()
    assert record.ready is not None and len(stage.plane.keys) == 4
    assert set(stage.store.held) == {record.identity}, "nothing is left of the failed ones"
    said = (
        'dm-foo: the service cannot reach the machine yet (the session is failed: "not yet" '
        "(machine_not_routable)); trying again"
    )
    assert stage.notices == [said]
    assert len(events(stage, "unreachable")) == 3


def test_one_that_never_can_fails_as_the_service_says(stage: Stage) -> None:
    unreachable(stage, 99)
    with pytest.raises(SessionFailed, match="machine_not_routable"):
        stage.resolve(seconds=1)
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_a_machine_that_is_listed_and_not_found_is_asked_for_again(
    stage: Stage, no_wait: None
) -> None:
    stage.plane.listed = ["dm-foo"]
    stage.plane.statuses = [MachineNotFound("machine_not_found")] * 2 + ["ready"]
    record = stage.resolve()
    assert len(stage.plane.keys) == 3 and set(stage.store.held) == {record.identity}
    assert stage.notices[0].startswith("dm-foo: the service cannot reach the machine yet (machine")


@pytest.mark.parametrize(("listed", "phase"), [(["dm-bar"], "running"), (["dm-foo"], "destroyed")])
def test_one_that_is_not_listed_is_not(stage: Stage, listed: list[str], phase: str) -> None:
    stage.plane.listed, stage.plane.phase = listed, phase
    stage.plane.statuses = [MachineNotFound("no such")]
    with pytest.raises(MachineNotFound):
        stage.resolve()
    assert stage.plane.count("POST") == 1 and stage.plane.count("LIST") == 1
    assert stage.store.held == {}


def test_a_failure_is_repeated_to_the_same_ssh_and_to_no_other(stage: Stage) -> None:
    stage.plane.statuses = [MachineNotFound("no such", hint="look")]
    with pytest.raises(MachineNotFound) as caught:
        stage.resolve()
    assert not caught.value.was_shown
    with pytest.raises(MachineNotFound, match="no such") as again:
        stage.resolve(half=Half.CONNECT)
    assert again.value.was_shown and again.value.hint == "look"
    assert stage.plane.count("POST") == 1
    stage.plane.statuses = ["ready"]
    assert stage.resolve(half=Half.CONNECT, client="2:2").ready


def test_an_agent_that_cannot_be_reached_is_named(stage: Stage) -> None:
    with pytest.raises(AgentUnavailable):
        stage.resolve(open_agent=lambda name: Agent("/none.sock"))
    assert stage.plane.journal == [], "no session is asked for that nobody could use"
