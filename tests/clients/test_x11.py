"""X programs on a machine, shown by the user's own X server."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.programs import Start, needs, succeed
from tests.support.bridge import write_config
from tests.support.emulator import Emulator
from tests.support.sshd import authorised_sshd
from tests.support.user import User


def start_x_server(user: User) -> None:
    """Start an X server without a screen that takes none but the user's programs."""
    cookie = secrets.token_hex(16)
    server, client = user.root / "xauthority-server", user.root / "xauthority"
    succeed(user, ["xauth", "-q", "-f", str(server), "add", ":0", ".", cookie])
    program = user.start("Xvfb", "-displayfd", "1", "-auth", str(server), "-nolisten", "tcp")
    assert program.stdout is not None
    display = f":{program.stdout.readline().decode().strip()}"
    succeed(user, ["xauth", "-q", "-f", str(client), "add", display, ".", cookie])
    user.environment.update(DISPLAY=display, XAUTHORITY=str(client))


@needs("Xvfb", "xauth", "xdpyinfo")
@pytest.mark.client("ssh: -X and -Y", "works")
@pytest.mark.parametrize("option", ["-X", "-Y"])
@pytest.mark.parametrize("gateway", ["gateway", "sshd"])
@pytest.mark.parametrize("configure", [User.use, write_config], ids=["handover", "bridge"])
def test_a_program_on_the_machine_finds_the_users_display(
    start_emulator: Start,
    user: User,
    tmp_path: Path,
    gateway: str,
    option: str,
    configure: Callable[[User, Emulator], object],
) -> None:
    start_x_server(user)
    here = succeed(user, ["xdpyinfo"])
    with authorised_sshd(tmp_path) as (sshd, arguments):
        if gateway == "gateway":
            arguments = ["--home", str(tmp_path / "machines")]
        configure(user, start_emulator("--machine", "dm-foo", *arguments))
        done = user.ssh(option, "dm-foo", "xdpyinfo")
        assert done.returncode == 0, done.stderr
        # All that differs is the display's name, its first line.
        assert done.stdout.splitlines()[1:] == here.splitlines()[1:]
        assert done.stdout.splitlines()[0] != here.splitlines()[0]
        assert user.ssh("-x", "dm-foo", "xdpyinfo").returncode != 0
        assert ("Accepted publickey" in sshd.said()) == (gateway == "sshd")
