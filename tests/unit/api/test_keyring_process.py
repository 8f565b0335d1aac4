from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import keyring.backends.chainer
import keyring.backends.fail
import keyring.backends.null
import keyring.backends.SecretService
import keyring.errors
import pytest

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


class Secure(Ring):
    """As one of keyring's own, which work on some computers only."""

    priority = 4.8


Secure.__module__ = "keyring.backends.libsecret"


class Registry(Ring):
    """Serves others' services only."""

    def get_password(self, service: str, username: str) -> str | None:
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


class Fixed(Ring):
    """Has secrets that only another program can remove."""

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


def do(command: str, *rings: Any) -> str:
    return keyring_process.run(command, list(rings), "service", "user")


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        ("dsk-a", 0, b"dsk-a"),
        (keyring_process.Ended(ABSENT), ABSENT, b""),
        (keyring_process.Ended(UNUSABLE, "none"), UNUSABLE, b"none"),
        (keyring.errors.KeyringLocked("Failed to unlock"), LOCKED, b""),
        (ValueError("dsk-secret"), FAILED, b"ValueError"),
    ],
)
def test_the_process_ends_with_a_status_and_says_only_what_it_has_to(
    monkeypatch: pytest.MonkeyPatch, outcome: str | Exception, status: int, text: bytes
) -> None:
    def run(*words: object) -> str:
        assert words == ("get", [], "service", "user")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    limits: list[int] = []
    near, far = os.pipe()
    monkeypatch.setattr(signal, "alarm", limits.append)
    monkeypatch.setattr(keyring_process, "_take_stdout", lambda: far)
    monkeypatch.setattr(keyring_process, "find_rings", list)
    monkeypatch.setattr(keyring_process, "run", run)
    assert keyring_process.main(["7", "get", "service", "user"]) == status
    os.close(far)
    with os.fdopen(near, "rb") as said:
        assert said.read() == text
    assert limits == [7]


def test_what_a_back_end_prints_does_not_mix_with_the_secret() -> None:
    program = (
        "import os; from dcs_proxy.api import keyring_process;"
        "output = keyring_process._take_stdout();"
        "print('unlocked', flush=True); os.write(output, b'dsk-a')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"dsk-a"


def test_a_missing_package_and_a_choice_that_breaks_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ValueError("dsk-secret")

    monkeypatch.setattr(keyring.core, "load_env", fail)
    with pytest.raises(keyring_process.Ended) as caught:
        keyring_process.find_rings()
    said = "the chosen one cannot be loaded: ValueError"
    assert (caught.value.status, caught.value.text) == (UNUSABLE, said)
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(keyring_process.Ended) as caught:
        keyring_process.find_rings()
    said = "the Python package keyring is missing"
    assert (caught.value.status, caught.value.text) == (UNUSABLE, said)


class SecretService(Ring):
    """As keyring's own; `secretstorage` below searches it."""

    schemes: ClassVar = {"default": {"service": "service", "username": "username"}}
    scheme = "default"


SecretService.__module__, SecretService.__name__ = "keyring.backends.SecretService", "Keyring"


@pytest.mark.parametrize("has_entry", [True, False])
def test_a_service_that_has_no_entry_is_not_unlocked(
    monkeypatch: pytest.MonkeyPatch, has_entry: bool
) -> None:
    events: list[object] = []

    class Bus:
        def close(self) -> None:
            events.append("closed")

    def search(bus: Bus, wanted: dict[str, str]) -> Iterator[str]:
        events.append(wanted)
        return iter(["an entry"] if has_entry else [])

    monkeypatch.setitem(
        sys.modules, "secretstorage", SimpleNamespace(dbus_init=Bus, search_items=search)
    )
    ring = SecretService("dsk-a")
    monkeypatch.setattr(ring, "get_password", lambda *_: events.append("unlocked") or "dsk-a")
    if has_entry:
        assert do("get", ring) == "dsk-a"
    else:
        with pytest.raises(keyring_process.Ended):
            do("get", ring)
    wanted = {"service": "service", "username": "user"}
    assert events == [wanted, "closed", *(["unlocked"] if has_entry else [])]


def test_every_entry_is_deleted() -> None:
    ring, other = Ring("a", "b", "c"), Ring("d")
    do("delete", ring, Registry(), other)
    assert not ring.secrets and not other.secrets


@pytest.mark.parametrize(
    ("command", "ring", "status"),
    [
        ("get", Ring(), ABSENT),
        ("delete", Ring(), ABSENT),
        ("delete", Ring("a", stuck=True), FAILED),
        ("delete", Fixed("a"), FAILED),
    ],
)
def test_what_is_not_there_or_stays_ends_with_its_status(
    command: str, ring: Ring, status: int
) -> None:
    with pytest.raises(keyring_process.Ended) as caught:
        do(command, ring)
    assert caught.value.status == status


def test_a_secret_is_stored_in_the_first_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("dsk-a"))
    taker, other = Ring(), Ring()
    assert do("set", Registry(), taker, other) == __name__
    assert (taker.secrets, other.secrets) == (["dsk-a"], [])
    assert do("get", Registry(), taker, other) == "dsk-a"
    with pytest.raises(keyring_process.Ended, match="stores no secrets") as caught:
        do("set", Registry())
    assert caught.value.status == UNUSABLE


def test_a_keyring_is_named_by_its_module() -> None:
    assert do("name", Secure()) == "libsecret"
    assert do("name", Ring()) == __name__


class StorageError(Exception):
    """As one of secretstorage's."""


StorageError.__module__ = "secretstorage.exceptions"


def test_no_error_of_pythons_own_is_quoted_for_it_may_hold_the_secret() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"dsk-secret\xff".decode()
    assert keyring_process.classify(caught.value) == (FAILED, "UnicodeDecodeError")
    assert keyring_process.classify(ValueError("dsk-secret")) == (FAILED, "ValueError")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (keyring.errors.KeyringLocked("Failed to unlock"), (LOCKED, "")),
        (keyring.errors.NoKeyringError("none"), (UNUSABLE, "none")),
        (keyring.errors.InitError("Failed to create"), (FAILED, "Failed to create")),
        (keyring.errors.PasswordSetError(), (FAILED, "PasswordSetError")),
        (StorageError("no such item"), (FAILED, "no such item")),
    ],
)
def test_errors_of_the_keyring_are_told_apart(error: Exception, expected: tuple[int, str]) -> None:
    assert keyring_process.classify(error) == expected


class PlaintextRing(Ring):
    priority = 3


class StillPlain(PlaintextRing):
    pass


class Weak(Ring):
    priority = 0.9


@pytest.mark.parametrize(
    ("ring", "objection"),
    [
        (Ring(), ""),
        (Secure(), ""),
        (PlaintextRing(), "which stores secrets in plain text"),
        (StillPlain(), "which stores secrets in plain text"),
        (Weak(), "which keyring does not recommend (priority 0.9)"),
        (keyring.backends.null.Keyring(), "which keyring does not recommend (priority -1)"),
        (keyring.backends.fail.Keyring(), "which keyring does not recommend (priority 0)"),
    ],
)
def test_only_what_is_weak_or_plain_is_refused(ring: Any, objection: str) -> None:
    assert keyring_process.object_to(ring) == objection


def find(monkeypatch: pytest.MonkeyPatch, *installed: Any) -> list[Any]:
    monkeypatch.setattr(keyring.backend, "get_all_keyring", lambda: list(installed))
    return [*keyring_process.find_rings()]


class Better(Ring):
    priority = 2


def test_the_ranking_is_keyrings_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
    monkeypatch.setattr(keyring.core, "load_config", lambda: None)
    rings = [Weak(), Ring(), keyring.backends.chainer.ChainerBackend(), Better(), PlaintextRing()]
    assert [type(ring) for ring in find(monkeypatch, *rings)] == [Better, Ring]
    with pytest.raises(keyring_process.Ended) as caught:
        find(monkeypatch, Weak(), PlaintextRing())
    assert caught.value.status == UNUSABLE and caught.value.text


def test_nothing_is_asked_after_one_of_keyrings_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)
    monkeypatch.setattr(keyring.core, "load_config", lambda: None)

    class First(Ring):
        priority = 9

    rings = find(monkeypatch, Ring(), Secure(), First())
    assert [type(ring) for ring in rings] == [First, Secure]


def test_a_chain_that_is_chosen_stands_for_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = keyring.backends.chainer.ChainerBackend()
    monkeypatch.setattr(keyring.core, "load_env", lambda: chain)
    assert [type(ring) for ring in find(monkeypatch, Ring(), PlaintextRing(), chain)] == [Ring]


def test_one_that_is_chosen_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "load_env", Ring)
    assert [type(ring) for ring in find(monkeypatch, Better())] == [Ring]
    monkeypatch.setattr(keyring.core, "load_env", PlaintextRing)
    with pytest.raises(keyring_process.Ended, match="PlaintextRing is chosen, which stores"):
        find(monkeypatch, Better())
    monkeypatch.setattr(keyring.core, "load_env", lambda: None)
    monkeypatch.setattr(keyring.core, "load_config", Ring)
    assert [type(ring) for ring in find(monkeypatch, Better())] == [Ring]


class Quoted(Exception):
    """As D-Bus's."""


Quoted.__module__ = "jeepney.wrappers"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Unable to get the session bus"), "Unable to get the session bus"),
        (Quoted("details"), "Quoted"),
        (None, "no backend found"),
    ],
)
def test_why_a_desktop_has_no_keyring_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str
) -> None:
    class Kind(type):
        @property
        def priority(cls) -> float:
            if error is not None:
                raise error
            return 5

    monkeypatch.setattr(keyring.backends.SecretService, "Keyring", Kind("Keyring", (), {}))
    monkeypatch.setattr(keyring.core, "load_env", lambda: None)
    monkeypatch.setattr(keyring.core, "load_config", lambda: None)
    with pytest.raises(keyring_process.Ended) as caught:
        find(monkeypatch, Weak())
    assert (caught.value.status, caught.value.text) == (UNUSABLE, said)


def test_a_process_whose_parent_cannot_kill_it_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import time, keyring.backend\n"
        "class Ring(keyring.backend.KeyringBackend):\n"
        "    priority = 1\n"
        "    set_password = delete_password = None\n"
        "    def get_password(self, service, username):\n"
        "        while True: time.sleep(1000)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "stuck.Ring"}
    words = [sys.executable, keyring_process.__file__, "1", "get", "service", "user"]
    done = subprocess.run(words, env={**os.environ, **environment}, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM
