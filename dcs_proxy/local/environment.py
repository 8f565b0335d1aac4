"""The user's directories, from the environment and the user database."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, MutableMapping

from dcs_proxy.errors import UsageError
from dcs_proxy.text import quote_typed


def repair_home(environment: MutableMapping[str, str]) -> None:
    """Replace a HOME that is missing or relative by the home directory in the user database.

    Otherwise ``~`` could be in the current directory, whose files could decide where the API key is
    sent.  For a user who is not in the database it becomes /.
    """
    if not os.path.isabs(environment.get("HOME", "")):
        environment["HOME"] = passwd_home() or "/"


def config_base(environment: Mapping[str, str]) -> str:
    """Return the directory for programs' config files: XDG_CONFIG_HOME or ~/.config.

    A relative XDG_CONFIG_HOME is ignored, as the XDG Base Directory Specification requires:
    otherwise files in the current directory could decide where the API key is sent.
    """
    base = environment.get("XDG_CONFIG_HOME", "")
    return base if os.path.isabs(base) else full_path("~/.config")


def full_path(typed: str) -> str:
    """Return the absolute path for a path that the user typed, with ~ expanded.

    Raises UsageError if it is relative and the current directory was removed.
    """
    path = os.path.expanduser(typed)
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(
            f"{quote_typed(typed)} is relative to the current directory, which was removed",
            hint="change to another directory: cd",
        ) from None


def passwd_home() -> str | None:
    """Return the user's home directory in the user database, None for a user without an entry.

    OpenSSH uses this one and ignores HOME.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
