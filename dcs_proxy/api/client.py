"""The DCS control plane: create, look at and close sessions, look at machines.

Source: the API contract (createMachineSSHSession) and the routes beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.http import HttpClient
from dcs_proxy.api.model import Machine, Session, parse_machine, parse_machines, parse_session
from dcs_proxy.errors import ApiProtocolError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName

_MAX_PAGES = 10_000
_PAGE = 100


class Api:
    """One user's view of the control plane; the arguments are those of `HttpClient`.

    Methods raise ApiUnavailable, ApiProtocolError, CredentialsError, Forbidden, MachineNotFound,
    DeadlineExceeded or ClientGone.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        deadline: Deadline,
        log: Log,
        notice: Callable[[str], None],
    ) -> None:
        self._http = HttpClient(settings, credentials, deadline, log, notice)

    @property
    def clock_ahead_s(self) -> float:
        """How far the API's clock is ahead of ours."""
        return self._http.clock_ahead_s

    def check_key(self) -> bool:
        """Ask for next to nothing; return whether that has told that the key is good.

        A deployment with only the POST of the contract answers 404 or 405, which tells nothing.
        Raises CredentialsError or Forbidden if the API does not accept it.
        """
        reply = self._http.ask("GET", "/v1/machines?limit=1", machine=None, absent=(404, 405))
        return reply.status not in (404, 405)

    def create_session(self, name: MachineName, public_key: str, idempotency_key: str) -> Session:
        """Ask for a session for `public_key` (an OpenSSH line), or what became of it.

        The same `idempotency_key` with the same key is the same session.  Raises
        IdempotencyConflict if the API has seen it with another request.
        """
        reply = self._http.ask(
            "POST",
            f"/v1/machines/{name}/ssh",
            machine=name,
            headers={"Idempotency-Key": idempotency_key},
            body={"public_key": public_key},
        )
        return parse_session(reply.body, name)

    def get_session(self, name: MachineName, session_id: str) -> Session | None:
        """Return the session as it is now; None where the route answers 404 or 405."""
        path = f"/v1/machines/{name}/ssh/{quote(session_id, safe='')}"
        reply = self._http.ask("GET", path, machine=name, absent=(404, 405))
        return None if reply.status in (404, 405) else parse_session(reply.body, name)

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> None:
        """End a session; one that is not there any more is as good as closed.

        `once` is for a courtesy: the API is asked a single time.
        """
        path = f"/v1/machines/{name}/ssh/{quote(session_id, safe='')}"
        headers = {"Idempotency-Key": idempotency_key}
        self._http.ask(
            "DELETE", path, machine=name, headers=headers, absent=(404, 405, 409), once=once
        )

    def get_machine(self, name: MachineName) -> Machine:
        """Return the machine as it is now; asking wakes nothing."""
        reply = self._http.ask("GET", f"/v1/machines/{name}", machine=name)
        return parse_machine(reply.body, name)

    def list_machines(self) -> list[Machine]:
        """Return the account's machines, all pages; ids that are no machine names are left out."""
        machines: list[Machine] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            reply = self._http.ask("GET", f"/v1/machines?limit={_PAGE}{page}", machine=None)
            found, cursor = parse_machines(reply.body)
            machines += found
            if cursor is None:
                return machines
        raise ApiProtocolError("the API's list of machines has no end")


def account(settings: Settings) -> str:
    """Return what tells this API and organisation from others, to go into a session's record."""
    return json.dumps([settings.base_url, settings.org_id])
