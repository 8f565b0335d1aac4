"""The installed editors with Remote-SSH or a copy of it, and their settings.

All of them are built from VS Code's source, so their settings have the same format and names.  The
settings of Remote-SSH count only in ``User/settings.json``, not in a profile, a workspace or on the
remote side.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dcs_proxy.local.environment import config_base
from dcs_proxy.local.files import read_small
from dcs_proxy.local.settings import Settings
from dcs_proxy.local.trusted_file import find_distrust_of_file

CONNECT_TIMEOUT = "remote.SSH.connectTimeout"
CONFIG_FILE = "remote.SSH.configFile"
SSH_PATH = "remote.SSH.path"
LOCAL_SERVER = "remote.SSH.useLocalServer"
PLATFORM = "remote.SSH.remotePlatform"
DEFAULT_TIMEOUT_S = 15
_MAX_SETTINGS = 4 * 1024 * 1024
# Each program's name, settings directory, extensions directory in the home directory, and whether
# its Remote-SSH runs OpenSSH.  The others use ssh2, a library for node, and so the bridge.
_PROGRAMS = (
    ("VS Code", "Code", ".vscode", True),
    ("VS Code Insiders", "Code - Insiders", ".vscode-insiders", True),
    ("Cursor", "Cursor", ".cursor", True),
    ("VSCodium", "VSCodium", ".vscode-oss", False),
    ("Windsurf", "Windsurf", ".windsurf", False),
    ("Trae", "Trae", ".trae", False),
    ("Kiro", "Kiro", ".kiro", False),
)
# For programs that exist as a Flatpak: its name, and its extensions directory.
_FLATPAKS = {
    "VS Code": ("com.visualstudio.code", "data/vscode"),
    "VSCodium": ("com.vscodium.codium", "data/codium"),
}
# On WSL: the settings of VS Code on Windows, which can run the ssh of WSL.
_WINDOWS = "/mnt/c/Users/*/AppData/Roaming/Code/User/settings.json"
_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Editor:
    """An installed editor and its settings.

    `timeout_s` is the time limit of Remote-SSH, None if the editor has no such limit.  `ssh_path`
    and `config_file` are "" if they are not set; `uses_local_server` is Remote-SSH's default mode,
    in which output of ssh does not end the time limit.  `runs_here` is False if the editor runs in
    another file system (a Flatpak's or that of Windows), or if other users can change its settings.
    """

    name: str
    settings_file: str
    runs_openssh: bool
    runs_here: bool = True
    timeout_s: int | None = None
    ssh_path: str = ""
    config_file: str = ""
    uses_local_server: bool = True


def remote_ssh_settings(settings: Settings) -> dict[str, object]:
    """Return Remote-SSH's settings for machines: its time limit in seconds, the hosts' platform.

    Remote-SSH has accepted patterns for hosts since November 2023 (vscode-remote-release, issue
    9191), so that new machines need no entry of their own; aliases begin with ``dm-`` too.
    """
    return {CONNECT_TIMEOUT: settings.wake_seconds, PLATFORM: {"dm-*": "linux"}}


def explain_settings(settings: Settings) -> list[str]:
    """Return why each of the `remote_ssh_settings` is needed, and how to add them."""
    return [
        f"{CONNECT_TIMEOUT}: a machine may take {settings.wake_seconds} s to wake (wake_seconds), "
        f"and VS Code gives up after {DEFAULT_TIMEOUT_S} s",
        f"{PLATFORM}: machines run Linux; without it VS Code asks for each of them",
        'in VS Code, "Preferences: Open User Settings (JSON)" opens the file for these lines',
    ]


def find_editors(environment: Mapping[str, str]) -> list[Editor]:
    """Return the editors that have settings for Remote-SSH, or the extension itself."""
    places = [*_places(environment), *_windows_places()]
    return [editor for place in places if (editor := _read(*place)) is not None]


def settings_with_machines(environment: Mapping[str, str]) -> list[str]:
    """Return the settings files with entries for our machines, as in `remote_ssh_settings`."""
    return [
        path
        for _, path, _, _ in [*_places(environment), *_windows_places()]
        if '"dm-*"' in (_read_settings(path) or "")
    ]


def find_value(settings: str, name: str) -> str | int | bool | None:
    """Return the value of a setting in JSON with comments, None if it is not set.

    The text is searched rather than parsed, so that a stray comma or an unfinished line, which the
    editor tolerates, does not hide the other settings.
    """
    text = _COMMENT.sub(lambda match: match[1] or " ", settings)
    value = rf'(?<!\\)"{re.escape(name)}"\s*:\s*({_STRING}|true\b|false\b|-?\d+)'
    found = re.findall(value, text)
    if not found:
        return None
    last: str = found[-1]
    if last.startswith('"'):
        return _ESCAPE.sub(r"\1", last[1:-1])
    return last == "true" if last in ("true", "false") else int(last)


def _places(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield each program's name, settings file, extensions directory and whether it runs OpenSSH.

    A snap of VS Code keeps its settings where the ordinary program does.
    """
    home = os.path.expanduser("~")
    config = config_base(environment)
    if sys.platform == "darwin":
        config = os.path.join(home, "Library", "Application Support")
    for name, directory, extensions, runs_openssh in _PROGRAMS:
        yield name, f"{config}/{directory}/User/settings.json", f"{home}/{extensions}", runs_openssh
        if name in _FLATPAKS:
            program, data = _FLATPAKS[name]
            inside = f"{home}/.var/app/{program}"
            settings = f"{inside}/config/{directory}/User/settings.json"
            yield f"{name} (Flatpak)", settings, f"{inside}/{data}", runs_openssh


def _windows_places() -> Iterator[tuple[str, str, str, bool]]:
    """Yield the place of VS Code on Windows if its settings name an ssh, which may be WSL's."""
    for path in glob.glob(_WINDOWS):
        if find_value(_read_settings(path) or "", SSH_PATH):
            yield "VS Code on Windows", path, "", True


def _read_settings(path: str) -> str | None:
    data = read_small(path, _MAX_SETTINGS, of_others=True)
    return None if data is None else data.decode("utf-8-sig", "replace")


def _read(name: str, path: str, extensions: str, runs_openssh: bool) -> Editor | None:
    """Return the editor, None if it has neither Remote-SSH nor settings for it."""
    text = _read_settings(path) or ""
    config_file = os.path.expanduser(str(find_value(text, CONFIG_FILE) or ""))
    # doctor must not run a program that is named in settings that others can change.
    is_ours = find_distrust_of_file(path) is None
    runs_here = is_ours and extensions.startswith("/") and "/.var/app/" not in extensions
    if not runs_openssh:
        editor = Editor(name, path, False, runs_here=runs_here, config_file=config_file)
        return editor if config_file else None
    limit, ssh_path = find_value(text, CONNECT_TIMEOUT), find_value(text, SSH_PATH) or ""
    is_installed = bool(glob.glob(f"{glob.escape(extensions)}/extensions/*.remote-ssh-[0-9]*"))
    if limit is None and not (is_installed or config_file or ssh_path):
        return None
    return Editor(
        name,
        path,
        True,
        runs_here=runs_here,
        # Remote-SSH reads 0 as "not set" (vscode-remote-release, issue 9894).
        timeout_s=_seconds(limit) or DEFAULT_TIMEOUT_S,
        ssh_path=str(ssh_path),
        config_file=config_file,
        uses_local_server=find_value(text, LOCAL_SERVER) is not False,
    )


def _seconds(limit: str | int | bool | None) -> int:
    """Return a number of seconds, which may be a string in the settings; 0 if it is invalid."""
    text = str(limit)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
