"""This user's home directory as the system knows it."""

from __future__ import annotations

import os
import pwd


def passwd_home() -> str | None:
    """Return the user's home directory in the user database, None for a user without an entry.

    OpenSSH goes by this one, whatever HOME says.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None
