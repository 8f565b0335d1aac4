"""What users are told when a program of theirs runs ssh."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
SLEEPING = ("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
ADVICE = "dcs-proxy: dm-foo: VS Code gives up after 17 s"


def run_under(user: User, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ssh as the child of a program with this name."""
    ssh = shlex.join(["ssh", "-F", str(user.config), *arguments])
    return user.run([name, "-c", f"{ssh}; exit $?"], executable="/bin/bash")


def test_vs_code_is_told_that_a_retry_goes_on(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*SLEEPING))
    user.environment["VSCODE_SSH_ASKPASS_HANDLE"] = "/run/user/1000/vscode.sock"
    woken = user.ssh("-v", "-T", "-o", "ConnectTimeout=15", "dm-foo", "echo in")
    assert (woken.returncode, woken.stdout) == (0, "in\n"), woken.stderr
    assert woken.stderr.count(ADVICE) == 1 and "press Retry; the wake continues" in woken.stderr
    assert ADVICE not in user.ssh("dm-foo", "true").stderr, "it is awake"


@pytest.mark.parametrize(
    ("timeout", "wake_seconds", "said"),
    [("60", 300, "gives up after 62 s"), ("300", 300, ""), ("60", 62, ""), ("0", 300, "17 s")],
)
def test_vs_codes_own_timer_is_named_if_it_is_shorter_than_a_wake(
    start_emulator: Start, user: User, timeout: str, wake_seconds: int, said: str
) -> None:
    user.use(start_emulator(*SLEEPING))
    user.settings(f"wake_seconds = {wake_seconds}\n")
    user.environment["VSCODE_SSH_ASKPASS_HANDLE"] = "/run/user/1000/vscode.sock"
    woken = user.ssh("-v", "-T", "-o", f"ConnectTimeout={timeout}", "dm-foo", "echo in")
    assert (woken.returncode, woken.stdout) == (0, "in\n"), woken.stderr
    assert ("VS Code" in woken.stderr) is bool(said) and said in woken.stderr


def test_a_quiet_ssh_is_told_nothing(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*SLEEPING))
    user.environment["VSCODE_SSH_ASKPASS_HANDLE"] = "/run/user/1000/vscode.sock"
    done = user.ssh("-q", "dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")


@pytest.mark.parametrize(("name", "is_told"), [("gvfsd-sftp", True), ("bash", False)])
def test_a_file_manager_is_told_so_too(
    start_emulator: Start, user: User, name: str, is_told: bool
) -> None:
    user.use(start_emulator(*SLEEPING))
    done = run_under(user, name, "dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    assert ("the file manager gives up after 40 s" in done.stderr) is is_told


@pytest.mark.parametrize("options", [("-l", "admin"), ("-o", "User=admin"), ("-oUser=admin",)])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ansible-playbook", 'hint: set ansible_user: "" for dm-foo: it overrides remote_user'),
        ("ansible", 'hint: set ansible_user: "" for dm-foo'),
        ("bash", "hint: type: ssh dm-foo (no user name before it, no -l"),
    ],
)
def test_another_login_is_explained_in_the_words_of_what_set_it(
    start_emulator: Start, user: User, name: str, hint: str, options: tuple[str, ...]
) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    done = run_under(user, name, *options, "dm-foo", "true")
    assert done.returncode == 255
    assert "ssh is about to log in as admin" in done.stderr
    assert hint in done.stderr


@pytest.mark.parametrize("method", ["404", "405"])
def test_never_says_what_a_deployment_without_get_does_not(
    start_emulator: Start, user: User, method: str
) -> None:
    """Its only route would wake the machine."""
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--post-only")
    if method == "405":
        emulator.control("POST", "faults", fault="*=405/GET")
    user.use(emulator)
    user.settings('wake = "never"\n')
    done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    said = 'dm-foo: the API does not say whether the machine is awake, and wake = "never" forbids'
    assert said in done.stderr
    assert "hint: to wake it: dcs-proxy wake dm-foo, or DCS_PROXY_WAKE=always ssh" in done.stderr
    assert not emulator.creates()


def test_never_still_says_that_there_is_no_such_machine(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo"))
    user.settings('wake = "never"\n')
    done = user.ssh("dm-gone", "true")
    assert "does not say" not in done.stderr and "no such machine" in done.stderr


def test_under_never_a_doubt_without_an_answer_is_no_refusal(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--post-only")
    user.use(emulator)
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
    user.settings('wake = "never"\n')
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
