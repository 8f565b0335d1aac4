"""The records that the state directory has for a machine, and their file format.

Each file is one JSON object with exactly the fields of its class.  A file that is damaged, or has
other fields because another version wrote it, counts as missing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from dcs_proxy.ssh.keys import public_blob

T = TypeVar("T")

NEVER = 0.0


@dataclass(frozen=True)
class Attempt:
    """One logical create, written before it is sent, so that any process can resume it.

    `public_key` is the raw Ed25519 key in hex; the agent at `agent_path` holds its private half
    until `key_ends_at` (unix time).  `account` identifies the API and the organisation.  `polled`
    is True once GET on the session has worked.  `machine` is the machine's full name, because file
    names shorten long ones; "" in a record of an earlier version.
    """

    idempotency_key: str
    public_key: str
    agent_path: str
    key_ends_at: float
    account: str
    session_id: str = ""
    polled: bool = False
    machine: str = ""

    @property
    def public(self) -> bytes:
        return bytes.fromhex(self.public_key)

    @property
    def token(self) -> str:
        """The part of file names that belongs to this attempt."""
        return self.public_key[:12]


@dataclass(frozen=True)
class ReadySession:
    """What ssh needs to log in.

    `authority` and `certificate` are public key lines, `certificate` "" if the API sent none.
    `bare_key` is True if the agent holds the plain key instead of the certificate.  Unix times:
    `began_at` is when the session became ready, or else was created; `ends_at` is when the first of
    session, certificate and key ends; `proved_at` is when the API last confirmed the session, on a
    machine that was running or has accepted a login, NEVER until then.
    """

    endpoint: str
    port: int
    ssh_username: str
    authority: str
    certificate: str
    bare_key: bool
    ends_at: float
    began_at: float
    proved_at: float


@dataclass(frozen=True)
class Record:
    """A machine's attempt, its session once that is ready, and parts of the session before it."""

    attempt: Attempt
    ready: ReadySession | None = None
    previous_token: str = ""
    previous_username: str = ""

    @property
    def identity(self) -> bytes:
        """The public blob of the identity that ssh will ask the agent for."""
        import binascii

        if self.ready is None or self.ready.bare_key or not self.ready.certificate:
            return public_blob(self.attempt.public)
        return binascii.a2b_base64(self.ready.certificate.split()[1])

    @property
    def logins(self) -> list[str]:
        """The login names that an ssh may use.

        The previous session's is one of them: ssh may have read it just before the session was
        replaced.
        """
        names = [self.ready.ssh_username if self.ready else "", self.previous_username]
        return [name for name in names if name]

    def ends_at(self) -> float:
        """Return the unix time after which nothing in the record can be used."""
        return self.ready.ends_at if self.ready else self.attempt.key_ends_at


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, for other processes; `failed_at` is unix time."""

    exit_code: int
    message: str
    hint: str
    failed_at: float


def render(value: Record | Failure) -> bytes:
    """Return the contents of a file."""
    return json.dumps(asdict(value)).encode()


def parse_record(data: bytes) -> Record | None:
    """Return the record in `data`; None if it is damaged or another version's."""
    value = _load_object(data)
    attempt = _parse(Attempt, value.pop("attempt", None))
    ready = value.pop("ready", None)
    session = None if ready is None else _parse(ReadySession, ready)
    if attempt is None or (ready is not None and session is None):
        return None
    record = _parse(Record, {**value, "attempt": attempt, "ready": session})
    try:
        if record is None or len(attempt.public) != 32 or not record.identity:
            return None
    except (ValueError, IndexError):
        return None
    return record


def parse_failure(data: bytes) -> Failure | None:
    """Return the failure in `data`; None if it is damaged or another version's."""
    return _parse(Failure, _load_object(data))


def _load_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "Attempt": (Attempt,),
    "ReadySession | None": (ReadySession, type(None)),
}


def _parse(kind: type[T], value: Any) -> T | None:
    """Build a dataclass from a JSON object of exactly its fields and types, or return None."""
    if not isinstance(value, dict):
        return None
    # Every kind is a dataclass; Python 3.10 has no public type for that.
    for field in fields(kind):  # type: ignore[arg-type]
        # The exact type, because isinstance takes a bool for an int.
        if field.name in value and type(value[field.name]) not in _TYPES[str(field.type)]:
            return None
    try:
        return kind(**value)
    except TypeError:
        return None
