"""An agent of another user, at a path that a stale tmux still names: it is told nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.fake_agent import socket_directory
from tests.support.user import User
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

STRANGER = 65534
LISTEN = """
import os, socket, sys
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.settimeout(10)
    heard = connection.recv(65536)
    with open(sys.argv[2], "ab") as file:
        file.write(b"connected," + heard.hex().encode() + b"\\n")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with socket_directory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.fixture
def stranger(place: Path) -> Iterator[Callable[[str], None]]:
    """Return a function that lets another user listen on a path, and record what is said."""
    programs: list[subprocess.Popen[bytes]] = []

    def listen(path: str) -> None:
        program = subprocess.Popen(
            [sys.executable, "-c", LISTEN, path, str(place / "heard"), str(STRANGER)],
            stdout=subprocess.PIPE,
        )
        programs.append(program)
        assert program.stdout is not None and program.stdout.readline() == b"ready\n"

    yield listen
    for program in programs:
        program.kill()
        program.communicate()


def heard(place: Path) -> list[str]:
    """Return what was said in each connection, in hex, once there is one."""
    wait_until((place / "heard").exists)
    return [line.partition(",")[2] for line in (place / "heard").read_text().splitlines()]


def test_no_key_is_given_to_it(
    start_emulator: Start, user: User, place: Path, stranger: Callable[[str], None]
) -> None:
    path = str(place / "agent")
    stranger(path)
    user.settings('agent = "user"\n')
    user.environment["SSH_AUTH_SOCK"] = path
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert f"the agent at {path} belongs to user id {STRANGER}, not 0" in done.stderr
    assert not emulator.creates()
    for command in (["status"], ["doctor"], ["wake", "dm-foo"], ["close", "--all"]):
        user.proxy(*command)
    assert set(heard(place)) == {""}


def test_one_that_takes_our_agents_place_is_not_asked(
    start_emulator: Start, user: User, place: Path, stranger: Callable[[str], None]
) -> None:
    user.settings('agent = "user"\n')
    own = user.start_agent()
    path = str(place / "agent")
    os.symlink(own, path)
    user.environment["SSH_AUTH_SOCK"] = path
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    os.unlink(path)
    stranger(path)
    done = user.proxy("prepare", "dm-foo")
    assert "belongs to user id" in done.stderr
    assert set(heard(place)) == {""}
