"""HTTP replies as in the contract: JSON, the documented errors, problem+json."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Response:
    """One HTTP reply."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def json_reply(value: object, status: int = 200) -> Response:
    """Return `value` as JSON."""
    return Response(status, json.dumps(value).encode())


def _error(status: int, code: str, message: str, retryable: bool, **more: Any) -> Response:
    body = {"error_code": code, "message": message, "retryable": retryable, **more}
    headers = {}
    if "retry_after_ms" in more:
        headers["Retry-After"] = str(-(-int(more["retry_after_ms"]) // 1000))
    return Response(status, json.dumps(body).encode(), headers=headers)


_LIMITER = {"rate_limit_scope": "mutating_lifecycle_routes"}
_READ_LIMITER = {"rate_limit_scope": "read_lifecycle_routes"}

# The contract's examples, under the names that they have there.
ERRORS = {
    "missing_key": _error(401, "AUTH_REQUIRED", "missing Dedalus API key", False),
    "invalid_key": _error(401, "AUTH_INVALID", "invalid Dedalus API key", False),
    "org_mismatch": _error(
        403, "AUTH_ORG_MISMATCH", "org scope does not match API key ownership", False
    ),
    "scope_forbidden": _error(
        403, "AUTH_SCOPE_FORBIDDEN", "internal service authorization is required", False
    ),
    "idempotency_in_flight": _error(
        429, "RATE_LIMITED", "idempotency key is already in-flight", True, retry_after_ms=250
    ),
    "mutation_rate_limited": _error(
        429, "RATE_LIMITED", "mutation rate limit exceeded", True, retry_after_ms=84,
        details=_LIMITER,
    ),
    "mutation_limiter_unavailable": _error(
        503, "DEPENDENCY_UNAVAILABLE", "mutation rate limiter unavailable", True,
        details={"rate_limit_backend": "redis", **_LIMITER},
    ),
    "runtime_unavailable": _error(503, "DEPENDENCY_UNAVAILABLE", "runtime unavailable", True),
}  # fmt: skip

# From the service's clients of September 2026, not in the contract.
NEWER_ERRORS = {
    "beta_access_required": _error(
        403, "BETA_ACCESS_REQUIRED", "this organization has no access to the beta", False
    ),
    "machine_not_found": _error(404, "machine_not_found", "machine not found", False),
    "read_rate_limited": _error(
        429, "RATE_LIMITED", "read rate limit exceeded", True, retry_after_ms=84,
        details=_READ_LIMITER,
    ),
    "read_limiter_unavailable": _error(
        503, "DEPENDENCY_UNAVAILABLE", "read rate limiter unavailable", True,
        details={"rate_limit_backend": "redis", **_READ_LIMITER},
    ),
}  # fmt: skip


ERROR_CODES = frozenset(
    json.loads(reply.body)["error_code"] for reply in [*ERRORS.values(), *NEWER_ERRORS.values()]
) | {"IDEMPOTENCY_KEY_REUSED", "MACHINE_UNAVAILABLE"}


def with_retry_after_ms(reply: Response, milliseconds: str) -> Response:
    """Return an error reply that asks to wait `milliseconds`; an empty text changes nothing."""
    if not milliseconds:
        return reply
    body = {**json.loads(reply.body), "retry_after_ms": int(milliseconds)}
    headers = {"Retry-After": str(-(-int(milliseconds) // 1000))}
    return Response(reply.status, json.dumps(body).encode(), headers=headers)


def key_reused(first: str, second: str) -> Response:
    """Return the contract's 409."""
    message = "idempotency key reused with different request parameters"
    details = {"expected_request_hash": first, "provided_request_hash": second}
    return _error(409, "IDEMPOTENCY_KEY_REUSED", message, False, details=details)


def problem(status: int, title: str, detail: str, location: str = "") -> Response:
    """Return application/problem+json (contract: ErrorModel)."""
    body: dict[str, Any] = {"title": title, "status": status, "detail": detail}
    if location:
        body["errors"] = [{"message": detail, "location": location}]
    return Response(status, json.dumps(body).encode(), "application/problem+json")
