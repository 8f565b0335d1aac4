"""Values from the control plane, parsed and checked: JSON bytes in, frozen values out.

Sources: the API contract (SSHSessionResponse, SSHConnection, SSHHostTrust and the error objects of
createMachineSSHSession), and the service's public clients for the routes of machines.  Unknown
fields are ignored, so that a newer service keeps working, and so are invalid values that are only
shown, and a retry_after_ms that is not a number.  Any other field of the wrong type, or a value
that is not safe in a file, on a terminal or on a command line, raises ApiProtocolError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum, auto
from typing import Any

from dcs_proxy.api.host_trust import HostTrust
from dcs_proxy.errors import ApiProtocolError
from dcs_proxy.local.host_names import parse_host
from dcs_proxy.names import (
    PREFIX,
    MachineId,
    MachineName,
    machine_name,
    natural_order,
    why_unusable,
)
from dcs_proxy.text import clean_text, mask

READY = "ready"
OVER = frozenset({"closed", "expired", "failed"})
# Error codes for a machine that was created just now, although its phase may be "running".
UNREACHABLE = frozenset({"machine_not_found", "machine_not_routable"})
# The phases of a machine that is running, or will be without a request of ours.
_AWAKE = frozenset({"accepted", "placement_pending", "starting", "running"})
_GOING = frozenset({"destroying", "destroyed"})

_SESSION_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._~-]{0,251}[A-Za-z0-9])?\Z")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\Z")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
# What Go writes for a time that is not set (package time, Time.IsZero).
_GO_ZERO = datetime(1, 1, 1, tzinfo=timezone.utc)
# More milliseconds than this are an error of the server, and could overflow a float or a timer.
_MAX_MS = 2**53
_MAX_CURSOR = 2048
_NOT_THE_API_HINT = (
    "check the network and DEDALUS_BASE_URL: a proxy, or a network that wants a login in a browser,"
    " may answer in the API's place"
)
_CONTRACT_HINT = (
    "update dcs-proxy; if that does not help, report this with the request's id from dcs-proxy log"
)


@dataclass(frozen=True)
class Connection:
    """Where and as whom to log in (contract: SSHConnection); every field is safe to write."""

    endpoint: str
    port: int
    ssh_username: str
    user_certificate: str | None
    host_trust: HostTrust | None


@dataclass(frozen=True)
class Session:
    """One SSH session of a machine (contract: SSHSessionResponse).

    An unknown `status` counts as pending.  `began_at` is when the session became ready, or else
    when it was created.  `error_code` and `error_message` are the server's text, to be quoted.
    """

    session_id: str
    machine: MachineName
    status: str
    began_at: datetime | None
    expires_at: datetime | None
    retry_after_ms: int | None
    error_code: str
    error_message: str
    connection: Connection | None

    @property
    def is_ready(self) -> bool:
        return self.status == READY

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def is_unreachable(self) -> bool:
        """Whether it failed because the service cannot reach the machine, as just after create."""
        return self.status == "failed" and self.error_code.lower() in UNREACHABLE


class Closing(Enum):
    """What became of a request to close a session."""

    CLOSED = auto()
    UNKNOWN = auto()  # the API has no such session, or no such route
    UNSUPPORTED = auto()  # this API closes no sessions


@dataclass(frozen=True)
class Machine:
    """One machine of the account; fields that the API leaves out are None.

    `phase` and `reason` are the server's text, cleaned.  A machine in an unknown phase counts as
    not awake.  Lists have no `reason`.
    """

    machine_id: MachineId
    phase: str
    vcpu: float | None = None
    memory_mib: float | None = None
    storage_gib: float | None = None
    autosleep_seconds: float | None = None
    created_at: datetime | None = None
    reason: str = ""

    @property
    def name(self) -> MachineName:
        """The name under which ssh and this program know the machine."""
        name = machine_name(self.machine_id)
        if name is None:
            raise ValueError("an id that no machine with a name can have")
        return name

    @property
    def is_awake(self) -> bool:
        return self.phase in _AWAKE

    @property
    def is_going(self) -> bool:
        return self.phase in _GOING


@dataclass(frozen=True)
class UnusableMachine:
    """A machine of the account that ssh cannot name; its id is cleaned, to be shown."""

    machine_id: str
    phase: str
    why: str


@dataclass(frozen=True)
class Listing:
    """The account's machines, or one page of them, by id."""

    machines: Sequence[Machine]
    unusable: Sequence[UnusableMachine] = ()


@dataclass(frozen=True)
class ApiErrorBody:
    """The body of an error response (contract: the 4xx and 503 objects, or ErrorModel)."""

    error_code: str
    message: str
    retryable: bool
    retry_after_ms: int | None


def parse_session(body: bytes, machine: MachineName) -> Session:
    """Parse a session of `machine`.  Raises ApiProtocolError, which names the wrong field."""
    fields = _Fields(_load_object(body, machine), machine)
    _check_machine(fields, machine)
    session_id = fields.text("session_id")
    if not _SESSION_ID.match(session_id):
        raise fields.wrong("session_id", "is not an identifier")
    connection = fields.optional("connection", dict)
    created_at, ready_at = fields.time("created_at"), fields.time("ready_at")
    session = Session(
        session_id=session_id,
        machine=machine,
        status=clean_text(fields.text("status"), 40).lower(),
        began_at=ready_at or created_at,
        expires_at=fields.time("expires_at"),
        retry_after_ms=_milliseconds(fields.value.get("retry_after_ms")),
        error_code=fields.shown_text("error_code"),
        error_message=fields.shown_text("error_message"),
        connection=None if connection is None else _parse_connection(connection, machine),
    )
    if session.is_ready and session.connection is None:
        raise fields.wrong("connection", "is missing from a session that is ready")
    return session


def parse_closed(body: bytes, machine: MachineName) -> bool:
    """Return whether a success in answer to a request to close a session can be believed as it is.

    The body may be empty, or any JSON but a session that is still ready.  Raises ApiProtocolError
    for anything else: then it was not the API that answered.
    """
    if not body.strip():
        return True
    try:
        value = _load_json(body)
    except ValueError:
        raise _not_json(machine) from None
    status = value.get("status") if isinstance(value, dict) else None
    return not isinstance(status, str) or status.lower() != READY


def parse_error_body(body: bytes) -> ApiErrorBody | None:
    """Parse the body of an error response; return None if it contains no message.

    It has one of the contract's two shapes, or at least a text in a field with a common name.
    """
    try:
        value = _load_json(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    code, message = value.get("error_code"), value.get("message")
    if isinstance(code, str) and isinstance(message, str):
        wait_ms = _milliseconds(value.get("retry_after_ms"))
        return ApiErrorBody(code, message, value.get("retryable") is True, wait_ms)
    # ErrorModel has a detail and a title; load balancers send one of the others.
    texts = [value.get(field) for field in ("detail", "title", "message", "error")]
    text = next((text for text in texts if isinstance(text, str)), None)
    return None if text is None else ApiErrorBody("", text, False, None)


def parse_machine(body: bytes, machine: MachineName) -> Machine:
    """Parse GET /v1/machines/{id}.  Raises ApiProtocolError, which names the wrong field."""
    fields = _Fields(_load_object(body, machine), machine)
    return _machine(fields, _check_machine(fields, machine))


def parse_machines(body: bytes) -> tuple[Listing, str | None]:
    """Parse one page of GET /v1/machines: its machines and the cursor of the next page.

    Raises ApiProtocolError.
    """
    fields = _Fields(_load_object(body, None), None)
    if "items" not in fields.value:
        raise fields.wrong("items", "is missing")
    machines: list[Machine] = []
    unusable: list[UnusableMachine] = []
    # The service's clients take null for an empty list.
    for item in fields.optional("items", list) or []:
        machine = _listed_machine(item)
        if why := why_unusable(machine.machine_id):
            shown = clean_text(machine.machine_id, 60)
            unusable.append(UnusableMachine(shown, machine.phase, why))
        else:
            machines.append(machine)
    cursor = fields.cursor("next_cursor")
    if cursor is not None and len(cursor) > _MAX_CURSOR:
        raise fields.wrong("next_cursor", "is too long")
    return Listing(machines, unusable), cursor


def join_pages(pages: Iterable[Listing]) -> Listing:
    """Return all machines of a list's pages, in natural order of their names, each name once.

    Of two ids with the same name, the one that begins with ``dm-`` is the one to use.
    """
    by_name: dict[MachineName, Machine] = {}
    unusable: list[UnusableMachine] = []
    for page in pages:
        unusable += page.unusable
        for machine in page.machines:
            other = by_name.setdefault(machine.name, machine)
            if other.machine_id == machine.machine_id:
                continue
            if machine.machine_id.startswith(PREFIX):
                by_name[machine.name], machine = machine, other
            why = f"another machine has the id {machine.name}"
            unusable.append(UnusableMachine(machine.machine_id, machine.phase, why))
    return Listing([by_name[name] for name in natural_order(by_name)], unusable)


def parse_endpoint(text: str) -> str | None:
    """Return `text` as a lower-case host name or IP address; None if it is neither.

    The brackets of an IPv6 address and the final dot of a name are removed, because host
    certificates and patterns do not have them.
    """
    if text.startswith("[") and text.endswith("]") and ":" in text:
        text = text[1:-1]
    host = None if "_" in text else parse_host(text)
    return host.removesuffix(".") if host else None


def parse_time(text: str) -> datetime | None:
    """Parse an RFC 3339 date-time to aware UTC; None if it is malformed."""
    match = _RFC3339.match(text)
    if match is None:
        return None
    day, clock, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{offset}").astimezone(timezone.utc)
        return whole + timedelta(seconds=float(fraction or 0))
    except (ValueError, OverflowError):
        return None


def _parse_connection(value: dict[str, Any], machine: MachineName) -> Connection:
    fields = _Fields(value, machine, "connection.")
    endpoint = parse_endpoint(fields.text("endpoint"))
    if endpoint is None:
        raise fields.wrong("endpoint", "is not a host name or address")
    port = fields.whole_number("port")
    if port is None or not 1 <= port <= 65535:
        raise fields.wrong("port", "is not a port")
    username = fields.text("ssh_username")
    if not _USERNAME.match(username):
        raise fields.wrong("ssh_username", "is not a login name")
    trust = fields.optional("host_trust", dict)
    return Connection(
        endpoint=endpoint,
        port=port,
        ssh_username=username,
        user_certificate=fields.optional("user_certificate", str) or None,
        host_trust=None if trust is None else _parse_host_trust(trust, machine),
    )


def _parse_host_trust(value: dict[str, Any], machine: MachineName) -> HostTrust:
    fields = _Fields(value, machine, "connection.host_trust.")
    return HostTrust(fields.text("kind"), fields.text("host_pattern"), fields.text("public_key"))


def _check_machine(fields: _Fields, machine: MachineName) -> MachineId:
    """Return the id in a response about `machine`.  Raises ApiProtocolError if it is another's."""
    machine_id = fields.text("machine_id")
    if machine_name(machine_id) != machine:
        raise ApiProtocolError(
            "the API's response is about another machine", hint=_CONTRACT_HINT, machine=machine
        )
    return MachineId(machine_id)


def _listed_machine(item: Any) -> Machine:
    """Read a machine of a list.  An odd one must not hide the others, so nothing raises: it has no
    id, or is in an unknown phase.
    """
    value = item if isinstance(item, dict) else {}
    machine_id = value.get("machine_id")
    known_id = MachineId(machine_id if isinstance(machine_id, str) else "")
    try:
        return _machine(_Fields(value, None, "items."), known_id)
    except ApiProtocolError:
        return Machine(known_id, "unknown")


def _machine(fields: _Fields, machine_id: MachineId) -> Machine:
    """Read a machine in any of its shapes.

    Its phase is in ``phase`` (lists), in ``status.phase`` (a single machine), or in ``status``.
    """
    status, of_phase = fields.value.get("status"), fields
    if not isinstance(status, str) and (inner := fields.optional("status", dict)) is not None:
        of_phase = _Fields(inner, fields.machine, "status.")
    phase = of_phase.optional("phase", str) or (status if isinstance(status, str) else "")
    return Machine(
        machine_id=machine_id,
        phase=clean_text(phase or "unknown", 40).lower(),
        vcpu=fields.shown_amount("vcpu"),
        memory_mib=fields.shown_amount("memory_mib"),
        storage_gib=fields.shown_amount("storage_gib"),
        autosleep_seconds=fields.shown_amount("autosleep_seconds"),
        created_at=fields.shown_time("created_at"),
        reason=clean_text(of_phase.optional("reason", str) or ""),
    )


def _load_object(body: bytes, machine: MachineName | None) -> dict[str, Any]:
    try:
        value = _load_json(body)
    except ValueError:
        raise _not_json(machine) from None
    if not isinstance(value, dict):
        raise ApiProtocolError(
            "the API's response is not a JSON object", hint=_NOT_THE_API_HINT, machine=machine
        )
    return value


def _not_json(machine: MachineName | None) -> ApiProtocolError:
    return ApiProtocolError(
        "the API's response is not JSON", hint=_NOT_THE_API_HINT, machine=machine
    )


def _load_json(body: bytes) -> Any:
    """Parse a JSON document.  Raises ValueError.

    In its strings, secrets of ours are masked and surrogates, which cannot be encoded, replaced.
    """
    try:
        return _safe(json.loads(body))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _safe(value: Any) -> Any:
    match value:
        case str():
            return mask(value.encode("utf-8", "replace").decode())
        case list():
            return [_safe(each) for each in value]
        case dict():
            return {_safe(name): _safe(each) for name, each in value.items()}
    return value


def _milliseconds(value: Any) -> int | None:
    """Return how long the API asks to wait, None if the value is not a number."""
    # A NaN is unequal to itself, and bool is an int in Python but not in JSON.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(max(0, min(value, _MAX_MS)))


@dataclass(frozen=True)
class _Fields:
    """The fields of one JSON object; its errors name the field."""

    value: dict[str, Any]
    machine: MachineName | None
    prefix: str = ""

    def wrong(self, field: str, what: str) -> ApiProtocolError:
        return ApiProtocolError(
            f"the API's response breaks its contract: {self.prefix}{field} {what}",
            hint=_CONTRACT_HINT,
            machine=self.machine,
        )

    def optional(self, field: str, kind: type) -> Any:
        value = self.value.get(field)
        # bool is an int in Python but not in JSON.
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise self.wrong(field, "has the wrong type")
        return value

    def text(self, field: str) -> str:
        value = self.optional(field, str)
        if value is None:
            raise self.wrong(field, "is missing")
        return str(value)

    def whole_number(self, field: str) -> int | None:
        """Return a whole number; to JSON Schema, 22.0 is one."""
        value = self.value.get(field)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        number: int | None = self.optional(field, int)
        return number

    def cursor(self, field: str) -> str | None:
        """Return the text that asks for the next page, None after the last one."""
        value = self.value.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.optional(field, str) or None

    def shown_text(self, field: str) -> str:
        """Return a text that is only shown; "" if it is missing or is not a text."""
        value = self.value.get(field)
        return value if isinstance(value, str) else ""

    def shown_amount(self, field: str) -> float | None:
        """Return an amount that is only shown; None if it is missing or is not an amount."""
        value = self.value.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # The comparison is false for NaN, which Python's JSON lets through.
        return value if 0 <= value < 2**53 else None

    def shown_time(self, field: str) -> datetime | None:
        """Return a time that is only shown; None if it is missing or is not a time."""
        value = self.value.get(field)
        moment = parse_time(value) if isinstance(value, str) else None
        return None if moment == _GO_ZERO else moment

    def time(self, field: str) -> datetime | None:
        """Return a time; None if it is missing, empty, or Go's time that is not set."""
        text = self.optional(field, str)
        if not text:
            return None
        moment = parse_time(text)
        if moment is None:
            raise self.wrong(field, "is not a date and time")
        return None if moment == _GO_ZERO else moment
