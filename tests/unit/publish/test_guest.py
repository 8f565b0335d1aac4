"""Waiting for a machine that has woken to let a login in."""

from __future__ import annotations

import pytest

from dcs_proxy.errors import ClientGone
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.publish import guest


def log_in(script: str, deadline: Deadline | None = None) -> str:
    return guest._log_in(["/bin/sh", "-c", script], deadline or Deadline(60))


@pytest.mark.parametrize(
    "code",
    [
        "SSH_TUNNEL_NOT_READY",
        "SSH_GUEST_CONNECT_FAILED",
        "SSH_GUEST_AUTH_FAILED",
        "SSH_GUEST_SESSION_TERMINATED",
    ],
)
def test_each_code_of_the_gateway_means_not_yet(code: str) -> None:
    assert log_in(f"echo 'kex: done' >&2; echo 'error: {code}: wait' >&2; exit 255") == code


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "echo SSH_TUNNEL_NOT_READY >&2; exit 0",  # a banner may say anything
        "echo 'Permission denied' >&2; exit 255",
        "echo SSH_SOMETHING_ELSE >&2; exit 255",
        "echo SSH_TUNNEL_NOT_READY; exit 255",
        "exec yes",
    ],
)
def test_any_other_end_is_left_to_the_users_ssh(script: str) -> None:
    assert log_in(script) == ""


def test_a_login_that_takes_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_TRY_S", 0.01)
    assert log_in("exec sleep 60") == "no answer"


def test_a_login_ends_with_the_ssh_that_waits_for_it() -> None:
    with pytest.raises(ClientGone):
        log_in("exec sleep 60", Deadline(60, lambda: True))
