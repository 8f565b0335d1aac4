"""The DCS control plane: create, read and close SSH sessions, read machines.

Sources: the API contract (createMachineSSHSession), and the routes of the service's public clients.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.http import HttpClient, Request
from dcs_proxy.api.model import Machine, Session, parse_machine, parse_machines, parse_session
from dcs_proxy.errors import ApiProtocolError, CredentialsError, Forbidden
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName

_MAX_PAGES = 10_000
_PAGE = 100
# A deployment with only the POST of the contract answers so to any other route.
_NO_ROUTE = (404, 405)
# RFC 9562 §5.7: 48 bits of unix milliseconds, version, 12 random bits, variant, 62 random bits.
_VERSION, _VARIANT = 7, 0b10
_RANDOM_A_BITS, _RANDOM_B_BITS = 12, 62


@dataclass(frozen=True)
class Probe:
    """How the API answered the smallest possible request.

    `refusal` is why it does not accept the key, None if it did not refuse it.  `has_list` is False
    for a deployment without a list of machines, which has not looked at the key.  `clock_ahead_s`
    is how far the API's clock is ahead of ours.
    """

    refusal: CredentialsError | Forbidden | None
    has_list: bool
    clock_ahead_s: float


class Api:
    """The control plane, used with one API key; the arguments are those of :class:`HttpClient`.

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

    def probe(self) -> Probe:
        """Ask for one machine; return whether the API answers and accepts the key."""
        refusal: CredentialsError | Forbidden | None = None
        has_list = True
        try:
            request = Request("GET", "/v1/machines?limit=1", expected=_NO_ROUTE)
            has_list = self._http.send(request).status not in _NO_ROUTE
        except (CredentialsError, Forbidden) as error:
            refusal = error
        return Probe(refusal, has_list, self.clock_ahead_s)

    def create_session(self, name: MachineName, public_key: str, idempotency_key: str) -> Session:
        """Create a session for `public_key` (an OpenSSH public key line), or return it as it is now
        if `idempotency_key` was used before.

        Raises IdempotencyConflict if the API has seen that key with another request.
        """
        response = self._http.send(
            Request(
                "POST",
                f"/v1/machines/{name}/ssh",
                machine=name,
                headers={"Idempotency-Key": idempotency_key},
                body={"public_key": public_key},
            )
        )
        return parse_session(response.body, name)

    def get_session(self, name: MachineName, session_id: str) -> Session | None:
        """Return the session as it is now; None if the route answers 404 or 405."""
        path = _session_path(name, session_id)
        response = self._http.send(Request("GET", path, machine=name, expected=_NO_ROUTE))
        return None if response.status in _NO_ROUTE else parse_session(response.body, name)

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> None:
        """Close a session; one that no longer exists counts as closed.  `once` forbids retries."""
        self._http.send(
            Request(
                "DELETE",
                _session_path(name, session_id),
                machine=name,
                headers={"Idempotency-Key": idempotency_key},
                expected=(*_NO_ROUTE, 409),
                once=once,
            )
        )

    def get_machine(self, name: MachineName) -> Machine:
        """Return the machine as it is now.  The request does not wake it."""
        response = self._http.send(Request("GET", f"/v1/machines/{name}", machine=name))
        return parse_machine(response.body, name)

    def list_machines(self) -> list[Machine]:
        """Return all the account's machines, without those whose ids are not machine names."""
        machines: list[Machine] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            response = self._http.send(Request("GET", f"/v1/machines?limit={_PAGE}{page}"))
            found, cursor = parse_machines(response.body)
            machines += found
            if cursor is None:
                return machines
        raise ApiProtocolError("the API's list of machines does not end")


def new_idempotency_key() -> str:
    """Return a new Idempotency-Key: a UUIDv7 as 32 hexadecimal digits, without dashes.

    The contract allows any string; dedalus-sdk 0.6 says that the API requires this form.
    """
    key = int(time.time() * 1000) & (1 << 48) - 1
    key = key << 4 | _VERSION
    key = key << _RANDOM_A_BITS | secrets.randbits(_RANDOM_A_BITS)
    key = key << 2 | _VARIANT
    key = key << _RANDOM_B_BITS | secrets.randbits(_RANDOM_B_BITS)
    return f"{key:032x}"


def account(settings: Settings) -> str:
    """Return the API and organisation as a session's record names them, to tell accounts apart."""
    return json.dumps([settings.base_url, settings.org_id])


def _session_path(name: MachineName, session_id: str) -> str:
    return f"/v1/machines/{name}/ssh/{quote(session_id, safe='')}"
