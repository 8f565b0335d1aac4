"""The decision table: what a process knows, and what it does next."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from dcs_proxy.api.model import Connection, Machine, Session
from dcs_proxy.errors import (
    ApiUnavailable,
    CredentialsError,
    DeadlineExceeded,
    MachineNotFound,
    NotWoken,
    SessionFailed,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.next_step import (
    Accept,
    AskAgent,
    Confirm,
    Create,
    CreateAgain,
    FailAgain,
    GiveUp,
    Half,
    LookAtMachine,
    Phase,
    Resume,
    Situation,
    StayAsleep,
    Step,
    TakeLock,
    Use,
    Wait,
    next_step,
)
from dcs_proxy.session.records import NEVER, Attempt, Failure, ReadySession, Record

NAME = MachineName("dm-foo")
NOW = 10_000.0
ATTEMPT = Attempt("key", "ab" * 32, "/agent", NOW + 600, "account", "wssh-1", True, NAME)
READY = ReadySession("ssh.example", 22, "user", "authority", "", True, NOW + 3000, NOW, NOW)
RECORD = Record(ATTEMPT, READY)
WAKING = Record(ATTEMPT)
POOLED = Record(replace(ATTEMPT, agent_path="/agents/1.sock"), READY)
UNKEPT = Record(replace(ATTEMPT, agent_path=""), READY)
UNSENT = Record(replace(ATTEMPT, session_id=""))
NEAR_END = Record(ATTEMPT, replace(READY, began_at=NOW - 3000, ends_at=NOW + 30))
OLD = Record(ATTEMPT, replace(READY, proved_at=NOW - 60))
CONNECTION = Connection("ssh.example", 22, "user", None, None)
FAILURE = Failure(SessionFailed.exit_code, "failed", "hint", NOW)
ASLEEP, AWAKE = Machine(NAME, "sleeping"), Machine(NAME, "running")


def when(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, timezone.utc)


def session(status: str, life_s: float | None = 3000, age_s: float = 0) -> Session:
    connection = CONNECTION if status == "ready" else None
    began_at = when(-age_s)
    expires_at = None if life_s is None else when(life_s - age_s)
    return Session("wssh-1", NAME, status, began_at, expires_at, 500, "", "", connection)


def failed(error_code: str) -> Session:
    return replace(session("failed"), error_code=error_code)


def situation(phase: Phase = Phase.SEARCHING, **facts: Any) -> Situation:
    defaults: dict[str, Any] = {
        "half": Half.PREPARE, "account": "account", "agent_place": "/agent",
        "reuse_s": 60, "may_wake": True, "started_at": NOW - 10, "now": NOW, "phase": phase,
    }  # fmt: skip
    return Situation(**{**defaults, **facts})


def connecting(phase: Phase = Phase.SEARCHING, **facts: Any) -> Situation:
    return situation(phase, half=Half.CONNECT, **facts)


SEARCHING = [
    ("nothing is known", situation(), TakeLock()),
    ("a session that was just confirmed", situation(record=RECORD), AskAgent(RECORD)),
    ("it is held", situation(record=RECORD, is_held=True), Use(RECORD)),
    ("it is not held", situation(record=RECORD, is_held=False), TakeLock()),
    ("it was confirmed too long ago", situation(record=OLD), TakeLock()),
    ("a longer reuse_seconds", situation(record=OLD, reuse_s=61), AskAgent(OLD)),
    ("no reuse", situation(record=RECORD, reuse_s=0), TakeLock()),
    ("a wake is under way", situation(record=WAKING), TakeLock()),
    ("the session is near its end", situation(record=NEAR_END), TakeLock()),
    ("the clock was set back", situation(record=RECORD, now=NOW - 1), TakeLock()),
    ("another account", situation(record=RECORD, account="other"), TakeLock()),
    ("another agent", situation(record=RECORD, agent_place="/other"), TakeLock()),
    ("one of several agents", situation(record=POOLED, agent_place="/agents"), AskAgent(POOLED)),
    ("its login may have been refused", situation(record=RECORD, is_doubtful=True), TakeLock()),
    ("no agent yet", situation(record=UNKEPT, agent_place="/agents"), TakeLock()),
    ("the policy does not matter", situation(record=RECORD, may_wake=False), AskAgent(RECORD)),
    ("another process has failed", situation(failure=FAILURE), FailAgain(FAILURE)),
    ("a session goes before a failure", situation(record=RECORD, failure=FAILURE, is_held=True),
     Use(RECORD)),
    ("it failed before this one began", situation(failure=FAILURE, started_at=NOW + 0.1),
     TakeLock()),
    ("it failed at that very moment", situation(failure=FAILURE, started_at=NOW),
     FailAgain(FAILURE)),
    ("a failure from the future", situation(failure=FAILURE, now=NOW - 0.1), TakeLock()),
]  # fmt: skip

CONNECTING = [
    ("it asks the API no more", connecting(record=OLD, is_held=True), Use(OLD)),
    ("until a minute after reuse_seconds",
     connecting(record=OLD, is_held=True, now=NOW + 60, reuse_s=60), TakeLock()),
    ("even if a login may have been refused",
     connecting(record=RECORD, is_held=True, is_doubtful=True), Use(RECORD)),
    ("up to the end of the session",
     connecting(record=NEAR_END, is_held=True, now=NOW + 29.9), Use(NEAR_END)),
    ("and no further", connecting(record=NEAR_END, is_held=True, now=NOW + 30), TakeLock()),
]  # fmt: skip

LOCKED = [
    ("nothing is known", {}, Create(None)),
    ("a session that was just confirmed", {"record": RECORD}, AskAgent(RECORD)),
    ("it is held", {"record": RECORD, "is_held": True}, Use(RECORD)),
    ("it is not held", {"record": RECORD, "is_held": False}, Create(RECORD)),
    ("another process has failed", {"failure": FAILURE}, FailAgain(FAILURE)),
    ("an earlier failure is tried again", {"failure": replace(FAILURE, failed_at=NOW - 11)},
     Create(None)),
    ("it was confirmed too long ago", {"record": OLD}, AskAgent(OLD)),
    ("too long ago and held", {"record": OLD, "is_held": True}, Resume(OLD)),
    ("too long ago and not held", {"record": OLD, "is_held": False}, Create(OLD)),
    ("a wake is under way", {"record": WAKING}, AskAgent(WAKING)),
    ("its key is held", {"record": WAKING, "is_held": True}, Resume(WAKING)),
    ("its key is lost", {"record": WAKING, "is_held": False}, Create(WAKING, ATTEMPT)),
    ("an attempt that was never sent", {"record": UNSENT, "is_held": True}, Resume(UNSENT)),
    ("that one's key is lost", {"record": UNSENT, "is_held": False},
     Create(UNSENT, UNSENT.attempt)),
    ("and it was long ago", {"record": UNSENT, "now": UNSENT.attempt.key_ends_at}, Create(UNSENT)),
    ("a wake whose key ends", {"record": WAKING, "now": NOW + 570}, Create(WAKING, ATTEMPT)),
    ("a wake whose key has ended", {"record": WAKING, "now": NOW + 600}, Create(WAKING, ATTEMPT)),
    ("a session near its end", {"record": NEAR_END}, Create(NEAR_END)),
    ("another account", {"record": WAKING, "account": "other"}, Create(WAKING)),
    ("another agent", {"record": WAKING, "agent_place": "/x"}, Create(WAKING, ATTEMPT)),
]  # fmt: skip

NEVER_WAKE = [
    ("the machine is not known", {}, LookAtMachine()),
    ("it sleeps", {"machine": ASLEEP}, StayAsleep(ASLEEP)),
    ("it runs", {"machine": AWAKE}, Create(None)),
    ("it runs, and a session is to be confirmed",
     {"machine": AWAKE, "record": OLD, "is_held": True}, Resume(OLD)),
    ("it sleeps, and a session was just confirmed",
     {"machine": ASLEEP, "record": RECORD, "is_held": True}, Use(RECORD)),
    ("it sleeps, and a session is to be confirmed",
     {"machine": ASLEEP, "record": OLD, "is_held": True}, StayAsleep(ASLEEP)),
    ("it is being destroyed", {"machine": Machine(NAME, "destroying")}, Create(None)),
]  # fmt: skip

SHORT = session("ready", life_s=40, age_s=19)
RESUMED = [
    ("the API knows no such session", WAKING, None, {}, Create(WAKING)),
    ("it is over", WAKING, session("closed"), {}, Create(WAKING)),
    ("the record was removed", None, session("ready"), {}, Create(None)),
    ("it is pending", WAKING, session("new_word"), {}, Wait(WAKING, session("new_word"))),
    ("a ready one is pending again", RECORD, session("ssh_in_progress"), {},
     Wait(RECORD, session("ssh_in_progress"))),
    ("it is ready", WAKING, session("ready"), {}, AskAgent(WAKING)),
    ("its key is held", WAKING, session("ready"), {"is_held": True},
     Accept(WAKING, session("ready"))),
    ("its key is lost", WAKING, session("ready"), {"is_held": False}, Create(WAKING, ATTEMPT)),
    ("its key ends", WAKING, session("ready"), {"is_held": True, "now": NOW + 570},
     Create(WAKING, ATTEMPT)),
    ("enough is left of it", WAKING, SHORT, {"is_held": True}, Accept(WAKING, SHORT)),
    ("not enough is left of it", WAKING, SHORT, {"is_held": True, "now": NOW + 1},
     Create(WAKING, ATTEMPT)),
    ("our clock is behind the API's", WAKING, SHORT, {"is_held": True, "clock_ahead_s": 2.0},
     Create(WAKING, ATTEMPT)),
    ("nothing says when it ends", WAKING, session("ready", None), {"is_held": True},
     Accept(WAKING, session("ready", None))),
    ("nothing says when it began", WAKING, replace(SHORT, began_at=None), {"is_held": True},
     Accept(WAKING, replace(SHORT, began_at=None))),
    ("the same login", OLD, session("ready"), {}, Confirm(OLD, OLD.ready)),
    ("another login", OLD, replace(session("ready"), connection=replace(CONNECTION, port=23)), {},
     Create(OLD)),
    ("no connection", OLD, replace(session("ready"), connection=None), {}, Create(OLD)),
]  # fmt: skip

UNPROVED = Record(ATTEMPT, replace(READY, proved_at=NEVER))
CREATED = [
    ("it is pending", Phase.CREATED, WAKING, session("wake_in_progress"),
     Wait(WAKING, session("wake_in_progress"))),
    ("it is ready", Phase.CREATED, WAKING, session("ready"), Accept(WAKING, session("ready"))),
    ("it is over", Phase.CREATED, WAKING, session("failed"), GiveUp(session("failed"))),
    ("it is gone", Phase.CREATED, WAKING, None, GiveUp(None)),
    *(
        (f"it failed with {code}", Phase.CREATED, WAKING, failed(code),
         CreateAgain(WAKING, failed(code)))
        for code in ("machine_not_routable", "MACHINE_NOT_ROUTABLE", "machine_not_found")
    ),
    ("it was closed", Phase.CREATED, WAKING, replace(failed("machine_not_found"), status="closed"),
     GiveUp(replace(failed("machine_not_found"), status="closed"))),
    ("the machine has woken", Phase.ACCEPTED, UNPROVED, session("ready"),
     Confirm(UNPROVED, UNPROVED.ready)),
    ("the machine was running", Phase.ACCEPTED, RECORD, session("ready"), Use(RECORD)),
    ("it has no record", Phase.CREATED, None, session("ready"), GiveUp(session("ready"))),
    ("it failed and has no record", Phase.CREATED, None, failed("machine_not_found"),
     GiveUp(failed("machine_not_found"))),
    ("the record was removed", Phase.ACCEPTED, None, session("ready"), Create(None)),
    ("the record lost its session", Phase.ACCEPTED, WAKING, session("ready"), Create(WAKING)),
    ("however short it is", Phase.ACCEPTED, NEAR_END, session("ready"), Use(NEAR_END)),
]  # fmt: skip


def names(rows: list[Any]) -> list[str]:
    return [row[0] for row in rows]


@pytest.mark.parametrize(("what", "known", "step"), SEARCHING, ids=names(SEARCHING))
def test_before_the_lock(what: str, known: Situation, step: Step) -> None:
    assert next_step(known) == step


@pytest.mark.parametrize(("what", "known", "step"), CONNECTING, ids=names(CONNECTING))
def test_in_the_second_half_of_an_ssh(what: str, known: Situation, step: Step) -> None:
    assert next_step(known) == step


@pytest.mark.parametrize(("what", "facts", "step"), LOCKED, ids=names(LOCKED))
def test_with_the_lock(what: str, facts: dict[str, Any], step: Step) -> None:
    assert next_step(situation(Phase.LOCKED, **facts)) == step


@pytest.mark.parametrize(("what", "facts", "step"), NEVER_WAKE, ids=names(NEVER_WAKE))
def test_when_the_policy_forbids_waking(what: str, facts: dict[str, Any], step: Step) -> None:
    assert next_step(situation(Phase.LOCKED, may_wake=False, **facts)) == step


@pytest.mark.parametrize(("what", "record", "found", "facts", "step"), RESUMED, ids=names(RESUMED))
def test_once_an_earlier_session_is_looked_at(
    what: str, record: Record | None, found: Session | None, facts: dict[str, Any], step: Step
) -> None:
    assert next_step(situation(Phase.RESUMED, record=record, session=found, **facts)) == step


@pytest.mark.parametrize(("what", "phase", "record", "found", "step"), CREATED, ids=names(CREATED))
def test_once_a_session_is_created(
    what: str, phase: Phase, record: Record | None, found: Session | None, step: Step
) -> None:
    assert next_step(situation(phase, record=record, session=found)) == step


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [
        (SessionFailed, True), (DeadlineExceeded, True), (ApiUnavailable, True),
        (MachineNotFound, True), (CredentialsError, False), (NotWoken, False),
    ],
)  # fmt: skip
def test_failures_that_would_meet_any_process_are_shared(
    kind: type[SessionFailed], is_shared: bool
) -> None:
    failure = replace(FAILURE, exit_code=kind.exit_code)
    expected = FailAgain(failure) if is_shared else TakeLock()
    assert next_step(situation(failure=failure)) == expected


@pytest.mark.parametrize(("life_s", "left_s"), [(3000, 30), (60, 30), (40, 20), (2, 1)])
def test_what_must_be_left_of_a_session(life_s: float, left_s: float) -> None:
    ready = replace(READY, began_at=NOW, ends_at=NOW + life_s)
    record = Record(ATTEMPT, ready)
    before = situation(record=record, is_held=True, now=NOW + life_s - left_s - 0.01, reuse_s=3600)
    assert next_step(before) == Use(record)
    assert next_step(replace(before, now=NOW + life_s - left_s)) == TakeLock()
