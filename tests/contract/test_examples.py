"""Each error that the contract documents, provoked and compared with its example, to the field."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line
from tests.support.emulator import Emulator
from tests.support.openapi import documented_errors
from tests.support.waiting import LIMIT_S

ERRORS = documented_errors()
Start = Callable[..., Emulator]


def create(
    emulator: Emulator, headers: dict[str, str], idempotency_key: str | None = None
) -> requests.Response:
    return requests.post(
        f"{emulator.api}/v1/machines/dm-foo/ssh",
        headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4()), **headers},
        json={"public_key": public_line(generate_key().public)},
        timeout=LIMIT_S,
    )


def missing_key(start: Start) -> requests.Response:
    return create(start("--machine", "dm-foo"), {})


def invalid_key(start: Start) -> requests.Response:
    return create(start("--machine", "dm-foo"), {"Authorization": "Bearer dsk-wrong"})


def org_mismatch(start: Start) -> requests.Response:
    emulator = start("--machine", "dm-foo", "--org-id", "org-mine")
    return create(emulator, {"x-api-key": emulator.key, "X-Dedalus-Org-Id": "org-other"})


def idempotency_key_reused(start: Start) -> requests.Response:
    emulator = start("--machine", "dm-foo")
    first, second = (create(emulator, {"x-api-key": emulator.key}, "k1") for _ in range(2))
    assert first.status_code == 200
    return second


def mutation_rate_limited(start: Start) -> requests.Response:
    emulator = start("--machine", "dm-foo", "--rate-limit", "0.001")
    return create(emulator, {"x-api-key": emulator.key})


def by_fault(kind: str) -> Callable[[Start], requests.Response]:
    """Provoke what no request can: the state of the service is at fault."""

    def provoke(start: Start) -> requests.Response:
        emulator = start("--machine", "dm-foo", "--fault", f"dm-foo={kind}/POST@1")
        refused = create(emulator, {"x-api-key": emulator.key})
        assert create(emulator, {"x-api-key": emulator.key}).status_code == 200
        return refused

    return provoke


PROVOKE: dict[str, Callable[[Start], requests.Response]] = {
    "missing_key": missing_key,
    "invalid_key": invalid_key,
    "org_mismatch": org_mismatch,
    "scope_forbidden": by_fault("403-scope"),
    "idempotency_key_reused": idempotency_key_reused,
    "idempotency_in_flight": by_fault("429-in-flight"),
    "mutation_rate_limited": mutation_rate_limited,
    "mutation_limiter_unavailable": by_fault("503-limiter"),
    "runtime_unavailable": by_fault("503"),
}


def form(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with its hashes, which are those of a request, as their length."""
    details = {
        name: len(bytes.fromhex(value)) if name.endswith("_hash") else value
        for name, value in body.get("details", {}).items()
    }
    return {**body, "details": details}


@pytest.mark.parametrize("name", ERRORS)
def test_the_emulator_answers_as_the_contract_s_example(name: str, start_emulator: Start) -> None:
    status, example = ERRORS[name]
    refused = PROVOKE[name](start_emulator)
    assert refused.status_code == status
    assert refused.headers["Content-Type"] == "application/json"
    assert form(refused.json()) == form(example)
