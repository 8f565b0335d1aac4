"""What config-ssh and doctor do with clients other than the newest.

The older client is the installed one under another name: it tells an older version, and reads a
block that was written for that.  Debian's ssh1 is a real 7.5.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.openssh.version import FORWARDS_ANY_AGENT, find_client
from tests.support.emulator import Emulator
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]


def put_first(user: User, directory: Path, script: str) -> None:
    """Put a program named ssh first in the user's PATH."""
    program = directory / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    user.environment["PATH"] = f"{directory}:{user.environment['PATH']}"


@pytest.fixture
def old_path(user: User, tmp_path: Path) -> Iterator[str]:
    """An ssh that says that it is 8.0, first in PATH; the PATH without it."""
    before = user.environment["PATH"]
    ssh = find_client()
    if ssh.version < FORWARDS_ANY_AGENT:
        pytest.skip(f"{ssh.text} is as old itself")
    put_first(
        user,
        tmp_path,
        f"""[ "$1" = -V ] && {{ echo OpenSSH_8.0p1, x >&2; exit; }}
exec {ssh.path} "$@\"""",
    )
    yield before


def block_check(user: User) -> dict[str, str]:
    done = user.proxy("doctor", "--json", "--ssh-config", str(user.config))
    return next(c for c in json.loads(done.stdout)["checks"] if c["name"] == "block")


def test_an_old_ssh_gets_a_block_that_it_can_read(
    start_emulator: Start, user: User, old_path: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 0
    assert "dcs-proxy: OpenSSH 8.0: never use ssh -A with a machine: it" in done.stderr
    text = user.config.read_text()
    assert "# for OpenSSH 8.0\n# never use ssh -A" in text
    assert "ForwardAgent /" not in text and "agents/*.conf" not in text
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert block_check(user)["status"] == "ok"


def test_an_old_ssh_does_not_forward_the_agent_that_logs_in(
    start_emulator: Start, user: User, old_path: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    user.start_agent()
    insert_between_blocks(user.config, "Host *\n    ForwardAgent yes\n")
    assert user.ssh("dm-foo", "echo ${SSH_AUTH_SOCK:-none}").stdout == "none\n"


def test_doctor_sees_that_ssh_is_another_than_the_block_is_for(
    start_emulator: Start, user: User, old_path: str
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    user.environment["PATH"] = old_path
    check = block_check(user)
    assert check["status"] == "failed"
    assert f"is for OpenSSH 8.0, but {find_client().path} is" in check["text"]
    again = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert again.returncode == 0
    assert block_check(user)["status"] == "ok"


def test_a_real_7_5_is_refused_before_anything_is_written(user: User, tmp_path: Path) -> None:
    ssh1 = shutil.which("ssh1")
    if ssh1 is None:
        pytest.skip("Debian's openssh-client-ssh1 is not installed")
    put_first(user, tmp_path, f'exec {ssh1} "$@"')
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 3
    assert "OpenSSH_7.5p1" in done.stderr and "is too old" in done.stderr
    assert "hint: install OpenSSH 7.9 or later" in done.stderr
    assert not user.config.exists()


def test_a_computer_without_ssh_is_told(user: User, tmp_path: Path) -> None:
    user.environment["PATH"] = str(tmp_path)
    done = user.proxy("config-ssh", "--ssh-config", str(user.config))
    assert done.returncode == 3
    assert done.stderr.startswith(
        "dcs-proxy: there is no ssh in PATH\ndcs-proxy: hint: install OpenSSH's client"
    )
