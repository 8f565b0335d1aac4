"""Transcripts: commands and what they show, as text, played against the emulator with a real ssh.

A line that begins with ``$ `` is a command; what follows, up to the next one, is all that it
shows, stdout and stderr together.  ``...`` stands for any text within a line and, on a line of its
own, for any lines.  ``[2]`` on the last line is the exit status, where it is not 0.  What comes
before the first command is for the reader, and so are empty lines before a command.

All commands of a transcript run in one shell, in the home of a new user, which is shown as
``/home/you``.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.emulator import Emulator
from tests.support.user import User


@dataclass(frozen=True)
class Step:
    """One command with what it shows and its exit status."""

    command: str
    output: tuple[str, ...] = ()
    status: int = 0

    def __str__(self) -> str:
        status = [f"[{self.status}]"] if self.status else []
        return "\n".join([f"$ {self.command}", *self.output, *status])


def parse(text: str) -> list[Step]:
    """Return the steps of a transcript."""
    steps: list[Step] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *output = part.rstrip("\n").split("\n")
        status = re.fullmatch(r"\[(\d+)\]", output[-1]) if output else None
        if status:
            del output[-1]
        steps.append(Step(command, tuple(output), int(status[1]) if status else 0))
    return steps


def matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Tell whether lines are the expected ones, in which ``...`` stands for anything."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in actual)) is not None


def run_commands(user: User, commands: Sequence[str]) -> list[Step]:
    """Run commands in one shell; return what they showed."""
    mark = secrets.token_hex(8)
    # A group, not a subshell, so that `export` and `cd` last.
    script = "".join(
        f"{{ {command}\n}} </dev/null 2>&1\nprintf '\\n%s %s\\n' {mark} $?\n"
        for command in commands
    )
    shown = user.run(["sh"], input=script, cwd=user.home)
    assert shown.stderr == ""
    text = shown.stdout.replace(str(user.home), "/home/you")
    parts = re.split(rf"\n{mark} (\d+)\n", text)
    assert len(parts) == 2 * len(commands) + 1, shown.stdout
    return [
        Step(command, tuple(output.splitlines()), int(status))
        for command, output, status in zip(commands, parts[::2], parts[1::2], strict=False)
    ]


def new_user(user: User, emulator: Emulator, bin_directory: Path) -> User:
    """Make `user` one who has installed the program and set up nothing.

    ssh takes the home from passwd, not from HOME, so programs that name the config file go first.
    """
    for variable in ("DCS_PROXY_HOME", "DCS_PROXY_CONFIG"):
        del user.environment[variable]
    user.state = user.home / ".ssh" / "dcs-proxy"
    bin_directory.mkdir()
    programs = {name: f'{shutil.which(name)} -F "$HOME/.ssh/config"' for name in ("ssh", "scp")}
    programs["dcs-proxy"] = f"{sys.executable} -m dcs_proxy"
    for name, command in programs.items():
        (bin_directory / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (bin_directory / name).chmod(0o755)
    user.environment["LC_ALL"] = "C.UTF-8"
    user.environment["PATH"] = f"{bin_directory}:{user.environment['PATH']}"
    user.environment["DEDALUS_BASE_URL"] = emulator.api
    return user
