"""How a bridge ends: with its client, with its gateway, by a signal, at any stage."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bridge import (
    bridges_of,
    is_waking,
    start_and_wait,
    wait_until_gone,
    write_config,
)
from tests.support.emulator import Emulator
from tests.support.processes import is_alive, processes
from tests.support.sshd import Sshd, authorised_sshd
from tests.support.user import User
from tests.support.waiting import LIMIT_S, wait_until

Start = Callable[..., Emulator]
WAKE = ("--machine", "dm-foo:sleeping", "--wake-seconds", "3")
LONG = "echo; exec sleep 1000"


STAGES = ("waking", "logging in", "passing on")


@dataclass
class Place:
    """A machine behind a real sshd, and a user who starts ssh to it."""

    emulator: Emulator
    user: User
    sshd: Sshd

    def start_at(self, stage: str) -> tuple[subprocess.Popen[bytes], int]:
        """Start an ssh in a group of its own; return it and its bridge when they are at `stage`."""
        if stage == "passing on":
            return start_and_wait(self.user, "dm-foo", LONG, start_new_session=True)
        if stage == "logging in":
            self.emulator.control("PUT", "machines/dm-foo", phase="running")
            os.kill(self.sshd.pid, signal.SIGSTOP)
        ssh = self.user.start_ssh("dm-foo", "true", start_new_session=True)
        if stage == "waking":
            wait_until(lambda: is_waking(self.user))
        else:
            wait_until(lambda: self.user.record("dm-foo").get("ready"))
        (bridge,) = bridges_of(self.user)
        return ssh, bridge

    def check_that_the_next_goes_on(self) -> None:
        """Log in with the session that there is."""
        os.kill(self.sshd.pid, signal.SIGCONT)
        done = self.user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        assert len(self.emulator.creates()) == 1


@pytest.fixture
def place(start_emulator: Start, user: User, tmp_path: Path) -> Iterator[Place]:
    with authorised_sshd(tmp_path) as (sshd, arguments):
        emulator = start_emulator(*WAKE, *arguments)
        write_config(user, emulator)
        yield Place(emulator, user, sshd)
        os.kill(sshd.pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_ssh_that_is_ended_leaves_no_bridge_and_the_next_goes_on(
    place: Place, stage: str, how: str
) -> None:
    number = signal.Signals[how]
    ssh, _ = place.start_at(stage)
    # Ctrl-C goes to the group, and so to the bridge too; the others to ssh alone.
    if number == signal.SIGINT:
        os.killpg(ssh.pid, number)
    else:
        os.kill(ssh.pid, number)
    _, errors = ssh.communicate(timeout=LIMIT_S)
    assert b"Traceback" not in errors
    wait_until_gone(place.user)
    place.check_that_the_next_goes_on()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGKILL"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_bridge_that_is_ended_ends_its_ssh(place: Place, stage: str, how: str) -> None:
    ssh, bridge = place.start_at(stage)
    os.kill(bridge, signal.Signals[how])
    _, errors = ssh.communicate(timeout=LIMIT_S)
    assert ssh.returncode == 255
    assert b"Traceback" not in errors
    wait_until(lambda: not is_alive(bridge))
    place.check_that_the_next_goes_on()


def test_ctrl_c_that_the_client_survives_ends_no_connection(
    start_emulator: Start, user: User
) -> None:
    """It goes to a whole group of processes, and Fabric, for one, hands it on to the machine."""
    write_config(user, start_emulator("--machine", "dm-foo"))
    ssh, bridge = start_and_wait(user, "dm-foo", "echo; exec cat", stdin=subprocess.PIPE)
    os.kill(bridge, signal.SIGINT)
    out, _ = ssh.communicate(b"still here\n", timeout=LIMIT_S)
    assert (ssh.returncode, out) == (0, b"still here\n")


def connections(sshd: Sshd) -> list[int]:
    """Return the processes that serve a sshd's connections."""
    return [pid for pid, (parent, _) in processes().items() if parent == sshd.pid]


def test_a_gateway_that_dies_ends_ssh_with_the_reason(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    with authorised_sshd(tmp_path) as (sshd, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        ssh, bridge = start_and_wait(user, "dm-foo", LONG)
        for pid in connections(sshd):
            os.kill(pid, signal.SIGKILL)
        _, errors = ssh.communicate(timeout=LIMIT_S)
    assert ssh.returncode == 255
    assert b"dm-foo: the gateway has closed the connection" in errors
    wait_until(lambda: not is_alive(bridge))


def test_a_gateway_that_says_why_it_leaves_is_heard(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    with authorised_sshd(tmp_path) as (sshd, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        ssh, _ = start_and_wait(user, "dm-foo", LONG)
        # sshd's answer to a channel that does not exist.
        (pid,) = connections(sshd)
        os.kill(pid, signal.SIGTERM)
        _, errors = ssh.communicate(timeout=LIMIT_S)
    assert ssh.returncode == 255 and errors
    wait_until_gone(user)


def test_an_open_connection_outlives_its_session(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    write_config(user, emulator)
    ssh, _ = start_and_wait(user, "dm-foo", "echo; exec cat", stdin=subprocess.PIPE)
    assert user.proxy("close", "dm-foo").returncode == 0
    out, _ = ssh.communicate(b"still here\n", timeout=LIMIT_S)
    assert (ssh.returncode, out) == (0, b"still here\n")
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert len(emulator.creates()) == 2


def test_a_reader_that_has_gone_ends_everything(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    # ssh tells only what says that it is OpenSSH that it can write no more.
    with authorised_sshd(tmp_path) as (_, arguments):
        write_config(user, start_emulator("--machine", "dm-foo", *arguments))
        done = user.run(["bash", "-c", f"ssh -F '{user.config}' dm-foo yes | head -n 1"])
        assert (done.returncode, done.stdout) == (0, "y\n"), done.stderr
        wait_until_gone(user)


def test_an_ssh_whose_errors_are_read_to_their_end_is_not_held_up(
    start_emulator: Start, user: User
) -> None:
    write_config(user, start_emulator("--machine", "dm-foo"))
    done = user.run(["sh", "-c", f"ssh -F '{user.config}' dm-foo 'echo in' 2>&1 | cat"])
    assert done.stdout == "in\n"
    wait_until_gone(user)
