"""ssh dm-foo, as a person types it."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.sshd import authorised_sshd
from tests.support.user import User

Start = Callable[..., Emulator]


@pytest.mark.both_ids
def test_a_command_gives_its_output_and_its_exit_status(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("dm-foo", "echo $0; echo to stderr >&2; exit 3")
    assert done.returncode == 3
    assert done.stdout.strip().endswith("sh")
    assert done.stderr == "to stderr\n"


def test_a_sleeping_machine_is_woken_and_the_user_told(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    done = user.ssh("dm-foo", "echo awake")
    assert (done.returncode, done.stdout) == (0, "awake\n")
    assert done.stderr == "dcs-proxy: dm-foo: waking up, at most 300 s\n"


@pytest.mark.both_ids
def test_a_wake_longer_than_connect_timeout_works(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "6"))
    done = user.ssh("-o", "ConnectTimeout=2", "dm-foo", "echo awake")
    assert (done.returncode, done.stdout) == (0, "awake\n")


@pytest.mark.both_ids
def test_a_second_ssh_reuses_the_session(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    before = len(emulator.events(event="request"))
    second = user.ssh("dm-foo", "true")
    assert (second.returncode, second.stderr) == (0, "")
    assert len(emulator.events(event="request")) == before


@pytest.mark.both_ids
def test_a_session_is_confirmed_once_reuse_has_run_out(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    user.settings("reuse_seconds = 0\n")
    assert user.ssh("dm-foo", "true").returncode == 0
    assert user.ssh("dm-foo", "true").returncode == 0
    assert len(emulator.creates()) == 1
    assert emulator.events(method="GET", status=200)


@pytest.mark.both_ids
def test_a_closed_session_is_replaced(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    user.settings("reuse_seconds = 0\n")
    assert user.ssh("dm-foo", "true").returncode == 0
    emulator.control("POST", "machines/dm-foo/close-sessions")
    again = user.ssh("dm-foo", "echo again")
    assert (again.returncode, again.stdout) == (0, "again\n"), again.stderr
    assert len(emulator.sessions_created()) == 2


def test_every_session_has_its_own_login_and_nothing_is_asked_or_remembered(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--machine", "dm-bar")
    user.use(emulator)
    logins = set()
    for machine in ("dm-foo", "dm-bar"):
        done = user.ssh("-o", "StrictHostKeyChecking=yes", machine, "echo $USER $DCS_MACHINE")
        assert done.returncode == 0, done.stderr
        login, _, where = done.stdout.strip().partition(" ")
        assert where == machine
        logins.add(login)
    assert len(logins) == 2
    assert all(login.startswith("wssh-") for login in logins)
    assert not (user.home / ".ssh").exists()


@pytest.mark.both_ids
def test_a_deployment_with_only_the_post_of_the_contract_works(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--wake-seconds", "1.5", "--post-only"
    )
    user.use(emulator)
    done = user.ssh("dm-foo", "echo awake")
    assert (done.returncode, done.stdout) == (0, "awake\n"), done.stderr
    assert len(emulator.sessions_created()) == 1
    (key,) = {e["idempotency_key"] for e in emulator.creates()}
    assert uuid.UUID(hex=key).version == 7 and "-" not in key, "as the service's own client has it"


@pytest.mark.both_ids
def test_without_a_certificate_the_plain_key_is_offered(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo", "--without", "certificate"))
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_without_host_trust_there_is_no_connection(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--without", "host-trust")
    user.use(emulator)
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert "dcs-proxy: dm-foo: the API sent no host trust" in done.stderr
    assert not emulator.events(event="connection")


def test_another_login_name_is_explained(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("root@dm-foo", "true")
    assert done.returncode == 255
    said = re.search(r"dm-foo: ssh is about to log in as root, but .* login is wssh-", done.stderr)
    assert said, done.stderr
    assert "type: ssh dm-foo" in done.stderr


@pytest.mark.both_ids
def test_an_unknown_machine_is_said_to_be_unknown(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("dm-bar", "true")
    assert done.returncode == 255
    assert "dcs-proxy: dm-bar: no such machine" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.both_ids
def test_a_failure_is_read_once_under_controlpersist(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("-o", "ControlMaster=auto", "-o", "ControlPersist=60",
                    "-o", f'ControlPath="{user.root}/master"', "dm-bar", "true")  # fmt: skip
    assert done.returncode == 255
    assert done.stderr.count("dm-bar: no such machine") == 1, done.stderr
    assert "disconnect from" in done.stderr


@pytest.mark.both_ids
def test_ssh_g_and_ssh_o_wake_nothing(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping")
    user.use(emulator)
    assert user.ssh("-G", "dm-foo").returncode == 0
    checked = user.ssh("-O", "check", "-o", f'ControlPath="{user.root}/none"', "dm-foo")
    assert "Control socket connect" in checked.stderr
    assert not emulator.events(event="request", machine="dm-foo")


@pytest.mark.both_ids
def test_a_real_sshd_takes_the_certificate_and_is_trusted(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    me = getpass.getuser()
    with authorised_sshd(tmp_path) as (_, arguments):
        user.use(start_emulator(*arguments, "--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
        done = user.ssh("dm-foo", "id -un; exit 3")
        assert (done.returncode, done.stdout) == (3, f"{me}\n"), done.stderr
        by_relay = user.ssh("-o", "ProxyUseFdpass=no", "dm-foo", "echo relayed")
        assert (by_relay.returncode, by_relay.stdout) == (0, "relayed\n"), by_relay.stderr


@pytest.mark.both_ids
def test_a_gateway_with_another_host_key_is_refused_by_ssh(
    start_emulator: Start, user: User, tmp_path: Path
) -> None:
    other = tmp_path / "other_ca"
    ssh_keygen = shutil.which("ssh-keygen")
    assert ssh_keygen
    subprocess.run([ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    with authorised_sshd(tmp_path, host_ca=other) as (_, arguments):
        user.use(start_emulator(*arguments, "--machine", "dm-foo"))
        done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (255, "")
    assert "Host key verification failed." in done.stderr


@pytest.mark.both_ids
def test_a_home_with_spaces_and_unicode_works(start_emulator: Start, user: User) -> None:
    state = user.root / "zu Hause ✓" / "état"
    user.environment["DCS_PROXY_HOME"] = str(state)
    user.state = state
    user.use(start_emulator("--machine", "dm-foo"))
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert state.is_dir()


@pytest.mark.parametrize("typed", ["DM-FOO", "Dm-Foo"])
def test_a_name_in_capitals_is_the_same_machine(
    start_emulator: Start, user: User, typed: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for name in (typed, "dm-foo", typed):
        done = user.ssh(name, "echo in")
        assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert len(emulator.creates()) == 1


@pytest.mark.parametrize("login", ["x" * 4000, b"\xff", "\u202e"])
def test_an_odd_login_ends_in_clear_lines(
    start_emulator: Start, user: User, login: str | bytes
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    # subprocess takes words of both kinds.
    done = user.run(["ssh", "-F", str(user.config), "-l", login, "dm-foo", "true"])  # type: ignore[list-item]
    assert done.returncode == 255
    assert "dcs-proxy: dm-foo: ssh is about to log in as " in done.stderr
    ours = [line for line in done.stderr.splitlines() if line.startswith("dcs-proxy: ")]
    assert len(ours) == 2 and all(len(line) < 300 and line.isprintable() for line in ours)
