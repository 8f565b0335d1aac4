"""This user's home directory as the system knows it, and an environment without secrets."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping

SECRET_VARIABLES = ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY")


def passwd_home() -> str | None:
    """Return the user's home directory in the user database, None for a user without an entry.

    OpenSSH goes by this one, whatever HOME says.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program that has no use for the API key."""
    return {name: text for name, text in environment.items() if name not in SECRET_VARIABLES}
