"""Decide the next step towards a session that ssh can use.

No I/O and no clock: a Situation in, a step out.  resolve.py gathers the facts and does the step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum, auto

from dcs_proxy.api.model import Connection, Machine, Session
from dcs_proxy.errors import ApiUnavailable, DeadlineExceeded, MachineNotFound, SessionFailed
from dcs_proxy.session.lifetime import COMMITTED_S, UNKNOWN_LIFE_S, margin_s
from dcs_proxy.session.records import NEVER, Attempt, Failure, ReadySession, Record

# Failures that any process would meet that wants a session of the machine.
_SHARED = frozenset(
    kind.exit_code for kind in (SessionFailed, DeadlineExceeded, ApiUnavailable, MachineNotFound)
)


class Half(Enum):
    """Which of the two commands that an ssh runs asks for a session.

    PREPARE is the `Match exec`, after which ssh reads the login name.  CONNECT is the ProxyCommand;
    by then ssh is committed to the session that `prepare` has found.
    """

    PREPARE = auto()
    CONNECT = auto()


class Phase(Enum):
    """How far the process has come."""

    SEARCHING = auto()  # it does not have the machine's lock: another process wrote the record
    LOCKED = auto()  # it has the lock, and keeps it until the end
    RESUMED = auto()  # it continues with the session of an earlier record
    CREATED = auto()  # it has created the session
    ACCEPTED = auto()  # the agent holds the session's identity, and the record is saved


@dataclass(frozen=True)
class Situation:
    """What a process knows.

    The first fields are fixed: `account` identifies the API and the organisation, `agent_place` is
    the agent's socket or the directory of the agents' sockets, `reuse_s` is how many seconds a
    session may be used without asking the API, `may_wake` is the wake policy.  `started_at` and
    `now` are unix times by our clock, which the API's is `clock_ahead_s` ahead of.

    `record` and `failure` come from the state directory.  `is_doubtful` says that an ssh got the
    session without asking the API, and has ended: its login may have been refused.  `is_held` is
    whether the agent holds the record's identity, None until it has been asked.  `machine` is None
    until the API has been asked.  `session` is the session as the API last described it, None if
    the API does not know it.
    """

    half: Half
    account: str
    agent_place: str
    reuse_s: float
    may_wake: bool
    started_at: float
    now: float
    clock_ahead_s: float = 0.0
    phase: Phase = Phase.SEARCHING
    record: Record | None = None
    failure: Failure | None = None
    is_doubtful: bool = False
    is_held: bool | None = None
    machine: Machine | None = None
    session: Session | None = None

    def is_alive(self, record: Record) -> bool:
        """Return whether a record is for this account and agent, and will last long enough."""
        attempt, ready = record.attempt, record.ready
        is_there = self.agent_place in (attempt.agent_path, os.path.dirname(attempt.agent_path))
        if attempt.account != self.account or not is_there:
            return False
        life_s = ready.ends_at - ready.began_at if ready else UNKNOWN_LIFE_S
        return self._is_enough(record.ends_at(), life_s)

    def is_recent(self, ready: ReadySession) -> bool:
        """Return whether a session may be used without asking the API (DESIGN, rule 4)."""
        limit_s = self.reuse_s
        if self.half is Half.CONNECT:
            limit_s += COMMITTED_S  # `prepare` may have come at the very end of `reuse_s`
        elif self.is_doubtful:
            return False
        # A negative age means that the clock was set back, so the age is unknown.
        return 0 <= self.now - ready.proved_at < limit_s

    def is_fresh(self, session: Session) -> bool:
        """Return whether a session will last long enough, as the API describes it."""
        if session.expires_at is None or session.began_at is None:
            return True
        life_s = (session.expires_at - session.began_at).total_seconds()
        return self._is_enough(session.expires_at.timestamp() - self.clock_ahead_s, life_s)

    def _is_enough(self, ends_at: float, life_s: float) -> bool:
        needed_s = 0.0 if self.half is Half.CONNECT else margin_s(life_s)
        return ends_at - self.now > needed_s

    def is_shared(self, failure: Failure) -> bool:
        """Return whether a failure is that of a process for which this one was waiting."""
        # A time in the future means that the clock was set back, so the age is unknown.
        is_meanwhile = self.started_at <= failure.failed_at <= self.now
        return failure.exit_code in _SHARED and is_meanwhile


@dataclass(frozen=True)
class Use:
    """Done: ssh can log in with the record's session."""

    record: Record


@dataclass(frozen=True)
class FailAgain:
    """Fail as another process did while this one waited for it."""

    failure: Failure


@dataclass(frozen=True)
class TakeLock:
    """Take the machine's lock, or wait until its holder has found a session or failed."""


@dataclass(frozen=True)
class AskAgent:
    """Ask the agent whether it holds the record's identity."""

    record: Record


@dataclass(frozen=True)
class LookAtMachine:
    """Ask the API whether the machine is awake."""


@dataclass(frozen=True)
class StayAsleep:
    """Fail: the machine is not awake, and the policy forbids waking it."""

    machine: Machine


@dataclass(frozen=True)
class Resume:
    """Continue with the session of an earlier record: ask the API for it."""

    record: Record


@dataclass(frozen=True)
class Create:
    """Create a session; `old` is the record that the new one replaces.

    `abandoned` is an attempt whose key is lost: its session, which no process can use, is closed
    first.
    """

    old: Record | None
    abandoned: Attempt | None = None


@dataclass(frozen=True)
class Wait:
    """Wait as long as the API asks, then look at the session again."""

    record: Record
    session: Session


@dataclass(frozen=True)
class Accept:
    """Check what the API sent for a session that is ready, and give it to the agent."""

    record: Record
    session: Session


@dataclass(frozen=True)
class Confirm:
    """Record that the session is valid now; after a wake, first wait until a login succeeds."""

    record: Record
    ready: ReadySession


@dataclass(frozen=True)
class CreateAgain:
    """Wait a while and create another session: the service cannot reach the machine yet."""

    old: Record
    session: Session


@dataclass(frozen=True)
class GiveUp:
    """Fail: the session that this process created is over, or the API does not know it (None)."""

    session: Session | None


Step = (
    Use | FailAgain | TakeLock | AskAgent | LookAtMachine | StayAsleep | Resume | Create | Wait
    | CreateAgain | Accept | Confirm | GiveUp
)  # fmt: skip


def next_step(situation: Situation) -> Step:
    """Return what to do next."""
    match situation.phase:
        case Phase.SEARCHING:
            return _while_searching(situation)
        case Phase.LOCKED:
            return _once_locked(situation)
        case Phase.RESUMED:
            return _once_resumed(situation)
        case Phase.CREATED:
            return _once_created(situation)
        case Phase.ACCEPTED:
            return _once_accepted(situation)


def _while_searching(situation: Situation) -> Step:
    if (step := _reuse(situation)) is not None:
        return step
    return _share_failure(situation) or TakeLock()


def _once_locked(situation: Situation) -> Step:
    step = _reuse(situation) or _share_failure(situation) or _keep_asleep(situation)
    if step is not None:
        return step
    record = situation.record
    if record is None or record.attempt.account != situation.account:
        return Create(record)
    if situation.is_alive(record):
        if situation.is_held is None:
            return AskAgent(record)
        if situation.is_held:
            return Resume(record)
    # Even without an id the attempt may have been sent, by a process that was killed then.
    attempt = record.attempt
    may_wake = attempt.session_id or attempt.key_ends_at > situation.now
    return Create(record, abandoned=attempt if record.ready is None and may_wake else None)


def _reuse(situation: Situation) -> Step | None:
    """Return the step to use a session without asking the API, None if that is not allowed."""
    record = situation.record
    if record is None or record.ready is None or not situation.is_alive(record):
        return None
    if situation.is_held is False or not situation.is_recent(record.ready):
        return None
    return Use(record) if situation.is_held else AskAgent(record)


def _share_failure(situation: Situation) -> Step | None:
    failure = situation.failure
    if failure is None or not situation.is_shared(failure):
        return None
    return FailAgain(failure)


def _keep_asleep(situation: Situation) -> Step | None:
    """Return a step that does not wake the machine if the policy forbids waking, else None."""
    if situation.may_wake:
        return None
    machine = situation.machine
    if machine is None:
        return LookAtMachine()
    # If the machine is being destroyed, the API's own error says so.
    return None if machine.is_awake or machine.is_going else StayAsleep(machine)


def _once_resumed(situation: Situation) -> Step:
    record, session = situation.record, situation.session
    if record is None or session is None or session.is_over:
        return Create(record)
    if not session.is_ready:
        return Wait(record, session)
    if record.ready is not None:
        is_same = _is_same_login(record.ready, session.connection)
        return Confirm(record, record.ready) if is_same else Create(record)
    if situation.is_alive(record) and situation.is_fresh(session):
        if situation.is_held is None:
            return AskAgent(record)
        if situation.is_held:
            return Accept(record, session)
    # The wake took so long that the key has expired, or the session is about to.
    return Create(record, abandoned=record.attempt)


def _once_created(situation: Situation) -> Step:
    record, session = situation.record, situation.session
    if record is not None and session is not None and session.is_unreachable:
        return CreateAgain(record, session)
    if record is None or session is None or session.is_over:
        return GiveUp(session)
    return Accept(record, session) if session.is_ready else Wait(record, session)


def _once_accepted(situation: Situation) -> Step:
    record = situation.record
    if record is None or record.ready is None:
        return Create(record)
    return Confirm(record, record.ready) if record.ready.proved_at == NEVER else Use(record)


def _is_same_login(ready: ReadySession, connection: Connection | None) -> bool:
    return connection is not None and (
        (connection.endpoint, connection.port, connection.ssh_username)
        == (ready.endpoint, ready.port, ready.ssh_username)
    )
