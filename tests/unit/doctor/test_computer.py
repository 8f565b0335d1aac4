"""The checks of this computer: its programs, its shell, the state directory, the agent."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor import computer
from dcs_proxy.doctor.context import Context
from dcs_proxy.errors import ConfigError, StateError
from dcs_proxy.openssh.shell import Shell
from dcs_proxy.openssh.version import Client, Version

CLIENT = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    environment = {"PATH": str(tmp_path / "bin")}
    (tmp_path / "bin").mkdir()
    return Context(Options(str(tmp_path / "state")), environment, str(tmp_path / "c"), False, None)


def make_program(context: Context, name: str) -> None:
    path = Path(context.environment["PATH"], name)
    path.touch()
    path.chmod(0o700)


@pytest.mark.parametrize("package", ["requests", "cryptography", "keyring", "paramiko"])
def test_a_package_that_is_missing_is_named(
    context: Context, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def version(name: str) -> str:
        if name == package:
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(computer, "version", version)
    check = computer.check_python(context)
    assert check.ok is False
    assert check.text.endswith(f"has no package {package}")
    assert check.hint.endswith(f"-m pip install {package}")


def test_the_packages_are_shown_with_their_versions(context: Context) -> None:
    check = computer.check_python(context)
    assert check.ok
    for package in ("requests", "cryptography", "keyring", "paramiko"):
        assert f", {package} " in check.text


def test_ssh_and_an_ssh_agent_are_needed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computer, "find_client", lambda: CLIENT)
    make_program(context, "apt-get")
    check = computer.check_ssh(context)
    assert (check.ok, check.text) == (False, "there is no ssh-agent in PATH")
    assert check.hint.endswith("sudo apt-get install openssh-client")
    make_program(context, "ssh-agent")
    check = computer.check_ssh(context)
    assert (check.ok, check.text) == (True, "OpenSSH_9.2p1 at /usr/bin/ssh")
    assert context.ssh == CLIENT


def test_an_ssh_that_cannot_be_used_is_told(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> Client:
        raise ConfigError("too old", hint="update")

    monkeypatch.setattr(computer, "find_client", find)
    check = computer.check_ssh(context)
    assert (check.ok, check.text, check.hint, context.ssh) == (False, "too old", "update", None)


SILENT = Shell("/bin/sh")


@pytest.mark.parametrize(
    ("shells", "is_by_pipes", "text"),
    [
        ([SILENT, Shell("/bin/bash")], False, ""),
        ([SILENT, Shell("/bin/no", problem="cannot be run: x")], False, "/bin/no cannot be run: x"),
        ([SILENT, Shell("/bin/no", problem="cannot be run: x")], True, "/bin/no cannot be run: x"),
        ([SILENT, Shell("/bin/bash", output="hi")], False, '/bin/bash prints "hi"'),
        ([SILENT, Shell("/bin/bash", output="hi")], True, ""),
    ],
)
def test_every_shell_has_to_run_commands_and_be_silent(
    context: Context, monkeypatch: pytest.MonkeyPatch,
    shells: list[Shell], is_by_pipes: bool, text: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(computer, "try_shells", lambda _: shells)
    monkeypatch.setattr(computer, "_is_by_pipes", lambda _: is_by_pipes)
    check = computer.check_shell(context)
    assert check.ok is not bool(text)
    assert check.text.startswith(text or ", ".join(shell.path for shell in shells))
    assert bool(check.hint) is bool(text)


def test_the_state_directory_has_to_be_writable_and_nothing_is_left(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert computer.check_state(context).text.endswith("/state, mode 0700")
    assert context.state is not None
    before = os.listdir(context.state.path)

    def fail(path: str, data: bytes) -> None:
        Path(path).write_bytes(data)
        raise StateError("full")

    monkeypatch.setattr(computer, "write_atomically", fail)
    with pytest.raises(StateError):
        computer.check_state(context)
    assert os.listdir(context.state.path) == before
