"""wake = "always" | "ask" | "never", with the real ssh, with and without a terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.integration.harness import (
    Emulator,
    User,
    helpers_for,
    insert_between_blocks,
    wait_until,
)
from tests.integration.person import Person

Start = Callable[..., Emulator]
SLEEPING = ("--machine", "dm-foo:sleeping", "--wake-seconds", "0.5")
QUESTION = "dcs-proxy: dm-foo is sleeping. Wake it? [y/N] "
HINT = "dcs-proxy: hint: to wake it: dcs-proxy wake dm-foo, or DCS_PROXY_WAKE=always ssh dm-foo\n"


def at_terminal(user: User, *arguments: str) -> Person:
    return Person(user, "ssh", "-F", str(user.config), *arguments)


def test_an_ssh_loop_under_never_wakes_nothing(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "never"\n')
    for _ in range(4):
        done = user.ssh("dm-foo", "true")
        assert done.returncode == 255
        said = 'dcs-proxy: dm-foo: the machine is sleeping, and wake = "never" leaves it so\n'
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
    assert 'wake = "never" leaves it so' in user.ssh("dm-foo", "true").stderr
    assert len(emulator.creates()) == 1


def test_a_table_of_patterns_decides_by_machine(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING, "--machine", "dm-ci-1:sleeping")
    user.use(emulator)
    user.settings('[wake]\n"dm-ci-*" = "never"\n"*" = "always"\n')
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert "leaves it so" in user.ssh("dm-ci-1", "true").stderr
    assert {entry["machine"] for entry in emulator.creates()} == {"dm-foo"}


def test_a_person_who_says_yes_is_let_in(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    with at_terminal(user, "dm-foo", "echo $DCS_MACHINE is awake") as person:
        person.sees(QUESTION)
        assert not emulator.events(method="POST")
        person.type("y\n")
        person.sees("dm-foo is awake")
        assert person.leaves() == 0
        assert person.shown.count("Wake it?") == 1
    with at_terminal(user, "dm-foo", "echo again") as person:
        assert person.leaves() == 0
        assert person.shown == "again\n"


def test_batch_mode_is_no_time_for_questions(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    with at_terminal(user, "-o", "BatchMode=yes", "dm-foo", "true") as person:
        assert person.leaves() == 255
        assert "Wake it?" not in person.shown
        assert "DCS_PROXY_WAKE=always" in person.shown
    assert not emulator.events(method="POST")


def test_a_person_who_does_not_is_asked_only_once(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    # With this, ssh reads its configuration twice.
    insert_between_blocks(user.config, "Match final all\n    ServerAliveInterval 15\n")
    with at_terminal(user, "dm-foo", "true") as person:
        person.sees(QUESTION)
        person.type("\n")
        assert person.leaves() == 255
    assert person.shown.count("Wake it?") == 1
    assert "dm-foo: the machine is sleeping, and nobody said yes to waking it\n" in person.shown
    assert HINT in person.shown
    assert not emulator.events(method="POST")


def test_silence_is_no(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\nwake_seconds = 3\n')
    with at_terminal(user, "dm-foo", "true") as person:
        assert person.leaves() == 255
    assert f"{QUESTION}\n" in person.shown
    assert "nobody said yes to waking it\n" in person.shown
    assert not emulator.events(method="POST")


def test_ctrl_c_at_the_question_leaves_nothing_behind(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    with at_terminal(user, "dm-foo", "true") as person:
        person.sees(QUESTION)
        person.type("\x03")
        assert person.leaves() != 0
    assert "Traceback" not in person.shown
    wait_until(lambda: not helpers_for(user))
    assert not emulator.events(method="POST")
    with at_terminal(user, "dm-foo", "echo in") as person:
        person.sees(QUESTION)
        person.type("yes\n")
        assert person.leaves() == 0


def test_without_a_terminal_or_in_the_background_ask_is_never(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    said = 'the machine is sleeping, and wake = "ask" finds no terminal to ask on\n'
    done = user.ssh("dm-foo", "true", start_new_session=True)
    assert done.returncode == 255
    assert said in done.stderr and HINT in done.stderr
    job = f"set -m; ssh -F '{user.config}' dm-foo true & wait $!"
    with Person(user, "bash", "-c", job) as person:
        assert person.leaves() == 255
        assert said in person.shown and "Wake it?" not in person.shown
    assert not emulator.events(method="POST")


def share(start_emulator: Start, user: User, answer: str) -> tuple[Emulator, Person, list[bytes]]:
    """Let several ssh wait for one person's answer; return what each of them said."""
    emulator = start_emulator(*SLEEPING)
    user.use(emulator)
    user.settings('wake = "ask"\n')
    with at_terminal(user, "dm-foo", "echo asked") as person:
        person.sees(QUESTION)
        others = [user.start_ssh("dm-foo", "echo shared", start_new_session=True) for _ in range(4)]
        lines = [first_line(other) for other in others]
        assert set(lines) == {
            b"dcs-proxy: dm-foo: waiting, for another ssh asks whether to wake it\n"
        }
        person.type(answer)
        person.leaves()
        ends = [other.communicate(timeout=60) for other in others]
    return emulator, person, [out + errors for out, errors in ends]


def first_line(program: subprocess.Popen[bytes]) -> bytes:
    assert program.stderr is not None
    return program.stderr.readline()


def test_parallel_ssh_share_a_yes(start_emulator: Start, user: User) -> None:
    emulator, person, others = share(start_emulator, user, "y\n")
    assert "asked\n" in person.shown
    assert all(b"shared\n" in other for other in others), others
    assert len(emulator.creates()) == 1


def test_parallel_ssh_share_a_no(start_emulator: Start, user: User) -> None:
    emulator, person, others = share(start_emulator, user, "n\n")
    assert all(b"nobody said yes to waking it" in other for other in others), others
    assert person.shown.count("Wake it?") == 1
    assert not emulator.events(method="POST")


def test_a_wrong_policy_in_the_environment_is_named(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*SLEEPING))
    user.environment["DCS_PROXY_WAKE"] = "sometimes"
    done = user.proxy("prepare", "dm-foo")
    assert done.returncode == 3
    assert 'DCS_PROXY_WAKE must be "always", "ask" or "never"' in done.stderr
