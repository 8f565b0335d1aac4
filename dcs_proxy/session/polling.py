"""Poll the API for the session of one attempt."""

from __future__ import annotations

from dataclasses import replace

from dcs_proxy.api.model import Session
from dcs_proxy.errors import IdempotencyConflict
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import ControlPlane
from dcs_proxy.session.records import Attempt
from dcs_proxy.ssh.keys import public_line


class SessionPoller:
    """Polls `api` for sessions of one machine.

    Deployments that have only the contract's POST have no GET; there the same POST, with the same
    Idempotency-Key, returns the session as it is now.
    """

    def __init__(self, name: MachineName, api: ControlPlane) -> None:
        self._name = name
        self.api = api
        self._has_get = True

    def create(self, attempt: Attempt) -> Session:
        """Send the attempt.  Raises what :meth:`ControlPlane.create_session` raises."""
        return self.api.create_session(
            self._name, public_line(attempt.public), attempt.idempotency_key
        )

    def look(self, attempt: Attempt, *, once: bool = False) -> Session | None:
        """Return the session as it is now; None if the API no longer knows it.

        `once` forbids retries of GET.
        """
        if attempt.session_id and self._has_get:
            session = self.api.get_session(self._name, attempt.session_id, once=once)
            if session is not None or attempt.polled:
                return session
            self._has_get = False
        try:
            return self.create(attempt)
        except IdempotencyConflict:
            return None

    def note(self, attempt: Attempt, session: Session) -> Attempt:
        """Return the attempt, updated with the answer to create() or look()."""
        polled = bool(attempt.session_id) and self._has_get
        return replace(attempt, session_id=session.session_id, polled=polled)
