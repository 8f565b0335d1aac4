"""A wake that is broken off is taken up by the next ssh: no second POST, no second wait."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.processes import processes
from tests.support.sshd import authorised_sshd
from tests.support.user import User, helpers_for
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]
WAKE = ("--machine", "dm-foo:sleeping", "--wake-seconds", "4")


def helpers_of(pid: int) -> list[int]:
    """Return the dcs-proxy processes below process `pid`."""
    everything = processes()
    below, found = {pid}, []
    while True:
        more = {p for p, (parent, _) in everything.items() if parent in below} - below
        if not more:
            return found
        found += [p for p in more if any("dcs_proxy" in word for word in everything[p][1])]
        below |= more


def is_waking(user: User) -> bool:
    """Whether the session has been asked for, so that there is a wake to break off."""
    return bool(user.record("dm-foo").get("attempt", {}).get("session_id"))


def assert_next_ssh_takes_it_up(emulator: Emulator, user: User) -> None:
    wait_until(lambda: not helpers_for(user))
    again = user.ssh("dm-foo", "echo awake")
    assert (again.returncode, again.stdout) == (0, "awake\n"), again.stderr
    assert len(emulator.creates()) == 1
    third = user.ssh("dm-foo", "echo still")
    assert (third.returncode, third.stdout) == (0, "still\n"), third.stderr
    assert len(emulator.creates()) == 1


def test_ctrl_c_leaves_the_wake_to_the_next_ssh(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*WAKE)
    user.use(emulator)
    ssh = user.start_ssh("dm-foo", "true", start_new_session=True)
    wait_until(lambda: is_waking(user))
    os.killpg(ssh.pid, signal.SIGINT)
    _, errors = ssh.communicate(timeout=30)
    assert ssh.returncode != 0
    assert b"Traceback" not in errors
    assert_next_ssh_takes_it_up(emulator, user)


# ssh ignores SIGPIPE.
KILLS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("how", KILLS)
def test_ssh_that_is_killed_leaves_no_helper(
    start_emulator: Start, user: User, how: signal.Signals
) -> None:
    emulator = start_emulator(*WAKE)
    user.use(emulator)
    ssh = user.start_ssh("dm-foo", "true")
    wait_until(lambda: is_waking(user))
    os.kill(ssh.pid, how)
    assert_next_ssh_takes_it_up(emulator, user)


@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize("stage", ["asking", "relaying", "handed over"])
def test_ssh_that_is_killed_leaves_no_helper_at_any_stage(
    start_emulator: Start, user: User, stage: str, how: signal.Signals
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    options = ["-o", "ProxyUseFdpass=no"] if stage == "relaying" else []
    if stage == "asking":
        emulator.control("POST", "faults", fault="dm-foo=stall")
    ssh = user.start_ssh(*options, "dm-foo", "sleep 1000")
    wait_until(lambda: has_reached(stage, emulator, user))
    os.kill(ssh.pid, how)
    ssh.communicate(timeout=60)
    wait_until(lambda: not helpers_for(user))
    emulator.control("DELETE", "faults")
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


@pytest.mark.parametrize("way", ["yes", "no"])
def test_output_that_nobody_reads_any_more_ends_everything(
    start_emulator: Start, user: User, tmp_path: Path, way: str
) -> None:
    # ssh tells only an OpenSSH server that it can write no more.
    with authorised_sshd(tmp_path) as (_, arguments):
        user.use(start_emulator("--machine", "dm-foo", *arguments))
        ssh = f"ssh -F '{user.config}' -o ProxyUseFdpass={way} dm-foo yes"
        done = user.run(["sh", "-c", f"{ssh} | head -n 1"])
        assert (done.returncode, done.stdout) == (0, "y\n"), done.stderr
        wait_until(lambda: not helpers_for(user))


def test_a_helper_that_is_killed_loses_nothing(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*WAKE)
    user.use(emulator)
    ssh = user.start_ssh("dm-foo", "echo awake")
    wait_until(lambda: is_waking(user))
    for helper in wait_until(lambda: helpers_of(ssh.pid)):
        os.kill(helper, signal.SIGKILL)
    # ssh goes on: its ProxyCommand takes the wake up, but the login name was fixed before.
    ssh.communicate(timeout=60)
    assert_next_ssh_takes_it_up(emulator, user)


STAGES = ["asking", "waking", "relaying"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_to_the_helper_ends_it_at_any_stage(
    start_emulator: Start, user: User, stage: str, how: signal.Signals
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "3")
    user.use(emulator)
    options: list[str] = []
    if stage == "asking":
        emulator.control("POST", "faults", fault="dm-foo=stall")
    elif stage == "waking":
        emulator.control("PUT", "machines/dm-foo", phase="sleeping")
    else:
        options = ["-o", "ProxyUseFdpass=no"]
    ssh = user.start_ssh(*options, "dm-foo", "sleep 1000")
    wait_until(lambda: has_reached(stage, emulator, user))
    (helper,) = helpers_for(user)
    os.kill(helper, how)
    wait_until(lambda: helper not in helpers_for(user))
    # The other half of the same ssh may have begun meanwhile.
    ssh.kill()
    _, errors = ssh.communicate(timeout=60)
    assert b"Traceback" not in errors
    emulator.control("DELETE", "faults")
    wait_until(lambda: not helpers_for(user))
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    # If its answer was lost, the first session was closed.
    sessions = sorted(emulator.control("GET", "state")["sessions"].values())
    assert sessions in (["ready"], ["closed", "ready"])
    assert stage == "asking" or len(emulator.sessions_created()) == 1


def has_reached(stage: str, emulator: Emulator, user: User) -> bool:
    match stage:
        case "asking":
            return bool(emulator.creates())
        case "waking":
            return is_waking(user)
        case "handed over":
            return bool(emulator.events(event="login")) and not helpers_for(user)
        case _:
            return bool(emulator.events(event="login")) and len(helpers_for(user)) == 1


def test_nobody_to_read_the_errors_is_no_error(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
    user.use(emulator)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        program = user.start(sys.executable, "-m", "dcs_proxy", "prepare", "dm-foo", stderr=writer)
    finally:
        os.close(writer)
    assert program.wait(60) == 0
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"


def test_ssh_timing_out_by_relay_leaves_the_wake_to_the_next(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator(*WAKE)
    user.use(emulator, config=False)
    command = f"exec {sys.executable} -m dcs_proxy --home '{user.state}' %h %p"
    ssh = user.run(["ssh", "-F", "none", "-o", f"ProxyCommand={command}",
                    "-o", "ConnectTimeout=1", "dm-foo", "true"])  # fmt: skip
    assert ssh.returncode == 255
    user.use(emulator)
    assert_next_ssh_takes_it_up(emulator, user)


def test_the_wait_already_served_is_not_served_again(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*WAKE)
    user.use(emulator)
    ssh = user.start_ssh("dm-foo", "true")
    wait_until(lambda: is_waking(user))
    ssh.kill()
    ssh.communicate()
    wait_until(lambda: not helpers_for(user))
    session = user.record("dm-foo")["attempt"]["session_id"]
    url = f"/v1/machines/dm-foo/ssh/{session}"
    wait_until(lambda: _status(emulator, url) == "ready")
    again = user.ssh("dm-foo", "echo awake")
    # Nobody waited, so nobody was told to.
    assert (again.returncode, again.stdout, again.stderr) == (0, "awake\n", "")


def _status(emulator: Emulator, path: str) -> str:
    import requests

    headers = {"Authorization": f"Bearer {emulator.key}"}
    return str(requests.get(emulator.api + path, headers=headers, timeout=30).json()["status"])
