"""End a machine's session: in the agent, at the API, and in every file that ssh reads."""

from __future__ import annotations

from collections.abc import Callable

from dcs_proxy.api.client import new_idempotency_key
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.names import MachineName
from dcs_proxy.publish.includes import unpublish
from dcs_proxy.session.context import ControlPlane
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent, AgentMissing
from dcs_proxy.ssh.keys import public_blob


def close_session(
    name: MachineName,
    state: StateDirectory,
    *,
    account: str,
    open_api: Callable[[], ControlPlane],
    deadline: Deadline,
) -> str:
    """End the machine's session; return its id, "" if there was none.

    The identity leaves the agent first, so that nobody can log in any more whatever the API says;
    the record goes last, so that what failed can be tried again.  Raises ConfigError if the
    session is another `account`'s, AgentUnavailable, StateError, DeadlineExceeded, or what the
    API raises.
    """
    with state.lock(name, deadline):
        record = state.load(name)
        if record is None:
            unpublish(state, name)
            return ""
        attempt = record.attempt
        if attempt.account != account:
            raise ConfigError(
                "the session is of another API or organisation than the one that is set",
                hint="set DEDALUS_BASE_URL and DEDALUS_ORG_ID as they were when it was made",
            )
        try:
            _remove_identity(record)
        finally:
            if attempt.session_id:
                open_api().close_session(name, attempt.session_id, new_idempotency_key())
        unpublish(state, name)
        return attempt.session_id


def _remove_identity(record: Record) -> None:
    agent = Agent(record.attempt.agent_path)
    try:
        for blob in {record.identity, public_blob(record.attempt.public)}:
            agent.remove(blob)
    except AgentMissing:
        pass
