from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dcs_proxy.openssh.parent import (
    client_id,
    log_level,
    login_name,
    parse_options,
    wants_quiet,
    wants_session,
)


@pytest.mark.parametrize(
    ("line", "letters"),
    [
        ("dm-foo", ""),
        ("-G dm-foo", "G"),
        ("dm-foo -G", "G"),
        ("dm-foo ls -G", ""),
        ("-v -T -D 8080 -o ConnectTimeout=15 dm-foo bash -O extglob", "vTDo"),
        ("-oControlPath=none -vvG dm-foo", "ovvG"),
        ("-p22 dm-foo", "p"),
        ("-p 22 dm-foo -O check", "pO"),
        ("-l -G dm-foo", "l"),
        ("-- dm-foo -G", ""),
        ("dm-foo -- ls -G", ""),
        ("-O check dm-foo", "O"),
        ("", ""),
    ],
)
def test_options_are_told_from_the_command(line: str, letters: str) -> None:
    assert "".join(letter for letter, _ in parse_options(line.split())) == letters


@pytest.mark.parametrize(
    ("words", "login"),
    [
        (["dm-foo"], None),
        (["dm-foo", "ls", "-l", "me"], None),
        (["me@dm-foo"], "me"),
        (["me@you@dm-foo"], "me@you"),
        (["ssh://me@dm-foo:22"], "me"),
        (["--", "me@dm-foo"], "me"),
        (["-v", "--", "dm-foo", "me@other"], None),
        (["dm-foo", "-l", "me"], "me"),
        (["-lme", "you@dm-foo"], "me"),
        (["me@dm-foo", "-l", "you"], "me"),
        (["-l", "", "dm-foo"], ""),
        (["-o", "User=me", "-l", "you", "dm-foo"], "me"),
        (["-ouser me", "dm-foo"], "me"),
        (["-o", 'User "a b"', "dm-foo"], "a b"),
        (["-o", "UserKnownHostsFile=me", "dm-foo"], None),
        (["--"], None),
        ([], None),
    ],
)
def test_the_first_login_name_counts(words: list[str], login: str | None) -> None:
    assert login_name(parse_options(words)) == login


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("dm-foo", ""),
        ("-q dm-foo", "quiet"),
        ("dm-foo -q", "quiet"),
        ("dm-foo ls -q", ""),
        ("-Tq -p 22 dm-foo", "quiet"),
        ("-l q dm-foo", ""),
        ("-oLogLevel=ERROR dm-foo", "error"),
        ("-o loglevel=Quiet dm-foo", "quiet"),
        ('-o LogLevel="FATAL" dm-foo', "fatal"),
        ("-o LogLevel=DEBUG3 dm-foo", "debug3"),
        ("-o LogLevel=INFO -o LogLevel=QUIET dm-foo", "info"),
        ("-q -o LogLevel=INFO dm-foo", "quiet"),
        ("-o LogLevel=INFO -q dm-foo", "quiet"),
        ("-q -v dm-foo", "debug"),
        ("-v -q dm-foo", "quiet"),
        ("-o LogLevelX=QUIET -o dm-foo", ""),
        ("-o", ""),
    ],
)
def test_the_level_is_that_of_the_command_line(line: str, level: str) -> None:
    assert log_level(parse_options(line.split())) == level


def test_a_level_after_a_space_is_read_too() -> None:
    assert log_level(parse_options(["-o", "LogLevel QUIET", "dm-foo"])) == "quiet"


def test_a_process_has_one_identity_for_its_life() -> None:
    mine = client_id(os.getpid())
    assert mine == client_id(os.getpid())
    assert mine.startswith(f"{os.getpid()}:")
    assert client_id(os.getppid()) != mine


def test_who_is_no_ssh_wants_a_session() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "-G"], stdin=subprocess.PIPE
    ) as process:
        assert wants_session(process.pid) and not wants_quiet(process.pid)
        process.communicate(b"\n")
    assert wants_session(2**22 + 1)
