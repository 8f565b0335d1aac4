"""The programs that dcs-proxy starts: which ones, and what they learn."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

_TOOLS = (
    "ssh", "ssh-add", "ssh-agent", "ssh-keygen", "ps", "bash", "sh", "python3", "env",
    # Of ctypes, which a back end of keyring's asks for a library that only macOS has.
    "gcc", "cc", "ld", "ldconfig", "objdump",
)  # fmt: skip


@pytest.fixture
def trapped(user: User, tmp_path: Path) -> Path:
    """A directory with programs that leave a mark, in which the user works.

    PATH leads to it by three relative entries.
    """
    trap = tmp_path / "trap"
    trap.mkdir()
    mark = tmp_path / "mark"
    for name in _TOOLS:
        (trap / name).write_text(f"#!/bin/sh\necho {name} >>{shlex.quote(str(mark))}\n")
        (trap / name).chmod(0o755)
    user.environment["PATH"] = f":.:../trap:{user.environment['PATH']}"
    return trap


@pytest.mark.parametrize("agent", ["missing", "running"])
def test_no_program_of_the_current_directory_is_run(
    start_emulator: Start, user: User, trapped: Path, agent: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    if agent == "missing":
        user.end_agents()
    config = ("--ssh-config", str(user.config))
    for words in (
        ("config-ssh", *config), ("prepare", "dm-foo"), ("doctor", *config, "dm-foo"), ("status",),
        ("login",), ("close", "dm-foo"), ("config-ssh", *config, "--remove"),
    ):  # fmt: skip
        done = user.proxy(*words, cwd=trapped)
        assert "internal error" not in done.stderr, done.stderr
    assert not (trapped.parent / "mark").exists(), (trapped.parent / "mark").read_text()


@pytest.mark.parametrize("command", ["doctor", "config-ssh", "prepare"])
def test_no_ssh_that_is_started_learns_the_api_key(
    start_emulator: Start, user: User, tmp_path: Path, command: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    real = shutil.which("ssh")
    assert real
    spy = tmp_path / "bin" / "ssh"
    seen = tmp_path / "seen"
    spy.parent.mkdir()
    # What /proc tells of it, because the shell's own idea of its environment may differ.
    spy.write_text(f'#!/bin/sh\ncat /proc/$$/environ >>{seen}; exec {real} "$@"\n')
    spy.chmod(0o755)
    user.environment["PATH"] = f"{spy.parent}:{user.environment['PATH']}"
    user.environment["DEDALUS_X_API_KEY"] = user.environment["DEDALUS_API_KEY"]
    config = () if command == "prepare" else ("--ssh-config", str(user.config))
    host = () if command == "config-ssh" else ("dm-foo",)
    done = user.proxy(command, *config, *host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"HOME=" in seen.read_bytes()
    assert b"API_KEY" not in seen.read_bytes()
