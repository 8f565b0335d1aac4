from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dcs_proxy.client import client_id, option_letters, wants_session


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
    assert "".join(option_letters(line.split())) == letters


def test_a_process_has_one_identity_for_its_life() -> None:
    mine = client_id(os.getpid())
    assert mine == client_id(os.getpid())
    assert mine.startswith(f"{os.getpid()}:")
    assert client_id(os.getppid()) != mine


def test_who_is_no_ssh_wants_a_session() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "-G"], stdin=subprocess.PIPE
    ) as process:
        assert wants_session(process.pid)
        process.communicate(b"\n")
    assert wants_session(2**22 + 1)
