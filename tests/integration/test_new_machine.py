"""What the service of September 2026 answers beyond the contract, through the real ssh."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]


@pytest.mark.parametrize("fault", ["fails@2", "fails:MACHINE_NOT_FOUND@1", "404-machine/POST@2"])
def test_a_machine_that_was_just_created_is_tried_again(
    start_emulator: Start, user: User, fault: str
) -> None:
    emulator = start_emulator("--ids", "uuid", "--machine", "dm-foo")
    user.use(emulator)
    emulator.control("POST", "faults", fault=f"dm-foo={fault}")
    done = user.ssh(f"dm-{emulator.machine_id('dm-foo')}", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert done.stderr.count("the service cannot reach the machine yet") == 1
    assert "; trying again\n" in done.stderr
    keys = [entry["idempotency_key"] for entry in emulator.creates()]
    assert len(keys) == len(set(keys)) == int(fault[-1]) + 1


@pytest.mark.parametrize(
    "fault", ["429-read:300/GET@4", "503-read/GET@2", "502/GET@2", "500/GET@2"]
)
def test_limited_reads_do_not_end_a_wake(start_emulator: Start, user: User, fault: str) -> None:
    emulator = start_emulator(
        "--ids", "uuid", "--machine", "dm-foo:sleeping", "--wake-seconds", "0.5"
    )
    user.use(emulator)
    emulator.control("POST", "faults", fault=f"dm-foo={fault}")
    done = user.ssh(f"dm-{emulator.machine_id('dm-foo')}", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    refused = [e for e in emulator.events(method="GET", machine="dm-foo") if e["status"] != 200]
    assert len(refused) == int(fault[-1]) and len(emulator.creates()) == 1


def test_an_organisation_without_access_is_told_so(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--ids", "uuid", "--machine", "dm-foo")
    user.use(emulator)
    emulator.control("POST", "faults", fault="dm-foo=403-beta")
    done = user.ssh(f"dm-{emulator.machine_id('dm-foo')}", "true")
    assert done.returncode == 255
    assert "(BETA_ACCESS_REQUIRED)" in done.stderr
    assert "hint: ask the service for access, or use the key of an organisation" in done.stderr
