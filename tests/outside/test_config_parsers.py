"""What we write into ssh's config, as other programs than ssh read it."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest
from asyncssh.config import SSHClientConfig

from dcs_proxy.local.files import make_private_directory
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, Snippet, render_end, render_snippet, render_top
from dcs_proxy.openssh.version import OLDEST, Version
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line
from tests.support.processes import clean_environment
from tests.support.ssh_config_package import as_editors_read

MACHINES = [MachineName("dm-bar"), MachineName("dm-foo")]
USERS_LINES = "Host mine\n    User me\n    Port 2200\nHost *\n    ServerAliveInterval 7\n"
OTHERS = ["mine", "other.example", "dm-x.corp.example", "xdm-foo", "dm-foo+x"]


@dataclass(frozen=True)
class Written:
    """A user's config with our blocks around their lines, and the same lines alone."""

    config: Path
    alone: Path

    def as_ssh_reads(self, host: str) -> dict[str, str]:
        """Return what ssh says that it would do, with tokens as they stand."""
        done = subprocess.run(
            ["ssh", "-G", "-F", str(self.config), host],
            capture_output=True, text=True, check=True, env=clean_environment(),
        )  # fmt: skip
        return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.fixture(params=[Version(9, 2), OLDEST], ids=str)
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Written:
    state = tmp_path / "with a space"
    for part in ("hosts", "agents", "sessions"):
        make_private_directory(str(state / part))
    certificate = state / "sessions" / "dm-foo-cert.pub"
    certificate.write_text(f"{public_line(generate_key().public)}\n")
    snippet = Snippet(
        machine=MachineName("dm-foo"),
        user="wssh-1",
        host_key_alias="ssh.example",
        identity_file=str(certificate),
        certificate_file=None,
        identity_agent=str(state / "agent.sock"),
        known_hosts_file=str(state / "sessions" / "dm-foo.known_hosts"),
    )
    (state / "hosts" / "dm-foo.conf").write_text(render_snippet(snippet))
    (state / "hosts" / "dm-foo.conf").chmod(0o600)
    program = Program(("/nowhere/dcs-proxy",), str(state))
    # It has prepared the machine, as far as ssh can tell.
    Path(program.launcher).write_text("exit 0\n")
    top, end = render_top(program, MACHINES, request.param), render_end(program, request.param)
    config, alone = tmp_path / "config", tmp_path / "alone"
    config.write_bytes(config_file.install(USERS_LINES.encode(), top, end))
    alone.write_text(USERS_LINES)
    return Written(config, alone)


def expanded(command: str, host: str, login: str) -> str:
    return command.replace("%r", login).replace("%h", host).replace("%p", "22")


# --- paramiko and Fabric, which know no Include -------------------------------------------------


@pytest.fixture
def no_stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the library that runs Match exec for paramiko read a stdin: pytest's is not for that."""
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


@pytest.mark.usefixtures("no_stdin")
@pytest.mark.parametrize("host", ["dm-foo", "dm-new"])
def test_paramiko_reads_our_options_as_ssh_does(written: Written, host: str) -> None:
    found = paramiko.SSHConfig.from_path(str(written.config)).lookup(host)
    ssh = written.as_ssh_reads(host)
    assert found["proxycommand"] == expanded(ssh["proxycommand"], host, getpass.getuser())
    assert found["stricthostkeychecking"] == "yes" and ssh["stricthostkeychecking"] == "true"
    assert found["connecttimeout"] == ssh["connecttimeout"] == "30"
    assert found["serveraliveinterval"] == ssh["serveraliveinterval"] == "7"


@pytest.mark.parametrize("host", OTHERS)
def test_paramiko_reads_other_hosts_as_without_us(written: Written, host: str) -> None:
    ours, alone = (
        paramiko.SSHConfig.from_path(str(path)).lookup(host)
        for path in (written.config, written.alone)
    )
    assert ours == alone


# --- asyncssh, which reads all of it ------------------------------------------------------------


def as_asyncssh_reads(config: Path, host: str) -> dict[str, Any]:
    read = SSHClientConfig.load(None, str(config), False, False, False, "tester", (), host, ())
    return dict(read.get_options(False))


def test_asyncssh_comes_to_the_options_of_ssh(written: Written) -> None:
    found, ssh = as_asyncssh_reads(written.config, "dm-foo"), written.as_ssh_reads("dm-foo")
    assert found["User"] == ssh["user"] == "wssh-1"
    assert found["HostKeyAlias"] == ssh["hostkeyalias"] == "ssh.example"
    assert found["IdentityFile"] == [ssh["identityfile"]]
    assert found["IdentityAgent"] == ssh["identityagent"]
    assert found["UserKnownHostsFile"] == [ssh["userknownhostsfile"]]
    assert found["GlobalKnownHostsFile"] == [ssh["globalknownhostsfile"]] == ["/dev/null"]
    assert found["IdentitiesOnly"] is True and ssh["identitiesonly"] == "yes"
    assert found["ConnectTimeout"] == int(ssh["connecttimeout"]) == 30
    assert found["ServerAliveInterval"] == int(ssh["serveraliveinterval"]) == 7


@pytest.mark.parametrize("host", OTHERS)
def test_asyncssh_reads_other_hosts_as_without_us(written: Written, host: str) -> None:
    assert as_asyncssh_reads(written.config, host) == as_asyncssh_reads(written.alone, host)


# --- npm's package ssh-config ---------------------------------------------------------------------


def test_editors_find_the_name_of_every_machine(written: Written) -> None:
    for version, read in as_editors_read(written.config).items():
        names = [name for name in read["names"] if "*" not in name]
        assert names == [*MACHINES, "mine"], version


def test_editors_read_other_hosts_as_without_us(written: Written) -> None:
    others = OTHERS[:2]
    # 4.2 takes the last of each for an option.
    lines = {"Host": "", "Match": ""}
    ours, alone = (as_editors_read(path, *others) for path in (written.config, written.alone))
    for version, read in ours.items():
        for host in others:
            expected = {**alone[version]["computed"][host], **lines}
            assert {**read["computed"][host], **lines} == expected, (version, host)


def test_ssh_reads_the_same_after_an_editor_has_written_the_file_anew(written: Written) -> None:
    before = {host: written.as_ssh_reads(host) for host in ("dm-foo", *OTHERS)}
    texts = {read["text"]: version for version, read in as_editors_read(written.config).items()}
    for text, version in texts.items():
        written.config.write_text(text)
        assert {host: written.as_ssh_reads(host) for host in before} == before, version


def test_config_ssh_knows_its_block_after_an_editor_has_written_the_file_anew(
    written: Written,
) -> None:
    original = written.config.read_bytes()
    parts = config_file.parse_blocks(original)
    assert parts.top is not None and parts.end is not None
    for version, read in as_editors_read(written.config).items():
        text = read["text"].encode()
        assert config_file.remove(text) == USERS_LINES.encode(), version
        assert config_file.install(text, parts.top.decode(), parts.end.decode()) == original
