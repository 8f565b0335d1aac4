"""Faults of the gateway and the guest, met by the real ssh (faults.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.faults import GETS_IN_AFTER_WAKE, FaultCase
from tests.support.user import User

GATEWAY = [
    ("gateway-refuses", r"the gateway localhost:\d+ cannot be reached: .*Connection refused"),
    ("gateway-resets", "Connection reset by|Connection closed by"),
    ("gateway-silent", "Connection timed out during banner exchange"),
    ("gateway-unsigned-key", "Host key verification failed"),
    ("gateway-other-name", "Host key verification failed"),
    ("gateway-expired", "Host key verification failed"),
    ("gateway-other-authority", "Host key verification failed"),
]


@pytest.mark.parametrize(("fault", "expected"), GATEWAY, ids=[fault for fault, _ in GATEWAY])
def test_faults_of_the_gateway(
    fault_case: Callable[..., FaultCase], fault: str, expected: str
) -> None:
    case = fault_case(settings="reuse_seconds = 0\n")
    case.set(f"dm-foo={fault}")
    case.check_ssh(fault, expected, "-o", "ConnectTimeout=2")
    assert not case.emulator.events(event="login")
    case.recovers()


def test_ssh_waits_for_a_silent_gateway_only_so_long(
    user: User, fault_case: Callable[..., FaultCase]
) -> None:
    fault_case()
    assert "connecttimeout 30\n" in user.ssh("-G", "dm-foo").stdout
    assert "connecttimeout 5\n" in user.ssh("-G", "-o", "ConnectTimeout=5", "dm-foo").stdout


CODES = ["SSH_TUNNEL_NOT_READY", "SSH_GUEST_CONNECT_FAILED", "SSH_GUEST_AUTH_FAILED",
         "SSH_GUEST_SESSION_TERMINATED"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_guest_that_lags_behind_its_wake_is_waited_for(
    fault_case: Callable[..., FaultCase], code: str
) -> None:
    case = fault_case(machine="dm-foo:sleeping")
    case.set(f"dm-foo=guest:{code}@2")
    case.check_ssh(f"guest:{code} twice after a wake", GETS_IN_AFTER_WAKE)
    assert len(case.emulator.creates()) == 1
    assert case.user.log().count("guest-not-ready") == 2


def test_a_guest_that_never_comes_is_named_at_the_deadline(
    fault_case: Callable[..., FaultCase],
) -> None:
    case = fault_case(machine="dm-foo:sleeping", gives_up=True)
    case.set("dm-foo=guest")
    expected = r"no login succeeded within 4 s \(SSH_TUNNEL_NOT_READY\)"
    case.check_ssh("guest for ever after a wake", expected)
    case.recovers()
    assert len(case.emulator.creates()) == 1
