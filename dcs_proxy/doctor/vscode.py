"""VS Code's Remote-SSH: the settings that it needs, and the check of its own time limit."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping

from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.local.files import read_small
from dcs_proxy.local.settings import Settings

_CONNECT_TIMEOUT = "remote.SSH.connectTimeout"
_DEFAULT_S = 15
# A shorter limit ends before an ordinary wake does.
_LEAST_S = 60
_MAX_SETTINGS = 4 * 1024 * 1024
# Where each program has its settings (below the config directory) and extensions (below the home).
_PROGRAMS = (
    ("VS Code", "{config}/Code", ".vscode"),
    ("VS Code Insiders", "{config}/Code - Insiders", ".vscode-insiders"),
    ("VS Code", "{home}/.var/app/com.visualstudio.code/config/Code",
     ".var/app/com.visualstudio.code/data/vscode"),
    ("Cursor", "{config}/Cursor", ".cursor"),
)  # fmt: skip
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_VALUE = re.compile(rf'(?<!\\)"{re.escape(_CONNECT_TIMEOUT)}"\s*:\s*"?(-?\d+)')


def remote_ssh_settings(settings: Settings) -> dict[str, object]:
    """Return Remote-SSH's settings for machines: its time limit in seconds, the hosts' platform.

    Remote-SSH has accepted patterns for hosts since November 2023 (vscode-remote-release, issue
    9191), so that new machines need no entry of their own; aliases begin with ``dm-`` too.
    """
    return {
        _CONNECT_TIMEOUT: settings.wake_seconds,
        "remote.SSH.remotePlatform": {"dm-*": "linux"},
    }


def check_vscode(context: Context) -> Check | None:
    """Check that Remote-SSH waits long enough.  Return None where it is not installed."""
    found = [_read_timeout(*place) for place in _places(context.environment)]
    known = [(name, path, seconds) for name, path, seconds in found if seconds is not None]
    if not known:
        return None
    wake_s = (context.settings or Settings()).wake_seconds
    least_s = min(_LEAST_S, wake_s)
    for name, path, seconds in known:
        if seconds < least_s:
            return failed(
                f"{name} gives up after {seconds} s, and a machine may take longer to wake",
                f'set "{_CONNECT_TIMEOUT}": {wake_s} in {path}',
            )
    return passed(", ".join(f"{name} waits {seconds} s" for name, _, seconds in known))


def settings_with_machines(environment: Mapping[str, str]) -> list[str]:
    """Return the settings files that name our machines, as `remote_ssh_settings` does."""
    found = []
    for _, path, _ in _places(environment):
        data = read_small(path, _MAX_SETTINGS, of_others=True)
        if data is not None and b'"dm-*"' in data:
            found.append(path)
    return found


def connect_timeout(settings: str) -> int | None:
    """Return the time limit in seconds in VS Code's settings (JSON with comments), None if not set.

    The text is searched rather than parsed: a stray comma or a truncated file is not our problem.
    """
    found = _VALUE.findall(_COMMENT.sub(lambda match: match[1] or " ", settings))
    return int(found[-1]) if found else None


def _places(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return each program's name, settings file and extensions directory."""
    home = os.path.expanduser("~")
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    if sys.platform == "darwin":
        config = os.path.join(home, "Library", "Application Support")
    return [
        (name, f"{where.format(config=config, home=home)}/User/settings.json",
         f"{home}/{extensions}/extensions")
        for name, where, extensions in _PROGRAMS
    ]  # fmt: skip


def _read_timeout(name: str, path: str, extensions: str) -> tuple[str, str, int | None]:
    """Return the program, its settings file and its time limit, None if it has no Remote-SSH."""
    data = read_small(path, _MAX_SETTINGS, of_others=True)
    seconds = None if data is None else connect_timeout(data.decode("utf-8-sig", "replace"))
    if seconds is None and glob.glob(f"{glob.escape(extensions)}/*.remote-ssh-[0-9]*"):
        seconds = _DEFAULT_S
    return name, path, seconds
