"""The service's machines and sessions, as state that time changes: no I/O.

`now` is a monotonic clock in seconds; dates for replies are made from it and the wall clock, so
that a clock that is set does not end sessions.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dcs_proxy.console.format import rfc3339

PHASES = (
    "accepted", "placement_pending", "starting", "running", "stopping", "sleeping",
    "destroying", "destroyed", "failed",
)  # fmt: skip
_DEAD = frozenset({"destroying", "destroyed", "failed"})
_POLL_MS = 500


@dataclass
class Machine:
    """One machine; `wakes_at` is when it will run, `used_at` when somebody last used it.

    `changed_at` is when its phase changed last; `revision` counts the phases it has had.
    """

    name: str
    phase: str
    created_at: float
    changed_at: float
    revision: int = 1
    wakes_at: float | None = None
    used_at: float = 0.0
    connections: int = 0

    def enter(self, phase: str, now: float) -> None:
        """Change the phase."""
        if phase != self.phase:
            self.phase, self.changed_at, self.revision = phase, now, self.revision + 1


@dataclass
class SshSession:
    """One SSH session; times by the monotonic clock, None while unknown."""

    session_id: str
    machine: Machine
    public_key: str
    username: str
    created_at: float
    status: str = "wake_in_progress"
    ready_at: float | None = None
    ends_at: float | None = None
    error_code: str = ""
    error_message: str = ""
    certificate: str = ""


class Conflict(Exception):
    """An Idempotency-Key came again with another request (`first` and `second` are hashes)."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__("idempotency key reused")
        self.first, self.second = first, second


@dataclass
class Service:
    """Every machine and session.  Methods may be called from any thread.

    `login` is the login name of every session, or None where it is the session's own id.
    """

    wake_seconds: float
    session_seconds: float
    autosleep_seconds: float
    login: str | None = None
    now: Callable[[], float] = time.monotonic
    machines: dict[str, Machine] = field(default_factory=dict)
    sessions: dict[str, SshSession] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, phase: str) -> Machine:
        """Add a machine in the given phase."""
        now = self.now()
        self.machines[name] = Machine(name, phase, now, now, used_at=now)
        return self.machines[name]

    def put(self, name: str, phase: str) -> None:
        """Add a machine, or put the one of that name into a phase; its ready sessions close."""
        with self.lock:
            machine = self.machines.get(name) or self.add(name, phase)
            machine.wakes_at, machine.used_at = None, self.now()
            machine.enter(phase, machine.used_at)
            if phase != "running":
                self._close_ready(machine)

    def machine(self, name: str) -> Machine:
        """Return a machine as it is now.  Raises KeyError."""
        with self.lock:
            return self._settle(self.machines[name])

    def create(self, name: str, public_key: str, idempotency_key: str, digest: str) -> SshSession:
        """Return the session that `idempotency_key` stands for, new or not.

        `digest` identifies the request.  Raises KeyError for an unknown machine, Conflict.
        """
        with self.lock:
            if idempotency_key in self.keys:
                first, session_id = self.keys[idempotency_key]
                if first != digest:
                    raise Conflict(first, digest)
                return self._refresh(self.sessions[session_id])
            machine = self.machines[name]
            session_id = f"wssh-{secrets.token_hex(10)}"
            session = SshSession(
                session_id, machine, public_key, self.login or session_id, self.now()
            )
            self.sessions[session_id] = session
            self.keys[idempotency_key] = (digest, session_id)
            self._wake(machine, session)
            return self._refresh(session)

    def get(self, name: str, session_id: str) -> SshSession:
        """Return a session as it is now.  Raises KeyError."""
        with self.lock:
            session = self.sessions[session_id]
            if session.machine.name != name:
                raise KeyError(session_id)
            return self._refresh(session)

    def of_machine(self, name: str) -> list[SshSession]:
        """Return all sessions of a machine, oldest first.  Raises KeyError."""
        with self.lock:
            machine = self.machines[name]
            return [self._refresh(s) for s in self.sessions.values() if s.machine is machine]

    def close(self, session: SshSession) -> None:
        """End a session that is not over."""
        with self.lock:
            if session.status in ("wake_in_progress", "ready"):
                session.status = "closed"

    def close_all(self, name: str) -> None:
        """End all sessions of a machine.  Raises KeyError."""
        for session in self.of_machine(name):
            self.close(session)

    def all_machines(self) -> list[Machine]:
        """Return all machines as they are now, by name."""
        with self.lock:
            return [self._settle(self.machines[name]) for name in sorted(self.machines)]

    def for_login(self, username: str, public_key: str) -> SshSession | None:
        """Return the ready session that may log in as `username` with that key."""
        with self.lock:
            for session in reversed(self.sessions.values()):
                if (session.username, session.public_key) == (username, public_key):
                    return session if self._refresh(session).status == "ready" else None
            return None

    def connect(self, session: SshSession, step: int) -> None:
        """Count a connection to the session's machine that came (+1) or went (-1)."""
        with self.lock:
            session.machine.connections += step
            session.machine.used_at = self.now()

    def _wake(self, machine: Machine, session: SshSession) -> None:
        self._settle(machine)
        if machine.phase in _DEAD:
            session.status, session.error_code = "failed", "MACHINE_UNAVAILABLE"
            session.error_message = f"machine is {machine.phase}"
        elif machine.phase != "running" and machine.wakes_at is None:
            machine.wakes_at = self.now() + self.wake_seconds
            machine.enter("starting", self.now())
        machine.used_at = self.now()

    def _settle(self, machine: Machine) -> Machine:
        """Let time do to a machine what it does."""
        now = self.now()
        if machine.wakes_at is not None and now >= machine.wakes_at:
            machine.enter("running", machine.wakes_at)
            machine.used_at, machine.wakes_at = machine.wakes_at, None
        idle = now - machine.used_at
        if (
            machine.phase == "running"
            and not machine.connections
            and (idle >= self.autosleep_seconds)
        ):
            machine.enter("sleeping", now)
            self._close_ready(machine)
        return machine

    def _close_ready(self, machine: Machine) -> None:
        for session in self.sessions.values():
            if session.machine is machine and session.status == "ready":
                session.status = "closed"

    def _refresh(self, session: SshSession) -> SshSession:
        machine = self._settle(session.machine)
        now = self.now()
        if session.status == "wake_in_progress" and machine.phase == "running":
            session.status = "ready"
            session.ready_at = now
            session.ends_at = now + self.session_seconds
            machine.used_at = now
        if session.status == "ready" and session.ends_at is not None and now >= session.ends_at:
            session.status = "expired"
        return session

    def retry_after_ms(self, session: SshSession) -> int:
        """Return when to ask about a waking session again."""
        wakes_at = session.machine.wakes_at
        left = (wakes_at - self.now()) * 1000 if wakes_at is not None else _POLL_MS
        return max(1, min(_POLL_MS, int(left) + 1))

    def date(self, moment: float) -> str:
        """Return a moment of the monotonic clock as RFC 3339."""
        return rfc3339(self.wall(moment))

    def wall(self, moment: float) -> float:
        """Return a moment of the monotonic clock as unix time."""
        return time.time() + moment - self.now()
