"""What ssh shows while a machine wakes: on a terminal, in a pipe, and when it is to be quiet."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.terminal import Terminal
from tests.support.user import User

Start = Callable[..., Emulator]
WAKE = ("--machine", "dm-foo:sleeping", "--wake-seconds", "3")


def typed(user: User, *arguments: str, columns: int = 80) -> tuple[int, str]:
    """Type ssh on a terminal of its own; return its exit status and all that was written there."""
    user.environment["TERM"] = "xterm"
    with Terminal(user, "ssh", "-F", str(user.config), *arguments, columns=columns) as terminal:
        return terminal.finish(), terminal.shown


def screen(written: str) -> list[str]:
    """Return the lines that are left on the screen."""
    lines = written.replace("\r\n", "\n").rstrip("\n").split("\n")
    return [line.rpartition("\r\x1b[J")[2] for line in lines]


def test_a_terminal_counts_the_seconds_in_one_line(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*WAKE))
    status, written = typed(user, "-T", "dm-foo", "echo in")
    assert status == 0
    seconds = [int(found) for found in re.findall(r"dm-foo: waking up, (\d+) s", written)]
    assert len(seconds) >= 3 and seconds == sorted(set(seconds))
    first, second = screen(written)
    assert re.fullmatch(r"dcs-proxy: dm-foo: ready after \d+ s", first) and second == "in"
    status, written = typed(user, "-T", "dm-foo", "echo warm")
    assert (status, written) == (0, "warm\n")


def test_a_narrow_terminal_is_never_wrapped(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*WAKE))
    status, written = typed(user, "-T", "dm-foo", "echo in", columns=24)
    assert status == 0
    drawn = re.split(r"\r\x1b\[J|\n", written)
    assert {len(line) for line in drawn if "foo: w" in line} == {23}


def test_a_failure_takes_the_place_of_the_line(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*WAKE))
    user.settings("wake_seconds = 1\n")
    status, written = typed(user, "dm-foo", "true")
    assert status == 255
    first, second, *_ = screen(written)
    assert first == "dcs-proxy: dm-foo: not ready after 1 s"
    assert second.startswith("dcs-proxy: hint: try again")


def test_a_pipe_gets_plain_lines(start_emulator: Start, user: User) -> None:
    user.use(start_emulator(*WAKE))
    user.environment["TERM"] = "xterm"
    done = user.ssh("dm-foo", "true")
    assert done.stderr == "dcs-proxy: dm-foo: waking up, at most 300 s\n"


@pytest.mark.parametrize(
    "arguments", [["-q"], ["-o", "LogLevel=ERROR"], ["-oLogLevel=QUIET"], ["-Tqn"]], ids=" ".join
)
def test_a_quiet_ssh_is_quiet(start_emulator: Start, user: User, arguments: list[str]) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    done = user.ssh(*arguments, "dm-foo", "echo in")
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")
    assert user.ssh("-q", "dm-none", "true").stderr.startswith("dcs-proxy: dm-none: no such")


def test_scp_passes_its_q_on(start_emulator: Start, user: User) -> None:
    user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    (user.root / "file").write_text("text\n")
    done = user.run(["scp", "-q", "-F", str(user.config), "file", "dm-foo:"])
    assert (done.returncode, done.stderr) == (0, "")
