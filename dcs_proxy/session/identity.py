"""Check what the API sent for a session, and add its identity to the agent."""

from __future__ import annotations

from dataclasses import dataclass

from dcs_proxy.api.host_trust import check_host_trust
from dcs_proxy.api.model import Connection, Session
from dcs_proxy.errors import AgentRefused, SessionFailed, Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.lifetime import LONGEST_LIFE_S, UNKNOWN_LIFE_S
from dcs_proxy.session.records import Attempt, ReadySession
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import UserCertificate, check_user_certificate, parse_authority
from dcs_proxy.ssh.keys import KeyPair


@dataclass(frozen=True)
class _Identity:
    """An identity for the agent; `ssh-add -l` shows `comment`."""

    key: KeyPair
    certificate: UserCertificate | None
    destination: Destination
    comment: str
    lifetime_s: int


def install_identity(
    name: MachineName,
    session: Session,
    attempt: Attempt,
    key: KeyPair | None,
    *,
    agent: Agent,
    context: Context,
    clock_ahead_s: float,
) -> ReadySession:
    """Add a ready session's identity to the agent; return what ssh needs to log in.

    With `key`, whose bare form the agent already holds, the certificate is added if there is one
    and the agent accepts it.  Without `key`, because another process generated it, no certificate
    can be added and ssh has to use the bare key.  `clock_ahead_s` is how far the API's clock is
    ahead of ours: the API's times and certificates are checked by the API's clock.

    Raises Untrusted, SessionFailed, AgentRefused or AgentUnavailable.
    """
    connection = session.connection
    if connection is None:
        raise SessionFailed(
            "the session is ready but has no connection details",
            hint="try again; if this persists, report it to the service's support",
        )
    now = context.now()
    authority = parse_authority(
        check_host_trust(connection.host_trust, connection.endpoint, connection.port, name), name
    )
    certificate = _check_certificate(connection, attempt, now + clock_ahead_s, name)
    ends_at = _end(session, certificate, now, clock_ahead_s)
    if key is None:
        ends_at = min(ends_at, attempt.key_ends_at)
    if ends_at <= now:
        raise Untrusted(
            "the API says that the session is ready, but it has already ended",
            hint="check this computer's clock",
        )
    bare_key = True
    if key is not None:
        destination = Destination(connection.endpoint, authority.blob)
        comment = f"{name} via {connection.endpoint}"
        lifetime_s = max(1, int(ends_at - now))
        identity = _Identity(key, certificate, destination, comment, lifetime_s)
        bare_key = _add_identity(identity, agent, context, name)
    return ReadySession(
        endpoint=connection.endpoint,
        port=connection.port,
        ssh_username=connection.ssh_username,
        authority=authority.line,
        certificate=certificate.line if certificate else "",
        bare_key=bare_key,
        ends_at=ends_at,
        began_at=_beginning(session, now, clock_ahead_s),
        proved_at=now,
    )


def _check_certificate(
    connection: Connection, attempt: Attempt, api_now: float, name: MachineName
) -> UserCertificate | None:
    """Return the session's certificate, None if it has none; `api_now` is the API's unix time."""
    if connection.user_certificate is None:
        return None
    return check_user_certificate(
        connection.user_certificate,
        public=attempt.public,
        username=connection.ssh_username,
        now=api_now,
        machine=name,
    )


def _end(
    session: Session, certificate: UserCertificate | None, now: float, clock_ahead_s: float
) -> float:
    """Return when the session or its certificate ends, whichever is first, as our unix time."""
    end = now + UNKNOWN_LIFE_S
    if session.expires_at is not None:
        end = session.expires_at.timestamp() - clock_ahead_s
    if certificate is not None and certificate.ends_at is not None:
        end = min(end, certificate.ends_at - clock_ahead_s)
    return min(end, now + LONGEST_LIFE_S)


def _beginning(session: Session, now: float, clock_ahead_s: float) -> float:
    """Return when the session began, as unix time by our clock; `now` if the API does not say."""
    if session.began_at is None:
        return now
    return min(now, session.began_at.timestamp() - clock_ahead_s)


def _add_identity(identity: _Identity, agent: Agent, context: Context, name: MachineName) -> bool:
    """Add the certificate to the agent, else the bare key; return whether it was the bare key."""
    certificate, log = identity.certificate, context.log
    bound_to: Destination | None = identity.destination
    bare_key, is_bound = certificate is None, False
    if certificate is not None:
        try:
            is_bound = agent.add_certificate(
                identity.key, certificate.blob, comment=identity.comment,
                lifetime_s=identity.lifetime_s, destination=bound_to,
            )  # fmt: skip
        except AgentRefused as error:
            log.event("agent-refused-certificate", machine=name, what=error.message)
            bare_key = True
    if bare_key:
        # ssh uses a bare key together with a certificate's file, which a constraint would forbid.
        bound_to = None if certificate else bound_to
        is_bound = agent.add_key(
            identity.key, comment=identity.comment, lifetime_s=identity.lifetime_s,
            destination=bound_to,
        )  # fmt: skip
    if bound_to is not None and not is_bound:
        log.event("no-destination-constraint", machine=name, agent=agent.path)
    return bare_key
