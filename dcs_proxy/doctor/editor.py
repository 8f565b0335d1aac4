"""The check of VS Code's own time-out, which knows nothing of a machine that wakes."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping

from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.doctor.vscode import CONNECT_TIMEOUT
from dcs_proxy.local.files import read_small
from dcs_proxy.local.settings import Settings

_DEFAULT_S = 15
# Less than this does not outlast an ordinary wake.
_LEAST_S = 60
# Where the programs keep their settings (below the config directory) and extensions (below home).
_PROGRAMS = (
    ("VS Code", "{config}/Code", ".vscode"),
    ("VS Code Insiders", "{config}/Code - Insiders", ".vscode-insiders"),
    ("VS Code", "{home}/.var/app/com.visualstudio.code/config/Code",
     ".var/app/com.visualstudio.code/data/vscode"),
    ("Cursor", "{config}/Cursor", ".cursor"),
)  # fmt: skip
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_VALUE = re.compile(rf'(?<!\\)"{re.escape(CONNECT_TIMEOUT)}"\s*:\s*"?(-?\d+)')


def check_vscode(exam: Context) -> Check | None:
    """Whether Remote-SSH waits long enough; None where there is no VS Code."""
    found = [_look(*place) for place in _places(exam.environment)]
    known = [(name, path, seconds) for name, path, seconds in found if seconds is not None]
    if not known:
        return None
    wake_s = (exam.settings or Settings()).wake_seconds
    least_s = min(_LEAST_S, wake_s)
    for name, path, seconds in known:
        if seconds < least_s:
            return failed(
                f"{name} gives up after {seconds} s, and a machine may take longer to wake",
                f'write "{CONNECT_TIMEOUT}": {wake_s} into {path}',
            )
    return passed(", ".join(f"{name} waits {seconds} s" for name, _, seconds in known))


def connect_timeout(settings: str) -> int | None:
    """Return the time-out that VS Code's settings (JSON with comments) set, None if they do not.

    They are not parsed: a comma too many, or half a file, is VS Code's business.
    """
    found = _VALUE.findall(_COMMENT.sub(lambda match: match[1] or " ", settings))
    return int(found[-1]) if found else None


def _places(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    home = os.path.expanduser("~")
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    return [
        (name, f"{where.format(config=config, home=home)}/User/settings.json",
         f"{home}/{extensions}/extensions")
        for name, where, extensions in _PROGRAMS
    ]  # fmt: skip


def _look(name: str, path: str, extensions: str) -> tuple[str, str, int | None]:
    """Return the time-out in effect, None where nobody uses Remote-SSH."""
    data = read_small(path, 4 * 1024 * 1024)
    seconds = None if data is None else connect_timeout(data.decode("utf-8-sig", "replace"))
    if seconds is None and glob.glob(f"{glob.escape(extensions)}/*.remote-ssh-[0-9]*"):
        seconds = _DEFAULT_S
    return name, path, seconds
