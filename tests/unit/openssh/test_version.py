from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.errors import ConfigError
from dcs_proxy.openssh import version as module
from dcs_proxy.openssh.version import Version, find_client, missing_features, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u7, OpenSSL 3.0.17 1 Jul 2025", (9, 2)),
        ("OpenSSH_10.0p2", (10, 0)),
        ("OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2", (9, 5)),
        ("OpenSSH_7.6", (7, 6)),
        ("Sun_SSH_1.1.9", None),
        ("Dropbear v2022.83", None),
        (f"OpenSSH_9.{'1' * 5000}", (9, 1111)),
        (f"OpenSSH_{'1' * 5000}.1", None),
        ("", None),
    ],
)
def test_the_version_is_read(text: str, version: tuple[int, int] | None) -> None:
    assert parse_version(text) == version


@given(st.text())
def test_any_text_is_a_version_or_none(text: str) -> None:
    parse_version(text)
    parse_version(f"OpenSSH_{text}")


def test_an_older_ssh_never_loses_less() -> None:
    counts = [
        len(missing_features(Version(*v)))
        for v in [(7, 6), (8, 1), (8, 2), (8, 8), (8, 9), (10, 1)]
    ]
    assert counts == [2, 2, 1, 1, 0, 0]


def put_ssh(directory: Path, says: str) -> None:
    program = directory / "ssh"
    program.write_text(f"#!/bin/sh\n[ $# = 1 ] && [ $1 = -V ] && echo '{says}' >&2\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("says", "message", "hint"),
    [
        (None, "there is no ssh in PATH", "install OpenSSH's client"),
        ("Dropbear v2022.83", "is not OpenSSH: Dropbear v2022.83", "install OpenSSH's client"),
        ("\x1b[2J", "is not OpenSSH: ", "install OpenSSH's client"),
        ("OpenSSH_7.5p1, x", "OpenSSH_7.5p1 at .* is too old", "install OpenSSH 7.9 or later"),
        ("OpenSSH_7.8p1, x", "OpenSSH_7.8p1 at .* is too old", "install OpenSSH 7.9 or later"),
    ],
)
def test_an_ssh_that_cannot_do_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str | None, message: str, hint: str
) -> None:
    if says is not None:
        put_ssh(tmp_path, says)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=message) as caught:
        find_client()
    assert caught.value.hint.startswith(hint)
    assert caught.value.message.isprintable()


def test_the_oldest_version_that_was_tested_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_ssh(tmp_path, "OpenSSH_7.9p1, OpenSSL")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_client().version == (7, 9)


def test_the_first_ssh_in_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_ssh(tmp_path, "OpenSSH_8.8p1, OpenSSL")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin")
    assert find_client() == (f"{tmp_path}/ssh", "OpenSSH_8.8p1", (8, 8))


def test_an_ssh_without_a_user_is_told_from_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_ssh(tmp_path, "No user exists for uid 1234")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^user id \d+ has no entry in the user database"):
        find_client()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "/bin/ssh is not OpenSSH: no answer after 10 s"),
        (OSError(8, "Exec format error"),
         "/bin/ssh is not OpenSSH: [Errno 8] Exec format error"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_run_is_no_ssh(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(command: list[str], *, environment: object, limit_s: float) -> None:
        assert (command, environment, limit_s) == (["/bin/ssh", "-V"], os.environ, 10)
        raise error

    monkeypatch.setattr(module, "run", fail)
    with pytest.raises(ConfigError) as caught:
        module.read_client("/bin/ssh")
    assert caught.value.message == said
