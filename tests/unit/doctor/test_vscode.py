from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.app import Options
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check
from dcs_proxy.doctor.vscode import check_vscode, connect_timeout, settings_with_machines


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ("", None),
        ("{}", None),
        ('{"remote.SSH.connectTimeout": 60}', 60),
        ('{"remote.SSH.connectTimeout" : "90",}', 90),
        ('{\n// "remote.SSH.connectTimeout": 1\n"a": "//", /* "remote.SSH.connectTimeout": 2 */}',
         None),
        ('{"a": "x // y", "remote.SSH.connectTimeout": 7 // why\n}', 7),
        ('{"remote.SSH.connectTimeout": 1, "remote.SSH.connectTimeout": 2}', 2),
        ('{"a": "\\"remote.SSH.connectTimeout\\": 5"}', None),
        ('{"remote.SSH.connectTimeout": 8, "half', 8),
        ('{"remote.SSH.connectTimeoutX": 8}', None),
        ('/* never closed "remote.SSH.connectTimeout": 8', None),
    ],
)  # fmt: skip
def test_vscodes_settings_are_read_with_tolerance(settings: str, seconds: int | None) -> None:
    assert connect_timeout(settings) == seconds


@given(st.text(alphabet='{}",:/*\\ \nremote.SSH.connectTimeout01'))
def test_no_settings_are_too_strange(settings: str) -> None:
    connect_timeout(settings)


def vscode(home: Path, *, extension: str = "", settings: str | None = None) -> Check | None:
    if extension:
        (home / ".vscode" / "extensions" / extension).mkdir(parents=True)
    if settings is not None:
        (home / ".config" / "Code" / "User").mkdir(parents=True)
        (home / ".config" / "Code" / "User" / "settings.json").write_text(settings)
    return check_vscode(Context(Options(str(home / "state")), {}, "", True, None))


def test_without_remote_ssh_there_is_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert vscode(tmp_path, extension="ms-vscode-remote.remote-ssh-edit-0.87.0") is None
    assert vscode(tmp_path, settings='{"editor.fontSize": 12}') is None


def test_remote_ssh_without_a_setting_does_not_wait_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check = vscode(tmp_path, extension="ms-vscode-remote.remote-ssh-0.112.0", settings="{}")
    assert check and not check.ok and "gives up after 15 s" in check.text


def test_a_long_time_limit_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check = vscode(tmp_path, settings='{"remote.SSH.connectTimeout": 120}')
    assert check and check.ok and check.text == "VS Code waits 120 s"


def test_on_macos_the_settings_are_in_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = tmp_path / "Library" / "Application Support" / "Code" / "User" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"remote.SSH.remotePlatform": {"dm-*": "linux"}}')
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}
    assert settings_with_machines(environment) == [str(settings)]
