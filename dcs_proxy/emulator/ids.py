"""The ids that the service takes and gives out: it has had two kinds.

``dm`` is the API contract's: machines are ``dm-`` names.  ``uuid`` is that of dedalus-sdk 0.6.0 and
its documentation: a machine is a bare, lower-case, hyphenated UUID, and so is a session; an
Idempotency-Key is a UUIDv7 in 32 hexadecimal digits.
"""

from __future__ import annotations

import re
import secrets
import uuid

from dcs_proxy.emulator.contract import Response, problem
from dcs_proxy.names import is_machine_name

KINDS = ("dm", "uuid")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_COMPACT_UUID_7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\Z")
_NAMESPACE = uuid.UUID("8f1f3f0c-5f0e-4d5c-9a52-6f2f6f0b7c11")
# How long a machine of this kind that has woken prepares ssh.
_SSH_S = 0.1


class Ids:
    """One kind of ids, "dm" or "uuid"."""

    def __init__(self, kind: str) -> None:
        self.is_uuid = kind == "uuid"
        self.ssh_seconds = _SSH_S if self.is_uuid else 0.0

    def machine_id(self, name: str) -> str | None:
        """Return the id of the machine that the command line calls `name`; None if it cannot be.

        A ``dm-`` name stands for a UUID that is made from it, the same in every run.
        """
        if self.is_uuid and _UUID.match(name):
            return name
        if not is_machine_name(name):
            return None
        return str(uuid.uuid5(_NAMESPACE, name)) if self.is_uuid else name

    def new_session_id(self) -> str:
        """Return an id for a new session."""
        return str(uuid.uuid4()) if self.is_uuid else f"wssh-{secrets.token_hex(10)}"

    def refuse_machine(self, machine_id: str) -> Response | None:
        """Return the reply to a request whose path has no id of this kind, None if it has one."""
        location = "path.machine_id"
        if self.is_uuid:
            if _UUID.match(machine_id):
                return None
            return problem(400, "Bad Request", "machine_id is not a lower-case UUID", location)
        if is_machine_name(machine_id):
            return None
        return problem(422, "Unprocessable Entity", "expected a machine's name", location)

    def refuse_key(self, idempotency_key: str) -> Response | None:
        """Return the reply to an Idempotency-Key that is not of this kind, None if it is."""
        if not self.is_uuid or _COMPACT_UUID_7.match(idempotency_key):
            return None
        message = "expected a compact UUIDv7"
        return problem(400, "Bad Request", message, "header.Idempotency-Key")
