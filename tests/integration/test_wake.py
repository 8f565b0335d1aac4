"""dcs-proxy wake: many machines at once, and what the next ssh finds."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable

from tests.support.emulator import Emulator
from tests.support.terminal import Terminal
from tests.support.user import User, helpers_for
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]


def sleeping(*names: str, wake_s: float = 0.5) -> list[str]:
    words = [word for name in names for word in ("--machine", f"{name}:sleeping")]
    return [*words, "--wake-seconds", str(wake_s)]


def woken(output: str) -> list[str]:
    """Return the machines that are said to be ready; everything else is an error."""
    lines = output.splitlines()
    found = [re.fullmatch(r"(\S+): ready after \d+\.\d s", line) for line in lines]
    assert all(found), output
    return sorted(match[1] for match in found if match)


def test_the_next_ssh_is_warm(start_emulator: Start, user: User) -> None:
    user.settings('[aliases]\ndm-web = "dm-foo"\n')
    emulator = start_emulator(*sleeping("dm-foo"))
    user.use(emulator)
    done = user.proxy("wake", "dm-web")
    assert (done.returncode, woken(done.stdout)) == (0, ["dm-foo"])
    assert done.stderr == "dcs-proxy: dm-foo: waking up, at most 300 s\n"
    requests = len(emulator.events(event="request"))
    log = user.log()
    for name in ("dm-foo", "dm-web"):
        # Once one has ended, the next asks about the session: these stay.
        ssh = user.start_ssh(name, "echo $DCS_MACHINE; sleep 1000")
        assert ssh.stdout and ssh.stdout.readline() == b"dm-foo\n"
    assert len(emulator.events(event="request")) == requests
    said = user.log().removeprefix(log).splitlines()
    assert len(said) == 2 and all(" warm=yes " in line for line in said)


def test_twenty_are_woken_at_once_and_one_fails(start_emulator: Start, user: User) -> None:
    names = [f"dm-ci-{number:02}" for number in range(20)]
    emulator = start_emulator(
        *sleeping(*names, wake_s=1), "--machine", "dm-other:sleeping",
        "--fault", "dm-ci-07=400/POST", "--fault", "dm-ci-13=403/POST",
    )  # fmt: skip
    user.use(emulator)
    done = user.proxy("wake", "dm-ci-13", "dm-ci-*")
    assert done.returncode == 5, "that of the first in the order given"
    assert woken(done.stdout) == [n for n in names if n not in ("dm-ci-07", "dm-ci-13")]
    assert 'dcs-proxy: dm-ci-07: the API answered "the request is malformed"' in done.stderr
    assert "dcs-proxy: dm-ci-13: the API denied permission" in done.stderr
    assert len(emulator.sessions_created()) == 18
    assert emulator.control("GET", "state")["machines"]["dm-other"] == "sleeping"
    assert 1 < most_at_once(user) <= 8
    assert user.ssh("dm-ci-19", "echo in").stdout == "in\n"


def most_at_once(user: User) -> int:
    """Return how many wakes the log shows under way at the same time."""
    under_way, most = 0, 0
    for line in user.log().splitlines():
        under_way += " session machine=" in line
        most = max(most, under_way)
        under_way -= " ready machine=" in line
    return most


def test_all_means_all_that_are_not_going(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*sleeping("dm-a", "dm-b"), "--machine", "dm-gone:destroyed")
    user.use(emulator)
    done = user.proxy("wake", "--all")
    assert (done.returncode, woken(done.stdout)) == (0, ["dm-a", "dm-b"])


def test_all_of_none_is_no_failure(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-gone:destroyed"), config=False)
    done = user.proxy("wake", "--all")
    assert (done.returncode, done.stderr) == (0, "dcs-proxy: the account has no machines\n")


def test_a_pattern_matches_aliases_and_one_that_matches_nothing_is_told(
    start_emulator: Start, user: User
) -> None:
    user.settings('[aliases]\ndm-web-1 = "dm-a"\ndm-web-2 = "dm-a"\n')
    emulator = start_emulator(*sleeping("dm-a", "dm-b"))
    user.use(emulator)
    done = user.proxy("wake", "dm-web-?", "dm-a")
    assert (done.returncode, woken(done.stdout)) == (0, ["dm-a"])
    none = user.proxy("wake", "dm-b", "dm-x*")
    assert none.returncode == 6
    assert none.stderr == (
        'dcs-proxy: no machine matches "dm-x*"\ndcs-proxy: hint: dcs-proxy list\n'
    )
    assert {entry["machine"] for entry in emulator.creates()} == {"dm-a"}


def test_names_are_not_looked_up_in_the_list(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*sleeping("dm-a"))
    user.use(emulator, config=False)
    assert user.proxy("wake", "dm-a").returncode == 0
    assert not emulator.events(path="/v1/machines")
    for wrong, said in (([], "name the machines, or use --all"),
                        (["--all", "dm-a"], "give either --all or the names")):  # fmt: skip
        done = user.proxy("wake", *wrong)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_policy_does_not_bind_who_wakes_by_hand(start_emulator: Start, user: User) -> None:
    emulator = start_emulator(*sleeping("dm-foo"))
    user.use(emulator)
    user.settings('wake = "never"\n')
    assert user.proxy("wake", "dm-foo").returncode == 0
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert len(emulator.creates()) == 1


def test_a_machine_that_is_ready_is_confirmed(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    assert user.ssh("dm-foo", "true").returncode == 0
    emulator.control("POST", "machines/dm-foo/close-sessions")
    done = user.proxy("wake", "dm-foo")
    assert (done.returncode, done.stderr) == (0, "")
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
    assert len(emulator.sessions_created()) == 2


def test_while_a_wake_replaces_a_dead_session_ssh_waits_for_it(
    start_emulator: Start, user: User
) -> None:
    """Nothing that a wake has found to be dead is used by the next ssh, however warm it was."""
    emulator = start_emulator("--machine", "dm-foo", "--wake-seconds", "2")
    user.use(emulator)
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
    for interrupted in (False, True):
        emulator.control("PUT", "machines/dm-foo", phase="sleeping")
        before = len(emulator.creates())
        wake = user.start(sys.executable, "-m", "dcs_proxy", "wake", "dm-foo")
        wait_until(lambda n=before: len(emulator.creates()) > n)
        if interrupted:
            wake.send_signal(signal.SIGINT)
            wake.communicate()
        done = user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
        wake.communicate()
        assert len(emulator.creates()) == before + 1


def test_what_a_wake_could_not_replace_is_not_used_either(
    start_emulator: Start, user: User
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator)
    for _ in range(2):
        assert user.ssh("dm-foo", "true").returncode == 0
    emulator.control("POST", "machines/dm-foo/close-sessions")
    emulator.control("POST", "faults", fault="dm-foo=403/POST@1")
    assert user.proxy("wake", "dm-foo").returncode == 5
    done = user.ssh("dm-foo", "echo in")
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_what_is_wrong_for_all_is_told_once(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*sleeping("dm-a", "dm-b")), config=False)
    del user.environment["DEDALUS_API_KEY"]
    done = user.proxy("wake", "dm-a", "dm-b")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("there is no API key") == 1


def wake_at_terminal(user: User, *names: str, **more: int) -> Terminal:
    return Terminal(user, sys.executable, "-m", "dcs_proxy", "wake", *names, **more)


def test_a_terminal_shows_each_machine_in_place(start_emulator: Start, user: User) -> None:
    user.environment["TERM"] = "xterm"
    user.use(start_emulator(*sleeping("dm-a", "dm-b", wake_s=2.5)), config=False)
    with wake_at_terminal(user, "dm-a", "dm-b", columns=46) as terminal:
        terminal.wait_for("dcs-proxy: 0 of 2 done")
        assert terminal.finish() == 0
    assert re.search(r"dm-a  \d+ s  waking up, at most 300 s\n", terminal.shown)
    assert max(map(len, terminal.shown.splitlines())) <= 45 + len("\x1b[2A\x1b[J")
    assert "\r\x1b[2A\x1b[J" in terminal.shown
    assert woken(screen(terminal.shown)) == ["dm-a", "dm-b"]


def screen(shown: str) -> str:
    """Return what stands on a terminal in the end, which knows what the program uses."""
    lines = [""]
    for part in re.split(r"(\r(?:\x1b\[\d+A)?\x1b\[J|\n)", shown):
        if up := re.fullmatch(r"\r(?:\x1b\[(\d+)A)?\x1b\[J", part):
            lines = [*lines[: -1 - int(up[1] or 0)], ""]
        elif part == "\n":
            lines.append("")
        else:
            assert "\x1b" not in part
            lines[-1] += part
    return "\n".join(lines)


def test_a_terminal_that_can_do_nothing_gets_plain_lines(start_emulator: Start, user: User) -> None:
    user.environment["TERM"] = "dumb"
    user.use(start_emulator(*sleeping("dm-a")), config=False)
    with wake_at_terminal(user, "dm-a") as terminal:
        assert terminal.finish() == 0
    assert "\x1b" not in terminal.shown
    assert terminal.shown.startswith("dcs-proxy: dm-a: waking up, at most 300 s\n")


def test_ctrl_c_leaves_the_wakes_running_and_says_so(start_emulator: Start, user: User) -> None:
    user.environment["TERM"] = "xterm"
    names = [f"dm-m{number}" for number in range(10)]
    emulator = start_emulator(*sleeping(*names, wake_s=1000))
    user.use(emulator)
    with wake_at_terminal(user, *names) as terminal:
        wait_until(lambda: has_begun(user, names) == 8)
        terminal.type("\x03")
        assert terminal.finish() == 130
    assert screen(terminal.shown) == (
        "dcs-proxy: interrupted: 8 still waking (the next ssh resumes them), 2 not started\n"
    )
    assert not helpers_for(user)
    for name in names:
        emulator.control("PUT", f"machines/{name}", phase="running")
    again = user.proxy("wake", "dm-m0", "dm-m1")
    assert (again.returncode, woken(again.stdout)) == (0, ["dm-m0", "dm-m1"])
    assert user.ssh("dm-m2", "echo in").stdout == "in\n"
    assert len(emulator.creates()) == 8


def has_begun(user: User, names: list[str]) -> int:
    attempts = [user.record(name).get("attempt", {}) for name in names]
    return sum(1 for attempt in attempts if attempt.get("session_id"))
