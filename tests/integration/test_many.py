"""Many at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]


def outcomes(programs: list[subprocess.Popen[bytes]]) -> list[tuple[int, bytes, bytes]]:
    """Wait for all of them; return exit status, output and errors of each."""
    found = []
    for program in programs:
        out, errors = program.communicate(timeout=300)
        found.append((program.returncode, out, errors))
    return found


# Names of both kinds take the same way; fifty at once of one kind show what is shared among many.
both_ids = pytest.mark.parametrize(("ids", "count"), [("dm", 50), ("uuid", 10)], indirect=["ids"])


@both_ids
def test_many_ssh_to_one_sleeping_machine_make_one_post(
    start_emulator: Start, user: User, count: int
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "2")
    user.use(emulator)
    programs = [user.start_ssh("dm-foo", f"echo {number}") for number in range(count)]
    for number, (status, out, errors) in enumerate(outcomes(programs)):
        assert (status, out) == (0, b"%d\n" % number), errors
    assert len(emulator.creates()) == 1


@both_ids
def test_ssh_to_as_many_machines_all_succeed(start_emulator: Start, user: User, count: int) -> None:
    machines = [f"dm-m{number}" for number in range(count)]
    arguments = [word for name in machines for word in ("--machine", f"{name}:sleeping")]
    emulator = start_emulator(*arguments, "--wake-seconds", "1")
    user.use(emulator)
    programs = [user.start_ssh(name, "echo $DCS_MACHINE") for name in machines]
    for name, (status, out, errors) in zip(machines, outcomes(programs), strict=True):
        assert (status, out) == (0, f"{name}\n".encode()), errors
    assert len(emulator.sessions_created()) == count
