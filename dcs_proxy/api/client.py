"""The DCS control plane: create, read and close SSH sessions, read machines.

Sources: the API contract (createMachineSSHSession), and the routes of the service's public clients.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.http import HttpClient, Request, Response
from dcs_proxy.api.known_machines import MAX_IDS, KnownMachines, other_form
from dcs_proxy.api.model import (
    Closing,
    Listing,
    Machine,
    Session,
    join_pages,
    parse_closed,
    parse_machine,
    parse_machines,
    parse_session,
)
from dcs_proxy.errors import ApiProtocolError, CredentialsError, Forbidden, IdempotencyConflict
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName

# Pages may be smaller than asked for.
_MAX_PAGES = 1_000
_PAGE = 100
_ENDLESS_HINT = "report it to the service's support"
# The statuses of a route that does not exist, as in deployments that have only the contract's POST,
# and of a session that no longer exists.
_NO_ROUTE = (404, 405, 410, 501)
_NO_SESSION = (404, 410)
# The statuses for an id that is unknown to the API or not valid.
_NO_MACHINE = (400, 404, 410, 422)
# RFC 9562 §5.7: 48 bits of unix milliseconds, version, 12 random bits, variant, 62 random bits.
_VERSION, _VARIANT = 7, 0b10
_RANDOM_A_BITS, _RANDOM_B_BITS = 12, 62


@dataclass(frozen=True)
class Probe:
    """The API's answer to the smallest possible request.

    `refusal` is the error if the API rejects the key.  `has_list` is False for a deployment without
    a list of machines, which has not checked the key.  `clock_ahead_s` is how far the API's clock
    is ahead of ours.
    """

    refusal: CredentialsError | Forbidden | None
    has_list: bool
    clock_ahead_s: float


class Api:
    """The control plane, used with one API key; the arguments are those of :class:`HttpClient`.

    `known` has the ids of the account's machines.  For a machine that is not in it, the id is taken
    to be its name or, if the API does not know that and the name is ``dm-`` and a UUID, the UUID.
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
        known: KnownMachines,
    ) -> None:
        self._known = known
        self._ids: dict[MachineName, MachineId] = {}
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
        """Create a session for `public_key` (an OpenSSH public key line).

        If `idempotency_key` was used before for the same request, return that session as it is
        now.  Raises IdempotencyConflict if it was used for another request.
        """
        response = self._send(
            name,
            "/ssh",
            Request(
                "POST",
                headers={"Idempotency-Key": idempotency_key},
                body={"public_key": public_key},
            ),
        )
        return parse_session(response.body, name)

    def get_session(
        self, name: MachineName, session_id: str, *, once: bool = False
    ) -> Session | None:
        """Return the session as it is now; None if there is no such route or session.

        `once` forbids retries.
        """
        return self._look(name, session_id, once=once)[1]

    def close_session(
        self, name: MachineName, session_id: str, idempotency_key: str, *, once: bool = False
    ) -> Closing:
        """Close a session; return the result.  `once` forbids retries.

        Raises IdempotencyConflict if the API refuses and does not describe the session as over.
        """
        request = Request(
            "DELETE",
            headers={"Idempotency-Key": idempotency_key},
            expected=_NO_ROUTE,
            once=once,
        )
        try:
            response = self._send(name, _session(session_id), request)
        except IdempotencyConflict:
            status, session = self._look(name, session_id, once=once)
            if status in _NO_SESSION:
                return Closing.UNKNOWN
            if session is not None and session.is_over:
                return Closing.CLOSED
            raise
        if response.status in _NO_ROUTE:
            is_unknown = response.status in _NO_SESSION
            return Closing.UNKNOWN if is_unknown else Closing.UNSUPPORTED
        if parse_closed(response.body, name):
            return Closing.CLOSED
        status, session = self._look(name, session_id, once=once)
        if status in _NO_SESSION or (session is not None and session.is_over):
            return Closing.CLOSED
        raise ApiProtocolError(
            "the API still calls the session ready after closing it", hint="try again"
        )

    def _look(
        self, name: MachineName, session_id: str, *, once: bool
    ) -> tuple[int, Session | None]:
        """Ask for a session; return the status, and the session unless the status has none."""
        request = Request("GET", expected=_NO_ROUTE, once=once)
        response = self._send(name, _session(session_id), request)
        if response.status in _NO_ROUTE:
            return response.status, None
        return response.status, parse_session(response.body, name)

    def get_machine(self, name: MachineName, *, once: bool = False) -> Machine:
        """Return the machine as it is now, without waking it.  `once` forbids retries."""
        return parse_machine(self._send(name, "", Request("GET", once=once)).body, name)

    def list_machines(self) -> Listing:
        """Return all the account's machines, and note their ids."""
        listing = join_pages(self._pages())
        self._known.save_list(m.machine_id for m in listing.machines if not m.is_going)
        return listing

    def _pages(self) -> Iterator[Listing]:
        """Yield each page of the list.  Raises ApiProtocolError if it does not end."""
        cursors: set[str] = set()
        cursor, count = "", 0
        while len(cursors) < _MAX_PAGES and count <= MAX_IDS:
            page = f"&cursor={quote(cursor, safe='')}" if cursor else ""
            path = f"/v1/machines?limit={_PAGE}{page}"
            found, following = parse_machines(self._http.send(Request("GET", path)).body)
            yield found
            if following is None:
                return
            if following in cursors:
                raise ApiProtocolError(
                    "the API's list of machines repeats a page", hint=_ENDLESS_HINT
                )
            cursor = following
            cursors.add(cursor)
            count += len(found.machines) + len(found.unusable)
        raise ApiProtocolError(
            f"the API's list of machines does not end after {count} machines", hint=_ENDLESS_HINT
        )

    def _send(self, name: MachineName, below: str, request: Request) -> Response:
        """Send a request about a machine; `below` is its path under the machine's.

        Raises as HttpClient.send does; MachineNotFound also if the API does not accept the id.
        """
        known = self._ids.get(name) or self._known.id_of(name)
        if known is None:
            return self._send_unsure(name, below, request)
        self._ids[name] = known
        return self._http.send(_about(name, known, below, request))

    def _send_unsure(self, name: MachineName, below: str, request: Request) -> Response:
        """Send a request about a machine whose id is not known; learn the id that works."""
        used = MachineId(name)
        if (other := other_form(name)) is not None:
            wide = replace(request, expected=(*request.expected, *_NO_MACHINE))
            response = self._http.send(_about(name, used, below, wide))
            if response.status not in _NO_MACHINE:
                return self._learn(name, used, response)
            used = other
        last = replace(request, is_unsure=True)
        return self._learn(name, used, self._http.send(_about(name, used, below, last)))

    def _learn(self, name: MachineName, machine_id: MachineId, response: Response) -> Response:
        if response.status < 300:
            self._ids[name] = machine_id
            self._known.learn(machine_id)
        return response


def _about(name: MachineName, machine_id: MachineId, below: str, request: Request) -> Request:
    return replace(request, path=f"/v1/machines/{machine_id}{below}", machine=name)


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


def _session(session_id: str) -> str:
    return f"/ssh/{quote(session_id, safe='')}"
