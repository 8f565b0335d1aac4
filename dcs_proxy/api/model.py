"""Values from the control plane, parsed and checked: JSON bytes in, frozen values out.

Sources: the API contract (SSHSessionResponse, SSHConnection, SSHHostTrust and the error objects of
createMachineSSHSession), and the service's public clients for the routes of machines.  Unknown
fields are ignored, so that a newer service keeps working, and so are invalid values that are only
shown, and a retry_after_ms that is not a number.  Any other field of the wrong type, or a value
that is not safe in a file, on a terminal or on a command line, raises ApiProtocolError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from dcs_proxy.api.fields import (
    CONTRACT_HINT,
    Fields,
    load_json,
    load_object,
    milliseconds,
    not_json,
)
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
from dcs_proxy.text import clean_text

READY = "ready"
OVER = frozenset({"closed", "expired", "failed"})
# Error codes for a machine that was created just now, although its phase may be "running".
UNREACHABLE = frozenset({"machine_not_found", "machine_not_routable"})
# The phases of a machine that is running, or will be without a request of ours.
_AWAKE = frozenset({"accepted", "placement_pending", "starting", "running"})
_GOING = frozenset({"destroying", "destroyed"})

_SESSION_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._~-]{0,251}[A-Za-z0-9])?\Z")
_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,127}\Z")
_MAX_CURSOR = 2048


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
    """The result of a request to close a session."""

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
    fields = Fields(load_object(body, machine), machine)
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
        retry_after_ms=milliseconds(fields.value.get("retry_after_ms")),
        error_code=fields.shown_text("error_code"),
        error_message=fields.shown_text("error_message"),
        connection=None if connection is None else _parse_connection(connection, machine),
    )
    if session.is_ready and session.connection is None:
        raise fields.wrong("connection", "is missing from a session that is ready")
    return session


def parse_closed(body: bytes, machine: MachineName) -> bool:
    """Return whether the body of a successful response to a close confirms that it is closed.

    The body may be empty, or any JSON except a session that is still ready.  Raises
    ApiProtocolError if it is not JSON, because then something other than the API has answered.
    """
    if not body.strip():
        return True
    try:
        value = load_json(body)
    except ValueError:
        raise not_json(machine) from None
    status = value.get("status") if isinstance(value, dict) else None
    return not isinstance(status, str) or status.lower() != READY


def parse_error_body(body: bytes) -> ApiErrorBody | None:
    """Parse the body of an error response; return None if it contains no message.

    It has one of the contract's two shapes, or at least a text in a field with a common name.
    """
    try:
        value = load_json(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    code, message = value.get("error_code"), value.get("message")
    if isinstance(code, str) and isinstance(message, str):
        wait_ms = milliseconds(value.get("retry_after_ms"))
        return ApiErrorBody(code, message, value.get("retryable") is True, wait_ms)
    # ErrorModel has a detail and a title; load balancers send one of the others.
    texts = [value.get(field) for field in ("detail", "title", "message", "error")]
    text = next((text for text in texts if isinstance(text, str)), None)
    return None if text is None else ApiErrorBody("", text, False, None)


def parse_machine(body: bytes, machine: MachineName) -> Machine:
    """Parse GET /v1/machines/{id}.  Raises ApiProtocolError, which names the wrong field."""
    fields = Fields(load_object(body, machine), machine)
    return _machine(fields, _check_machine(fields, machine))


def parse_machines(body: bytes) -> tuple[Listing, str | None]:
    """Parse one page of GET /v1/machines: its machines and the cursor of the next page.

    Raises ApiProtocolError.
    """
    fields = Fields(load_object(body, None), None)
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


def _parse_connection(value: dict[str, Any], machine: MachineName) -> Connection:
    fields = Fields(value, machine, "connection.")
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
    fields = Fields(value, machine, "connection.host_trust.")
    return HostTrust(fields.text("kind"), fields.text("host_pattern"), fields.text("public_key"))


def _check_machine(fields: Fields, machine: MachineName) -> MachineId:
    """Return the id in a response about `machine`.  Raises ApiProtocolError if it is another's."""
    machine_id = fields.text("machine_id")
    if machine_name(machine_id) != machine:
        raise ApiProtocolError(
            "the API's response is about another machine", hint=CONTRACT_HINT, machine=machine
        )
    return MachineId(machine_id)


def _listed_machine(item: Any) -> Machine:
    """Read a machine of a list.

    An invalid entry must not hide the others, so it becomes a machine without an id, or in an
    unknown phase.
    """
    value = item if isinstance(item, dict) else {}
    machine_id = value.get("machine_id")
    known_id = MachineId(machine_id if isinstance(machine_id, str) else "")
    try:
        return _machine(Fields(value, None), known_id)
    except ApiProtocolError:
        return Machine(known_id, "unknown")


def _machine(fields: Fields, machine_id: MachineId) -> Machine:
    """Read a machine in any of its shapes.

    Its phase is in ``phase`` (lists), in ``status.phase`` (a single machine), or in ``status``.
    """
    status, of_phase = fields.value.get("status"), fields
    if not isinstance(status, str) and (inner := fields.optional("status", dict)) is not None:
        of_phase = Fields(inner, fields.machine, "status.")
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
