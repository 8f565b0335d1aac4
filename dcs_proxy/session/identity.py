"""Check what the API gave for a session, and lend it to ssh through the agent."""

from __future__ import annotations

from collections.abc import Callable

from dcs_proxy.api.model import Session, check_host_trust
from dcs_proxy.errors import AgentRefused, SessionFailed, Untrusted
from dcs_proxy.local.log import Log
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import Attempt, ReadySession
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import UserCertificate, check_user_certificate, parse_authority
from dcs_proxy.ssh.keys import KeyPair

# A session whose end the API does not tell.
UNKNOWN_LIFE_S = 3600
_MARGIN_S = 30.0


def margin_s(life_s: float) -> float:
    """Return what must be left of a session of `life_s` for an ssh to begin with it, in seconds.

    Logging in takes a while; a session of less than a minute may be used for half of its life.
    """
    return min(_MARGIN_S, life_s / 2)


class Lender:
    """Lends one machine's sessions to `agent`; `constrained` asks for a destination constraint.

    `now` gives unix time by our clock, and `ahead_s` is how far the service's clock is ahead of
    it: what the service signs and says is judged by its own.
    """

    def __init__(
        self,
        name: MachineName,
        agent: Agent,
        *,
        constrained: bool,
        log: Log,
        now: Callable[[], float],
        ahead_s: float = 0.0,
    ) -> None:
        self._name = name
        self._agent = agent
        self._constrained = constrained
        self._log = log
        self._now = now
        self._ahead_s = ahead_s

    def lend(self, session: Session, attempt: Attempt, key: KeyPair | None) -> ReadySession:
        """Return what ssh needs to log in to a session that is ready.

        Without `key` the bare key already waits in the agent, and no certificate can be added.
        With it the agent ends up with the certificate, if there is one and the agent takes it,
        beside the bare key that the caller put there.  Raises Untrusted, SessionFailed,
        AgentRefused or AgentUnavailable.
        """
        connection = session.connection
        if connection is None:
            raise SessionFailed("the session is ready but says nothing of where to log in")
        authority = parse_authority(check_host_trust(connection, self._name), self._name)
        certificate = None
        if connection.user_certificate is not None:
            certificate = check_user_certificate(
                connection.user_certificate,
                public=attempt.public,
                username=connection.ssh_username,
                now=self._now() + self._ahead_s,
                machine=self._name,
            )
        ends_at = self._end(session, certificate, attempt if key is None else None)
        bare_key = True
        if key is not None:
            destination = Destination(connection.endpoint, authority.blob)
            bare_key = self._add_identity(key, certificate, destination, ends_at)
        now = self._now()
        began_at = now
        if session.began_at is not None:
            began_at = min(now, session.began_at.timestamp() - self._ahead_s)
        return ReadySession(
            endpoint=connection.endpoint,
            port=connection.port,
            ssh_username=connection.ssh_username,
            authority=authority.line,
            certificate=certificate.line if certificate else "",
            bare_key=bare_key,
            ends_at=ends_at,
            began_at=began_at,
            proved_at=now,
        )

    def _end(
        self, session: Session, certificate: UserCertificate | None, resumed: Attempt | None
    ) -> float:
        """Return the unix time, by our clock, when the first of all that is needed ends."""
        now = self._now()
        ends = [now + UNKNOWN_LIFE_S]
        if session.expires_at is not None:
            ends = [session.expires_at.timestamp() - self._ahead_s]
        if certificate is not None and certificate.ends_at is not None:
            ends.append(certificate.ends_at - self._ahead_s)
        if resumed is not None:
            ends.append(resumed.key_ends_at)
        if min(ends) <= now:
            raise Untrusted(
                "the session that the API calls ready has already ended",
                hint="is this computer's clock right?",
            )
        return min(ends)

    def _add_identity(
        self,
        key: KeyPair,
        certificate: UserCertificate | None,
        destination: Destination,
        ends_at: float,
    ) -> bool:
        """Lend the identity to the agent until `ends_at`; return whether it is the bare key."""
        lifetime_s = max(1, int(ends_at - self._now()))
        bound_to = destination if self._constrained else None
        comment = f"{self._name} via {destination.hostname}"
        bare_key, bound = certificate is None, False
        if certificate is not None:
            try:
                bound = self._agent.add_certificate(
                    key, certificate.blob, comment=comment, lifetime_s=lifetime_s,
                    destination=bound_to,
                )  # fmt: skip
            except AgentRefused as error:
                self._log.event("agent-refused-certificate", machine=self._name,
                                what=error.message)  # fmt: skip
                bare_key = True
        if bare_key:
            # A constraint would forbid what ssh does with a bare key beside a certificate's file.
            bound_to = None if certificate else bound_to
            bound = self._agent.add_key(
                key, comment=comment, lifetime_s=lifetime_s, destination=bound_to
            )
        if bound_to is not None and not bound:
            self._log.event("no-destination-constraint", machine=self._name,
                            agent=self._agent.path)  # fmt: skip
        return bare_key
