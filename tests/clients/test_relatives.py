"""File managers, and programs that synchronise: they run ssh and know nothing of machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.programs import Start, needs, succeed, wrap_openssh
from tests.support.emulator import Emulator
from tests.support.terminal import Terminal
from tests.support.user import User

# GNOME's daemons; Debian puts them outside PATH.
_SFTP_DAEMON = Path("/usr/libexec/gvfsd-sftp")


def rclone_runs_ssh() -> bool:
    """Return whether rclone is installed and can use the system's ssh, as it can since 1.63."""
    if not shutil.which("rclone"):
        return False
    done = subprocess.run(["rclone", "help", "flags"], capture_output=True, text=True, check=False)
    return "--sftp-ssh " in done.stdout


@pytest.fixture
def emulator(start_emulator: Start, user: User) -> Emulator:
    """An emulator whose machine dm-foo sleeps, for a user whose ssh reads the block."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1")
    user.use(emulator)
    wrap_openssh(user)
    return emulator


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short path without blanks: these programs quote none, and bind sockets."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


@needs("dbus-run-session", "gio")
@pytest.mark.skipif(not _SFTP_DAEMON.exists(), reason="gvfs-backends: not installed")
@pytest.mark.client("gvfs: sftp://dm-foo/", "works")
def test_gnomes_files_copies_to_a_machine(emulator: Emulator, user: User, short: Path) -> None:
    (short / "file").write_text("text\n")
    (short / "run").mkdir(mode=0o700)
    user.environment["XDG_RUNTIME_DIR"] = str(short / "run")
    script = (
        'set -e; gio mount sftp://dm-foo/; gio copy "$0/file" "sftp://dm-foo$0/there"; '
        'gio cat "sftp://dm-foo$0/there"; gio mount -u sftp://dm-foo/'
    )
    said = succeed(user, ["dbus-run-session", "--", "sh", "-c", script, str(short)])
    assert said == "text\n" and (short / "there").read_text() == "text\n"
    assert len(emulator.creates()) == 1


@needs("mcview")
@pytest.mark.client("mc: sh://dm-foo", "works")
def test_mc_shows_a_file_of_a_machine(emulator: Emulator, user: User, short: Path) -> None:
    (short / "file").write_text("unmistakable\n")
    environment = {**user.environment, "TERM": "xterm", "SHELL": "/bin/sh"}
    with Terminal(user, "mcview", f"sh://dm-foo{short}/file", env=environment) as viewer:
        viewer.wait_for("unmistakable")
        viewer.type("q")
        assert viewer.finish() == 0
    assert len(emulator.creates()) == 1


@needs("unison")
@pytest.mark.client("unison: ssh://dm-foo", "works")
def test_unison_synchronises_both_ways(emulator: Emulator, user: User, short: Path) -> None:
    for name in ("here", "there"):
        (short / name).mkdir()
        (short / name / f"from-{name}").write_text(f"{name}\n")
    remote = f"ssh://dm-foo/{short}/there"
    succeed(user, ["unison", "-batch", "-ui", "text", str(short / "here"), remote])
    for name in ("here", "there"):
        assert sorted(os.listdir(short / name)) == ["from-here", "from-there"]
    assert len(emulator.creates()) == 1


@pytest.mark.skipif(not rclone_runs_ssh(), reason="rclone 1.63 or later: not installed")
@pytest.mark.client("rclone", "with: ssh = ssh dm-foo")
def test_rclone_copies_lists_and_checks(emulator: Emulator, user: User, short: Path) -> None:
    (short / "here").mkdir()
    (short / "here" / "file").write_text("text\n")
    config = short / "rclone.conf"
    config.write_text("[foo]\ntype = sftp\nssh = ssh dm-foo\nknown_hosts_file = none\n")
    rclone = ["rclone", "--config", str(config)]
    here, there = str(short / "here"), f"foo:{short}/there"
    succeed(user, [*rclone, "copy", here, there])
    assert (short / "there" / "file").read_text() == "text\n"
    assert succeed(user, [*rclone, "lsf", there]) == "file\n"
    done = user.run([*rclone, "check", here, there])
    assert done.returncode == 0 and "0 differences found" in done.stderr, done.stderr
    assert "host key" not in done.stderr
    assert len(emulator.creates()) == 1
