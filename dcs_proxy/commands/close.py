"""``dcs-proxy close HOST...``: close sessions, here and at the API.

The exit code is 0 if all are closed, else that of the first machine, in the order given, whose
session could not be closed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from dcs_proxy.api.client import account, new_idempotency_key
from dcs_proxy.api.model import Closing
from dcs_proxy.app import ApiFactory, Options, open_factory
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands._machines import add_host_arguments, select_machines
from dcs_proxy.console.format import rfc3339
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import (
    AgentRefused,
    AgentUnavailable,
    ClientGone,
    ConfigError,
    attribute_errors_to,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.names import MachineName, is_machine_name, natural_order
from dcs_proxy.publish.includes import unpublish
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lookup import find_locally
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent, AgentMissing
from dcs_proxy.ssh.keys import public_blob
from dcs_proxy.ssh.private_agents import PrivateAgents, machine_of

HELP = "close sessions and remove certificates"
DESCRIPTION = (
    "Close sessions at the API, remove their certificates from the agent and delete their files. "
    "An idle machine goes to sleep by itself. The exit code is that of the first machine, in the "
    "order given, whose session could not be closed."
)
EXAMPLES = (("Close every session", "dcs-proxy close --all"),)

# For each machine.  A running wake holds the machine's lock for longer.
_CLOSE_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_host_arguments(parser, "every machine that has a session")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Close the sessions.  Raises DcsError if the arguments name no machines."""
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    factory = open_factory(options, os.environ, settings)

    def find(typed: str) -> MachineName:
        return find_locally(typed, settings, state.machines(), factory.known.load())

    agents = PrivateAgents(state.path, factory.log)
    holders = agents.holders()

    def known() -> list[MachineName]:
        # The identity of a session that was replaced or failed may have no record any more.
        held = {MachineName(name) for name in holders if is_machine_name(name)}
        return natural_order({*state.machines(), *held})

    names = select_machines(arguments, settings, known, find, hint="dcs-proxy status")
    if not names:
        show("dcs-proxy: there are no sessions")
        return 0
    batch = Batch(list(names), Closer(state, factory, holders).close)
    try:
        code = batch.run()
        agents.end(timeout_s=_CLOSE_S)
        return code
    except KeyboardInterrupt:
        show(f"dcs-proxy: interrupted: {len(batch.outcomes)} of {len(names)} machines done")
        return ClientGone.exit_code


class Closer:
    """Closes sessions in several threads at once.

    `holders` are the private agents that hold identities of each machine.
    """

    def __init__(
        self, state: StateDirectory, factory: ApiFactory, holders: Mapping[str, set[str]]
    ) -> None:
        self._state = state
        self._factory = factory
        self._holders = holders
        self._loading = threading.Lock()

    def close(
        self, name: MachineName, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> str:
        """Close the machine's session; return the result in words."""
        deadline = Deadline(_CLOSE_S, is_stopping)
        with attribute_errors_to(name), self._state.lock(name, deadline):
            session_id, text = self._close_locked(name, deadline, notice)
        self._factory.log.event("closed", machine=name, session=session_id or "-")
        return text

    def _close_locked(
        self, name: MachineName, deadline: Deadline, notice: Callable[[str], None]
    ) -> tuple[str, str]:
        """Close the session under the machine's lock; return its id and the result in words.

        The identity is removed first, so that no login can succeed even if the API fails; the
        record is removed last, so that a failed close can be repeated.  Raises ConfigError if the
        session belongs to another account, AgentUnavailable, StateError, DeadlineExceeded, or what
        the API raises.
        """
        record = self._state.load(name)
        if record is None:
            self._remove_leftovers(name)
            unpublish(self._state, name)
            return "", "there was no session"
        attempt = record.attempt
        if attempt.account != account(self._factory.settings):
            raise ConfigError(
                "the session was created with another API or organisation",
                hint="set DEDALUS_BASE_URL and DEDALUS_ORG_ID as they were when it was created",
            )
        text = "there was no session"
        try:
            self._remove_leftovers(name)
            remove_identity(record)
        finally:
            if attempt.session_id:
                api = replace(self._load_credentials(), notice=notice).open(deadline)
                text = describe_closing(
                    api.close_session(name, attempt.session_id, new_idempotency_key()), record
                )
        unpublish(self._state, name)
        return attempt.session_id, text

    def _remove_leftovers(self, name: MachineName) -> None:
        """Remove all identities of the machine from private agents, those of old sessions too."""
        for path in self._holders.get(name, ()):
            # remove_identity() reports the session's own agent if it does not answer.
            with contextlib.suppress(AgentRefused, AgentUnavailable):
                agent = Agent(path)
                for identity in agent.identities():
                    if machine_of(identity) == name:
                        agent.remove(identity.blob)

    def _load_credentials(self) -> ApiFactory:
        """Read the API key, once, and only if a machine has a session."""
        with self._loading:
            credentials = self._factory.find_credentials(Deadline(_CLOSE_S))
            self._factory = replace(self._factory, credentials=credentials)
            return self._factory


def describe_closing(closing: Closing, record: Record) -> str:
    """Return the result of closing the session of `record`, in words."""
    session_id = record.attempt.session_id
    match closing:
        case Closing.CLOSED:
            return f"session {session_id} closed"
        case Closing.UNKNOWN:
            return f"session {session_id} removed; the API does not know it"
        case Closing.UNSUPPORTED:
            ready = record.ready
            end = f"; it ends at {rfc3339(ready.ends_at)}" if ready else ""
            return f"session {session_id} removed, but not closed: this API closes no sessions{end}"


def remove_identity(record: Record) -> None:
    """Remove the session's identity.  Raises AgentUnavailable if its agent does not answer."""
    if not record.attempt.agent_path:
        return
    agent = Agent(record.attempt.agent_path)
    try:
        for blob in {record.identity, public_blob(record.attempt.public)}:
            agent.remove(blob)
    except AgentMissing:
        pass
