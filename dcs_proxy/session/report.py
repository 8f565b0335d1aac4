"""Describe the sessions and agents of this computer, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dcs_proxy.api.known_machines import Known
from dcs_proxy.console.format import rfc3339
from dcs_proxy.errors import AgentRefused, AgentUnavailable
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import NEVER, Record
from dcs_proxy.ssh.agent import LIST_S, Agent, AgentMissing
from dcs_proxy.ssh.certificates import read_terms

# The field names below are the documented keys of `status --json`, so they must not change.


@dataclass(frozen=True)
class CertificateStatus:
    """A certificate's principals and validity (RFC 3339); `valid_to` is None if it has no end."""

    principals: list[str]
    valid_from: str
    valid_to: str | None


@dataclass(frozen=True)
class SessionStatus:
    """One machine's session; fields that are not known yet are None.

    `status` is "waking", "ready" or "ended".  `seconds_left` counts down to `expires_at`, when the
    first of session, certificate and key ends.  `identity_held` is whether the agent holds the
    identity that ssh will ask for, None if the agent does not answer.  `proved_at` is when the API
    last confirmed the session.
    """

    machine: str
    short_name: str
    aliases: list[str]
    base_url: str
    session_id: str | None
    status: str
    endpoint: str | None
    port: int | None
    ssh_username: str | None
    expires_at: str
    seconds_left: int
    certificate: CertificateStatus | None
    identity_held: bool | None
    proved_at: str | None


@dataclass(frozen=True)
class AgentStatus:
    """The agents that hold sessions' identities.

    `kind` is "private" or "user".  `place` is the directory of their sockets, or the user's socket
    ("" if none is set); `sockets` are those where an agent answers.  `identities` is how many they
    hold, None if no agent answers; then `problem` says why.
    """

    kind: str
    place: str
    sockets: list[str]
    identities: int | None
    problem: str


class Agents:
    """Asks each agent once what it holds, and starts none."""

    def __init__(self) -> None:
        self._answers: dict[str, set[bytes] | str] = {}

    def ask(self, path: str) -> set[bytes] | str:
        """Return the identities that the agent at `path` holds, or why they are not known."""
        if path not in self._answers:
            try:
                identities = Agent(path, timeout_s=LIST_S).identities()
                self._answers[path] = {identity.blob for identity in identities}
            except AgentMissing:
                self._answers[path] = "not running"
            except (AgentRefused, AgentUnavailable) as error:
                self._answers[path] = error.message
        return self._answers[path]

    def status(self, kind: str, place: str, paths: Sequence[str]) -> AgentStatus:
        """Describe the agents at `paths`, sockets in or at `place`."""
        answers = {path: self.ask(path) for path in paths}
        held = {path: blobs for path, blobs in answers.items() if isinstance(blobs, set)}
        problems = [answer for answer in answers.values() if isinstance(answer, str)]
        if not held:
            problem = next(iter(problems), "not running" if place else "SSH_AUTH_SOCK is not set")
            return AgentStatus(kind, place, [], None, problem)
        count = sum(len(blobs) for blobs in held.values())
        return AgentStatus(kind, place, list(held), count, "")


def session_status(
    name: MachineName,
    short: MachineName,
    record: Record,
    settings: Settings,
    ask: Callable[[str], set[bytes] | str],
    now: float,
) -> SessionStatus:
    """Describe the session of a machine whose shortest name is `short`.

    `ask` is that of :class:`Agents`; `now` is unix time.
    """
    attempt, ready = record.attempt, record.ready
    held = ask(attempt.agent_path)
    left = record.ends_at() - now
    status = "ended" if left <= 0 else "waking" if ready is None else "ready"
    is_proved = ready is not None and ready.proved_at != NEVER
    return SessionStatus(
        machine=name,
        short_name=short,
        aliases=settings.aliases_of(name),
        base_url=_base_url(attempt.account),
        session_id=attempt.session_id or None,
        status=status,
        endpoint=ready.endpoint if ready else None,
        port=ready.port if ready else None,
        ssh_username=ready.ssh_username if ready else None,
        expires_at=rfc3339(record.ends_at()),
        seconds_left=max(0, int(left)),
        certificate=_certificate(ready.certificate) if ready else None,
        identity_held=None if isinstance(held, str) else record.identity in held,
        proved_at=rfc3339(ready.proved_at) if ready and is_proved else None,
    )


def sessions(
    state: StateDirectory, settings: Settings, known: Known, agents: Agents, now: float
) -> list[SessionStatus]:
    """Describe every session in the state directory, sorted by the machines' names."""
    found = {name: state.load(name) for name in state.machines()}
    short = short_names({*found, *known.by_name}, settings.aliases)
    return [
        session_status(name, short[name], record, settings, agents.ask, now)
        for name, record in found.items()
        if record is not None
    ]


def _certificate(line: str) -> CertificateStatus | None:
    terms = read_terms(line)
    if terms is None:
        return None
    ends_at = None if terms.ends_at is None else rfc3339(terms.ends_at)
    return CertificateStatus(list(terms.principals), rfc3339(terms.begins_at), ends_at)


def _base_url(account: str) -> str:
    """Return the base URL in an account (api/client.py), "" if it is damaged."""
    try:
        base_url, _ = json.loads(account)
    except (ValueError, TypeError):
        return ""
    return str(base_url)
