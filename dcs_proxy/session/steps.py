"""Do the steps towards a session that next_step.py decides on.

Each step is written down before it is done, so that the next process can resume if this one is
killed at any point:

1. a new key goes into an agent, with a lifetime as long as the wake may last;
2. the attempt (Idempotency-Key, public key) is written, then sent;
3. the session is polled until it is ready, and what the API sent is checked;
4. the certificate goes into the agent as an identity of its own, and is written;
5. the bare key leaves the agent.

If no agent has room, step 2 comes before step 1: an agent is started only after the API has created
a session.  If the process is killed in between, the next one closes that session.

A process that resumes at step 3 cannot add a certificate, because it has no private key and an
agent never returns one.  Then ssh uses the bare key in the agent with the certificate's file.
"""

from __future__ import annotations

from dataclasses import replace

from dcs_proxy.api.client import new_idempotency_key
from dcs_proxy.api.model import Machine, Session
from dcs_proxy.api.retry import new_machine_wait_s, poll_wait_s
from dcs_proxy.console.format import in_words
from dcs_proxy.errors import (
    AgentRefused,
    AgentUnavailable,
    ClientGone,
    DcsError,
    DeadlineExceeded,
    IdempotencyConflict,
    MachineUnreachable,
    NotWoken,
    SessionFailed,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.identity import install_identity
from dcs_proxy.session.lifetime import SHORT_LIFE_S
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
    StayAsleep,
    Step,
    Wait,
)
from dcs_proxy.session.questions import (
    StillDoubtful,
    ask,
    how_to_wake,
    look_at_machine,
    save_proof,
)
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record
from dcs_proxy.session.work import Work
from dcs_proxy.ssh.agent import LIST_S, Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.text import as_word, quote_server

# Report a clock that is further behind or ahead of the API's: ssh checks the gateway's certificate
# by it, which may have been issued a minute ago, and lasts for longer than minutes.
_BEHIND_S, _AHEAD_S = 60, 300
# In less time an attempt would fail only because time is up.
_ATTEMPT_S = 1


def do(step: Step, work: Work) -> None:
    """Do one step, and add its result to the situation.  Raises DcsError."""
    match step:
        case AskAgent(record):
            work.learn(is_held=holds(record, work.context))
        case LookAtMachine():
            look_at_machine(work)
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
        agent = Agent(record.attempt.agent_path, timeout_s=LIST_S, log=context.log)
        return agent.holds(record.identity)
    except (AgentRefused, AgentUnavailable):
        return False


def _resume(work: Work, record: Record) -> None:
    work.context.log.event("resume", machine=work.name, session=record.attempt.session_id)
    try:
        session = ask(work, lambda poller, once: poller.look(record.attempt, once=once))
    except StillDoubtful:
        return
    work.learn(phase=Phase.RESUMED)
    _note(work, record, session)


def _wait(work: Work, record: Record, session: Session) -> None:
    work.announce()
    work.context.deadline.sleep(poll_wait_s(session.retry_after_ms))
    _note(work, record, work.poller().look(record.attempt))


def _note(work: Work, record: Record, session: Session | None) -> None:
    """Learn the session that the API returned; save the attempt if it has changed.

    A ready session is saved later, when the agent has its identity.
    """
    poller, before = work.poller(), record.attempt
    if session is None or session.is_over:
        if record.ready is not None:
            # At once, so that no other ssh uses the session meanwhile.
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
    work.context.agents.check()  # before any session is closed or created
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
            # Another request has used our random key.  Once may be an accident.
            has_conflicted = True
            work.context.log.event("idempotency-conflict", machine=work.name)
            work.discard_attempt()
        except MachineUnreachable as error:
            if not _is_listed(work):
                raise
            _wait_for_service(work, error)


def _wait_for_service(work: Work, error: DcsError) -> None:
    """Give the service time to find a machine that was just created; tell the user once.

    Discards the attempt that failed with `error`.  Raises `error` if there is no time left.
    """
    wait_s = new_machine_wait_s(work.unreachable)
    if work.context.deadline.remaining() < wait_s + _ATTEMPT_S:
        raise error
    if not work.unreachable:
        work.context.notice(
            f"{work.name}: the service cannot reach the machine yet ({error.message}); trying again"
        )
    work.context.log.event("unreachable", machine=work.name, what=error.message)
    work.unreachable += 1
    try:
        work.context.deadline.sleep(wait_s)
    except DeadlineExceeded:
        raise error from None
    work.discard_attempt()


def _is_listed(work: Work) -> bool:
    """Return whether the account's list contains a machine that a request did not find."""
    try:
        machines = work.poller().api.list_machines().machines
    except (ClientGone, DeadlineExceeded):
        raise
    except DcsError:
        return False
    return any(machine.name == work.name and not machine.is_going for machine in machines)


def _send_attempt(work: Work, old: Record | None) -> None:
    """Add a new key to an agent, save the attempt, and send it; if no agent has room, start one."""
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
    # Any doubt was about the old session.
    work.save(record, phase=Phase.CREATED, is_doubtful=False)
    session = work.poller().create(attempt)
    if not attempt.agent_path and not session.is_over:
        record = replace(record, attempt=_start_agent(work, key, attempt, session))
    _note(work, record, session)


def _start_agent(work: Work, key: KeyPair, attempt: Attempt, session: Session) -> Attempt:
    """Add the key to an agent, started if none has room; return the attempt with that agent.

    Raises AgentUnavailable, AgentRefused or StateError, after closing the useless session.
    """
    try:
        return replace(attempt, agent_path=work.add_key(key, may_start=True))
    except DcsError:
        _close(work, replace(attempt, session_id=session.session_id))
        raise


def _accept(work: Work, record: Record, session: Session) -> None:
    """Add the session's identity to the agent, save the record, then remove the bare key."""
    context, situation, key = work.context, work.situation, work.key
    _report_clock(work)
    ready = install_identity(
        work.name, session, record.attempt, key,
        agent=work.agent(record), context=context, clock_ahead_s=situation.clock_ahead_s,
    )  # fmt: skip
    lasts_s = ready.ends_at - context.now()
    if lasts_s < SHORT_LIFE_S:
        context.notice(
            f"{work.name}: this session lasts only {lasts_s:.1f} s, perhaps too short to log in; "
            "report it to the service's support"
        )
    # A machine that was already running accepts logins.  One that has just woken may not yet.
    has_woken = work.is_announced or key is None
    ready = replace(ready, proved_at=NEVER if has_woken else _proved_at(work))
    if not has_woken:
        save_proof(work)
    work.save(replace(record, ready=ready), phase=Phase.ACCEPTED)
    if key is not None and not ready.bare_key:
        work.agent(record).remove(key.blob)
    context.log.event("ready", machine=work.name, session=session.session_id,
                      login=ready.ssh_username, seconds=int(ready.ends_at - context.now()),
                      ms=int((context.now() - situation.started_at) * 1000))  # fmt: skip


def _confirm(work: Work, record: Record, ready: ReadySession) -> None:
    """Save that the session is valid now; after a wake, first wait until a login succeeds."""
    _report_clock(work)
    if ready.proved_at == NEVER:
        work.context.await_guest(work.name, record)
    ready = replace(ready, proved_at=_proved_at(work))
    save_proof(work)
    work.save(replace(record, ready=ready), phase=Phase.ACCEPTED)


def _close(work: Work, abandoned: Attempt) -> None:
    """Close a session whose key is lost, without retries.

    If its id is lost too, the same request is sent again, which returns the same session.  Raises
    as that request does.
    """
    session_id = abandoned.session_id
    try:
        session_id = session_id or work.poller().create(abandoned).session_id
    except (IdempotencyConflict, MachineUnreachable):
        return
    try:
        work.poller().api.close_session(work.name, session_id, new_idempotency_key(), once=True)
    except (DeadlineExceeded, ClientGone):
        raise
    except DcsError as error:
        work.context.log.event("close-failed", machine=work.name, what=error.message)


def _report_clock(work: Work) -> None:
    """Report, once, how far this computer's clock is from the API's."""
    ahead_s = work.situation.clock_ahead_s
    if not ahead_s or work.has_reported_clock:
        return
    work.has_reported_clock = True
    work.context.log.event("clock", machine=work.name, ahead_s=int(ahead_s))
    if _is_wrong(ahead_s):
        how = "behind" if ahead_s > 0 else "ahead of"
        difference = in_words(round(abs(ahead_s) / 60) * 60)
        work.context.notice(f"this computer's clock is {difference} {how} the API's: set it")


def _is_wrong(ahead_s: float) -> bool:
    return ahead_s >= _BEHIND_S or -ahead_s >= _AHEAD_S


def _proved_at(work: Work) -> float:
    """Return the time to save for a session that the API has just confirmed.

    While the clock is wrong it is so early that the next ssh asks again: where ssh then fails, it
    says only that a certificate is invalid, so each time the clock must be reported before.
    """
    now = work.context.now()
    return now - work.situation.reuse_s if _is_wrong(work.situation.clock_ahead_s) else now


def _not_woken(name: MachineName, machine: Machine) -> NotWoken:
    phase = "asleep" if machine.phase == "sleeping" else as_word(machine.phase)
    return NotWoken(
        f'the machine is {phase}, and wake = "never" forbids waking it',
        hint=how_to_wake(name),
    )


def _session_over(session: Session | None) -> SessionFailed:
    if session is None:
        return SessionFailed("the API no longer knows the session", hint="try again")
    said = f": {quote_server(session.error_message)}" if session.error_message else ""
    code = f" ({as_word(session.error_code)})" if session.error_code else ""
    return SessionFailed(
        f"the session is {as_word(session.status)}{said}{code}",
        hint="try again; if this persists, look at the machine in the console",
    )
