"""The two kinds of ids that the service has used.

``dm`` is the API contract's: machine ids are ``dm-`` names.  ``uuid`` is that of dedalus-sdk 0.6.0
and its documentation: machine and session ids are bare, lower-case, hyphenated UUIDs, and an
Idempotency-Key is a UUIDv7 of 32 hexadecimal digits.
"""

from __future__ import annotations

import re
import secrets
import uuid

from dcs_proxy.emulator.contract import Response, problem
from dcs_proxy.names import is_machine_name, is_uuid

_COMPACT_UUID_7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\Z")
_NAMESPACE = uuid.UUID("8f1f3f0c-5f0e-4d5c-9a52-6f2f6f0b7c11")
# How long a machine with a UUID takes from "running" until ssh is ready.
_SSH_S = 0.1


class Ids:
    """One kind of ids, "dm" or "uuid"."""

    def __init__(self, kind: str) -> None:
        self.is_uuid = kind == "uuid"
        self.ssh_seconds = _SSH_S if self.is_uuid else 0.0

    def machine_id(self, name: str) -> str | None:
        """Return the id of the machine that the command line calls `name`, or None if invalid.

        For UUIDs, the id is derived from a ``dm-`` name and is the same in every run.
        """
        if self.is_uuid and is_uuid(name):
            return name
        if not is_machine_name(name):
            return None
        return str(uuid.uuid5(_NAMESPACE, name)) if self.is_uuid else name

    def new_session_id(self) -> str:
        """Return an id for a new session."""
        return str(uuid.uuid4()) if self.is_uuid else f"wssh-{secrets.token_hex(10)}"

    def refuse_machine(self, machine_id: str) -> Response | None:
        """Return the reply to a request with a wrong machine id, None if it is right."""
        location = "path.machine_id"
        if self.is_uuid:
            if is_uuid(machine_id):
                return None
            return problem(400, "Bad Request", "machine_id is not a lower-case UUID", location)
        if is_machine_name(machine_id):
            return None
        return problem(422, "Unprocessable Entity", "expected a machine's name", location)

    def refuse_key(self, idempotency_key: str) -> Response | None:
        """Return the reply to a request with a wrong Idempotency-Key, None if it is right."""
        if not self.is_uuid or _COMPACT_UUID_7.match(idempotency_key):
            return None
        message = "expected a compact UUIDv7"
        return problem(400, "Bad Request", message, "header.Idempotency-Key")
