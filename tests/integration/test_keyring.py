"""The API key in the system keyring: a real one, a locked one, none, others' and bad ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.secret_service import SecretService
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]


@pytest.fixture
def emulator(start_emulator: Start, user: User) -> Emulator:
    """An emulator whose key the user has only in the keyring, if anywhere."""
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    del user.environment["DEDALUS_API_KEY"]
    return emulator


# A back end as others publish them.  Its vault is a file here, which it does not need to protect.
VAULT = """
import json, os
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

class Vault(KeyringBackend):
    priority = {priority}

    def __init__(self):
        super().__init__()
        self.path = os.path.join(os.path.dirname(__file__), "{name}.json")

    def load(self):
        return json.load(open(self.path)) if os.path.exists(self.path) else {{}}

    def save(self, entries):
        json.dump(entries, open(self.path, "w"))

    def get_password(self, service, username):
        return self.load().get(service + " " + username)

    def set_password(self, service, username, password):
        self.save({{**self.load(), service + " " + username: password}})

    def delete_password(self, service, username):
        entries = self.load()
        if entries.pop(service + " " + username, None) is None:
            raise PasswordDeleteError("no such entry")
        self.save(entries)

class PlaintextVault(Vault):
    pass
"""
# One that serves a single kind of service, as those of artifact registries do.
REGISTRY = """
from keyring.backend import KeyringBackend

class Registry(KeyringBackend):
    priority = 9

    def get_password(self, service, username):
        return None

    def set_password(self, service, username, password):
        raise NotImplementedError

    def delete_password(self, service, username):
        raise NotImplementedError
"""


@dataclass
class BackEnds:
    """Back ends that the user has installed beside the program."""

    user: User

    def write(self, name: str, text: str) -> None:
        (self.user.root / "back ends").mkdir(exist_ok=True)
        (self.user.root / "back ends" / f"{name}.py").write_text(text)
        self.user.environment["PYTHONPATH"] = str(self.user.root / "back ends")

    def install(self, name: str, text: str) -> None:
        """Install a module with the entry point by which keyring finds it."""
        self.write(name, text)
        metadata = self.user.root / "back ends" / f"{name}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[keyring.backends]\n{name} = {name}\n")

    def entries(self, name: str) -> dict[str, str]:
        path = self.user.root / "back ends" / f"{name}.json"
        entries: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return entries


@pytest.fixture
def back_ends(user: User) -> BackEnds:
    return BackEnds(user)


def keyring_processes(emulator: Emulator) -> list[int]:
    return [
        pid for pid, (_, words) in processes().items()
        if emulator.api in words and any(word.endswith("/keyring_process.py") for word in words)
    ]  # fmt: skip


def test_ssh_uses_the_key_in_the_keyring(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, emulator.key)
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert 'key source="the system keyring"' in user.log()


def test_a_key_for_another_api_is_not_used(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add("https://dcs.dedaluslabs.ai", emulator.key)
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert "dcs-proxy: dm-foo: there is no API key\n" in done.stderr
    assert "hint: type: dcs-proxy login; or set DEDALUS_API_KEY, or write the key" in done.stderr


def test_a_key_that_the_api_refuses_is_told_with_where_it_is(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, "dsk-old")
    done = user.ssh("dm-foo", "true")
    assert "does not accept the key from the system keyring" in done.stderr
    assert "hint: dcs-proxy login\n" in done.stderr
    assert "dsk-old" not in done.stderr + user.log()


def test_a_locked_keyring_without_a_window_is_told_at_once(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, emulator.key)
    keyring.lock()
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert "dcs-proxy: dm-foo: the system keyring is locked\n" in done.stderr
    assert "hint: unlock it, or set DEDALUS_API_KEY, or store the key in a file" in done.stderr


def test_a_window_that_nobody_sees_ends_with_the_limit(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, emulator.key)
    keyring.lock()
    with keyring.unseen_window() as is_asked:
        done = user.ssh("dm-foo", "true")
        assert is_asked(0)
    assert done.returncode == 255
    lines = done.stderr.splitlines()
    assert lines[0] == (
        "dcs-proxy: waiting for the system keyring: look for a window that asks to unlock it"
    )
    assert lines[1] == (
        "dcs-proxy: dm-foo: the system keyring has not answered in 15 s; it may be "
        "waiting to be unlocked"
    )
    assert "unlock it, or set DEDALUS_API_KEY, or store the key in a file" in lines[2]
    assert not keyring_processes(emulator)


def test_who_keeps_no_key_there_is_not_asked_to_unlock_anything(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add("https://elsewhere.example", "dsk-else")
    keyring.lock()
    with keyring.unseen_window() as is_asked:
        done = user.proxy("prepare", "dm-foo")
        assert not is_asked(0)
    assert done.returncode == 4
    assert "there is no API key" in done.stderr


def test_a_client_that_goes_takes_the_keyring_process_along(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    keyring.add(emulator.api, emulator.key)
    keyring.lock()
    with keyring.unseen_window() as is_asked:
        ssh = user.start_ssh("dm-foo", "true")
        assert is_asked(60)
        (pid,) = keyring_processes(emulator)
        # No terminal, and none to be had.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert (int(fields[3]), fields[4]) == (pid, "0")
        ssh.kill()
        wait_until(lambda: not keyring_processes(emulator))


def test_a_computer_without_a_keyring_is_told_of_the_file(emulator: Emulator, user: User) -> None:
    done = user.ssh("dm-foo", "true")
    assert "there is no API key, and this computer has no usable system keyring (" in done.stderr
    assert "hint: dcs-proxy login --file stores one in " in done.stderr


@pytest.mark.parametrize(
    "backend",
    [
        "keyrings.alt.file.PlaintextKeyring",
        "keyrings.alt.file.EncryptedKeyring",
        "keyring.backends.null.Keyring",
        "keyring.backends.fail.Keyring",
        "no.such.Keyring",
    ],
)
def test_an_insecure_keyring_is_never_used_even_if_chosen(
    emulator: Emulator, keyring: SecretService, user: User, backend: str
) -> None:
    user.environment["PYTHON_KEYRING_BACKEND"] = backend
    for command in (("login", "--stdin"), ("prepare", "dm-foo")):
        done = user.proxy(*command, input=emulator.key)
        assert done.returncode == 4
        assert "this computer has no usable system keyring (" in done.stderr
    assert not keyring.entries()
    assert not list(user.home.rglob("*keyring_pass*"))


def test_plain_files_are_not_used_where_there_is_nothing_better(
    emulator: Emulator, user: User
) -> None:
    assert user.proxy("login", "--stdin", input=emulator.key).returncode == 4
    assert not [p for p in user.home.rglob("*") if p.is_file()]


def test_a_chain_is_looked_into_for_a_keyring_to_be_trusted(
    emulator: Emulator, keyring: SecretService, user: User
) -> None:
    (user.home / ".config" / "python_keyring").mkdir(parents=True)
    (user.home / ".config" / "python_keyring" / "keyringrc.cfg").write_text(
        "[backend]\ndefault-keyring=keyring.backends.chainer.ChainerBackend\n"
    )
    keyring.add(emulator.api, emulator.key)
    assert user.ssh("dm-foo", "true").returncode == 0


@pytest.mark.parametrize("source", ["variable", "other variable", "file"])
def test_no_keyring_is_touched_when_a_key_is_found_before(
    emulator: Emulator, user: User, source: str, tmp_path: Path
) -> None:
    (tmp_path / "telltale.py").write_text("open(__file__ + '.loaded', 'w')\n")
    user.environment |= {
        "PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "telltale.Keyring"
    }  # fmt: skip
    assert user.proxy("prepare", "dm-foo").returncode == 4
    told = tmp_path / "telltale.py.loaded"
    told.unlink()
    if source == "file":
        key_file = user.root / "key"
        key_file.write_text(emulator.key)
        key_file.chmod(0o600)
        user.settings(f'key_file = "{key_file}"\n')
    else:
        user.environment["DEDALUS_" + ("API_KEY" if source == "variable" else "X_API_KEY")] = (
            emulator.key
        )
    assert user.proxy("prepare", "dm-foo").returncode == 0
    assert not told.exists()


def vault(name: str, priority: float) -> str:
    return VAULT.format(name=name, priority=priority)


@pytest.mark.parametrize("how", ["installed", "chosen"])
def test_a_back_end_of_others_is_used(
    emulator: Emulator, user: User, back_ends: BackEnds, how: str
) -> None:
    if how == "installed":
        back_ends.install("vault", vault("vault", 3))
    else:
        back_ends.write("vault", vault("vault", 3))
        user.environment["PYTHON_KEYRING_BACKEND"] = "vault.Vault"
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the system keyring (vault) for {emulator.api}\n" in done.stdout
    assert back_ends.entries("vault") == {f"dcs-proxy {emulator.api}": emulator.key}
    # What ssh starts is deaf to PYTHONPATH, where these tests install their back ends.
    assert user.proxy("prepare", "dm-foo").returncode == 0
    assert user.proxy("logout").returncode == 0
    assert back_ends.entries("vault") == {}


def test_the_back_end_that_keyring_ranks_highest_is_used(
    emulator: Emulator, user: User, back_ends: BackEnds
) -> None:
    back_ends.install("lesser", vault("lesser", 2))
    back_ends.install("greater", vault("greater", 3))
    assert user.proxy("login", "--stdin", input=emulator.key).returncode == 0
    assert (len(back_ends.entries("lesser")), len(back_ends.entries("greater"))) == (0, 1)


def test_a_back_end_for_other_services_is_passed_over(
    emulator: Emulator, keyring: SecretService, user: User, back_ends: BackEnds
) -> None:
    back_ends.install("registry", REGISTRY)
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert "(SecretService)" in done.stdout, done.stderr
    assert keyring.entries() == {emulator.api: emulator.key}
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert user.proxy("logout").returncode == 0
    assert keyring.entries() == {}


@pytest.mark.parametrize(
    ("kind", "priority", "reason"),
    [
        ("Vault", 0.5, "which keyring does not recommend (priority 0.5)"),
        ("PlaintextVault", 3, "which stores secrets in plain text"),
    ],
)
def test_a_back_end_that_is_not_safe_is_refused_with_the_reason(
    emulator: Emulator, user: User, back_ends: BackEnds, kind: str, priority: float, reason: str
) -> None:
    back_ends.write("vault", vault("vault", priority))
    user.environment["PYTHON_KEYRING_BACKEND"] = f"vault.{kind}"
    done = user.proxy("login", "--stdin", input=emulator.key)
    assert done.returncode == 4
    said = f"this computer has no usable system keyring (vault.{kind} is chosen, {reason})"
    assert said in done.stderr
    assert back_ends.entries("vault") == {}
