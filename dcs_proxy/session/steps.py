"""Do the steps towards a session that next_step.py decides on.

Everything is written before it is done, so that a process killed at any point leaves something
that the next one can resume:

1. a new key goes into an agent, with a lifetime as long as the wake may last;
2. the attempt (Idempotency-Key, public key) is written, then sent;
3. the session is polled until it is ready, and what the API sent is checked;
4. the certificate goes into the agent as an identity of its own, and is written;
5. the bare key leaves the agent.

Where no agent has room, steps 1 and 2 change places: one is started only for a session that the API
has answered for.  A process that is killed in between leaves a session that no process uses.

A process that resumes at step 3 has no private key to add a certificate with, because an agent
never returns one.  Then ssh uses the bare key in the agent, beside the certificate's file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dcs_proxy.api.client import new_idempotency_key
from dcs_proxy.api.model import Machine, Session
from dcs_proxy.api.retry import new_machine_wait_s, poll_wait_s
from dcs_proxy.errors import (
    AgentRefused,
    AgentUnavailable,
    ApiUnavailable,
    ClientGone,
    DcsError,
    DeadlineExceeded,
    IdempotencyConflict,
    MachineNotFound,
    MachineUnreachable,
    NotWoken,
    SessionFailed,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.identity import install_identity
from dcs_proxy.session.lifetime import trusted_s
from dcs_proxy.session.next_step import (
    Accept,
    AskAgent,
    Confirm,
    Create,
    CreateAgain,
    GiveUp,
    LookAtMachine,
    Phase,
    Resume,
    Situation,
    StayAsleep,
    Step,
    Wait,
)
from dcs_proxy.session.polling import SessionPoller
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.text import as_word, quote_server

# How long the bare key outlives the longest wait, so that the next try still finds it.
_KEY_GRACE_S = 300
# How long an agent may take to start.
_AGENT_S = 20.0
# A larger difference is a fault of its own: ssh checks the gateway's certificate by our clock.
_CLOCK_NOTICE_S = 300
# How long the API may take to answer for a session that is good unless something has happened.
_DOUBT_S = 3.0


@dataclass
class Work:
    """The work of one process on one machine.

    `situation` is what it knows so far, `key` the private key of a session that it creates, and
    `unreachable` counts how often the service could not reach the machine.
    """

    name: MachineName
    context: Context
    situation: Situation
    key: KeyPair | None = None
    is_announced: bool = False
    has_told_of_clock: bool = False
    unreachable: int = 0
    _poller: SessionPoller | None = None

    def learn(self, **facts: Any) -> None:
        """Add facts, which are fields of Situation, to what is known."""
        self.situation = replace(self.situation, **facts)

    def poller(self) -> SessionPoller:
        """Return the way to ask the API, opened on first use."""
        if self._poller is None:
            self._poller = SessionPoller(self.name, self.context.open_api())
        return self._poller

    def add_key(self, key: KeyPair, *, may_start: bool) -> str:
        """Add a bare key to an agent; return the agent's socket, "" if none has room."""
        agent = self.context.agents.add_key(
            key, comment=self.name, lifetime_s=self.key_lifetime_s, may_start=may_start,
            timeout_s=min(_AGENT_S, self.context.deadline.remaining()),
        )  # fmt: skip
        return agent.path if agent else ""

    @property
    def key_lifetime_s(self) -> int:
        return int(self.context.settings.wake_seconds + _KEY_GRACE_S)

    def agent(self, record: Record) -> Agent:
        """Return the agent that a record's key is in."""
        return Agent(record.attempt.agent_path, log=self.context.log)

    def save(self, record: Record, **facts: Any) -> None:
        """Write the record and learn it.  Raises StateError."""
        self.context.state.save(self.name, record)
        self.learn(record=record, **facts)

    def announce(self) -> None:
        """Show the user, once, that the machine wakes."""
        if not self.is_announced:
            self.is_announced = True
            self.context.progress.waking(self.name, self.context.settings.wake_seconds)

    def discard_attempt(self) -> None:
        """Forget the attempt of this process, if there is one, and take its key from the agent."""
        record = self.situation.record
        if self.key is not None and record is not None:
            self.context.state.forget(self.name)
            if record.attempt.agent_path:
                self.agent(record).remove(self.key.blob)


def do(step: Step, work: Work) -> None:
    """Do a step of work, and learn what comes of it.  Raises DcsError."""
    match step:
        case AskAgent(record):
            work.learn(is_held=holds(record, work.context))
        case LookAtMachine():
            work.learn(machine=work.poller().api.get_machine(work.name))
        case StayAsleep() | GiveUp():
            raise _refusal(step, work.name)
        case Resume(record):
            _resume(work, record)
        case Create(old, abandoned):
            _create(work, old, abandoned)
        case CreateAgain(old_record, failed):
            _wait_for_service(work, _session_over(failed))
            _create(work, old_record, None)
        case Wait(record, session):
            _wait(work, record, session)
        case Accept(record, session):
            _accept(work, record, session)
        case Confirm(record, ready):
            _confirm(work, record, ready)


def _refusal(step: StayAsleep | GiveUp, name: MachineName) -> DcsError:
    if isinstance(step, StayAsleep):
        return _not_woken(name, step.machine)
    return _session_over(step.session)


def holds(record: Record, context: Context) -> bool:
    """Return whether the record's agent holds the identity that ssh will ask for."""
    try:
        return Agent(record.attempt.agent_path, log=context.log).holds(record.identity)
    except (AgentRefused, AgentUnavailable):
        return False


def _resume(work: Work, record: Record) -> None:
    work.context.log.event("resume", machine=work.name, session=record.attempt.session_id)
    look = _look_once if work.situation.is_doubtful else _look
    answer = look(work, record.attempt)
    if isinstance(answer, DcsError):
        # Without an answer the session is as good as it was before the doubt.
        work.context.log.event("still-doubtful", machine=work.name, what=answer.message)
        _save_proof(work)
        work.learn(is_doubtful=False)
    else:
        work.learn(phase=Phase.RESUMED)
        _note(work, record, answer)


def _look(work: Work, attempt: Attempt) -> Session | None:
    return work.poller().look(attempt)


def _look_once(work: Work, attempt: Attempt) -> Session | DcsError | None:
    """Return the session as `SessionPoller.look` does, or why the API does not soon say.

    Raises ClientGone, and MachineNotFound if there is no such machine any more.
    """
    try:
        poller = work.poller()
        return work.context.deadline.call(
            lambda: poller.look(attempt, once=True), within_s=_DOUBT_S
        )
    except (ClientGone, MachineNotFound):
        raise
    except TimeoutError:
        return ApiUnavailable(f"the API has not answered within {_DOUBT_S:g} s")
    except DcsError as error:
        return error


def _save_proof(work: Work) -> None:
    """Write that the API was asked for this ssh, so that no doubt is left."""
    context, situation = work.context, work.situation
    trusted = trusted_s(situation.reuse_s) if situation.is_doubtful else 0
    context.state.save_use(work.name, context.parent, context.now() + trusted)


def _wait(work: Work, record: Record, session: Session) -> None:
    work.announce()
    work.context.deadline.sleep(poll_wait_s(session.retry_after_ms))
    _note(work, record, work.poller().look(record.attempt))


def _note(work: Work, record: Record, session: Session | None) -> None:
    """Learn what the API said of a session, and write what is new while the machine wakes.

    A session that is ready is written once the agent has its identity, with all of this.
    """
    poller, before = work.poller(), record.attempt
    if session is None or session.is_over:
        if record.ready is not None:
            # Before anything else is tried, so that no other ssh uses the session meanwhile.
            work.context.state.forget(work.name)
    else:
        record = replace(record, attempt=poller.note(before, session))
        if not before.session_id:
            work.context.log.event("session", machine=work.name, session=session.session_id,
                                   status=session.status)  # fmt: skip
        if not session.is_ready and record.attempt != before:
            work.save(record)
    clock_ahead_s = poller.api.clock_ahead_s
    # The wait may have outlasted the identity.
    work.learn(record=record, session=session, clock_ahead_s=clock_ahead_s, is_held=None)


def _create(work: Work, old: Record | None, abandoned: Attempt | None) -> None:
    work.context.agents.check()  # without one no session is closed or created
    if abandoned is not None:
        _close(work, abandoned)
    work.context.state.collect_garbage(work.context.now())
    has_conflicted = False
    while True:
        try:
            return _send_attempt(work, old)
        except IdempotencyConflict:
            if has_conflicted:
                raise
            # Another request has used our random key: once is an accident.
            has_conflicted = True
            work.context.log.event("idempotency-conflict", machine=work.name)
            work.discard_attempt()
        except MachineUnreachable as error:
            if not _is_listed(work):
                raise
            _wait_for_service(work, error)


def _wait_for_service(work: Work, error: DcsError) -> None:
    """Wait until the service may know a machine that was created just now, and say so once.

    The attempt that met `error` is discarded.  Raises `error` if there is no time left.
    """
    if not work.unreachable:
        work.context.notice(
            f"{work.name}: the service cannot reach the machine yet ({error.message}); trying again"
        )
    work.context.log.event("unreachable", machine=work.name, what=error.message)
    wait_s = new_machine_wait_s(work.unreachable)
    work.unreachable += 1
    try:
        work.context.deadline.sleep(wait_s)
    except DeadlineExceeded:
        raise error from None
    work.discard_attempt()


def _is_listed(work: Work) -> bool:
    """Return whether the account's list has the machine, which a request has not found."""
    try:
        machines = work.poller().api.list_machines().machines
    except (ClientGone, DeadlineExceeded):
        raise
    except DcsError:
        return False
    return any(machine.name == work.name and not machine.is_going for machine in machines)


def _send_attempt(work: Work, old: Record | None) -> None:
    """Put a new key into an agent, write the attempt, and send it; or start an agent after that."""
    context = work.context
    key = work.key = generate_key()
    attempt = Attempt(
        idempotency_key=new_idempotency_key(),
        public_key=key.public.hex(),
        agent_path=work.add_key(key, may_start=False),
        key_ends_at=context.now() + work.key_lifetime_s,
        account=context.account,
        machine=work.name,
    )
    record = Record(attempt)
    if old is not None and old.ready is None:
        record = replace(old, attempt=attempt)
    elif old is not None and old.ready is not None:
        record = Record(attempt, None, old.attempt.token, old.ready.ssh_username)
    # A doubt was about the old session.
    work.save(record, phase=Phase.CREATED, is_doubtful=False)
    session = work.poller().create(attempt)
    if not attempt.agent_path and not session.is_over:
        record = replace(record, attempt=_start_agent(work, key, attempt, session))
    _note(work, record, session)


def _start_agent(work: Work, key: KeyPair, attempt: Attempt, session: Session) -> Attempt:
    """Add the key to an agent, started if none has room; return the attempt with that agent.

    Raises AgentUnavailable, AgentRefused or StateError, once the session, of no use, is closed.
    """
    try:
        return replace(attempt, agent_path=work.add_key(key, may_start=True))
    except DcsError:
        _close(work, replace(attempt, session_id=session.session_id))
        raise


def _accept(work: Work, record: Record, session: Session) -> None:
    """Give the session's identity to the agent, and write it; then the bare key can leave."""
    context, situation, key = work.context, work.situation, work.key
    _tell_of_clock(work)
    ready = install_identity(
        work.name, session, record.attempt, key,
        agent=work.agent(record), context=context, clock_ahead_s=situation.clock_ahead_s,
    )  # fmt: skip
    # A machine that was running lets us in.  One that has woken has yet to show that it does.
    has_woken = work.is_announced or key is None
    ready = replace(ready, proved_at=NEVER if has_woken else context.now())
    if not has_woken:
        _save_proof(work)
    work.save(replace(record, ready=ready), phase=Phase.ACCEPTED)
    if key is not None and not ready.bare_key:
        work.agent(record).remove(key.blob)
    context.log.event("ready", machine=work.name, session=session.session_id,
                      login=ready.ssh_username, seconds=int(ready.ends_at - context.now()),
                      ms=int((context.now() - situation.started_at) * 1000))  # fmt: skip


def _confirm(work: Work, record: Record, ready: ReadySession) -> None:
    """Write that the session is good now; after a wake, wait until the guest lets us in."""
    _tell_of_clock(work)
    if ready.proved_at == NEVER:
        work.context.await_guest(work.name, record)
    ready = replace(ready, proved_at=work.context.now())
    _save_proof(work)
    work.save(replace(record, ready=ready), phase=Phase.ACCEPTED)


def _close(work: Work, abandoned: Attempt) -> None:
    """End a session whose key is lost; it is of no use, and not worth a wait."""
    try:
        work.poller().api.close_session(
            work.name, abandoned.session_id, new_idempotency_key(), once=True
        )
    except (DeadlineExceeded, ClientGone):
        raise
    except DcsError as error:
        work.context.log.event("close-failed", machine=work.name, what=error.message)


def _tell_of_clock(work: Work) -> None:
    """Report, once, how far this computer's clock is from the API's."""
    ahead_s = work.situation.clock_ahead_s
    if not ahead_s or work.has_told_of_clock:
        return
    work.has_told_of_clock = True
    work.context.log.event("clock", machine=work.name, ahead_s=int(ahead_s))
    if abs(ahead_s) >= _CLOCK_NOTICE_S:
        how = "behind" if ahead_s > 0 else "ahead of"
        minutes = round(abs(ahead_s) / 60)
        work.context.notice(f"this computer's clock is {minutes} min {how} the API's: set it")


def _not_woken(name: MachineName, machine: Machine) -> NotWoken:
    phase = "asleep" if machine.phase == "sleeping" else as_word(machine.phase)
    return NotWoken(
        f'the machine is {phase}, and wake = "never" forbids waking it',
        hint=f"to wake it: dcs-proxy wake {name}, or DCS_PROXY_WAKE=always ssh {name}",
    )


def _session_over(session: Session | None) -> SessionFailed:
    if session is None:
        return SessionFailed("the API no longer knows the session", hint="try again")
    said = f": {quote_server(session.error_message)}" if session.error_message else ""
    code = f" ({as_word(session.error_code)})" if session.error_code else ""
    return SessionFailed(
        f"the session is {as_word(session.status)}{said}{code}",
        hint="try again; if it fails again, look at the machine in the console",
    )
