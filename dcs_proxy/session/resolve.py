"""From a machine's name to a session that ssh can use: reuse, resume, create, wait.

One process at a time works on a machine, under its lock; the others wait for what it finds.
Every step is written down before it is taken, so that a process killed at any point leaves
something that the next one can take up:

1. a new key goes into the agent, with a lifetime as long as the wake may last;
2. the attempt (Idempotency-Key, public key) is written down, then sent;
3. the session is polled until it is ready, and what came is checked;
4. the certificate goes into the agent as an identity of its own, and is written down;
5. the bare key leaves the agent.

Whoever takes up a session at step 3 has no private key to add a certificate with, for an agent
gives none back.  Then ssh uses the bare key that waits in the agent beside the certificate's file.
"""

from __future__ import annotations

import time
from dataclasses import replace

from dcs_proxy.api.client import new_idempotency_key
from dcs_proxy.api.model import Connection, Session
from dcs_proxy.api.retry import poll_wait_s
from dcs_proxy.errors import (
    AgentRefused,
    AgentUnavailable,
    ApiUnavailable,
    ClientGone,
    DcsError,
    DeadlineExceeded,
    IdempotencyConflict,
    SessionFailed,
    clean_text,
    quote_server,
)
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context, ControlPlane
from dcs_proxy.session.identity import install_identity
from dcs_proxy.session.last_failure import LastFailure
from dcs_proxy.session.lifetime import COMMITTED_S, UNKNOWN_LIFE_S, margin_s
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record
from dcs_proxy.session.wake_policy import require_awake
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair, public_line

# How long the bare key outlives the longest wait, so that the try after it still finds it.
_KEY_GRACE_S = 300
# Beyond this a clock is a fault of its own: ssh checks the gateway's certificate by it.
_CLOCK_NOTICE_S = 300


def resolve(name: MachineName, context: Context, *, is_second: bool = False) -> Record:
    """Return the record of a ready session of the machine.

    `is_second` says that the same ssh has asked before, while it read its configuration: what it
    failed with then is raised again at once, and the session that it was given is good to its
    end, for ssh will log in with that one and no other.
    Raises any DcsError but UsageError, ConfigError and LoginMismatch, with the machine's name.
    """
    try:
        record = _Resolution(name, context, is_second).run()
        context.progress.ready()
        return record
    except DcsError as error:
        error.machine = error.machine or name
        raise


class _Resolution:
    def __init__(self, name: MachineName, context: Context, is_second: bool) -> None:
        self.name = name
        self.context = context
        self.is_second = is_second
        self.agent_path = context.agent_path(name)
        self.started_at = context.now()
        self.failures = LastFailure(name, context.state, context.client, context.now)
        self.get_is_missing = False
        self.announced = False

    def run(self) -> Record:
        if (record := self.reusable()) is not None:
            return record
        if self.is_second:
            self.failures.raise_own()
        start = time.monotonic()
        while True:
            with self.context.state.lock(self.name, self.context.deadline, self.is_settled) as held:
                waited = milliseconds_since(start)
                self.context.log.debug("lock", machine=self.name, held=held, ms=waited)
                if (record := self.reusable()) is not None:
                    return record
                self.failures.raise_shared()
                # Without the lock, what another process had found is already gone again.
                if held:
                    return self.run_alone()

    def run_alone(self) -> Record:
        """Find a session, by a process that holds the machine's lock."""
        try:
            return self.take_up_or_create()
        except ClientGone:
            raise
        except DcsError as error:
            self.failures.save(error)
            raise

    def reusable(self) -> Record | None:
        """Return the session if it may be used without asking the API (DESIGN rule 4)."""
        record = self.context.state.load(self.name)
        if record is None or record.ready is None or not self.is_alive(record):
            return None
        age = self.context.now() - record.ready.proved_at
        limit = self.context.settings.reuse_seconds
        if self.is_second:
            limit += COMMITTED_S  # the first half may have come late in the time before
        # A negative age is a clock that was set back: nothing is known then.
        is_usable = 0 <= age < limit and self.is_held(record)
        self.context.log.debug("reuse", machine=self.name, session=record.attempt.session_id,
                             age_s=int(age), usable=is_usable)  # fmt: skip
        return record if is_usable else None

    def is_alive(self, record: Record) -> bool:
        """Whether a record belongs to this account and agent, and is not near its end."""
        attempt, context = record.attempt, self.context
        if attempt.account != context.account or attempt.agent_path != self.agent_path:
            return False
        life = record.ready.ends_at - record.ready.began_at if record.ready else UNKNOWN_LIFE_S
        return self.is_enough(record.ends_at() - context.now(), life)

    def is_enough(self, left_s: float, life_s: float) -> bool:
        """Whether this ssh may begin with what is left of a session."""
        return left_s > (0.0 if self.is_second else margin_s(life_s))

    def is_fresh(self, session: Session, api: ControlPlane) -> bool:
        """Whether a session that woke for somebody else is not near its end by now."""
        if session.expires_at is None or session.began_at is None:
            return True
        ends_at = session.expires_at.timestamp() - api.clock_ahead_s
        life = session.expires_at - session.began_at
        return self.is_enough(ends_at - self.context.now(), life.total_seconds())

    def is_held(self, record: Record) -> bool:
        """Whether the agent has what ssh will ask it for."""
        try:
            return Agent(record.attempt.agent_path, log=self.context.log).holds(record.identity)
        except (AgentRefused, AgentUnavailable):
            return False

    def is_settled(self) -> bool:
        """Whether another process has found a session, or failed, while this one waited."""
        record = self.context.state.load(self.name)
        if record is not None and record.ready is None and record.attempt.session_id:
            self.announce()
        return self.failures.is_shared() or self.reusable() is not None

    def take_up_or_create(self) -> Record:
        api = self.context.open_api()
        if self.context.settings.wake_policy(self.name) == "never":
            require_awake(self.name, api.get_machine(self.name))
        agent = self.context.open_agent(self.name)
        record = self.context.state.load(self.name)
        if record is not None and record.attempt.account == self.context.account:
            if self.is_alive(record) and self.is_held(record):
                taken_up = self.take_up(api, agent, record)
                if taken_up is not None:
                    return taken_up
            elif record.ready is None and record.attempt.session_id:
                self.close_abandoned(api, record.attempt)
        return self.create(api, agent, record)

    def take_up(self, api: ControlPlane, agent: Agent, record: Record) -> Record | None:
        """Go on with an earlier session; None if there is nothing to go on with."""
        self.context.log.event("resume", machine=self.name, session=record.attempt.session_id)
        record, session = self.wait(api, record, self.look(api, record))
        if session is None or not session.is_ready:
            return None
        if record.ready is None:
            if self.is_alive(record) and self.is_held(record) and self.is_fresh(session, api):
                return self.accept(api, agent, record, session, key=None)
            # The wake has outlasted the key, or nearly the session itself.
            self.close_abandoned(api, record.attempt)
            return None
        if not _is_same_login(record.ready, session.connection):
            return None
        return self.prove(record, record.ready)

    def create(self, api: ControlPlane, agent: Agent, old: Record | None) -> Record:
        self.context.state.collect_garbage(self.context.now())
        try:
            return self.attempt(api, agent, old)
        except IdempotencyConflict:
            # A key made of 122 random bits was used by somebody else: once is an accident.
            self.context.log.event("idempotency-conflict", machine=self.name)
            return self.attempt(api, agent, old)

    def attempt(self, api: ControlPlane, agent: Agent, old: Record | None) -> Record:
        key = generate_key()
        record = self.begin(agent, key, old)
        try:
            created = api.create_session(
                self.name, public_line(key.public), record.attempt.idempotency_key
            )
            record, session = self.wait(api, record, created)
            if session is None or not session.is_ready:
                raise _session_over(session)
            return self.accept(api, agent, record, session, key)
        except (DeadlineExceeded, ClientGone, ApiUnavailable):
            raise  # the next try takes the attempt up
        except DcsError:
            self.context.state.forget(self.name)
            agent.remove(key.blob)
            raise

    def begin(self, agent: Agent, key: KeyPair, old: Record | None) -> Record:
        """Put the key into the agent and write the attempt down."""
        lifetime_s = int(self.context.settings.wake_seconds + _KEY_GRACE_S)
        agent.add_key(key, comment=self.name, lifetime_s=lifetime_s)
        attempt = Attempt(
            idempotency_key=new_idempotency_key(),
            public_key=key.public.hex(),
            agent_path=self.agent_path,
            key_ends_at=self.context.now() + lifetime_s,
            account=self.context.account,
            machine=self.name,
        )
        if old is None:
            return self.save(Record(attempt))
        if old.ready is None:
            return self.save(replace(old, attempt=attempt))
        return self.save(Record(attempt, None, old.attempt.token, old.ready.ssh_username))

    def wait(
        self, api: ControlPlane, record: Record, session: Session | None
    ) -> tuple[Record, Session | None]:
        """Return the session once it is ready or over, None if the API knows it no more."""
        while session is not None and not session.is_ready and not session.is_over:
            record = self.note(record, session)
            self.pause(session)
            session = self.look(api, record)
        if session is not None and session.is_ready:
            record = self.note(record, session)
        return record, session

    def look(self, api: ControlPlane, record: Record) -> Session | None:
        """Return the session as it is now; None if the API does not know it any more.

        A deployment with only the POST of the contract has no GET: there the same POST tells.
        """
        attempt = record.attempt
        if attempt.session_id and not self.get_is_missing:
            session = api.get_session(self.name, attempt.session_id)
            if session is not None or attempt.polled:
                return session
            self.get_is_missing = True
        try:
            return api.create_session(
                self.name, public_line(attempt.public), attempt.idempotency_key
            )
        except IdempotencyConflict:
            return None

    def note(self, record: Record, session: Session) -> Record:
        """Note what is new about an attempt, and write it down while the machine wakes.

        A session that is ready is written down once it has been lent, with all of this.
        """
        polled = bool(record.attempt.session_id) and not self.get_is_missing
        attempt = replace(
            record.attempt,
            session_id=session.session_id,
            polled=record.attempt.polled or polled,
        )
        record, before = replace(record, attempt=attempt), record
        if record == before:
            return record
        if not before.attempt.session_id:
            self.context.log.event("session", machine=self.name, session=session.session_id,
                                 status=session.status)  # fmt: skip
        return record if session.is_ready else self.save(record)

    def pause(self, session: Session) -> None:
        self.announce()
        self.context.deadline.sleep(poll_wait_s(session.retry_after_ms))

    def accept(
        self,
        api: ControlPlane,
        agent: Agent,
        record: Record,
        session: Session,
        key: KeyPair | None,
    ) -> Record:
        """Lend the session to ssh and write it down; then the bare key may leave the agent."""
        context = self.context
        if api.clock_ahead_s:
            self.tell_of_clock(api.clock_ahead_s)
        ready = install_identity(
            self.name, session, record.attempt, key,
            agent=agent, context=context, clock_ahead_s=api.clock_ahead_s,
        )  # fmt: skip
        # A machine that was running answers; one that has woken has yet to show that it does.
        woke = self.announced or key is None
        ready = replace(ready, proved_at=NEVER if woke else context.now())
        record = self.save(replace(record, ready=ready))
        if key is not None and not ready.bare_key:
            agent.remove(key.blob)
        context.log.event("ready", machine=self.name, session=session.session_id,
                        login=ready.ssh_username, seconds=int(ready.ends_at - context.now()),
                        ms=int((context.now() - self.started_at) * 1000))  # fmt: skip
        return self.prove(record, ready) if woke else record

    def prove(self, record: Record, ready: ReadySession) -> Record:
        """Write down that the session is good now; after a wake, wait until the guest answers."""
        if ready.proved_at == NEVER:
            self.context.await_guest(self.name, record)
        return self.save(replace(record, ready=replace(ready, proved_at=self.context.now())))

    def tell_of_clock(self, ahead_s: float) -> None:
        self.context.log.event("clock", machine=self.name, ahead_s=int(ahead_s))
        if abs(ahead_s) >= _CLOCK_NOTICE_S:
            how = "behind" if ahead_s > 0 else "ahead of"
            minutes = round(abs(ahead_s) / 60)
            self.context.notice(f"this computer's clock is {minutes} min {how} the API's: set it")

    def close_abandoned(self, api: ControlPlane, attempt: Attempt) -> None:
        """End a session whose key is lost; it is of no use to anybody, and not worth a wait."""
        try:
            api.close_session(self.name, attempt.session_id, new_idempotency_key(), once=True)
        except (DeadlineExceeded, ClientGone):
            raise
        except DcsError as error:
            self.context.log.event("close-failed", machine=self.name, what=error.message)

    def announce(self) -> None:
        if not self.announced:
            self.announced = True
            self.context.progress.waking(self.name, self.context.settings.wake_seconds)

    def save(self, record: Record) -> Record:
        self.context.state.save(self.name, record)
        return record


def _is_same_login(ready: ReadySession, connection: Connection | None) -> bool:
    return connection is not None and (
        (connection.endpoint, connection.port, connection.ssh_username)
        == (ready.endpoint, ready.port, ready.ssh_username)
    )


def _session_over(session: Session | None) -> SessionFailed:
    if session is None:
        return SessionFailed("the API no longer knows the session", hint="try again")
    said = f": {quote_server(session.error_message)}" if session.error_message else ""
    code = f" ({clean_text(session.error_code, 60)})" if session.error_code else ""
    return SessionFailed(
        f"the session is {session.status}{said}{code}",
        hint="try again; if it fails again, look at the machine in the console",
    )
