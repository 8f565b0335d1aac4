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


@pytest.mark.both_ids
def test_fifty_ssh_to_one_sleeping_machine_make_one_post(start_emulator: Start, user: User) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "2")
    user.use(emulator)
    programs = [user.start_ssh("dm-foo", f"echo {number}") for number in range(50)]
    for number, (status, out, errors) in enumerate(outcomes(programs)):
        assert (status, out) == (0, b"%d\n" % number), errors
    assert len(emulator.creates()) == 1


@pytest.mark.both_ids
def test_fifty_ssh_to_fifty_machines_all_succeed(start_emulator: Start, user: User) -> None:
    machines = [f"dm-m{number}" for number in range(50)]
    arguments = [word for name in machines for word in ("--machine", f"{name}:sleeping")]
    emulator = start_emulator(*arguments, "--wake-seconds", "1")
    user.use(emulator)
    programs = [user.start_ssh(name, "echo $DCS_MACHINE") for name in machines]
    for name, (status, out, errors) in zip(machines, outcomes(programs), strict=True):
        assert (status, out) == (0, f"{name}\n".encode()), errors
    assert len(emulator.sessions_created()) == 50
