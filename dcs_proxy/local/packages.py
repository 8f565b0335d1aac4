"""Find out whether this Python has the packages that the program needs: an upgrade may break it."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version

# As in setup.cfg.
FLOORS = {
    "requests": "2.30",
    "urllib3": "2.0.2",
    "cryptography": "41",
    "keyring": "24",
    "paramiko": "3.5.1",
    "shtab": "1.9.3",
    "tomlkit": "0.12",
}


def why_unusable(error: Exception) -> str:
    """Return which package of this Python may explain an unexpected exception, "" if none does.

    That is a module that cannot be imported, or a package older than the program supports.
    """
    if isinstance(error, ImportError) and error.name:
        return f"{sys.executable} cannot import {error.name}, which dcs-proxy needs"
    for package, floor in FLOORS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            continue  # missing, or installed without metadata
        if _numbers(found) < _numbers(floor):
            return f"{sys.executable} has {package} {found}, and dcs-proxy needs {floor} or later"
    return ""


def _numbers(text: str) -> list[int]:
    """Return the numbers that a version begins with (PEP 440's release)."""
    release = re.match(r"[0-9.]*", text)
    return [int(part) for part in (release[0] if release else "").split(".") if part]
