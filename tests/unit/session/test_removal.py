"""Taking the state directory apart, which may hold files of other programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.errors import StateError
from dcs_proxy.names import MachineName, file_stem
from dcs_proxy.session.removal import remove_sockets, remove_state

TOKEN = "0123456789ab"
LONG = file_stem(MachineName("dm-" + "a" * 250))
OURS = [
    "launcher", "machines", "ssh-configs", "checked", "known_hosts", "log", "log.1", "config.lock",
    "bridge.lock",
    "config-ssh.lock", "config-ssh.tmp", "doctor.12.tmp", "account-12ef.json", "bridge_ecdsa_key",
    ".machines.12.tmp", "bridge_ecdsa_key.12.tmp",
    "hosts/dm-foo.conf", "agents/only.conf", "agents/2f746d70.conf",
    "sessions/dm-foo.json", "sessions/dm-foo.lock", "sessions/dm-foo.warm", "sessions/12-34.failed",
    f"sessions/dm-foo.{TOKEN}-cert.pub", f"sessions/dm-foo.{TOKEN}.pub",
    f"sessions/dm-foo.{TOKEN}.known_hosts",
    f"hosts/{LONG}.conf", f"sessions/{LONG}.json", f"sessions/{LONG}.{TOKEN}-cert.pub",
    "sockets/agent-1.sock", "sockets/agent-12.pid", "sockets/07.sock", "sockets/lock",
]  # fmt: skip
OTHERS = [
    "launcher.old", "logs", "log.2", "config", "known_hosts.old", "account-12ef.json.bak",
    "bridge_ecdsa_key.pub", "my-machines",
    "hosts/web.conf", "hosts/dm-foo.conf~", "agents/mine.conf.old",
    "sessions/notes.json", f"sessions/dm-foo.{TOKEN}.pub.bak", "sessions/dm-foo.json.2",
    "sockets/agent-1.sock.old", "sockets/other.sock",
]  # fmt: skip


def fill(directory: Path, names: list[str]) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_nothing_is_left_of_a_directory_that_is_all_ours(tmp_path: Path) -> None:
    fill(tmp_path / "state", OURS)
    assert remove_state(str(tmp_path / "state")) == []
    assert os.listdir(tmp_path) == []


def test_files_of_others_stay_and_are_reported(tmp_path: Path) -> None:
    fill(tmp_path, [*OURS, *OTHERS])
    left = remove_state(str(tmp_path))
    assert sorted(left) == sorted(str(tmp_path / name) for name in OTHERS)
    # Those of each directory in the order of their names, the directory itself last.
    parts = [os.path.dirname(path) for path in left]
    assert left == sorted(left, key=lambda path: (parts.index(os.path.dirname(path)), path))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        *OTHERS
    }


def test_the_known_hosts_of_the_users_own_stay(tmp_path: Path) -> None:
    """The state directory is ~/.ssh."""
    path = tmp_path / "known_hosts"
    path.write_text("dm-* ssh-ed25519 AAAA\ngithub.com ssh-ed25519 AAAA\n")
    assert remove_state(str(tmp_path)) == [str(path)]
    path.write_text("dm-* ssh-ed25519 AAAA\ndm-foo ssh-ed25519 AAAA\n")
    assert remove_state(str(tmp_path)) == []
    assert not path.exists()


def test_a_directory_with_the_name_of_a_file_of_ours_stays(tmp_path: Path) -> None:
    fill(tmp_path, ["log/mine"])
    assert remove_state(str(tmp_path)) == [str(tmp_path / "log")]
    assert (tmp_path / "log/mine").exists()


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    state = tmp_path / "state"
    state.mkdir()
    (state / "log").symlink_to(tmp_path / "mine")
    assert remove_state(str(state)) == []
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_does_not_exist_is_removed_already(tmp_path: Path) -> None:
    assert remove_state(str(tmp_path / "missing")) == []
    assert remove_sockets(str(tmp_path / "missing")) == []


def test_sockets_elsewhere_go_with_their_directory_and_its_empty_parent(tmp_path: Path) -> None:
    one, two = tmp_path / "dcs-proxy/0a", tmp_path / "dcs-proxy/0b"
    fill(one, ["agent-1.sock", "lock"])
    fill(two, ["agent-1.sock", "mine"])
    assert remove_sockets(str(one)) == []
    assert os.listdir(tmp_path / "dcs-proxy") == ["0b"]
    assert remove_sockets(str(two)) == [str(two / "mine")]
    (two / "mine").unlink()
    assert remove_sockets(str(two)) == []
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    fill(tmp_path, ["launcher"])
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(StateError, match=r"launcher cannot be written: Permission denied"):
        remove_state(str(tmp_path))


def test_a_directory_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(StateError, match=r"hosts cannot be written: Permission denied"):
        remove_state(str(tmp_path))


def test_a_file_that_another_process_has_removed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "state", ["launcher", "log"])
    unlink = os.unlink

    def unlink_twice(path: str) -> None:
        unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", unlink_twice)
    assert remove_state(str(tmp_path / "state")) == []
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_directory_of_ours_would_be_stays(tmp_path: Path) -> None:
    fill(tmp_path, ["hosts", "launcher"])
    assert remove_state(str(tmp_path)) == []
    assert os.listdir(tmp_path) == ["hosts"]
