"""What the client tests share: programs that may be missing, and what they are pointed at."""

from __future__ import annotations

import contextlib
import getpass
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.keys import line_of, make_key
from tests.support.sshd import Sshd
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]
# With a name, for commits, and without what the tester's own configuration says.
GIT = (
    "git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main",
    "-c", "commit.gpgsign=false",
)  # fmt: skip


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where one of the programs is missing."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed")


def wrap_openssh(user: User) -> None:
    """Make the user's ssh, scp and sftp read their config, for programs that run them by name.

    They look for it in the home of whoever runs the tests.
    """
    directory = user.root / "bin"
    directory.mkdir()
    for name in ("ssh", "scp", "sftp"):
        script = directory / name
        script.write_text(f"#!/bin/sh\nexec {shutil.which(name)} -F '{user.config}' \"$@\"\n")
        script.chmod(0o755)
    user.environment["PATH"] = f"{directory}:{user.environment['PATH']}"


def succeed(user: User, command: Sequence[str]) -> str:
    """Run a command as the user; return its output.  Fails the test if the command fails."""
    done = user.run(command)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def login_of(user: User) -> tuple[str, str]:
    """Return login and private agent as ``ssh -G`` says them, once the machine is ready.

    So do clients find them that know neither Include nor IdentityAgent.
    """
    assert user.proxy("prepare", "dm-foo").returncode == 0
    said = user.ssh("-G", "dm-foo").stdout
    options = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    return options["user"], options["identityagent"]


@contextlib.contextmanager
def plain_sshd(user: User, directory: Path) -> Iterator[Sshd]:
    """Run a sshd that the user's own key opens; it is the host `other` of their ssh config."""
    key = make_key(user.root / "own", comment="own")
    with Sshd(directory / "other", authorized_keys=[line_of(key)]) as sshd:
        host_key = line_of(sshd.host_key)
        known_hosts = user.root / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {host_key}\n")
        insert_between_blocks(
            user.config,
            f"Host other\n    HostName 127.0.0.1\n    Port {sshd.port}\n"
            f"    User {getpass.getuser()}\n    IdentityFile \"{key}\"\n    IdentitiesOnly yes\n"
            f"    UserKnownHostsFile \"{known_hosts}\"\n",
        )  # fmt: skip
        yield sshd
