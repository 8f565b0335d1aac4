from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.doctor import editors
from dcs_proxy.doctor.editors import (
    Editor,
    explain_settings,
    find_editors,
    find_value,
    remote_ssh_settings,
    settings_with_machines,
)
from dcs_proxy.local.settings import Settings

LIMIT = "remote.SSH.connectTimeout"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(name: str) -> Editor:
    (editor,) = (each for each in find_editors({}) if each.name == name)
    return editor


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ("", None),
        ("{}", None),
        ('{"remote.SSH.connectTimeout": 60}', 60),
        ('{"remote.SSH.connectTimeout" : "90",}', "90"),
        ('{"remote.SSH.connectTimeout": -1}', -1),
        ('{"remote.SSH.connectTimeout": true}', True),
        ('{"remote.SSH.connectTimeout": false, "a": 1}', False),
        ('{"remote.SSH.connectTimeout": null}', None),
        ('{"remote.SSH.connectTimeout": [1]}', None),
        ('{"remote.SSH.connectTimeout": "C:\\\\a b\\\\\\"c\\".bat"}', 'C:\\a b\\"c".bat'),
        ('{"remote.SSH.connectTimeout": "https://x/*y*/"}', "https://x/*y*/"),
        ('{\n// "remote.SSH.connectTimeout": 1\n"a": "//", /* "remote.SSH.connectTimeout": 2 */}',
         None),
        ('{"a": "x // y", "remote.SSH.connectTimeout": 7 // why\n}', 7),
        ('{"remote.SSH.connectTimeout": 1, "remote.SSH.connectTimeout": 2}', 2),
        ('{"a": "\\"remote.SSH.connectTimeout\\": 5"}', None),
        ('{"remote.SSH.connectTimeout": 8, "half', 8),
        ('{"remote.SSH.connectTimeoutX": 8}', None),
        ('{"a": ["remote.SSH.connectTimeout"]}', None),
        ('/* never closed "remote.SSH.connectTimeout": 8', None),
    ],
)  # fmt: skip
def test_settings_are_read_with_tolerance(settings: str, value: object) -> None:
    assert find_value(settings, LIMIT) == value


@given(st.text(alphabet='{}",:/*\\ \nremote.SSH.connectTimeout01'))
def test_no_settings_are_too_strange(settings: str) -> None:
    find_value(settings, LIMIT)


@pytest.mark.parametrize(
    ("written", "seconds"), [("60", 60), ('"90"', 90), ("0", 15), ("-3", 15), ("true", 15)]
)
def test_a_limit_that_is_no_number_above_zero_counts_as_not_set(
    home: Path, written: str, seconds: int
) -> None:
    write(home / ".config/Code/User/settings.json", f'{{"{LIMIT}": {written}}}')
    assert found("VS Code").timeout_s == seconds


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("VS Code", ".config/Code"),
        ("VS Code Insiders", ".config/Code - Insiders"),
        ("Cursor", ".config/Cursor"),
        ("VS Code (Flatpak)", ".var/app/com.visualstudio.code/config/Code"),
    ],
)
def test_the_settings_of_each_editor_with_openssh(home: Path, name: str, directory: str) -> None:
    path = write(home / directory / "User/settings.json", f'{{"{LIMIT}": 20}}')
    runs_here = "Flatpak" not in name
    assert found(name) == Editor(name, str(path), True, runs_here, timeout_s=20)


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("VSCodium", ".config/VSCodium"),
        ("Windsurf", ".config/Windsurf"),
        ("Trae", ".config/Trae"),
        ("Kiro", ".config/Kiro"),
        ("VSCodium (Flatpak)", ".var/app/com.vscodium.codium/config/VSCodium"),
    ],
)
def test_an_editor_with_ssh2_has_no_limit_that_matters(
    home: Path, name: str, directory: str
) -> None:
    path = write(home / directory / "User/settings.json", f'{{"{LIMIT}": 20}}')
    assert find_editors({}) == []
    path.write_text('{"remote.SSH.configFile": "~/mine"}')
    editor = found(name)
    assert (editor.runs_openssh, editor.timeout_s) == (False, None)
    assert editor.config_file == f"{home}/mine"
    # A Flatpak has another file system.
    assert editor.runs_here is ("Flatpak" not in name)


@pytest.mark.parametrize(
    ("extension", "is_remote_ssh"),
    [
        ("ms-vscode-remote.remote-ssh-0.112.0", True),
        ("anysphere.remote-ssh-1.0.4", True),
        ("ms-vscode-remote.remote-ssh-edit-0.87.0", False),
    ],
)
def test_without_settings_the_extension_tells(
    home: Path, extension: str, is_remote_ssh: bool
) -> None:
    for directory in (".vscode", ".cursor"):
        (home / directory / "extensions" / extension).mkdir(parents=True)
    assert [each.timeout_s for each in find_editors({})] == [15, 15] * is_remote_ssh


def test_the_extension_in_a_flatpak_is_found(home: Path) -> None:
    inside = home / ".var/app/com.visualstudio.code/data/vscode/extensions"
    (inside / "ms-vscode-remote.remote-ssh-0.112.0").mkdir(parents=True)
    assert [each.name for each in find_editors({})] == ["VS Code (Flatpak)"]


def test_settings_may_be_long_and_of_any_bytes(home: Path) -> None:
    path = write(home / ".config/Code/User/settings.json", "")
    path.write_bytes(b"// \xff" + b"x" * 2**20 + f'\n{{"{LIMIT}": 20}}'.encode())
    assert found("VS Code").timeout_s == 20


def test_settings_on_windows_that_cannot_be_read_name_no_ssh(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "settings.json").mkdir()
    monkeypatch.setattr(editors, "_WINDOWS", f"{home}/settings.json")
    assert find_editors({}) == []


def test_other_settings_are_no_sign_of_remote_ssh(home: Path) -> None:
    write(home / ".config/Code/User/settings.json", '{"editor.fontSize": 12}')
    assert find_editors({}) == []


def test_what_remote_ssh_is_told_to_use(home: Path) -> None:
    write(
        home / ".config/Code/User/settings.json",
        '\ufeff{\n  // mine\n  "remote.SSH.path": "/opt/ssh",\n'
        '  "remote.SSH.configFile": "/etc/mine",\n  "remote.SSH.useLocalServer": false,\n}\n',
    )
    editor = found("VS Code")
    assert (editor.ssh_path, editor.config_file) == ("/opt/ssh", "/etc/mine")
    assert not editor.uses_local_server and editor.timeout_s == 15


def test_xdg_config_home_is_followed(home: Path) -> None:
    write(home / "elsewhere/Code/User/settings.json", f'{{"{LIMIT}": 20}}')
    assert find_editors({}) == []
    (editor,) = find_editors({"XDG_CONFIG_HOME": str(home / "elsewhere")})
    assert editor.timeout_s == 20


def test_on_macos_the_settings_are_in_the_library(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    settings = write(
        home / "Library" / "Application Support" / "Code" / "User" / "settings.json",
        '{"remote.SSH.remotePlatform": {"dm-*": "linux"}}',
    )
    environment = {"XDG_CONFIG_HOME": str(home / "elsewhere")}
    assert settings_with_machines(environment) == [str(settings)]


@pytest.mark.parametrize("is_chosen", [True, False])
def test_on_wsl_the_editor_on_windows_counts_if_its_ssh_is_chosen(
    home: Path, monkeypatch: pytest.MonkeyPatch, is_chosen: bool
) -> None:
    pattern = f"{home}/c/Users/*/AppData/Roaming/Code/User/settings.json"
    monkeypatch.setattr(editors, "_WINDOWS", pattern)
    chosen = r'"remote.SSH.path": "C:\\Users\\you\\wsl-ssh.bat",' if is_chosen else ""
    path = write(
        home / "c/Users/you/AppData/Roaming/Code/User/settings.json", f'{{{chosen} "{LIMIT}": 20}}'
    )
    expected = Editor("VS Code on Windows", str(path), True, False, 20, r"C:\Users\you\wsl-ssh.bat")
    assert find_editors({}) == [expected] * is_chosen


def test_what_remote_ssh_needs_and_why() -> None:
    settings = Settings(wake_seconds=77)
    assert remote_ssh_settings(settings) == {
        "remote.SSH.connectTimeout": 77, "remote.SSH.remotePlatform": {"dm-*": "linux"}
    }  # fmt: skip
    lines = explain_settings(settings)
    assert [line.split(": ")[0].split(", ")[0] for line in lines] == [
        "remote.SSH.connectTimeout", "remote.SSH.remotePlatform", "in VS Code"
    ]  # fmt: skip
    assert "77 s" in lines[0] and "after 15 s" in lines[0]


@pytest.mark.parametrize("name", [editors.CONFIG_FILE, editors.SSH_PATH, LIMIT])
def test_one_setting_is_enough_to_be_an_editor_for_machines(home: Path, name: str) -> None:
    path = home / ".config" / "Code" / "User" / "settings.json"
    write(path, f'{{"{name}": "/chosen"}}')
    assert found("VS Code").runs_here
    # Who can change the settings could choose the program that doctor runs.
    path.chmod(0o666)
    assert not found("VS Code").runs_here


def test_settings_on_windows_name_machines_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home / "windows" / "settings.json", f'{{"{editors.SSH_PATH}": "x"}}')
    monkeypatch.setattr(editors, "_WINDOWS", f"{home}/*/settings.json")
    assert settings_with_machines({}) == []
    path.write_text(f'{{"{editors.SSH_PATH}": "x", "{editors.PLATFORM}": {{"dm-*": "linux"}}}}')
    assert settings_with_machines({}) == [str(path)]
