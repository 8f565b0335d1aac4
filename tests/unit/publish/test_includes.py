from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import render_agent_snippet
from dcs_proxy.publish.includes import (
    mark_checked,
    publish,
    publish_user_agent,
    remove_broken,
    unpublish,
)
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_agent import socket_directory

NAME, ALIAS = MachineName("dm-foo"), MachineName("dm-web")
READY = ReadySession(
    "ssh.example", 22, "wssh-1", "ssh-ed25519 AAAA", "", True, 3000.0, 1000.0, 1000.0
)


def record(token: str, previous: str = "") -> Record:
    return Record(Attempt("k", token * 32, "/agent.sock", 2000.0, "a"), READY, previous * 6)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path))


def files(state: StateDirectory) -> set[str]:
    return set(os.listdir(state.file("sessions")))


def test_publishing_twice_writes_once(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(state, NAME, NAME, record("ab"))
    before = os.stat(state.snippet_path(NAME))
    # Nothing is looked for in a directory, which may have files of a thousand machines.
    monkeypatch.setattr(os, "scandir", None)
    publish(state, NAME, NAME, record("ab"))
    assert os.stat(state.snippet_path(NAME)).st_ino == before.st_ino


def test_an_alias_has_a_snippet_of_its_own(state: StateDirectory) -> None:
    publish(state, ALIAS, NAME, record("ab"))
    assert os.listdir(state.file("hosts")) == ["dm-web.conf"]
    assert (
        Path(state.snippet_path(ALIAS))
        .read_text()
        .startswith("Match originalhost dm-web,dm-web.\n")
    )


def test_the_files_of_the_last_session_stay_and_older_ones_go(state: StateDirectory) -> None:
    publish(state, NAME, NAME, record("ab"))
    publish(state, NAME, NAME, record("cd", "ab"))
    publish(state, NAME, NAME, record("ef", "cd"))
    assert {name.split(".")[1] for name in files(state)} == {"cd" * 6, "ef" * 6}


def test_with_a_certificate_in_the_agent_ssh_names_only_the_certificate(
    state: StateDirectory,
) -> None:
    ready = replace(READY, certificate="kind Y2VydA==", bare_key=False)
    publish(state, NAME, NAME, replace(record("ab"), ready=ready))
    assert {name.partition(".")[2] for name in files(state)} == {
        "abababababab-cert.pub", "abababababab.known_hosts"
    }  # fmt: skip
    text = Path(state.snippet_path(NAME)).read_text()
    assert "-cert.pub" in text and "CertificateFile" not in text


@pytest.mark.parametrize(
    ("bare_key", "certificate", "identity", "certificate_file"),
    [
        (True, "", ".pub", None),
        (True, "kind Y2VydA==", ".pub", "-cert.pub"),
        (False, "kind Y2VydA==", "-cert.pub", None),
        (False, "", ".pub", None),
    ],
)
def test_ssh_is_told_the_files_that_a_fast_entry_depends_on(
    state: StateDirectory, bare_key: bool, certificate: str, identity: str,
    certificate_file: str | None,
) -> None:  # fmt: skip
    ready = replace(READY, certificate=certificate, bare_key=bare_key)
    files = publish(state, NAME, NAME, replace(record("ab"), ready=ready))
    stem = state.session_path(NAME, f".{'ab' * 6}")
    expected = [f"{stem}{suffix}" for suffix in (identity, certificate_file) if suffix]
    known_hosts = f"{stem}.known_hosts"
    assert files == [
        state.session_path(NAME, ".json"), state.snippet_path(NAME), known_hosts, *expected
    ]  # fmt: skip
    assert all(os.path.exists(file) for file in files[1:])
    options = Path(state.snippet_path(NAME)).read_text().splitlines()
    assert f'    IdentityFile "{stem}{identity}"' in options
    assert (f'    CertificateFile "{stem}-cert.pub"' in options) is (certificate_file is not None)
    assert ("CertificateFile" in " ".join(options)) is (certificate_file is not None)


@pytest.mark.parametrize(
    "data",
    [b"", b"Match originalhost dm-foo\n    User wssh", b"Garbage yes\n", b"\0" * 100, b"x" * 10**6,
     b'Match originalhost dm-foo\n    IdentityFile "/a\n', b"Host *\n    ProxyCommand id\n"],
)  # fmt: skip
def test_a_damaged_snippet_is_removed_and_the_others_stay(
    state: StateDirectory, data: bytes
) -> None:
    publish(state, NAME, NAME, record("ab"))
    damaged = Path(state.file("hosts", "dm-bar.conf"))
    damaged.write_bytes(data)
    remove_broken(state)
    assert os.listdir(state.file("hosts")) == ["dm-foo.conf"]


@pytest.mark.parametrize("bare_key", [True, False])
@pytest.mark.parametrize("certificate", ["ssh-ed25519-cert-v01@openssh.com AAAA", ""])
def test_nothing_that_we_write_counts_as_damaged(
    state: StateDirectory, bare_key: bool, certificate: str
) -> None:
    ready = replace(READY, bare_key=bare_key, certificate=certificate)
    publish(state, NAME, NAME, replace(record("ab"), ready=ready))
    for name, always in (("only", True), ("2f61", False)):
        text = render_agent_snippet("/run/user/1/agent%d", always=always)
        Path(state.file("agents", f"{name}.conf")).write_text(str(text))
    for part in ("hosts", "agents"):
        for file in os.scandir(state.file(part)):
            os.chmod(file.path, 0o600)
    remove_broken(state)
    assert os.listdir(state.file("hosts")) == ["dm-foo.conf"]
    assert set(os.listdir(state.file("agents"))) == {"only.conf", "2f61.conf"}


def test_a_file_that_vanishes_meanwhile_does_not_hide_the_others(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dm-a.conf", "dm-b.conf"):
        Path(state.file("hosts", name)).write_text("damaged")
    entries = sorted(os.scandir(state.file("hosts")), key=lambda entry: entry.name)
    os.unlink(entries[0].path)
    monkeypatch.setattr(os, "scandir", lambda path: entries if path.endswith("hosts") else [])
    remove_broken(state)
    assert os.listdir(state.file("hosts")) == []


def test_a_check_is_noted_in_an_empty_file(state: StateDirectory) -> None:
    mark_checked(state)
    assert Path(state.file("checked")).read_bytes() == b""


@pytest.mark.parametrize("mode", [0o644, 0o601, 0o400])
def test_what_ssh_would_refuse_to_read_is_mended(state: StateDirectory, mode: int) -> None:
    publish(state, NAME, NAME, record("ab"))
    path = Path(state.snippet_path(NAME))
    path.chmod(mode)
    Path(state.file("hosts", "dm-bar.conf")).symlink_to(path)
    Path(state.file("hosts", "not-ours")).write_text("kept")
    remove_broken(state)
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(os.listdir(state.file("hosts"))) == {"dm-foo.conf", "not-ours"}


def test_what_others_could_have_changed_is_removed(state: StateDirectory) -> None:
    publish(state, NAME, NAME, record("ab"))
    Path(state.snippet_path(NAME)).chmod(0o666)
    remove_broken(state)
    assert os.listdir(state.file("hosts")) == []


def test_a_file_of_another_user_is_removed(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(state, NAME, NAME, record("ab"))
    remove_broken(state)
    assert os.path.exists(state.snippet_path(NAME))
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    remove_broken(state)
    assert not os.path.exists(state.snippet_path(NAME))


def test_agents_that_are_gone_are_forgotten(state: StateDirectory, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for path in paths:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    publish_user_agent(state, paths[0])
    os.unlink(paths[0])
    publish_user_agent(state, paths[1])
    (name,) = os.listdir(state.file("agents"))
    assert paths[1] in Path(state.file("agents", name)).read_text()
    os.unlink(paths[1])
    publish_user_agent(state, paths[1])
    assert os.listdir(state.file("agents")) == []


def test_our_own_agent_is_never_the_users(state: StateDirectory) -> None:
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as agent:
        short = StateDirectory(directory)
        path = PrivateAgents(directory).path(1)
        agent.bind(path)
        publish_user_agent(short, path)
        publish_user_agent(short, "")
        assert os.listdir(short.file("agents")) == []


def test_a_link_to_our_own_agent_is_not_the_users(tmp_path: Path) -> None:
    with (
        socket_directory() as directory,
        socket.socket(socket.AF_UNIX) as ours,
        socket.socket(socket.AF_UNIX) as theirs,
    ):
        short, agents = StateDirectory(directory), PrivateAgents(directory)
        ours.bind(agents.path(1))
        theirs.bind(own := f"{directory}/own")
        place = tmp_path / "place"
        place.symlink_to(agents.place)
        link = tmp_path / "link"
        for path in (link, place / "agent-1.sock"):
            link.unlink(missing_ok=True)
            link.symlink_to(agents.path(1))
            publish_user_agent(short, str(path))
            assert os.listdir(short.file("agents")) == []
            # What was the user's own agent becomes ours.
            link.unlink()
            link.symlink_to(own)
            publish_user_agent(short, str(link))
            assert os.listdir(short.file("agents")) == ["only.conf"]
            link.unlink()
            link.symlink_to(agents.path(1))
            publish_user_agent(short, "")
            assert os.listdir(short.file("agents")) == []


def test_withdrawing_takes_every_file_of_the_machine_and_no_other(state: StateDirectory) -> None:
    other = MachineName("dm-foo-2")
    publish(state, ALIAS, NAME, record("ab"))
    publish(state, NAME, NAME, record("cd", "ab"))
    publish(state, other, other, record("ef"))
    for host in (NAME, ALIAS, other):
        Path(state.session_path(host, ".warm")).write_text("line")
    for name in (NAME, other):
        state.save(name, record("cd"))
        for suffix in (".used", ".failure", ".lock"):
            Path(state.session_path(name, suffix)).touch()
    Path(state.snippet_path(NAME)).write_text("damaged")
    kept = {entry for entry in files(state) if entry.startswith("dm-foo-2.")}
    unpublish(state, NAME)
    assert files(state) == kept | {"dm-foo.lock"}
    assert os.listdir(state.file("hosts")) == ["dm-foo-2.conf"]
    unpublish(state, NAME)


def test_withdrawing_takes_every_alias_of_the_machine(state: StateDirectory) -> None:
    for number in range(4):
        publish(state, MachineName(f"dm-alias-{number}"), NAME, record("ab"))
    unpublish(state, NAME)
    assert os.listdir(state.file("hosts")) == os.listdir(state.file("sessions")) == []


@pytest.mark.parametrize("part", ["hosts", "agents"])
def test_a_file_that_cannot_be_read_is_no_hindrance(state: StateDirectory, part: str) -> None:
    publish(state, ALIAS, NAME, record("ab"))
    link = Path(state.file(part, "dm-x.conf"))
    link.symlink_to("/nowhere")
    unpublish(state, NAME)
    publish_user_agent(state, "")
    assert not os.path.exists(state.snippet_path(ALIAS))
    assert link.is_symlink() is (part == "hosts"), "prepare removes it: see remove_broken()"


def test_each_of_several_agents_keeps_its_file(state: StateDirectory) -> None:
    def written() -> dict[str, str]:
        return {path.name: path.read_text() for path in Path(state.file("agents")).iterdir()}

    with (
        socket_directory() as directory,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
    ):
        paths = [f"{directory}/one%d", f"{directory}/two"]
        one.bind(paths[0])
        two.bind(paths[1])
        publish_user_agent(state, paths[0])
        alone = render_agent_snippet(paths[0], always=True)
        assert written() == {"only.conf": alone} and alone and " exec " not in alone
        Path(state.file("agents", "damaged.conf")).write_text("ForwardAgent")
        publish_user_agent(state, paths[1])
        expected = {
            f"{path.encode().hex()}.conf": render_agent_snippet(path, always=False)
            for path in paths
        }
        assert written() == expected and all(" exec " in str(text) for text in expected.values())
        publish_user_agent(state, "")
        assert written() == expected


def test_unpublishing_leaves_a_machine_whose_name_ends_the_same(state: StateDirectory) -> None:
    longer = MachineName(f"dm-{NAME}")
    publish(state, longer, longer, record("ab"))
    unpublish(state, NAME)
    assert Path(state.snippet_path(longer)).exists()


def test_an_agent_that_ssh_config_cannot_name_is_not_forwarded(
    state: StateDirectory, tmp_path: Path
) -> None:
    path = tmp_path / 'a"b'
    path.touch()
    publish_user_agent(state, str(path))
    assert os.listdir(state.file("agents")) == []
    publish_user_agent(state, "")
    assert os.listdir(state.file("agents")) == []


@pytest.mark.parametrize("directory", ["hosts", "agents"])
def test_everything_that_ssh_includes_is_checked(state: StateDirectory, directory: str) -> None:
    broken, other = (Path(state.file(directory, name)) for name in ("x.conf", "x.tmp"))
    for path in (broken, other):
        path.write_text("Host")
    remove_broken(state)
    assert (broken.exists(), other.exists()) == (False, True)


def test_only_a_ready_session_has_anything_to_publish(state: StateDirectory) -> None:
    with pytest.raises(ValueError, match="only a ready session"):
        publish(state, NAME, NAME, Record(record("ab").attempt))
    assert os.listdir(state.file("sessions")) == []
