"""ssh where /proc is empty, as on macOS, the BSDs and in some containers; with and without ps."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
# In a mount namespace: hides /proc, but for `ps`, which looks at it in another place.
HIDE = """
mount --rbind /proc "$1" && mount -t tmpfs none /proc || exit 99
shift
exec "$@"
"""
PS = """#!/bin/sh
[ "$1 $2 $3 $4" = "-ww -o args= -p" ] && tr '\\0' ' ' <'{real}'/"$5"/cmdline && echo
"""


@pytest.fixture(params=["sleeping", "running"])
def phase(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def emulator(start_emulator: Start, user: User, phase: str) -> Emulator:
    emulator = start_emulator("--machine", f"dm-foo:{phase}", "--wake-seconds", "0.5")
    user.use(emulator)
    programs = user.root / "bin"
    programs.mkdir()
    (user.root / "real").mkdir()
    user.environment["PATH"] = f"{programs}:{user.environment['PATH']}"
    return emulator


def install_ps(user: User, text: str) -> None:
    program = user.root / "bin" / "ps"
    program.write_text(text.replace("{real}", str(user.root / "real")))
    program.chmod(0o700)


def ssh(user: User, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ssh without /proc."""
    hide = ["unshare", "--mount", "--map-root-user", "sh", "-c", HIDE, "sh"]
    command = ["ssh", "-F", str(user.config), *arguments]
    done = user.run([*hide, str(user.root / "real"), *command])
    assert done.returncode != 99, done.stderr
    return done


def woken(emulator: Emulator) -> bool:
    return bool(emulator.creates())


@pytest.mark.parametrize("how", [["-G"], ["-O", "check"], ["-v", "-G"]])
def test_looking_wakes_nothing(emulator: Emulator, user: User, phase: str, how: list[str]) -> None:
    install_ps(user, PS)
    ssh(user, *how, "dm-foo")
    assert not woken(emulator)
    install_ps(user, "#!/bin/sh\nexit 1\n")
    ssh(user, *how, "dm-foo")
    assert woken(emulator) is (phase == "running"), "a session wakes no machine that is awake"


def test_with_ps_ssh_gets_in_as_quietly_as_it_is_told(emulator: Emulator, user: User) -> None:
    install_ps(user, PS)
    done = ssh(user, "-q", "dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")


def test_without_ps_the_second_ssh_gets_in_at_the_latest(
    emulator: Emulator, user: User, phase: str
) -> None:
    install_ps(user, "#!/bin/sh\nexit 1\n")
    done = ssh(user, "dm-foo", "echo in")
    if phase == "sleeping":
        assert done.returncode == 255
        assert "hint: the machine is awake now; type again: ssh dm-foo" in done.stderr
        done = ssh(user, "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert len(emulator.creates()) == 1
    assert user.proxy("close", "--all").returncode == 0
    assert list(Path(user.state / "sockets").glob("*.sock")) == []
