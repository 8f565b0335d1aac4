"""The service's own Python client, dedalus-sdk, against the emulator: its newest and oldest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.emulator.machines import PHASES
from tests.contract.documents import documented_errors
from tests.integration.harness import LIMIT_S, Emulator, clean_environment

Start = Callable[..., Emulator]
PROGRAM = Path(__file__).with_name("sdk_program.py")
# Where contrib/test puts the oldest release that knows machines; two do not fit into one place.
OLDEST = "DCS_PROXY_OLD_SDK"

# By the fault that answers so: the contract's example, and the SDK's class.
DOCUMENTED = {
    "401": ("invalid_key", "AuthenticationError"),
    "401-missing": ("missing_key", "AuthenticationError"),
    "403": ("org_mismatch", "PermissionDeniedError"),
    "403-scope": ("scope_forbidden", "PermissionDeniedError"),
    "409": ("idempotency_key_reused", "ConflictError"),
    "429": ("mutation_rate_limited", "RateLimitError"),
    "429-in-flight": ("idempotency_in_flight", "RateLimitError"),
    "503": ("runtime_unavailable", "InternalServerError"),
    "503-limiter": ("mutation_limiter_unavailable", "InternalServerError"),
}


class Sdk:
    """One version of it."""

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.directory = name, directory

    def run(self, emulator: Emulator, mode: str, *actions: str, **more: str) -> Any:
        """Return what sdk_program.py prints; `more` are variables of its environment."""
        environment = {
            **clean_environment(),
            "PYTHONPATH": self.directory,
            "DEDALUS_BASE_URL": emulator.api,
            "DEDALUS_API_KEY": emulator.key,
            **more,
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAM), mode, *actions],
            capture_output=True, text=True, check=False, env=environment, timeout=LIMIT_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(params=["newest", "oldest"])
def sdk(request: pytest.FixtureRequest) -> Sdk:
    if request.param == "newest":
        return Sdk("newest", "")
    if not os.environ.get(OLDEST):
        pytest.skip(f"{OLDEST} does not say where the oldest dedalus-sdk is")
    return Sdk("oldest", os.environ[OLDEST])


def machines(*names: str) -> list[str]:
    return [word for name in names for word in ("--machine", name)]


def test_a_session_is_created_awaited_and_closed(sdk: Sdk, start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
    version, said = sdk.run(emulator, "strict", "version", "use_session:dm-foo")
    assert (version == "0.0.4") == (sdk.name == "oldest")
    assert said["statuses"] == ["wake_in_progress", "ready", "closed"]
    assert (said["endpoint"], said["port"]) == ("localhost", emulator.ready["gateway"])
    assert said["host_ca"] == emulator.ready["host_ca"]
    assert said["certificate"].startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert said["lasts_s"] == pytest.approx(3600, abs=1)
    assert {said["login"]} == emulator.sessions_created()


def test_lists_are_walked_page_by_page(sdk: Sdk, start_emulator: Start) -> None:
    names = ["dm-bar", "dm-baz", "dm-foo"]
    emulator = start_emulator(*machines(*names))
    # The oldest expects a listed machine's phase in `status`, where the service had it once.
    mode = "strict" if sdk.name == "newest" else "lenient"
    creates = ["create:dm-foo"] * 3
    *made, sessions, found = sdk.run(
        emulator, mode, *creates, "list_sessions:dm-foo", "list_machines"
    )
    assert (sessions, found) == (made, names)
    for path in ("/v1/machines/dm-foo/ssh", "/v1/machines"):
        assert len(emulator.events(method="GET", path=path, status=200)) == 3


def test_a_machine_is_what_its_models_say(sdk: Sdk, start_emulator: Start) -> None:
    names = {f"dm-{phase.replace('_', '-')}": phase for phase in PHASES}
    emulator = start_emulator(*machines(*(f"{name}:{phase}" for name, phase in names.items())))
    said = sdk.run(emulator, "strict", *(f"phase:{name}" for name in names))
    assert said == list(names.values())


def test_a_retry_is_the_same_request(sdk: Sdk, start_emulator: Start) -> None:
    faults = ["429", "429-in-flight", "503", "503-limiter", "html", "reset"]
    names = [f"dm-{fault}" for fault in faults]
    emulator = start_emulator(
        *machines(*names),
        *(word for fault in faults for word in ("--fault", f"dm-{fault}={fault}/POST@1")),
    )
    made = sdk.run(emulator, "strict", *(f"create:{name}" for name in names))
    for name, session_id in zip(names, made, strict=True):
        refused, created = [entry for entry in emulator.creates() if entry["machine"] == name]
        assert refused["status"] != 200 and created["session_id"] == session_id
        assert refused["idempotency_key"] == created["idempotency_key"]


def test_each_documented_error_is_typed_and_whole(sdk: Sdk, start_emulator: Start) -> None:
    names = [f"dm-{fault}" for fault in DOCUMENTED]
    emulator = start_emulator(
        *machines(*names),
        *(word for fault in DOCUMENTED for word in ("--fault", f"dm-{fault}={fault}")),
    )
    said = sdk.run(emulator, "once", *(f"create:{name}" for name in names))
    examples = documented_errors()
    assert {example for example, _ in DOCUMENTED.values()} == set(examples)
    for seen, (example, error) in zip(said, DOCUMENTED.values(), strict=True):
        status, body = examples[example]
        assert seen == {"error": error, "status": status, "body": body}


def test_a_request_at_fault_is_a_typed_error(sdk: Sdk, start_emulator: Start) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--org-id", "org-mine")

    def errors(*actions: str, **environment: str) -> list[str]:
        return [said["error"] for said in sdk.run(emulator, "once", *actions, **environment)]

    assert errors("create:dm-foo", DEDALUS_API_KEY="dsk-wrong") == ["AuthenticationError"]
    assert errors("create:dm-foo", DEDALUS_ORG_ID="org-other") == ["PermissionDeniedError"]
    by_request = {
        "create:dm-nobody": "NotFoundError",
        "get_unknown_session:dm-foo": "NotFoundError",
        "reuse_idempotency_key:dm-foo": "ConflictError",
        "send_rubbish:dm-foo": "UnprocessableEntityError",
    }
    assert errors(*by_request) == [*by_request.values()]
