"""The control plane's routes: from a request to a reply, without I/O.

A request that breaks the contract gets application/problem+json with the location of the error
(contract: ErrorModel).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcs_proxy.emulator.authority import parse_public_key
from dcs_proxy.emulator.contract import ERRORS, Response, json_reply, key_reused, problem
from dcs_proxy.emulator.describe import Describer
from dcs_proxy.emulator.faults import Faults, parse_fault
from dcs_proxy.emulator.machines import PHASES, Conflict, Service, SshSession
from dcs_proxy.errors import UsageError

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100


@dataclass(frozen=True)
class Request:
    """One HTTP request; `parts` is the path, split at slashes and unquoted."""

    method: str
    parts: Sequence[str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def machine(self) -> str:
        """The machine id in the path, or ""."""
        return self.parts[2] if len(self.parts) > 2 else ""

    def header(self, name: str) -> str | None:
        """Return a header's value, None if it is missing."""
        for key, value in self.headers.items():
            if key.lower() == name.lower():
                return value
        return None


class _Invalid(Exception):
    """The request breaks the contract, as `reply` says."""

    def __init__(self, reply: Response) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Routes:
    """Answers authorised requests.  Methods may be called from any thread.

    With `post_only`, only the POST of the contract exists, as in some deployments.  `rate_limit` is
    the number of changes per second, None for no limit.
    """

    def __init__(
        self,
        service: Service,
        describer: Describer,
        faults: Faults,
        *,
        post_only: bool = False,
        rate_limit: float | None = None,
    ) -> None:
        self._service = service
        self._describer = describer
        self._faults = faults
        self._post_only = post_only
        self._limiter = _Limiter(rate_limit)

    def name_of(self, request: Request) -> str:
        """Return the command line's name of the machine in the path, or ""."""
        return self._service.name_of(request.machine)

    def answer(self, request: Request) -> Response:
        """Return the reply to a request."""
        routes = self._routes(request)
        if routes is None:
            return problem(404, "Not Found", "there is no such route")
        route = routes.get(request.method)
        if route is None:
            reply = problem(405, "Method Not Allowed", f"{request.method} is not allowed here")
            return Response(
                reply.status, reply.body, reply.content_type, {"Allow": ", ".join(routes)}
            )
        try:
            return route(request)
        except _Invalid as invalid:
            return invalid.reply
        except KeyError:
            return problem(404, "Not Found", "machine or session not found")

    def _routes(self, request: Request) -> dict[str, Callable[[Request], Response]] | None:
        match request.parts:
            case ["emulator", *rest]:
                return self._control_routes(rest)
            case ["v1", "machines", _, "ssh"] if self._post_only:
                return {"POST": self._create}
            case ["v1", *_] if self._post_only:
                return None
            case ["v1", "machines"]:
                return {"GET": self._list_machines}
            case ["v1", "machines", _]:
                return {"GET": self._get_machine}
            case ["v1", "machines", _, "ssh"]:
                return {"POST": self._create, "GET": self._list_sessions}
            case ["v1", "machines", _, "ssh", _]:
                return {"GET": self._get_session, "DELETE": self._close_session}
        return None

    def _machine_id(self, request: Request) -> str:
        if (refusal := self._service.ids.refuse_machine(request.machine)) is not None:
            raise _Invalid(refusal)
        return request.machine

    def _idempotency_key(self, request: Request) -> str:
        key = request.header("Idempotency-Key")
        if not key:
            message = "required header parameter is missing"
            raise _Invalid(_invalid(message, "header.Idempotency-Key"))
        if (refusal := self._service.ids.refuse_key(key)) is not None:
            raise _Invalid(refusal)
        return key

    def _create(self, request: Request) -> Response:
        machine_id = self._machine_id(request)
        key = self._idempotency_key(request)
        public_key = _public_key(request)
        digest = hashlib.sha256(f"{machine_id} {public_key}".encode()).hexdigest()[:8]
        if (limited := self._limiter.refuse()) is not None:
            return limited
        try:
            session = self._service.create(machine_id, public_key, key, digest)
        except Conflict as conflict:
            return key_reused(conflict.first, conflict.second)
        return self._session(session, request)

    def _get_session(self, request: Request) -> Response:
        return self._session(self._find(request), request)

    def _close_session(self, request: Request) -> Response:
        self._idempotency_key(request)
        session = self._find(request)
        if (limited := self._limiter.refuse()) is not None:
            return limited
        self._service.close(session)
        return self._session(session, request)

    def _find(self, request: Request) -> SshSession:
        return self._service.get(self._machine_id(request), request.parts[4])

    def _session(self, session: SshSession, request: Request) -> Response:
        return json_reply(self._describer.session(session, request.method))

    def _list_sessions(self, request: Request) -> Response:
        sessions = self._service.of_machine(self._machine_id(request))
        page, more = _page(request, sessions)
        return json_reply({"items": [self._describer.session(s, "GET") for s in page], **more})

    def _list_machines(self, request: Request) -> Response:
        page, more = _page(request, self._service.all_machines())
        return json_reply({"items": [self._describer.listed_machine(m) for m in page], **more})

    def _get_machine(self, request: Request) -> Response:
        return json_reply(self._describer.machine(self._service.machine(self._machine_id(request))))

    def _control_routes(self, parts: list[str]) -> dict[str, Callable[[Request], Response]] | None:
        match parts:
            case ["state"]:
                return {"GET": self._state}
            case ["faults"]:
                return {"POST": self._add_fault, "DELETE": self._clear_faults}
            case ["machines", name]:
                return {
                    "PUT": lambda request: self._put_machine(name, request),
                    "DELETE": lambda _: self._remove_machine(name),
                }
            case ["machines", name, "close-sessions"]:
                return {"POST": lambda _: self._close_sessions(name)}
        return None

    def _state(self, _: Request) -> Response:
        machines = self._service.all_machines()
        sessions = [s for m in machines for s in self._service.of_machine(m.machine_id)]
        return json_reply(
            {
                "machines": {m.name: m.phase for m in machines},
                "sessions": {s.session_id: s.status for s in sessions},
            }
        )

    def _put_machine(self, name: str, request: Request) -> Response:
        phase = _json_object(request).get("phase", "running")
        try:
            if phase not in PHASES:
                raise ValueError(phase)
            self._service.put(name, phase)
        except ValueError:
            return problem(422, "Unprocessable Entity", "no such phase or name", "body.phase")
        return json_reply({"name": name, "phase": phase})

    def _remove_machine(self, name: str) -> Response:
        self._service.remove(name)
        return json_reply({})

    def _close_sessions(self, name: str) -> Response:
        self._service.close_all(name)
        return json_reply({})

    def _add_fault(self, request: Request) -> Response:
        try:
            fault = parse_fault(str(_json_object(request).get("fault")))
        except UsageError as error:
            return problem(422, "Unprocessable Entity", error.message, "body.fault")
        self._faults.add(fault)
        return json_reply({})

    def _clear_faults(self, _: Request) -> Response:
        self._faults.clear()
        return json_reply({})


class _Limiter:
    """A token bucket for `rate` changes per second; None is unlimited."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._left = rate or 0.0
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def refuse(self) -> Response | None:
        """Take a token and return None, or return the contract's 429 if there is none."""
        if self._rate is None:
            return None
        with self._lock:
            now = time.monotonic()
            self._left = min(self._rate, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return ERRORS["mutation_rate_limited"]
            self._left -= 1
            return None


def _public_key(request: Request) -> str:
    body = _json_object(request)
    for field in body:
        if field != "public_key":
            raise _Invalid(_invalid("unexpected property", f"body.{field}"))
    text = body.get("public_key")
    if not isinstance(text, str):
        raise _Invalid(_invalid("expected a string", "body.public_key"))
    try:
        parse_public_key(text)
    except ValueError:
        message = "expected an OpenSSH public key"
        raise _Invalid(_invalid(message, "body.public_key")) from None
    return " ".join(text.split()[:2])


def _json_object(request: Request) -> dict[str, Any]:
    kind = (request.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Invalid(problem(415, "Unsupported Media Type", "expected application/json"))
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        raise _Invalid(problem(400, "Bad Request", "the body is not JSON", "body")) from None
    if not isinstance(value, dict):
        raise _Invalid(_invalid("expected an object", "body"))
    return value


def _page(request: Request, items: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    """Return the page for `limit` and `cursor`, and the cursor of the next page if there is one."""
    limit = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= _MAX_LIMIT):
        raise _Invalid(_invalid(f"expected 1 to {_MAX_LIMIT}", "query.limit"))
    cursor = request.query.get("cursor", "")
    try:
        start = int(base64.urlsafe_b64decode(cursor)) if cursor else 0
    except ValueError:
        raise _Invalid(_invalid("expected a cursor from next_cursor", "query.cursor")) from None
    end = start + int(limit)
    if end >= len(items):
        return items[start:], {}
    return items[start:end], {"next_cursor": base64.urlsafe_b64encode(str(end).encode()).decode()}


def _invalid(message: str, location: str) -> Response:
    return problem(422, "Unprocessable Entity", message, location)
