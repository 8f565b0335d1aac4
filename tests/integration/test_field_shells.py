"""Shells that print, shells that run nothing, and a program that has moved: what ssh then says."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path

import pytest

import dcs_proxy
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
START_FILES = {
    "bash": ".bashrc", "zsh": ".zshenv", "fish": ".config/fish/config.fish", "tcsh": ".tcshrc",
}  # fmt: skip


def use_shell(user: User, name: str) -> Path:
    """Let ssh start its helpers with a shell, from a desktop; return the shell's start file."""
    path = shutil.which(name)
    assert path
    user.environment["SHELL"] = path
    user.environment.pop("SHLVL", None)
    start_file = user.home / START_FILES[name]
    start_file.parent.mkdir(parents=True, exist_ok=True)
    return start_file


@pytest.mark.parametrize("name", [name for name in START_FILES if shutil.which(name)])
def test_a_shell_that_prints_gets_a_block_that_works(
    start_emulator: Start, user: User, name: str
) -> None:
    start_file = use_shell(user, name)
    start_file.write_text("echo welcome\n")
    user.use(start_emulator("--machine", "dm-foo", "--wake-seconds", "0"), config=False)
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert written.returncode == 0
    assert f'{user.environment["SHELL"]} prints "welcome" when it starts' in written.stderr
    assert START_FILES[name] in written.stderr
    for _ in range(2):  # cold, then warm
        done = user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_a_shell_that_begins_to_print_later_is_named(start_emulator: Start, user: User) -> None:
    start_file = use_shell(user, "bash")
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    start_file.write_text("echo welcome\n")
    for remembered in (True, False):
        if not remembered:
            assert user.proxy("close", "dm-foo").returncode == 0
        done = user.ssh("dm-foo", "echo in")
        assert done.returncode == 255
        assert "your shell" in done.stderr and "prints something when it starts" in done.stderr
        assert "~/.bashrc" in done.stderr and "dcs-proxy config-ssh" in done.stderr
    assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


@pytest.mark.parametrize("text", ["echo This account is not available.\nexit 1\n", "exit 0\n"])
def test_a_shell_that_runs_no_commands_is_named(
    start_emulator: Start, user: User, text: str
) -> None:
    shell = user.root / "nologin"
    shell.write_text(f"#!/bin/sh\n{text}")
    shell.chmod(0o755)
    user.environment["SHELL"] = str(shell)
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert f"{shell}, with which ssh runs commands, does not run commands" in written.stderr
    assert "hint: set SHELL to a shell that runs commands" in written.stderr


@pytest.mark.parametrize("shell", ["", "zsh", "/nowhere/zsh", "/bin/bash -l"])
def test_a_shell_that_ssh_cannot_find_is_named(
    start_emulator: Start, user: User, shell: str
) -> None:
    user.environment["SHELL"] = shell
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    written = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert written.returncode == 0
    named = shell or "an empty SHELL"
    assert f"{named}, with which ssh runs commands, cannot be run: No such file" in written.stderr
    assert "hint: set SHELL to a shell that runs commands" in written.stderr
    done = user.ssh("dm-foo", "true")
    assert (done.returncode, done.stderr.count("is not executable")) == (255, 1)
    del user.environment["SHELL"]
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


@pytest.mark.parametrize(
    "name", [name for name in [*START_FILES, "csh", "ksh", "dash"] if shutil.which(name)]
)
def test_a_directory_with_an_exclamation_mark_works_in_every_shell(
    start_emulator: Start, user: User, name: str
) -> None:
    user.environment["SHELL"] = str(shutil.which(name))
    user.environment["DCS_PROXY_HOME"] = str(user.root / "a!b c!!")
    user.use(start_emulator("--machine", "dm-foo", "--wake-seconds", "0"))
    try:
        for _ in range(2):  # cold, then warm
            done = user.ssh("dm-foo", "echo in")
            assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    finally:
        assert user.proxy("close", "--all").returncode == 0


def test_a_program_that_has_moved_is_named_by_ssh(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    launcher = user.state / "launcher"
    text = launcher.read_text()
    moved, broken = "has moved or was removed", "the Python of dcs-proxy cannot be started"
    for gone, what in (
        (sys.executable, f"{broken}: {sys.executable}-gone"),
        ("start.py", f"dcs-proxy {moved}: "),
    ):
        launcher.write_text(text.replace(gone, f"{gone}-gone"))
        for more in ([], ["-o", "ControlMaster=auto", "-o", "ControlPersist=5",
                          "-o", f'ControlPath="{user.root}/c"']):  # fmt: skip
            done = user.ssh(*more, "dm-foo", "true")
            assert done.returncode == 255
            assert f"dcs-proxy: {what}" in done.stderr
            assert "dcs-proxy: hint: run dcs-proxy config-ssh" in done.stderr
            # Once, unless ControlPersist discards the stderr of the ProxyCommand.
            assert done.stderr.count("hint: ") == 1 + bool(more)
            assert "mm_receive_fd" not in done.stderr
    assert user.proxy("config-ssh", "--ssh-config", str(user.config)).returncode == 0
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_a_python_without_the_packages_is_named_by_ssh(start_emulator: Start, user: User) -> None:
    """As after an upgrade of Python that took the packages along."""
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    bare = user.root / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    launcher = user.state / "launcher"
    python = shlex.quote(str(bare / "bin" / "python"))
    launcher.write_text(launcher.read_text().replace(shlex.quote(sys.executable), python))
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith(f"dcs-proxy: dm-foo: {bare}/bin/python cannot import ")
    assert second == "dcs-proxy: hint: install dcs-proxy again, then run dcs-proxy config-ssh"
    assert emulator.creates() == []


def test_a_program_in_a_zip_file_is_not_written_into_the_ssh_config(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    tree, archive = user.root / "tree", user.root / "dcs-proxy.pyz"
    shutil.copytree(os.path.dirname(dcs_proxy.__file__), tree / "dcs_proxy")
    zipapp.create_archive(tree, archive, main="dcs_proxy.cli:main")
    run = [sys.executable, str(archive)]
    done = user.run([*run, "config-ssh", "--ssh-config", str(user.config)])
    assert f"there is no file {archive}/dcs_proxy/start.py" in done.stderr
    assert "hint: install dcs-proxy with pipx or uv" in done.stderr
    assert not user.config.exists()
    assert user.run([*run, "list"]).returncode == 0
