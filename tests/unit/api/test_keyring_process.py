from __future__ import annotations

from typing import Any

import keyring.backends.chainer
import keyring.backends.null
import keyring.errors
import pytest
from keyring.backends.libsecret import Keyring as Allowed

from dcs_proxy.api import keyring_process
from dcs_proxy.api.keyring_process import ABSENT, FAILED, LOCKED, UNUSABLE


class Ring(keyring.backend.KeyringBackend):
    """Keeps secrets in a list: there may be several of one name."""

    priority = 1

    def __init__(self, *secrets: str, stuck: bool = False) -> None:
        super().__init__()
        self.secrets = list(secrets)
        self.stuck = stuck

    def get_password(self, service: str, username: str) -> str | None:
        return self.secrets[0] if self.secrets else None

    def set_password(self, service: str, username: str, password: str) -> None:
        self.secrets.append(password)

    def delete_password(self, service: str, username: str) -> None:
        if self.stuck or not self.secrets:
            raise keyring.errors.PasswordDeleteError("No such password!")
        del self.secrets[0]


def do(command: str, ring: Any) -> str:
    return keyring_process._do(command, ring, "service", "user")


def test_every_entry_is_deleted() -> None:
    ring = Ring("a", "b", "c")
    do("delete", ring)
    assert not ring.secrets


@pytest.mark.parametrize(
    ("command", "ring", "status"),
    [
        ("get", Ring(), ABSENT),
        ("delete", Ring(), ABSENT),
        ("delete", Ring("a", stuck=True), FAILED),
    ],
)
def test_what_is_not_there_or_stays_ends_with_its_status(
    command: str, ring: Ring, status: int
) -> None:
    with pytest.raises(keyring_process._End) as caught:
        do(command, ring)
    assert caught.value.status == status


def test_no_error_of_pythons_own_is_quoted_for_it_may_hold_the_secret() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"dsk-secret\xff".decode()
    assert keyring_process._classify(caught.value) == (FAILED, "UnicodeDecodeError")
    assert keyring_process._classify(ValueError("dsk-secret")) == (FAILED, "ValueError")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (keyring.errors.KeyringLocked("Failed to unlock"), (LOCKED, "")),
        (keyring.errors.NoKeyringError("none"), (UNUSABLE, "none")),
        (keyring.errors.InitError("Failed to create"), (FAILED, "Failed to create")),
        (keyring.errors.PasswordSetError(), (FAILED, "PasswordSetError")),
    ],
)
def test_errors_of_the_keyring_are_told_apart(error: Exception, expected: tuple[int, str]) -> None:
    assert keyring_process._classify(error) == expected


def test_a_chain_gives_its_first_allowed_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Allowed()
    chain = keyring.backends.chainer.ChainerBackend()
    monkeypatch.setattr(type(chain), "backends", [keyring.backends.null.Keyring(), good, Ring()])
    assert keyring_process._allowed(chain) is good
    monkeypatch.setattr(type(chain), "backends", [keyring.backends.null.Keyring(), Ring()])
    with pytest.raises(keyring_process._End) as caught:
        keyring_process._allowed(chain)
    assert caught.value.status == UNUSABLE


def test_on_kde_its_own_wallet_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "GNOME")
    assert keyring_process._in_order() == list(keyring_process.ALLOWED)
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "KDE")
    assert keyring_process._in_order()[0] == "keyring.backends.kwallet.DBusKeyring"
    assert sorted(keyring_process._in_order()) == sorted(keyring_process.ALLOWED)


def test_every_allowed_keyring_exists() -> None:
    for name in keyring_process.ALLOWED:
        module, _, kind = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[kind]), kind)
