"""This user's directories, as the system and the environment name them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping


def config_base(environment: Mapping[str, str]) -> str:
    """Return the directory with the config files of programs.

    A relative XDG_CONFIG_HOME is ignored, as the XDG Base Directory Specification requires: the
    files of the current directory would decide where the API key is sent.
    """
    base = environment.get("XDG_CONFIG_HOME", "")
    return base if os.path.isabs(base) else os.path.abspath(os.path.expanduser("~/.config"))


def passwd_home() -> str | None:
    """Return the user's home directory in the user database, None for a user without an entry.

    OpenSSH goes by this one, whatever HOME says.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
