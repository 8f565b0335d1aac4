"""Sessions and machines as the JSON of the control plane's replies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from dcs_proxy.console.format import rfc3339
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.emulator.faults import Fault, Faults, edit
from dcs_proxy.emulator.machines import Machine, Service, SshSession

_MEMORY_MIB = 4096
# The desired state by phase; for all other phases it is "running".
_DESIRED = {
    "stopping": "sleeping",
    "sleeping": "sleeping",
    "destroying": "destroyed",
    "destroyed": "destroyed",
}


@dataclass(frozen=True)
class Describer:
    """Describes the sessions and machines of `service`, changed by its faults.

    `endpoint` is the gateway's name.  `ports` has the port for each fault of stage "gateway", and
    for "" the port without a fault.  `without` names optional parts of a connection to leave out.
    """

    service: Service
    authorities: Authorities
    faults: Faults
    endpoint: str
    ports: dict[str, int]
    without: frozenset[str]

    def session(self, session: SshSession, method: str) -> dict[str, Any]:
        """Return a session (contract: SSHSessionResponse) for the reply to a `method` request."""
        service = self.service
        name = session.machine.name
        struck = self.faults.strike(name, "session", method)
        for fault in struck:
            if fault.kind == "fails":
                code = fault.argument or "machine_not_routable"
                service.fail(session, code, "the machine cannot be reached yet")
        ahead = sum(float(fault.argument) for fault in struck if fault.kind == "clock")
        body: dict[str, Any] = {
            "session_id": session.session_id,
            "machine_id": session.machine.machine_id,
            "status": session.status,
            "created_at": rfc3339(service.wall(session.created_at) + ahead),
        }
        if session.ready_at is not None:
            body["ready_at"] = rfc3339(service.wall(session.ready_at) + ahead)
        if session.ends_at is not None:
            body["expires_at"] = rfc3339(service.wall(session.ends_at) + ahead)
        if session.error_code:
            body["error_code"] = session.error_code
            body["error_message"] = session.error_message
        if session.status in ("wake_in_progress", "ssh_in_progress"):
            body["retry_after_ms"] = service.retry_after_ms(session)
        if session.status == "ready":
            body["connection"] = self._connection(session, ahead)
        for fault in struck:
            self._apply(body, session, fault)
        return body

    def listed_machine(self, machine: Machine) -> dict[str, Any]:
        """Return a machine as in the list; if ids are UUIDs, its status is included."""
        shown = {**self._machine(machine), "phase": machine.phase}
        return {**shown, "status": self._status(machine)} if self.service.ids.is_uuid else shown

    def machine(self, machine: Machine) -> dict[str, Any]:
        """Return a machine as in the reply about one machine: the phase is in its status."""
        return {**self._machine(machine), "status": self._status(machine)}

    def _status(self, machine: Machine) -> dict[str, Any]:
        changed_at = self.service.date(machine.changed_at)
        return {
            "phase": machine.phase,
            "reason": "",
            "retryable": False,
            "revision": str(machine.revision),
            "last_transition_at": changed_at,
            "last_progress_at": changed_at,
            "memory_configured_mib": _MEMORY_MIB,
        }

    def _machine(self, machine: Machine) -> dict[str, Any]:
        return {
            "machine_id": machine.machine_id,
            "desired_state": _DESIRED.get(machine.phase, "running"),
            "vcpu": 2,
            "memory_mib": _MEMORY_MIB,
            "storage_gib": 20,
            "autosleep_seconds": int(self.service.autosleep_seconds),
            "created_at": self.service.date(machine.created_at),
        }

    def _connection(self, session: SshSession, ahead: float) -> dict[str, Any]:
        name = session.machine.name
        gateway = [fault.kind for fault in self.faults.strike(name, "gateway")] or [""]
        connection: dict[str, Any] = {
            "endpoint": self.endpoint,
            "port": self.ports[gateway[0]],
            "ssh_username": session.username,
        }
        if "certificate" not in self.without:
            if not session.certificate:
                session.certificate = self._certificate(session, ahead)
            connection["user_certificate"] = session.certificate
        if "host-trust" not in self.without:
            connection["host_trust"] = {
                "kind": "cert_authority",
                "host_pattern": self.endpoint,
                "public_key": public_line(self.authorities.host_ca),
            }
        return connection

    def _certificate(self, session: SshSession, ahead: float) -> str:
        ends_at = time.time() if session.ends_at is None else self.service.wall(session.ends_at)
        kinds = [fault.kind for fault in self.faults.strike(session.machine.name, "certificate")]
        return self.authorities.sign_user(
            session.public_key, session.username, ends_at, *kinds[:1], ahead=ahead
        )

    def _apply(self, body: dict[str, Any], session: SshSession, fault: Fault) -> None:
        if fault.kind == "closes" and session.status == "ready":
            self.service.close(session)
        elif fault.kind in ("set", "missing"):
            edit(body, fault)
