"""Stand-ins for what resolving uses, for one machine: the API, the agent, the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dcs_proxy.api.host_trust import HostTrust
from dcs_proxy.api.model import Connection, Listing, Machine, Session
from dcs_proxy.console.progress import Progress
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.errors import DcsError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from dcs_proxy.session.resolve import resolve
from dcs_proxy.ssh.user_agent import UserAgent
from tests.support.fake_agent import FakeAgent, Store

NAME = MachineName("dm-foo")
AUTHORITIES = Authorities()


@dataclass
class FakeApi:
    """The control plane.

    Each request for a session finds the next of `statuses`, and the last again and again.  A status
    that is an exception is raised; None is a session that the API no longer knows.  `changes`
    replaces fields of every session.  `journal` lists all calls; `keys` has the session's id and
    the public key of each Idempotency-Key.  Closing raises `close_error`, if there is one.
    """

    statuses: list[Any] = field(default_factory=lambda: ["ready"])
    has_get: bool = True
    life_s: float = 3600
    journal: list[tuple[str, str]] = field(default_factory=list)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    clock_ahead_s: float = 0.0
    phase: str = "running"
    close_error: DcsError | None = None
    listed: list[str] = field(default_factory=list)

    def get_machine(self, name: MachineName, *, once: bool = False) -> Machine:
        self.journal.append(("GET machine", name))
        return Machine(MachineId(name), self.phase)

    def list_machines(self) -> Listing:
        self.journal.append(("LIST", ""))
        return Listing([Machine(MachineId(each), self.phase) for each in self.listed])

    def create_session(self, name: MachineName, public_key: str, idempotency_key: str) -> Session:
        assert name == NAME
        self.journal.append(("POST", idempotency_key))
        known = self.keys.setdefault(idempotency_key, (f"wssh-{len(self.keys)}", public_key))
        assert known[1] == public_key, "one Idempotency-Key, two requests"
        return self.session(known[0], public_key)

    def get_session(
        self, name: MachineName, session_id: str, *, once: bool = False
    ) -> Session | None:
        assert name == NAME
        self.journal.append(("GET", session_id))
        if not self.has_get or self.statuses[0] is None:
            return None
        return self.session(session_id, dict(self.keys.values())[session_id])

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> None:
        assert name == NAME and idempotency_key
        self.journal.append(("DELETE once" if once else "DELETE", session_id))
        if self.close_error is not None:
            raise self.close_error

    def session(self, session_id: str, public_key: str) -> Session:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, BaseException):
            raise status
        ends_at = time.time() + self.clock_ahead_s + self.life_s
        trust = HostTrust("cert_authority", "ssh.example", public_line(AUTHORITIES.host_ca))
        user = AUTHORITIES.sign_user(
            public_key, session_id, ends_at - self.clock_ahead_s, ahead=self.clock_ahead_s
        )
        session = Session(
            session_id, NAME, status,
            datetime.fromtimestamp(time.time() + self.clock_ahead_s, timezone.utc),
            datetime.fromtimestamp(ends_at, timezone.utc), 50, "BOOM", "it\x1b broke",
            Connection("ssh.example", 22, session_id, user, trust) if status == "ready" else None,
        )  # fmt: skip
        return replace(session, **self.changes)

    def count(self, method: str) -> int:
        return sum(1 for called, _ in self.journal if called == method)


class Waking(Progress):
    """Collects the lines that would be shown where there is no terminal."""

    def __init__(self, notices: list[str]) -> None:
        super().__init__(is_quiet=False, in_place=False)
        self.notices = notices

    def notice(self, text: str) -> None:
        self.notices.append(text)


@dataclass
class Fakes:
    """One user's computer, one machine and the API; each `resolve` stands for one process.

    `guest_waits` has the session of each wait for the guest; an exception at its start is raised.
    """

    state: StateDirectory
    agent: FakeAgent
    store: Store
    api: FakeApi = field(default_factory=FakeApi)
    settings: Settings = field(default_factory=Settings)
    now: Callable[[], float] = time.time
    notices: list[str] = field(default_factory=list)
    guest_waits: list[Any] = field(default_factory=list)

    def context(self, *, seconds: float = 30, **changes: Any) -> Context:
        context = Context(
            settings=self.settings,
            state=self.state,
            deadline=Deadline(seconds),
            log=Log(self.state.file("log")),
            agents=UserAgent({"SSH_AUTH_SOCK": self.agent.path}),
            account="account",
            parent=1,
            open_api=lambda: self.api,
            notice=self.notices.append,
            progress=Waking(self.notices),
            await_guest=self.await_guest,
            now=self.now,
        )
        return replace(context, **changes)

    def resolve(self, half: Half = Half.PREPARE, **changes: Any) -> Record:
        return resolve(NAME, self.context(**changes), half)

    def await_guest(self, name: MachineName, record: Record) -> None:
        assert name == NAME
        assert record.identity in self.store.held, "ssh could not have logged in"
        self.guest_waits.append(record.attempt.session_id)
        if isinstance(self.guest_waits[0], BaseException):
            raise self.guest_waits.pop(0)

    def log(self) -> str:
        return Path(self.state.file("log")).read_text()


def events(fakes: Fakes, *names: str) -> list[str]:
    """Return the lines of these events in the log, without what differs from run to run."""
    lines = [line.split("] ", 1)[1] for line in fakes.log().splitlines()]
    changing = re.compile(r"\b(ms|seconds)=-?\d+")
    return [changing.sub(r"\1=N", line) for line in lines if line.split()[0] in names]
