"""Results that are written after their reader has closed the pipe, as after ``| true``."""

from __future__ import annotations

import os

import pytest

from tests.integration.harness import User


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "--version",
        "list --help",
        "dm-foo 22 --help",
        "completion bash",
        "emulator --list-faults",
        "config-ssh --vscode",
        "config-ssh --remove",
    ],
)
def test_a_closed_pipe_is_not_a_failure(user: User, line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = user.proxy(*line.split(), stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
