"""What resolving a session depends on: the API, the agent, the state directory, the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dcs_proxy.api.model import Closing, Listing, Machine, Session
from dcs_proxy.console.progress import Progress
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.keys import KeyPair


class ControlPlane(Protocol):
    """The part of the API that resolving uses; see :class:`dcs_proxy.api.client.Api` for errors."""

    @property
    def clock_ahead_s(self) -> float: ...

    def create_session(
        self, name: MachineName, public_key: str, idempotency_key: str
    ) -> Session: ...

    def get_machine(self, name: MachineName, *, once: bool = False) -> Machine: ...

    def list_machines(self) -> Listing: ...

    def get_session(
        self, name: MachineName, session_id: str, *, once: bool = False
    ) -> Session | None: ...

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> Closing: ...


class Agents(Protocol):
    """The agents that new keys go to: :class:`dcs_proxy.ssh.private_agents.PrivateAgents`, or the
    user's own, :class:`dcs_proxy.ssh.user_agent.UserAgent`.

    `place` is where they are: the directory of their sockets, or the one socket.
    """

    @property
    def place(self) -> str: ...

    def check(self) -> None: ...

    def ready(self, *, timeout_s: float) -> Agent: ...

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent | None: ...


@dataclass(frozen=True)
class Context:
    """Everything that resolving depends on, so that tests can replace it.

    `open_api` is called on first use, because it may be slow or fail.  `account` identifies the API
    and the organisation, `parent` is our parent process.  `notice` shows the user a line,
    `progress` shows that a machine is waking.  `await_guest` waits until a machine that has just
    woken accepts a login.  `now` returns unix time.
    """

    settings: Settings
    state: StateDirectory
    deadline: Deadline
    log: Log
    agents: Agents
    account: str
    parent: int
    open_api: Callable[[], ControlPlane]
    notice: Callable[[str], None]
    progress: Progress
    await_guest: Callable[[MachineName, Record], None]
    now: Callable[[], float]
