"""Results go to stdout like a Unix filter's: a closed pipe ends a command silently."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import dcs_proxy
from dcs_proxy.arguments import build_parser
from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]
CONFIG = "--ssh-config=config"
RESULTS = [
    ["list"], ["list", "--json"],
    ["status"], ["status", "--json"],
    ["config-ssh", CONFIG, "--dry-run"], ["config-ssh", CONFIG, "--vscode"],
    ["config-ssh", CONFIG], ["config-ssh", CONFIG, "--remove"],
    ["completion", "bash"],
    ["log"], ["log", "-f", "dm-foo"], ["log", "-f", "dm-other"],
    ["doctor"], ["doctor", "--json"],
    ["emulator", "--list-faults"], ["emulator"],
    ["alias", "dm-web", "dm-foo"], ["alias"], ["alias", "--remove", "dm-web"],
    ["wake", "dm-foo"], ["wake", "--all"], ["close", "dm-foo"], ["close", "--all"],
    ["prepare", "dm-foo"],
    ["login", "--stdin", "--file", "--yes"], ["logout", "--file"], ["--version"],
    ["version"], ["help"], ["help", "list"],
    ["uninstall", "--yes"],
]  # fmt: skip
# It writes nothing to stdout but the connection.
WITHOUT_RESULTS = {"dial"}
HELP = [
    ["--help"], ["dm-foo", "22", "--help"],
    *([name, "--help"] for name in build_parser().commands),
]  # fmt: skip


@pytest.fixture
def ready(start_emulator: Start, user: User) -> User:
    """A user with a machine, a session, a log and an ssh config."""
    user.use(start_emulator("--machine", "dm-foo"))
    assert user.ssh("dm-foo", "true").returncode == 0
    return user


def start(user: User, arguments: list[str], stdout: int, *program: str) -> subprocess.Popen[bytes]:
    words = program or ("-m", "dcs_proxy")
    return user.start(sys.executable, *words, *arguments, stdout=stdout, stdin=subprocess.PIPE)


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def end(user: User, program: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return what a program ends with, and its errors."""
    key = user.environment["DEDALUS_API_KEY"].encode()
    _, errors = program.communicate(key, timeout=LIMIT_S)
    return program.returncode, errors.decode()


def outcomes(
    user: User, commands: list[list[str]], stdout: int, *program: str
) -> dict[str, tuple[int, str]]:
    return {" ".join(words): end(user, start(user, words, stdout, *program)) for words in commands}


def test_a_closed_pipe_ends_every_command_silently(ready: User) -> None:
    writer = closed_pipe()
    found = outcomes(ready, RESULTS, writer)
    os.close(writer)
    # What is not a result still goes to stderr.
    statuses = {words: status for words, (status, _) in found.items()}
    assert statuses == dict.fromkeys(found, 0), found
    for words, (_, errors) in found.items():
        assert "pipe" not in errors.lower() and "Errno" not in errors, (words, errors)


def test_both_streams_closed_end_every_command_as_one_does(ready: User) -> None:
    for words in RESULTS:
        writer = closed_pipe()
        program = ready.start(
            sys.executable, "-m", "dcs_proxy", *words,
            stdout=writer, stderr=writer, stdin=subprocess.PIPE,
        )  # fmt: skip
        os.close(writer)
        program.communicate(ready.environment["DEDALUS_API_KEY"].encode(), timeout=LIMIT_S)
        assert program.returncode == 0, words


def test_every_command_is_tried(user: User) -> None:
    assert {words[0] for words in RESULTS} | WITHOUT_RESULTS >= set(build_parser().commands)


def test_a_closed_pipe_ends_every_help_silently(user: User) -> None:
    user.environment["DEDALUS_API_KEY"] = ""
    writer = closed_pipe()
    found = outcomes(user, HELP, writer)
    main = os.path.join(os.path.dirname(dcs_proxy.__file__), "__main__.py")
    by_path = outcomes(user, HELP[:1], writer, main)  # as ssh runs it
    os.close(writer)
    assert found == dict.fromkeys(found, (0, ""))
    assert list(by_path.values()) == [(0, "")]


HINT = "dcs-proxy: hint: see whether the disk is full, or send the output elsewhere\n"


def test_output_that_cannot_be_written_is_an_error(ready: User) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    commands = [["list"], ["config-ssh", CONFIG, "--dry-run"], ["emulator"], ["--help"]]
    found = outcomes(ready, commands, full)
    os.close(full)
    said = f"dcs-proxy: cannot write to standard output: No space left on device\n{HINT}"
    assert found == dict.fromkeys(found, (1, said))


def test_closed_descriptors_are_an_error_or_nothing(ready: User) -> None:
    for closing, said in (
        (">&-", f"dcs-proxy: cannot write to standard output: Bad file descriptor\n{HINT}"),
        (">&- 2>&-", ""),
    ):
        script = f"{sys.executable} -m dcs_proxy list {closing}"
        done = ready.run(["sh", "-c", script])
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_logout_removes_every_key_though_nobody_reads_its_report(ready: User) -> None:
    for arguments in (["login", "--stdin", "--file", "--yes"], ["logout", "--file"]):
        writer = closed_pipe()
        assert end(ready, start(ready, arguments, writer))[0] == 0
        os.close(writer)
        assert any(ready.root.rglob("api-key")) == (arguments[0] == "login")
