"""Faults of the gateway and the guest, met by the real ssh (faults.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.faults import GETS_IN_AFTER_WAKE, Play
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


@pytest.mark.parametrize(("fault", "said"), GATEWAY, ids=[fault for fault, _ in GATEWAY])
def test_faults_of_the_gateway(play: Callable[..., Play], fault: str, said: str) -> None:
    stage = play(settings="reuse_seconds = 0\n")
    stage.set(f"dm-foo={fault}")
    stage.meet(fault, said, "-o", "ConnectTimeout=2")
    assert not stage.emulator.events(event="login")
    stage.recovers()


def test_ssh_waits_for_a_silent_gateway_only_so_long(user: User, play: Callable[..., Play]) -> None:
    play()
    assert "connecttimeout 30\n" in user.ssh("-G", "dm-foo").stdout
    assert "connecttimeout 5\n" in user.ssh("-G", "-o", "ConnectTimeout=5", "dm-foo").stdout


CODES = ["SSH_TUNNEL_NOT_READY", "SSH_GUEST_CONNECT_FAILED", "SSH_GUEST_AUTH_FAILED",
         "SSH_GUEST_SESSION_TERMINATED"]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_guest_that_lags_behind_its_wake_is_waited_for(
    play: Callable[..., Play], code: str
) -> None:
    stage = play(machine="dm-foo:sleeping", said=GETS_IN_AFTER_WAKE)
    stage.set(f"dm-foo=guest:{code}@2")
    stage.meet(f"guest:{code} twice after a wake", GETS_IN_AFTER_WAKE)
    assert len(stage.emulator.creates()) == 1
    assert stage.user.log().count("guest-not-ready") == 2


def test_a_guest_that_never_comes_is_named_at_the_deadline(play: Callable[..., Play]) -> None:
    stage = play(machine="dm-foo:sleeping")
    stage.set("dm-foo=guest")
    said = r"no login succeeded within 4 s \(SSH_TUNNEL_NOT_READY\)"
    stage.meet("guest for ever after a wake", said)
    stage.recovers()
    assert len(stage.emulator.creates()) == 1
