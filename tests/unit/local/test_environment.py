from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from dcs_proxy.errors import UsageError
from dcs_proxy.local.environment import config_base, full_path, passwd_home, repair_home


@pytest.mark.parametrize(
    ("variable", "directory"),
    [
        ("/else/where", "/else/where"),
        ("", "/home/me/.config"),
        (None, "/home/me/.config"),
        # The files of the current directory would decide where the API key is sent.
        ("relative", "/home/me/.config"),
        ("~/config", "/home/me/.config"),
    ],
)
def test_config_files_are_where_xdg_says(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, directory: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    environment = {} if variable is None else {"XDG_CONFIG_HOME": variable}
    assert config_base(environment) == directory


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("~/x", "/home/me/x"), ("x/../y", "{here}/y"), ("/a//b/", "/a/b"), ("./~", "{here}/~"),
        ("", "{here}"),
    ],
)  # fmt: skip
def test_a_typed_path_is_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, path: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert full_path(typed) == path.format(here=os.path.realpath(tmp_path))


@pytest.mark.parametrize(
    ("home", "database", "expected"),
    [
        ("/home/me", "/home/other", "/home/me"),
        (None, "/home/me", "/home/me"),
        ("", "/home/me", "/home/me"),
        (".", "/home/me", "/home/me"),
        ("~", "/home/me", "/home/me"),
        ("relative", None, "/"),
        ("", None, "/"),
        (None, None, "/"),
    ],
)
def test_no_home_is_in_the_current_directory(
    monkeypatch: pytest.MonkeyPatch, home: str | None, database: str | None, expected: str
) -> None:
    monkeypatch.setattr("dcs_proxy.local.environment.passwd_home", lambda: database)
    environment = {} if home is None else {"HOME": home}
    repair_home(environment)
    assert environment == {"HOME": expected}


def test_a_current_directory_that_was_removed_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    assert full_path("/complete") == "/complete"
    with pytest.raises(UsageError) as caught:
        full_path("file")
    assert caught.value.message.startswith('"file" is relative to the current directory')
    assert caught.value.hint == "change to another directory: cd"


def test_the_home_of_the_user_database_is_not_the_one_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert passwd_home() == pwd.getpwuid(os.geteuid()).pw_dir

    def fail(uid: int) -> None:
        assert uid == os.geteuid()
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert passwd_home() is None
