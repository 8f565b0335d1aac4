"""Floods: what a guest, an API, a gateway or an agent sends without end takes little memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Emulator, User

Start = Callable[..., Emulator]

# Runs a command; then its last line on stdout is the most memory, in KiB, that one process took.
_MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""
# A command takes about 60 MiB without a flood.
_LIMIT_KIB = 160 * 1024


def measure(user: User, *words: str) -> tuple[int, str, str]:
    """Run dcs-proxy; return its exit status, what it wrote, and fail if it took much memory."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "dcs_proxy", *words]
    done = user.run(command)
    *lines, peak = done.stdout.splitlines()
    assert int(peak) < _LIMIT_KIB
    return done.returncode, "\n".join(lines), done.stderr


@pytest.fixture
def flooding_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shell of every machine write to stderr without end."""
    shell = tmp_path / "bin" / "bash"
    shell.parent.mkdir()
    shell.write_text("#!/bin/sh\nexec yes $(seq 200) >&2\n")
    shell.chmod(0o755)
    monkeypatch.setenv("PATH", str(shell.parent), prepend=":")


@pytest.mark.usefixtures("flooding_guest")
def test_a_guest_that_writes_without_end_delays_no_wake_and_fills_no_memory(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    status, _, errors = measure(user, "prepare", "dm-foo")
    assert status == 0, errors
    assert "guest-ready" in user.log()


@pytest.mark.usefixtures("flooding_guest")
def test_doctor_ends_the_login_to_a_guest_that_writes_without_end(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    status, out, _ = measure(user, "doctor", "--ssh-config", str(user.config), "dm-foo")
    assert status == 1
    assert "ssh dm-foo true was stopped because it prints without end" in out
