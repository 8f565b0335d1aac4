"""OpenSSH's programs: what they say about certificates, and an agent."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tests.support.fake_agent import socket_directory
from tests.support.processes import agent_pid
from tests.support.waiting import LIMIT_S, wait_until

_ALWAYS, _FOREVER = 0, 2**64 - 1


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program; `more` is added to the environment, in which it is always UTC."""
    return subprocess.run(
        command, env={**os.environ, "TZ": "UTC", **more}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="surrogateescape", timeout=LIMIT_S, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def openssh_agent() -> Iterator[str]:
    """Run an ssh-agent; yield its socket."""
    with socket_directory() as directory:
        path = os.path.join(directory, "agent.sock")
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: agent_pid(path))
            yield path
        finally:
            process.terminate()
            process.wait(LIMIT_S)


@dataclass(frozen=True)
class Shown:
    """What `ssh-keygen -L` says of a certificate; times are unix times, options as printed."""

    kind: str
    public_key: str
    authority: str
    begins_at: int
    ends_at: int
    principals: list[str]
    critical_options: list[str]
    extensions: list[str]


def show(file: Path) -> Shown | None:
    """Return what ssh-keygen reads in a certificate's file; None if it does not take it for one."""
    program = shutil.which("ssh-keygen")
    assert program, "ssh-keygen is missing"
    done = run(program, "-L", "-f", str(file))
    if done.returncode != 0:
        return None
    # A key id may hold anything, lines like the others among them; no other field may.
    head, _, tail = done.stdout.rpartition("\n        Serial: ")
    lines = head.split("\n")
    assert lines[1].startswith("        Type: "), lines
    sections: dict[str, list[str]] = {}
    values: list[str] = []
    for line in tail.removesuffix("\n").split("\n")[1:]:
        if line.startswith(" " * 16):
            values.append(line[16:])
        else:
            name, _, value = line.strip(" ").partition(":")
            values = sections[name] = [value.strip()] if name == "Valid" else []
    (valid,) = sections["Valid"]
    begins_at, ends_at = _validity(valid)
    return Shown(
        kind=lines[1].strip().removeprefix("Type: "),
        public_key=lines[2].split()[3],
        authority=lines[3].split()[3],
        begins_at=begins_at,
        ends_at=ends_at,
        principals=sections["Principals"],
        critical_options=sections["Critical Options"],
        extensions=sections["Extensions"],
    )


def _validity(text: str) -> tuple[int, int]:
    match text.split():
        case ["forever"]:
            return _ALWAYS, _FOREVER
        case ["before", end]:
            return _ALWAYS, _moment(end)
        case ["after", begin]:
            return _moment(begin), _FOREVER
        case ["from", begin, "to", end]:
            return _moment(begin), _moment(end)
    raise AssertionError(text)


def _moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())
