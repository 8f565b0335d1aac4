"""The state of one process while it works on one machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.next_step import Situation
from dcs_proxy.session.polling import SessionPoller
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.keys import KeyPair

# How long the bare key outlives the longest wait, so that the next try still finds it.
_KEY_GRACE_S = 300
# How long an agent may take to start.
_AGENT_S = 20.0


class Work:
    """The work of one process on one machine.

    `situation` is what it knows so far, `key` the private key of a session that it creates.
    `unreachable` counts how many times the service could not reach the machine.
    """

    def __init__(self, name: MachineName, context: Context, situation: Situation) -> None:
        self.name, self.context, self.situation = name, context, situation
        self.key: KeyPair | None = None
        self.is_announced = self.has_reported_clock = False
        self.unreachable = 0
        self._poller: SessionPoller | None = None

    def learn(self, **facts: Any) -> None:
        """Add facts, which are fields of Situation, to what is known."""
        self.situation = replace(self.situation, **facts)

    def poller(self) -> SessionPoller:
        """Return the poller, which opens the API on first use."""
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
        """Save the record, and add it and `facts` to what is known.  Raises StateError."""
        self.context.state.save(self.name, record)
        self.learn(record=record, **facts)

    def announce(self) -> None:
        """Show the user, once, that the machine is waking."""
        if not self.is_announced:
            self.is_announced = True
            self.context.progress.waking(self.name, self.context.settings.wake_seconds)

    def discard_attempt(self) -> None:
        """Forget this process's attempt, if it has made one, and remove its key from the agent."""
        record = self.situation.record
        if self.key is not None and record is not None:
            self.context.state.forget(self.name)
            if record.attempt.agent_path:
                self.agent(record).remove(self.key.blob)
