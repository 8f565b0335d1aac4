"""The user's own agent, which gets the sessions' keys with the setting ``agent = "user"``."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.local.log import Log
from dcs_proxy.local.trusted_file import real_path
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.keys import KeyPair

# The name of gpg-agent's socket for ssh.
_GPG_AGENT = "S.gpg-agent.ssh"


class UserAgent:
    """The agent on SSH_AUTH_SOCK, `place`, with the interface of :class:`PrivateAgents`.

    Raises AgentUnavailable if SSH_AUTH_SOCK is not set, or if the agent would store the keys.
    """

    def __init__(self, environment: Mapping[str, str], log: Log | None = None) -> None:
        self.place = environment.get("SSH_AUTH_SOCK", "")
        self._log = log
        if not self.place:
            raise AgentUnavailable(
                'the config file says agent = "user", but SSH_AUTH_SOCK is not set',
                hint="start an agent, or remove that line to use the private one",
            )
        if os.path.basename(real_path(self.place)) == _GPG_AGENT:
            raise AgentUnavailable(
                "SSH_AUTH_SOCK is gpg-agent's, which stores every key in a file",
                hint='remove agent = "user" from the config file to use the private agent',
            )

    def check(self) -> None:
        """Do nothing: the agent is not contacted before there is a key for it."""

    def ready(self, *, timeout_s: float) -> Agent:
        """Return the agent."""
        return Agent(self.place, timeout_s=timeout_s, log=self._log)

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent:
        """Add a bare key for `lifetime_s` seconds; return the agent.  Raises what Agent raises."""
        agent = self.ready(timeout_s=timeout_s)
        agent.add_key(key, comment=comment, lifetime_s=lifetime_s)
        return agent
