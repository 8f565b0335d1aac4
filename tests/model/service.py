"""The model's control plane and agent: only what clients may rely on."""

from __future__ import annotations

import email.utils
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from dcs_proxy.api.http import Response
from dcs_proxy.emulator.authority import Authorities, public_line
from dcs_proxy.ssh.keys import KEY_TYPE, public_blob
from dcs_proxy.ssh.wire import Reader, pack_string, pack_u32
from tests.model.process import Ask

AUTHORITIES = Authorities()
ENDPOINT = "ssh.example"
_ROUTE = re.compile(r"/v1/machines/(dm-[a-z]+)/ssh(?:/([a-z0-9-]+))?\Z")


@dataclass
class Clock:
    """The time in seconds, and by how much our computer's clock is ahead of it.

    `steps` is how often that clock has been set.
    """

    elapsed: float = 0.0
    step: float = 0.0
    steps: int = 0
    start: float = field(default_factory=time.time)

    def monotonic(self) -> float:
        return self.elapsed

    def time(self) -> float:
        """Return unix time by our clock."""
        return self.true_time() + self.step

    def true_time(self) -> float:
        """Return unix time by the service's clock."""
        return self.start + self.elapsed


@dataclass
class Lease:
    """A session as the service knows it; times are the clock's `elapsed`, `steps` its too."""

    session_id: str
    machine: str
    public_key: str
    created_at: float
    ends_at: float
    steps: int
    status: str = "wake_in_progress"
    over_at: float | None = None


class Service:
    """The control plane; `life_s` is how long the sessions that it makes from now on live.

    While the machine `is_awake` they are ready at once.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.life_s = 3600.0
        self.is_awake = True
        self.leases: dict[str, Lease] = {}
        self.steps_of: dict[str, int] = {}  # when an attempt was written, by its Idempotency-Key
        self.created: list[Lease] = []

    def answer(self, ask: Ask) -> Response:
        """Do what is asked."""
        match = _ROUTE.match(ask.path)
        assert match, ask.path
        machine, session_id = match.groups()
        if ask.method == "POST":
            return self._create(machine, ask.headers["Idempotency-Key"], ask.body["public_key"])
        lease = next((x for x in self.leases.values() if x.session_id == session_id), None)
        if lease is None:
            return self.reply(404, {"error_code": "NOT_FOUND", "message": "", "retryable": False})
        if ask.method == "DELETE":
            self.end(lease, "closed")
        return self.reply(200, self._session(lease))

    def refuse(self, status: int) -> Response:
        """Return the contract's error object for 429 or 503."""
        code = {429: "RATE_LIMITED", 503: "DEPENDENCY_UNAVAILABLE"}[status]
        fault: dict[str, Any] = {"error_code": code, "message": "not now", "retryable": True}
        return self.reply(status, {**fault, "retry_after_ms": 84} if status == 429 else fault)

    def reply(self, status: int, body: dict[str, Any]) -> Response:
        date = email.utils.formatdate(self.clock.true_time(), usegmt=True)
        return Response(status, {"date": date}, json.dumps(body).encode())

    def end(self, lease: Lease, status: str) -> None:
        if self.is_live(lease):
            lease.status, lease.over_at = status, self.clock.elapsed

    def is_live(self, lease: Lease) -> bool:
        """Tell whether a session is ready or will be; one past its end has expired."""
        if lease.over_at is None and lease.ends_at <= self.clock.elapsed:
            lease.status, lease.over_at = "expired", lease.ends_at
        return lease.over_at is None

    def _create(self, machine: str, key: str, public_key: str) -> Response:
        lease = self.leases.get(key)
        if lease is None:
            now = self.clock.elapsed
            number = f"wssh-{len(self.leases)}"
            steps = self.steps_of.get(key, self.clock.steps)
            lease = Lease(number, machine, public_key, now, now + self.life_s, steps)
            self.leases[key] = lease
            self.created.append(lease)
        assert lease.public_key == public_key, "one Idempotency-Key, two requests"
        return self.reply(200, self._session(lease))

    def _session(self, lease: Lease) -> dict[str, Any]:
        if self.is_live(lease) and self.is_awake:
            lease.status = "ready"
        found: dict[str, Any] = {
            "session_id": lease.session_id,
            "machine_id": lease.machine,
            "status": lease.status,
            "created_at": self._date(lease.created_at),
            "expires_at": self._date(lease.ends_at),
            "retry_after_ms": 50,
        }
        if lease.status == "ready":
            ahead = self.clock.true_time() - time.time()
            ends_at = self.clock.start + lease.ends_at - ahead
            found["connection"] = {
                "endpoint": ENDPOINT,
                "port": 22,
                "ssh_username": lease.session_id,
                "user_certificate": AUTHORITIES.sign_user(
                    lease.public_key, lease.session_id, ends_at, ahead=ahead
                ),
                "host_trust": {
                    "kind": "cert_authority",
                    "host_pattern": ENDPOINT,
                    "public_key": public_line(AUTHORITIES.host_ca),
                },
            }
        return found

    def _date(self, elapsed: float) -> str:
        return datetime.fromtimestamp(self.clock.start + elapsed, timezone.utc).isoformat()


class ModelAgent:
    """The agent; `held` is what it holds and when that ends, by the clock's `elapsed`.

    It keeps time as ssh-agent does, by a clock that is never set.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.held: dict[bytes, float] = {}
        self.takes_certificates = True

    def answer(self, request: bytes) -> bytes:
        """Return the reply to a request, both without their length."""
        self.held = {b: end for b, end in self.held.items() if end > self.clock.elapsed}
        reader = Reader(request)
        match reader.u8():
            case 11:
                listed = [pack_string(blob) + pack_string(b"") for blob in self.held]
                return b"\x0c" + pack_u32(len(listed)) + b"".join(listed)
            case 18:
                return b"\x05" if self.held.pop(reader.string(), None) is None else b"\x06"
            case 25:
                return self._add(reader)
        raise AssertionError(request)

    def _add(self, reader: Reader) -> bytes:
        if reader.string() == KEY_TYPE:
            blob = public_blob(reader.string())
        elif not self.takes_certificates:
            return b"\x05"
        else:
            blob = reader.string()
            reader.string()
        reader.string()
        reader.string()
        assert reader.u8() == 1, "an identity without a lifetime"
        self.held[blob] = self.clock.elapsed + reader.u32()
        return b"\x06"
