"""The service's machines and sessions: their state over time, without I/O.

Times are seconds of the monotonic clock `now`, and are converted to dates for replies.  Setting the
wall clock therefore ends no session.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dcs_proxy.console.format import rfc3339
from dcs_proxy.emulator.ids import Ids

PHASES = (
    "accepted", "placement_pending", "starting", "running", "stopping", "sleeping",
    "destroying", "destroyed", "failed",
)  # fmt: skip
_DEAD = frozenset({"destroying", "destroyed", "failed"})
_PENDING = ("wake_in_progress", "ssh_in_progress")
STATUSES = (*_PENDING, "ready", "closed", "expired", "failed")
_POLL_MS = 500


@dataclass
class Machine:
    """One machine.

    `name` is its name on the command line, `machine_id` its id in the API.  `wakes_at` is when it
    will be running, `used_at` when it was last used, `changed_at` when its phase last changed;
    `revision` counts its phases.
    """

    name: str
    machine_id: str
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
    """One SSH session; times are of the monotonic clock, None while unknown."""

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
    """An Idempotency-Key was reused for a different request; `first` and `second` are hashes."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__("idempotency key reused")
        self.first, self.second = first, second


@dataclass
class Service:
    """All machines and sessions.  Methods may be called from any thread.

    `login` is the login name of every session; with None, it is the session's id.  The keys of
    `machines` are ids of the API.
    """

    wake_seconds: float
    session_seconds: float
    autosleep_seconds: float
    login: str | None = None
    ids: Ids = field(default_factory=lambda: Ids("dm"))
    now: Callable[[], float] = time.monotonic
    machines: dict[str, Machine] = field(default_factory=dict)
    sessions: dict[str, SshSession] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, phase: str) -> Machine:
        """Add a machine in the given phase.  Raises ValueError if the name is invalid."""
        machine_id = self.ids.machine_id(name)
        if machine_id is None:
            raise ValueError(name)
        now = self.now()
        self.machines[machine_id] = Machine(name, machine_id, phase, now, now, used_at=now)
        return self.machines[machine_id]

    def name_of(self, machine_id: str) -> str:
        """Return a machine's name on the command line; an unknown id is returned unchanged."""
        machine = self.machines.get(machine_id)
        return machine_id if machine is None else machine.name

    def put(self, name: str, phase: str) -> None:
        """Add a machine, or change its phase; unless that is "running", close its ready sessions.

        Raises ValueError if the name is invalid.
        """
        with self.lock:
            machine = self.machines.get(self.ids.machine_id(name) or "") or self.add(name, phase)
            machine.wakes_at, machine.used_at = None, self.now()
            machine.enter(phase, machine.used_at)
            if phase != "running":
                self._close_ready(machine)

    def remove(self, name: str) -> None:
        """Remove a machine.  Raises KeyError."""
        with self.lock:
            machine = self.machines.pop(self.ids.machine_id(name) or "")
            self._close_ready(machine)

    def machine(self, machine_id: str) -> Machine:
        """Return a machine in its current state.  Raises KeyError."""
        with self.lock:
            return self._settle(self.machines[machine_id])

    def create(
        self, machine_id: str, public_key: str, idempotency_key: str, digest: str
    ) -> SshSession:
        """Return a new session, or the one that `idempotency_key` has already created.

        `digest` identifies the request.  Raises KeyError for an unknown machine, Conflict if the
        key was used for another request.
        """
        with self.lock:
            if idempotency_key in self.keys:
                first, session_id = self.keys[idempotency_key]
                if first != digest:
                    raise Conflict(first, digest)
                return self._refresh(self.sessions[session_id])
            machine = self.machines[machine_id]
            session_id = self.ids.new_session_id()
            session = SshSession(
                session_id, machine, public_key, self.login or session_id, self.now()
            )
            self.sessions[session_id] = session
            self.keys[idempotency_key] = (digest, session_id)
            self._wake(machine, session)
            return self._refresh(session)

    def get(self, machine_id: str, session_id: str) -> SshSession:
        """Return a session in its current state.  Raises KeyError."""
        with self.lock:
            session = self.sessions[session_id]
            if machine_id not in self.machines or session.machine.machine_id != machine_id:
                raise KeyError(session_id)
            return self._refresh(session)

    def of_machine(self, machine_id: str) -> list[SshSession]:
        """Return all sessions of a machine, oldest first.  Raises KeyError."""
        with self.lock:
            machine = self.machines[machine_id]
            return [self._refresh(s) for s in self.sessions.values() if s.machine is machine]

    def close(self, session: SshSession) -> None:
        """Close a session that is pending or ready."""
        with self.lock:
            if session.status in (*_PENDING, "ready"):
                session.status = "closed"

    def fail(self, session: SshSession, error_code: str, error_message: str) -> None:
        """Let a session that is pending or ready fail with this error."""
        with self.lock:
            if session.status in (*_PENDING, "ready"):
                session.status = "failed"
                session.error_code, session.error_message = error_code, error_message

    def close_all(self, name: str) -> None:
        """Close all sessions of the machine with that name.  Raises KeyError."""
        for session in self.of_machine(self.ids.machine_id(name) or ""):
            self.close(session)

    def all_machines(self) -> list[Machine]:
        """Return all machines in their current state, sorted by id."""
        with self.lock:
            return [self._settle(self.machines[each]) for each in sorted(self.machines)]

    def for_login(self, username: str, public_key: str) -> SshSession | None:
        """Return the ready session with this login name and key, or None."""
        with self.lock:
            for session in reversed(self.sessions.values()):
                if (session.username, session.public_key) == (username, public_key):
                    return session if self._refresh(session).status == "ready" else None
            return None

    def connect(self, session: SshSession, step: int) -> None:
        """Count a connection to the session's machine that opened (+1) or closed (-1)."""
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
        """Wake the machine or put it to sleep if its time has come; return it."""
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
        if session.status in _PENDING and machine.phase == "running":
            session.status = "ready" if now >= self._opens_at(session) else "ssh_in_progress"
        if session.status == "ready" and session.ready_at is None:
            session.ready_at = now
            session.ends_at = now + self.session_seconds
            machine.used_at = now
        if session.status == "ready" and session.ends_at is not None and now >= session.ends_at:
            session.status = "expired"
        return session

    def _opens_at(self, session: SshSession) -> float:
        """Return when ssh is ready on a machine that runs: a while after it has woken."""
        changed_at = session.machine.changed_at
        has_woken = changed_at > session.created_at
        return changed_at + self.ids.ssh_seconds if has_woken else session.created_at

    def retry_after_ms(self, session: SshSession) -> int:
        """Return how long a client should wait before it polls a pending session again."""
        wakes_at = session.machine.wakes_at
        if session.status == "ssh_in_progress":
            wakes_at = self._opens_at(session)
        left = (wakes_at - self.now()) * 1000 if wakes_at is not None else _POLL_MS
        return max(1, min(_POLL_MS, int(left) + 1))

    def date(self, moment: float) -> str:
        """Return a time of the monotonic clock as RFC 3339."""
        return rfc3339(self.wall(moment))

    def wall(self, moment: float) -> float:
        """Return a time of the monotonic clock as unix time."""
        return time.time() + moment - self.now()
