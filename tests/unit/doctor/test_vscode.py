from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from dcs_proxy.app import Options, find_program
from dcs_proxy.doctor import vscode
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.doctor.vscode import check_vscode
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.settings import Settings
from dcs_proxy.openssh.config_file import install
from dcs_proxy.openssh.config_text import NO_MACHINE
from tests.support.groups import Groups


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def check(home: Path, wake_s: int | None = None, **settings: str) -> Check | None:
    """Check the settings of editors, by directory; `wake_s` is our own, None if it is not known."""
    for directory, text in settings.items():
        path = home / ".config" / directory / "User" / "settings.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    context = Context(Options(str(home / "state")), {}, str(home / ".ssh" / "config"), True, None)
    if wake_s is not None:
        context.settings = Settings(wake_seconds=wake_s)
    return check_vscode(context)


def test_without_remote_ssh_there_is_no_check(home: Path) -> None:
    (home / ".vscode" / "extensions" / "ms-python.python-2024.1").mkdir(parents=True)
    assert check(home, Code='{"editor.fontSize": 12}') is None


def test_remote_ssh_without_a_setting_does_not_wait_long_enough(home: Path) -> None:
    (home / ".vscode" / "extensions" / "ms-vscode-remote.remote-ssh-0.112.0").mkdir(parents=True)
    result = check(home, Code="{}")
    assert result and not result.ok and "gives up after 15 s" in result.text


def test_each_editors_limit_is_named(home: Path) -> None:
    limit = '{"remote.SSH.connectTimeout": %d}'
    result = check(home, Code=limit % 120, Cursor=limit % 300)
    assert result and result.ok and result.text == "VS Code waits 120 s, Cursor waits 300 s"


def test_one_editor_with_a_short_limit_fails_the_check(home: Path) -> None:
    limit = '{"remote.SSH.connectTimeout": %d}'
    result = check(home, Code=limit % 300, Cursor=limit % 20)
    assert result and not result.ok and result.text.startswith("Cursor gives up after 20 s")
    assert result.hint.endswith("/.config/Cursor/User/settings.json")


@pytest.mark.parametrize(
    ("wake_s", "limit_s", "is_enough"),
    [(None, 59, False), (None, 60, True), (300, 60, True), (30, 29, False), (30, 30, True)],
)
def test_an_editor_waits_long_enough_for_an_ordinary_wake_or_the_longest(
    home: Path, wake_s: int | None, limit_s: int, is_enough: bool
) -> None:
    result = check(home, wake_s, Code=f'{{"remote.SSH.connectTimeout": {limit_s}}}')
    assert result is not None and result.ok is is_enough
    if not is_enough:
        assert f'"remote.SSH.connectTimeout": {wake_s or 300} in' in result.hint


def test_without_the_local_server_the_output_of_ssh_ends_the_limit(home: Path) -> None:
    result = check(home, Code='{"remote.SSH.useLocalServer": false}')
    assert result is None
    (home / ".vscode" / "extensions" / "ms-vscode-remote.remote-ssh-0.112.0").mkdir(parents=True)
    result = check(home)
    assert result and result.ok and result.text == "VS Code waits for as long as ssh does"


@pytest.mark.parametrize("has_block", [True, False])
def test_the_config_of_an_editor_with_ssh2_needs_the_block_itself(
    home: Path, has_block: bool
) -> None:
    config = home / "mine"
    config.write_bytes(install(b"", "Host dm-*\n", "Host *\n") if has_block else b"Host mine\n")
    result = check(home, VSCodium=f'{{"remote.SSH.configFile": "{config}"}}')
    assert result and result.ok is has_block
    expected = "VSCodium has the block" if has_block else f"VSCodium reads {config} as its ssh"
    assert result.text.startswith(expected)


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o666])
def test_settings_that_others_can_change_choose_no_program_for_doctor(
    home: Path, groups: Groups, mode: int
) -> None:
    groups.members = ["another"]
    program, marker = home / "ssh", home / "ran"
    program.write_text(f"#!/bin/sh\n: >'{marker}'\n")
    program.chmod(0o755)
    settings = home / ".config" / "Code" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'{{"remote.SSH.path": "{program}", "remote.SSH.connectTimeout": 20}}')
    settings.chmod(mode)
    result = check(home)
    assert result and not result.ok and result.text.startswith("VS Code ")
    assert marker.exists() is (mode == 0o644)


@pytest.mark.parametrize("place", [".config", ".config/Code", ".config/Code/User"])
def test_settings_in_a_directory_that_others_can_change_choose_no_program(
    home: Path, place: str
) -> None:
    program, marker = home / "ssh", home / "ran"
    program.write_text(f"#!/bin/sh\n: >'{marker}'\n")
    program.chmod(0o755)
    settings = home / ".config" / "Code" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'{{"remote.SSH.path": "{program}", "remote.SSH.connectTimeout": 20}}')
    settings.chmod(0o600)
    (home / place).chmod(0o777)
    result = check(home)
    assert result and not result.ok and "gives up after 20 s" in result.text
    assert not marker.exists()


def test_no_command_of_an_ssh_config_that_others_can_change_is_run(home: Path) -> None:
    marker = home / "ran"
    config = home / "shared" / "config"
    config.parent.mkdir()
    config.write_text(f"Match exec \"touch '{marker}'\"\n")
    settings = f'{{"remote.SSH.configFile": "{config}", "remote.SSH.connectTimeout": 300}}'
    result = check(home, Code=settings)
    assert result and not result.ok and "dcs-proxy is not in it" in result.text
    assert marker.exists(), "it would do harm"
    marker.unlink()
    config.parent.chmod(0o777)
    result = check(home)
    assert result and not result.ok and f"reads {config} as its ssh config" in result.text
    assert f"{config.parent} is writable by other users" in result.text
    assert result.hint == f"chmod go-w {config.parent}"
    assert not marker.exists()


def test_an_ssh_config_of_an_editor_that_others_can_change_is_named(home: Path) -> None:
    config = home / "other"
    config.touch()
    config.chmod(0o666)
    settings = f'{{"remote.SSH.configFile": "{config}", "remote.SSH.connectTimeout": 300}}'
    assert check(home, Code=settings) == failed(
        f"VS Code reads {config} as its ssh config, which is writable by other users (mode 0666)",
        f"chmod go-w {config}",
    )


def test_an_editor_that_reads_the_config_that_doctor_checks_is_not_checked_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vscode, "run", lambda *_, **__: pytest.fail("it ran ssh"))
    settings = f'{{"remote.SSH.configFile": "{home}/.ssh/config", "remote.SSH.connectTimeout": 90}}'
    assert check(home, Code=settings) == passed("VS Code waits 90 s")


@pytest.mark.parametrize(
    ("name", "error"),
    [("run", TimeoutError()), ("run", OSError(8, "Exec format error")),
     ("find_client", ConfigError("there is no ssh"))],
)  # fmt: skip
def test_an_ssh_of_an_editor_that_does_not_answer_does_not_run_us(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(vscode, name, fail)
    settings = f'{{"remote.SSH.configFile": "{home}/other", "remote.SSH.connectTimeout": 300}}'
    result = check(home, Code=settings)
    assert result and not result.ok and result.text.endswith("and dcs-proxy is not in it")


def test_a_damaged_block_is_none_for_an_editor_with_ssh2(home: Path) -> None:
    (home / "other").write_text("# >>> dcs-proxy")
    result = check(home, VSCodium=f'{{"remote.SSH.configFile": "{home}/other"}}')
    assert result and not result.ok and result.text.endswith("and dcs-proxy is not in it")


def test_without_a_config_of_its_own_an_editors_ssh_is_not_judged_by_the_current_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = home / "ssh"
    program.write_text("#!/bin/sh\necho OpenSSH_9.2 >&2\n")
    program.chmod(0o755)
    (home / "shared").mkdir()
    (home / "shared").chmod(0o777)
    monkeypatch.chdir(home / "shared")
    settings = f'{{"remote.SSH.path": "{program}", "remote.SSH.connectTimeout": 300}}'
    result = check(home, Code=settings)
    assert result and not result.ok
    assert result.text == f"VS Code runs {program}, which does not run dcs-proxy for a machine"


class Ssh:
    """An ssh that an editor's settings name; `words` are those that it got last."""

    def __init__(self, home: Path, version: str = "OpenSSH_9.2p1", command: str = "") -> None:
        self.path, self.said = home / "ssh", home / "words"
        self.path.write_text(
            f"#!/bin/sh\n[ \"$1\" != -V ] || {{ echo '{version}, x' >&2; exit; }}\n"
            f"printf '%s\\n' \"$@\" >'{self.said}'\necho 'proxycommand {command} %h %p'\n"
        )
        self.path.chmod(0o755)

    def settings(self, config: str = "") -> str:
        return json.dumps({
            "remote.SSH.path": str(self.path), "remote.SSH.connectTimeout": 300,
            **({"remote.SSH.configFile": config} if config else {}),
        })  # fmt: skip


def launcher(home: Path) -> str:
    return find_program(Options(str(home / "state")), {}).launcher


@pytest.mark.parametrize("config", ["", "{home}/.ssh/config", "{home}/other"])
def test_the_ssh_of_an_editor_has_to_run_us_with_the_editors_config(
    home: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is in the directory that doctor is typed in decides nothing.
    place = home / "open"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.chdir(place)
    config = config.format(home=home)
    ssh = Ssh(home, command=launcher(home))
    result = check(home, Code=ssh.settings(config))
    assert result and result.ok, result
    words = ssh.said.read_text().split()
    assert words == [*(["-F", config] if config else []), "-G", NO_MACHINE]


def test_the_ssh_of_an_editor_reads_the_config_that_doctor_checks(home: Path) -> None:
    ssh = Ssh(home, command=launcher(home))
    context = Context(Options(str(home / "state")), {}, str(home / "named"), False, None)
    (home / ".config" / "Code" / "User").mkdir(parents=True)
    (home / ".config" / "Code" / "User" / "settings.json").write_text(ssh.settings())
    result = check_vscode(context)
    assert result and result.ok
    assert ssh.said.read_text().split() == ["-F", str(home / "named"), "-G", NO_MACHINE]


def test_an_ssh_of_an_editor_that_does_not_run_us_is_named(home: Path) -> None:
    ssh = Ssh(home, command="nc")
    assert check(home, Code=ssh.settings()) == failed(
        f"VS Code runs {ssh.path}, which does not run dcs-proxy for a machine",
        f"see: {ssh.path} -G {NO_MACHINE}",
    )


def test_a_config_of_an_editor_that_does_not_run_us_is_named(home: Path) -> None:
    ssh = Ssh(home, command="nc")
    settings = home / ".config" / "Code" / "User" / "settings.json"
    assert check(home, Code=ssh.settings(f"{home}/other")) == failed(
        f"VS Code reads {home}/other as its ssh config, and dcs-proxy is not in it",
        f'dcs-proxy config-ssh --ssh-config {home}/other, or remove "remote.SSH.configFile" '
        f"from {settings}",
    )


def test_a_path_with_an_apostrophe_is_quoted_in_the_command_to_type(home: Path) -> None:
    mine = home / "o'neill's"
    mine.mkdir()
    ssh = Ssh(mine, command="nc")
    ssh.path.write_text("#!/bin/sh\n[ $1 != -V ] || echo OpenSSH_9.2p1 >&2\n")
    result = check(home, Code=ssh.settings())
    assert result and shlex.split(result.hint) == ["see:", str(ssh.path), "-G", NO_MACHINE]
    settings = home / ".config" / "Code" / "User" / "settings.json"
    settings.write_text(ssh.settings(str(mine / "config")))
    result = check(home)
    assert result and shlex.split(result.hint.partition(", or ")[0]) == [
        "dcs-proxy", "config-ssh", "--ssh-config", str(mine / "config"),
    ]  # fmt: skip


def test_an_ssh_of_an_editor_that_is_too_old_is_named(home: Path) -> None:
    ssh = Ssh(home, version="OpenSSH_7.0")
    settings = home / ".config" / "Code" / "User" / "settings.json"
    assert check(home, Code=ssh.settings()) == failed(
        f"VS Code runs {ssh.path} as its ssh: OpenSSH_7.0 at {ssh.path} is too old",
        f'correct or remove "remote.SSH.path" in {settings}',
    )


def test_an_ssh_of_an_editor_that_hangs_does_not_run_us(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **more: object) -> None:
        assert more["limit_s"] == 30
        raise TimeoutError

    monkeypatch.setattr(vscode, "run", run)
    result = check(home, Code=Ssh(home).settings())
    assert result and "does not run dcs-proxy" in result.text
