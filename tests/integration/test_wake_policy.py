"""wake = "always" | "never", with the real ssh."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]
SLEEPING = ("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
HINT = "dcs-proxy: hint: to wake it: dcs-proxy wake dm-foo, or DCS_PROXY_WAKE=always ssh dm-foo\n"


def test_an_ssh_loop_under_never_wakes_nothing(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "never"\n')
    for _ in range(4):
        done = user.ssh("dm-foo", "true")
        assert done.returncode == 255
        said = 'dcs-proxy: dm-foo: the machine is asleep, and wake = "never" forbids waking it\n'
        assert done.stderr.startswith(said + HINT), done.stderr
    assert not emulator.events(method="POST")
    assert emulator.control("GET", "state")["machines"] == {"dm-foo": "sleeping"}
    assert user.agents() == []


def test_under_never_a_machine_that_runs_is_used_until_it_sleeps(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "never"\nreuse_seconds = 0\n')
    user.environment["DCS_PROXY_WAKE"] = "always"
    assert user.ssh("dm-foo", "true").returncode == 0
    del user.environment["DCS_PROXY_WAKE"]
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    emulator.control("PUT", "machines/dm-foo", phase="sleeping")
    assert 'wake = "never" forbids' in user.ssh("dm-foo", "true").stderr
    assert len(emulator.creates()) == 1


def test_a_table_of_patterns_decides_by_machine(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING, "--machine", "dm-ci-1:sleeping")
    user.use(emulator)
    user.settings('[wake]\n"dm-ci-*" = "never"\n"*" = "always"\n')
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert "forbids waking it" in user.ssh("dm-ci-1", "true").stderr
    assert {entry["machine"] for entry in emulator.creates()} == {"dm-foo"}


def test_a_wrong_policy_in_the_environment_is_named(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*SLEEPING))
    user.environment["DCS_PROXY_WAKE"] = "sometimes"
    done = user.proxy("prepare", "dm-foo")
    assert done.returncode == 3
    assert 'DCS_PROXY_WAKE must be "always" or "never"' in done.stderr


def test_a_file_that_still_says_ask_is_told_what_to_write(
    start_emulator: Start, user: User
) -> None:
    user.use(start_emulator(*SLEEPING))
    user.settings('wake = "ask"\n')
    done = user.proxy("prepare", "dm-foo")
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert first.endswith('config.toml: wake can no longer be "ask"')
    assert second.startswith('dcs-proxy: hint: write "never": ')
