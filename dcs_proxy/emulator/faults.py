"""The faults that the emulator can show: their kinds, and when they strike.

A fault is written ``NAME=KIND[:ARGUMENT][/METHOD][@COUNT][~SHARE]``.  NAME is a machine or ``*``.
METHOD restricts it to requests of that method, COUNT to so many times, SHARE (such as 0.1) to a
random share of the times.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dcs_proxy.emulator.contract import (
    ERRORS,
    NEWER_ERRORS,
    Response,
    key_reused,
    problem,
    with_retry_after_ms,
)
from dcs_proxy.errors import UsageError

_TEXT = re.compile(
    r"(?P<name>[^=]+)=(?P<kind>[a-z0-9-]+)(:(?P<argument>.*?))?"
    r"(/(?P<method>GET|POST|DELETE))?(@(?P<count>[0-9]{1,6}))?(~(?P<share>0\.[0-9]{1,6}))?",
    re.DOTALL,
)
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass
class Fault:
    """One fault; `left` is how many times it will still strike, None for no limit."""

    name: str
    kind: str
    argument: str = ""
    method: str = ""
    left: int | None = None
    share: float = 1.0


# Stage "reply": this reply is sent instead of the right one.
_REPLIES: dict[str, tuple[str, Callable[[str], Response]]] = {
    "400": ("bad request", lambda _: problem(400, "Bad Request", "the request is malformed")),
    "401": ("the key is invalid", lambda _: ERRORS["invalid_key"]),
    "401-missing": ("the key is missing", lambda _: ERRORS["missing_key"]),
    "403": ("another organisation", lambda _: ERRORS["org_mismatch"]),
    "403-scope": ("missing scope", lambda _: ERRORS["scope_forbidden"]),
    "403-beta": (
        "the organisation has no access to the beta",
        lambda _: NEWER_ERRORS["beta_access_required"],
    ),
    "404": ("not found", lambda _: problem(404, "Not Found", "not found")),
    "404-machine": ("machine_not_found", lambda _: NEWER_ERRORS["machine_not_found"]),
    "405": ("no such method", lambda _: problem(405, "Method Not Allowed", "not allowed")),
    "409": ("the idempotency key was used", lambda _: key_reused("9ad5f2ad", "a2b7e8d4")),
    "429": (
        "rate limited; ARGUMENT is retry_after_ms",
        lambda ms: with_retry_after_ms(ERRORS["mutation_rate_limited"], ms),
    ),
    "429-read": (
        "reads are rate limited; ARGUMENT is retry_after_ms",
        lambda ms: with_retry_after_ms(NEWER_ERRORS["read_rate_limited"], ms),
    ),
    "429-in-flight": ("in flight", lambda _: ERRORS["idempotency_in_flight"]),
    "503": ("runtime unavailable", lambda _: ERRORS["runtime_unavailable"]),
    "503-limiter": ("limiter unavailable", lambda _: ERRORS["mutation_limiter_unavailable"]),
    "503-read": (
        "limiter of reads unavailable", lambda _: NEWER_ERRORS["read_limiter_unavailable"]
    ),
    "500": ("problem+json 500", lambda _: problem(500, "Internal Server Error", "broken")),
    "502": ("problem+json 502", lambda _: problem(502, "Bad Gateway", "no upstream answers")),
    "html": ("a load balancer's 502", lambda _: Response(502, _BAD_GATEWAY, "text/html")),
    "not-json": ("a body that is not JSON", lambda _: Response(200, b'{"session_id": ')),
    "body": ("ARGUMENT as the whole body", lambda text: Response(200, text.encode())),
    "redirect": (
        "a redirect to ARGUMENT",
        lambda url: Response(307, b"", headers={"Location": url}),
    ),
}  # fmt: skip

# The other stages: control_plane.py shows "wire" faults, describe.py "session", authority.py
# "certificate", gateway.py "gateway" and "guest".
_OTHERS: dict[str, dict[str, str]] = {
    "wire": {
        "reset": "the connection closes without an answer",
        "stall": "no answer",
        "stall-body": "the body stops halfway",
        "huge": "a body of 64 MiB",
    },
    "session": {
        "set": "a session has the field and value of ARGUMENT, FIELD=JSON",
        "missing": "a session lacks the field ARGUMENT",
        "clock": "the service's clock is ARGUMENT seconds ahead",
        "closes": "a session is closed as soon as it is ready",
        "fails": "a session fails with the error_code ARGUMENT (machine_not_routable)",
    },
    "certificate": {
        "certificate-other-key": "for another key",
        "certificate-other-principal": "for another login",
        "certificate-host": "a host certificate",
        "certificate-expired": "ended an hour ago",
        "certificate-future": "begins in an hour",
        "certificate-critical": "has an unknown critical option",
        "certificate-garbage": "is not a certificate",
        "certificate-two-lines": "has a second line",
        "certificate-rsa": "is signed by an RSA authority",
        "certificate-ecdsa": "is signed by an ECDSA authority",
    },
    "gateway": {
        "gateway-refuses": "the connection is refused",
        "gateway-resets": "the connection is reset after the banner",
        "gateway-silent": "the connection is accepted and never answered",
        "gateway-unsigned-key": "the host key has no certificate",
        "gateway-other-name": "the host certificate names another host",
        "gateway-expired": "the host certificate has expired",
        "gateway-other-authority": "the host certificate is signed by another authority",
    },
    "guest": {
        "guest": "after login the connection ends with ARGUMENT (SSH_TUNNEL_NOT_READY)",
    },
}  # fmt: skip

STAGES = dict.fromkeys(_REPLIES, "reply") | {
    kind: stage for stage, kinds in _OTHERS.items() for kind in kinds
}


def parse_fault(text: str) -> Fault:
    """Parse ``NAME=KIND[:ARGUMENT][/METHOD][@COUNT][~SHARE]``.  Raises UsageError."""
    match = _TEXT.fullmatch(text)
    if match is None or match["kind"] not in STAGES:
        raise UsageError(f"{text!r} is not a fault", hint="dcs-proxy emulator --list-faults")
    if match["kind"] == "set":
        try:
            json.loads((match["argument"] or "").partition("=")[2])
        except ValueError:
            raise UsageError(f"{text!r}: the argument of set is FIELD=JSON") from None
    count = None if match["count"] is None else int(match["count"])
    return Fault(
        match["name"], match["kind"], match["argument"] or "", match["method"] or "", count,
        float(match["share"] or 1),
    )  # fmt: skip


def describe_faults() -> Iterable[str]:
    """Return one line for each kind of fault."""
    for kind, (text, _) in _REPLIES.items():
        yield f"{kind:28} {text}"
    for stage, kinds in _OTHERS.items():
        for kind, text in kinds.items():
            yield f"{kind:28} {text} ({stage})"


class Faults:
    """The faults that are set.  Methods may be called from any thread."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, name: str, stage: str, method: str = "") -> list[Fault]:
        """Return the faults of `stage` that strike machine `name` now, and count them."""
        with self._lock:
            struck = [
                fault
                for fault in self._faults
                if fault.name in (name, "*")
                and STAGES[fault.kind] == stage
                and fault.method in ("", method)
                and fault.left != 0
                and (fault.share == 1 or random.random() < fault.share)
            ]
            for fault in struck:
                if fault.left is not None:
                    fault.left -= 1
            return struck

    def clock_ahead(self) -> float:
        """Return how many seconds the service's clock is ahead, on every route."""
        with self._lock:
            return sum(
                float(f.argument) for f in self._faults if f.kind == "clock" and f.name == "*"
            )


def reply_of(fault: Fault) -> Response:
    """Return the reply of a fault of stage "reply"."""
    return _REPLIES[fault.kind][1](fault.argument)


def edit(body: dict[str, Any], fault: Fault) -> None:
    """Apply a fault of kind "set" or "missing" to a session's JSON, in place."""
    path, _, value = fault.argument.partition("=")
    *parents, last = path.split(".")
    for parent in parents:
        body = body.get(parent, {})
    if fault.kind == "missing":
        body.pop(last, None)
    else:
        body[last] = json.loads(value)
