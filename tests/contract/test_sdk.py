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
from tests.support.emulator import Emulator
from tests.support.openapi import documented_errors
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S

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


# The newest version's documentation gives this one as an example.
DOCUMENTED_ID = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


class Sdk:
    """One version of it, and the kind of ids that the service is to use with it."""

    def __init__(self, name: str, ids: str, directory: str) -> None:
        self.name, self.ids, self.directory = name, ids, directory

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


@pytest.fixture(params=["newest-uuid", "newest-dm", "oldest-dm"])
def sdk(request: pytest.FixtureRequest) -> Sdk:
    name, _, ids = request.param.partition("-")
    if name == "newest":
        return Sdk(name, ids, "")
    if not os.environ.get(OLDEST):
        pytest.skip(f"{OLDEST} does not say where the oldest dedalus-sdk is")
    return Sdk(name, ids, os.environ[OLDEST])


@pytest.fixture
def start(sdk: Sdk, start_emulator: Start) -> Start:
    """Start emulators with the kind of ids that goes with the SDK."""
    return lambda *arguments: start_emulator("--ids", sdk.ids, *arguments)


def actions(emulator: Emulator, name: str, *machines: str) -> list[str]:
    return [f"{name}:{emulator.machine_id(machine)}" for machine in machines]


def machines(*names: str) -> list[str]:
    return [word for name in names for word in ("--machine", name)]


def test_a_session_is_created_awaited_and_closed(sdk: Sdk, start: Start) -> None:
    machine = DOCUMENTED_ID if sdk.ids == "uuid" else "dm-foo"
    emulator = start("--machine", f"{machine}:sleeping", "--wake-seconds", "0.5")
    version, said = sdk.run(emulator, "strict", "version", f"use_session:{machine}")
    assert (version == "0.0.4") == (sdk.name == "oldest")
    pending = ["wake_in_progress", *(["ssh_in_progress"] if sdk.ids == "uuid" else [])]
    assert said["statuses"] == [*pending, "ready", "closed"]
    assert (said["endpoint"], said["port"]) == ("localhost", emulator.ready["gateway"])
    assert said["host_ca"] == emulator.ready["host_ca"]
    assert said["certificate"].startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert said["lasts_s"] == pytest.approx(3600, abs=1)
    assert {said["login"]} == emulator.sessions_created()


def test_lists_are_walked_page_by_page(sdk: Sdk, start: Start) -> None:
    emulator = start(*machines("dm-bar", "dm-baz", "dm-foo"))
    ids = sorted(emulator.ready["machines"].values())
    # The oldest expects a listed machine's phase in `status`, where the service had it once.
    mode = "strict" if sdk.name == "newest" else "lenient"
    creates = [f"create:{ids[0]}"] * 3
    *made, sessions, found = sdk.run(
        emulator, mode, *creates, f"list_sessions:{ids[0]}", "list_machines"
    )
    assert (sessions, found) == (made, ids)
    for path in (f"/v1/machines/{ids[0]}/ssh", "/v1/machines"):
        assert len(emulator.events(method="GET", path=path, status=200)) == 3


def test_a_machine_is_what_its_models_say(sdk: Sdk, start: Start) -> None:
    names = {f"dm-{phase.replace('_', '-')}": phase for phase in PHASES}
    emulator = start(*machines(*(f"{name}:{phase}" for name, phase in names.items())))
    said = sdk.run(emulator, "strict", *actions(emulator, "phase", *names))
    assert said == list(names.values())


def test_a_retry_is_the_same_request(sdk: Sdk, start: Start) -> None:
    faults = ["429", "429-in-flight", "503", "503-limiter", "500", "502", "html", "reset"]
    names = [f"dm-{fault}" for fault in faults]
    emulator = start(
        *machines(*names),
        *(word for fault in faults for word in ("--fault", f"dm-{fault}={fault}/POST@1")),
    )
    made = sdk.run(emulator, "strict", *actions(emulator, "create", *names))
    for name, session_id in zip(names, made, strict=True):
        refused, created = [entry for entry in emulator.creates() if entry["machine"] == name]
        assert refused["status"] != 200 and created["session_id"] == session_id
        assert refused["idempotency_key"] == created["idempotency_key"]


def test_reads_that_are_limited_are_tried_again(sdk: Sdk, start: Start) -> None:
    names = [f"dm-{fault}" for fault in ("429-read", "503-read")]
    emulator = start(
        *machines(*names), *(word for n in names for word in ("--fault", f"{n}={n[3:]}/GET@1"))
    )
    assert sdk.run(emulator, "strict", *actions(emulator, "phase", *names)) == ["running"] * 2
    assert {e["status"] for e in emulator.events(method="GET")} == {200, 429, 503}


def test_each_documented_error_is_typed_and_whole(sdk: Sdk, start: Start) -> None:
    names = [f"dm-{fault}" for fault in DOCUMENTED]
    emulator = start(
        *machines(*names),
        *(word for fault in DOCUMENTED for word in ("--fault", f"dm-{fault}={fault}")),
    )
    said = sdk.run(emulator, "once", *actions(emulator, "create", *names))
    examples = documented_errors()
    assert {example for example, _ in DOCUMENTED.values()} == set(examples)
    for seen, (example, error) in zip(said, DOCUMENTED.values(), strict=True):
        status, body = examples[example]
        assert seen == {"error": error, "status": status, "body": body}


def test_a_request_at_fault_is_a_typed_error(sdk: Sdk, start: Start) -> None:
    emulator = start("--machine", "dm-foo", "--org-id", "org-mine", "--fault", "dm-beta=403-beta",
                     "--machine", "dm-beta")  # fmt: skip
    foo = emulator.machine_id("dm-foo")

    def errors(*actions: str, **environment: str) -> list[str]:
        return [said["error"] for said in sdk.run(emulator, "once", *actions, **environment)]

    create = f"create:{foo}"
    assert errors(create, DEDALUS_API_KEY="dsk-wrong") == ["AuthenticationError"]
    assert errors(create, DEDALUS_ORG_ID="org-other") == ["PermissionDeniedError"]
    uuid = "00000000-0000-4000-8000-000000000000"
    nobody, wrong = (uuid, f"dm-{foo}") if sdk.ids == "uuid" else ("dm-nobody", uuid)
    by_request = {
        f"create:{nobody}": "NotFoundError",
        f"create:{wrong}": "BadRequestError" if sdk.ids == "uuid" else "UnprocessableEntityError",
        f"create:{emulator.machine_id('dm-beta')}": "PermissionDeniedError",
        f"get_unknown_session:{foo}": "NotFoundError",
        f"reuse_idempotency_key:{foo}": "ConflictError",
        f"send_rubbish:{foo}": "UnprocessableEntityError",
    }
    assert errors(*by_request) == [*by_request.values()]
