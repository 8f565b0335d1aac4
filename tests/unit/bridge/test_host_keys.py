from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from dcs_proxy.bridge import host_keys
from dcs_proxy.bridge.host_keys import ensure_host_keys, write_known_hosts
from dcs_proxy.errors import StateError
from dcs_proxy.local.files import write_atomically
from dcs_proxy.session.directory import StateDirectory
from tests.support.keys import keygen


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path / "state"))


def fingerprint(path: str) -> str:
    """Return ssh-keygen's word on a key file, which it refuses if others can read it."""
    return keygen("-lf", path)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def test_there_are_two_keys_that_only_their_owner_can_read(state: StateDirectory) -> None:
    paths = ensure_host_keys(state)
    assert [fingerprint(path).split()[-1] for path in paths] == ["(ED25519)", "(ECDSA)"]
    assert [os.stat(path).st_mode & 0o777 for path in paths] == [0o600, 0o600]
    before = [read(path) for path in paths]
    assert [read(path) for path in ensure_host_keys(state)] == before


def make(directory: str) -> list[bytes]:
    return [read(path) for path in ensure_host_keys(StateDirectory(directory))]


def test_many_processes_at_once_make_one_pair(tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    # Threads that start processes: all of them begin at about the same time.
    with get_context("spawn").Pool(6) as pool, ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: pool.apply(make, (directory,)), range(24)))
    assert all(keys == made[0] for keys in made)
    assert sorted(entry for entry in os.listdir(directory) if "bridge" in entry) == [
        "bridge_ecdsa_key", "bridge_ed25519_key",
    ]  # fmt: skip


def test_the_key_of_the_process_that_was_faster_stays(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster = {kind: host_keys._generate(kind) for kind in ("ed25519", "ecdsa")}

    def generate(kind: str) -> bytes:
        write_atomically(state.file(f"bridge_{kind}_key"), faster[kind])
        return _generate(kind)

    _generate = host_keys._generate
    monkeypatch.setattr(host_keys, "_generate", generate)
    assert [read(path) for path in ensure_host_keys(state)] == list(faster.values())


def test_a_key_of_another_user_is_refused(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ensure_host_keys(state)[0]
    monkeypatch.setattr(os, "geteuid", lambda: os.lstat(path).st_uid + 1)
    with pytest.raises(StateError, match="bridge_ed25519_key is not a file of yours"):
        ensure_host_keys(state)


@pytest.mark.parametrize("what", ["link", "_make_key"])
def test_a_key_that_cannot_be_put_in_its_place_is_named(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: str) -> None:
        if what == "link":
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os if what == "link" else host_keys, what, fail)
    reason = "Operation not permitted" if what == "link" else "No such file or directory"
    with pytest.raises(StateError) as caught:
        ensure_host_keys(state)
    path = state.file("bridge_ed25519_key")
    assert caught.value.message == f"{path} cannot be written: {reason}"
    assert not [name for name in os.listdir(state.path) if name.startswith("bridge")]


def spoil(path: Path, how: str) -> None:
    match how:
        case "empty":
            path.write_text("")
        case "truncated":
            path.write_bytes(path.read_bytes()[:150])
        case "garbage":
            path.write_text("garbage")
        case "the other kind":
            path.write_bytes(path.with_name("bridge_ed25519_key").read_bytes())
        case "with a passphrase":
            keygen("-q", "-p", "-P", "", "-N", "secret", "-f", str(path))
        case _:
            path.chmod(int(how, 8))


@pytest.mark.parametrize(
    "how",
    ["empty", "truncated", "garbage", "the other kind", "with a passphrase", "640", "604", "000"],
)
def test_a_key_that_cannot_be_used_is_replaced(state: StateDirectory, how: str) -> None:
    known_hosts = write_known_hosts(state, ["dm-a"])
    kept, path = ensure_host_keys(state)
    before, other = read(path), read(kept)
    spoil(Path(path), how)
    assert ensure_host_keys(state) == [kept, path]
    if how != "000" or os.geteuid():  # root reads any file
        assert read(path) != before
    assert read(kept) == other and os.stat(path).st_mode & 0o777 in (0o600, 0)
    write_known_hosts(state)
    for key in ensure_host_keys(state):
        assert keygen("-yf", key).split()[1] in Path(known_hosts).read_text().split()
    assert len(Path(known_hosts).read_text().splitlines()) == 4


def test_many_processes_at_once_replace_a_damaged_key_once(tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    for path in ensure_host_keys(StateDirectory(directory)):
        Path(path).write_text("garbage")
    with get_context("spawn").Pool(6) as pool, ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: pool.apply(make, (directory,)), range(24)))
    assert all(keys == made[0] for keys in made) and b"garbage" not in made[0]


def test_a_link_in_a_keys_place_is_refused(state: StateDirectory, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", state.file("bridge_ed25519_key"))
    with pytest.raises(StateError):
        ensure_host_keys(state)
    assert not (tmp_path / "elsewhere").exists()


def find(path: str, host: str) -> list[str]:
    """Return the keys that ssh finds for a host."""
    done = subprocess.run(["ssh-keygen", "-F", host, "-f", path], capture_output=True, text=True)
    return [line.split()[1] for line in done.stdout.splitlines() if not line.startswith("#")]


def test_known_hosts_has_both_keys_for_every_machine_and_for_those_named(
    state: StateDirectory,
) -> None:
    path = write_known_hosts(state, ["dm-b", "dm-a"])
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    assert [host for host, _, _ in lines] == ["dm-*", "dm-*", "dm-b", "dm-b", "dm-a", "dm-a"]
    kinds = ["ssh-ed25519", "ecdsa-sha2-nistp256"]
    assert find(path, "dm-other") == kinds and find(path, "dm-a") == [*kinds, *kinds]
    assert find(path, "other") == []
    keys = [f"{kind} {blob}" for _, kind, blob in lines[:2]]
    for key, private in zip(keys, ensure_host_keys(state), strict=True):
        assert keygen("-yf", private).split()[:2] == key.split()


def test_known_hosts_is_written_where_there_is_none(state: StateDirectory) -> None:
    path = write_known_hosts(state)
    assert len(find(path, "dm-any")) == 2
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_known_hosts_with_the_right_keys_is_left_alone(state: StateDirectory) -> None:
    path = Path(write_known_hosts(state, ["dm-a"]))
    text = path.read_text() + "# a line of another version\n"
    path.write_text(text)
    write_known_hosts(state)
    assert path.read_text() == text
    write_known_hosts(state, ["dm-b", "dm-b"])
    assert len(path.read_text().splitlines()) == 4


def test_known_hosts_keeps_its_names_until_others_are_given(state: StateDirectory) -> None:
    path = write_known_hosts(state, ["dm-a"])
    before = os.stat(path)
    write_known_hosts(state)
    assert os.stat(path).st_ino == before.st_ino, "nothing changed"
    os.unlink(ensure_host_keys(state)[0])
    write_known_hosts(state)
    assert len(find(path, "dm-a")) == 4
    write_known_hosts(state, [])
    assert len(find(path, "dm-a")) == 2


def test_known_hosts_keeps_the_names_of_thousands_of_machines(state: StateDirectory) -> None:
    names = [f"dm-m{number}" for number in range(3000)]
    path = write_known_hosts(state, names)
    before = read(path)
    write_known_hosts(state)
    assert read(path) == before
    os.unlink(ensure_host_keys(state)[0])
    write_known_hosts(state)
    assert len(read(path).splitlines()) == 2 * 3001


def test_known_hosts_of_keys_that_were_replaced_is_written_anew(state: StateDirectory) -> None:
    path = Path(write_known_hosts(state, ["dm-foo"]))
    before = path.read_text()
    for key in ensure_host_keys(state):
        os.unlink(key)
    write_known_hosts(state)
    after = path.read_text()
    hosts = [line.split()[0] for line in after.splitlines()]
    assert hosts == [line.split()[0] for line in before.splitlines()]
    assert hosts == ["dm-*", "dm-*", "dm-foo", "dm-foo"]
    assert not {line.split()[2] for line in before.splitlines()} & set(after.split())


@pytest.mark.parametrize(
    "line",
    [
        "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
        "|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|USECr3SWf1JUPsms5AqfD5QfxkM= ssh-rsa AAAA1234",
        "@cert-authority *.example ecdsa-sha2-nistp256 AAAAE2VjZHNh",
        "[10.0.0.1]:2222\tsk-ssh-ed25519@openssh.com\tAAAA comment",
    ],
)
def test_known_hosts_of_the_users_own_is_not_replaced(state: StateDirectory, line: str) -> None:
    """DCS_PROXY_HOME may be ~/.ssh."""
    path = Path(state.file("known_hosts"))
    text = f"# mine\n\ndm-* ssh-ed25519 AAAA\n{line}\n"
    path.write_text(text)
    for names in (None, ["dm-foo"]):
        with pytest.raises(StateError, match="lists other hosts") as caught:
            write_known_hosts(state, names)
        assert "DCS_PROXY_HOME" in caught.value.hint
    assert path.read_text() == text


@pytest.mark.parametrize("damage", [b"dm-", b"d", b"\0" * 4096, b"dm-* ssh-ed25519 AAAA\n\0\0"])
def test_known_hosts_that_is_damaged_is_replaced(state: StateDirectory, damage: bytes) -> None:
    path = Path(state.file("known_hosts"))
    path.write_bytes(damage)
    write_known_hosts(state)
    assert path.read_bytes().startswith(b"dm-* ssh-ed25519 AAAA") and b"\0" not in path.read_bytes()
